"""The parts of an SQL-92 expression: what each may be combined with, and the closure that evaluates it.

A condition evaluates to True, False or None (unknown). Differences from Apache RocketMQ 5.3, each one where
its own outcome is an error or an accident of its evaluation order (docs/from-rocketmq.md):

    a value that is no number, compared with one      unknown; there an evaluation error
    numbers of different kinds                        compared by value; there an error (`a = 3`, a is 3.0)
    a property that is missing                        unknown in every comparison of it
    `TRUE = a`                                        the same as `a = TRUE`

Pure; used by worker processes (evaluation) and by the coordinator (a look at the syntax).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shmq.filters.stored_properties import Find, Stored, finder, number_of

Truth = bool | None
Number = int | float
Condition = Callable[[Stored], Truth]

DEPTH_MAX = 64
"""Parts nested in each other; each level is a call inside a call when a message is judged."""


class Kind(Enum):
    """What a part of an expression is."""

    PROPERTY = "a property"
    SIGNED = "a signed property"
    NUMBER = "a number"
    STRING = "a string"
    BOOLEAN = "TRUE or FALSE"
    NULL = "NULL"
    CONDITION = "a condition"


NUMERIC = frozenset({Kind.PROPERTY, Kind.SIGNED, Kind.NUMBER})
LOGICAL = frozenset({Kind.PROPERTY, Kind.BOOLEAN, Kind.CONDITION})


class TermFault(Exception):
    """Parts that do not go together; the parser adds where."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part. `value` is a literal's value or a property's name; `evaluate` is a condition's closure.

    `sign` is that of a property; of a number, which has it in its value, whether a minus was written.
    """

    kind: Kind
    value: Any = None
    evaluate: Condition | None = None
    depth: int = 1
    sign: int = 1


def _condition(evaluate: Condition, *parts: Term) -> Term:
    depth = 1 + max(part.depth for part in parts)
    if depth > DEPTH_MAX:
        raise TermFault(f"more than {DEPTH_MAX} conditions are nested in each other")
    return Term(Kind.CONDITION, evaluate=evaluate, depth=depth)


def _want(term: Term, allowed: frozenset[Kind], what: str) -> None:
    if term.kind not in allowed:
        raise TermFault(f"{what} takes {_listed(allowed)}, not {term.kind.value}")


def _listed(kinds: frozenset[Kind]) -> str:
    return " or ".join(sorted(kind.value for kind in kinds if kind is not Kind.SIGNED))


def _numbers(term: Term) -> Callable[[Stored], Number | None]:
    """Return how a numeric term's value is found."""
    if term.kind is Kind.NUMBER:
        constant: Number = term.value
        return lambda _: constant
    find, sign = finder(term.value), term.sign
    if sign == 1:
        return lambda properties: number_of(find(properties))

    def negated(properties: Stored) -> Number | None:
        number = number_of(find(properties))
        return None if number is None else -number

    return negated


def _truths(term: Term) -> Condition:
    """Return how a logical term is judged. A property alone is a string, never true (as in RocketMQ)."""
    if term.evaluate is not None:
        return term.evaluate
    if term.kind is Kind.BOOLEAN:
        constant: bool = term.value
        return lambda _: constant
    find = finder(term.value)
    return lambda properties: None if find(properties) is None else False


def signed(sign: int, term: Term) -> Term:
    """`+x` and `-x` of a number or property."""
    _want(term, NUMERIC, "a sign")
    if term.depth >= DEPTH_MAX:
        raise TermFault(f"more than {DEPTH_MAX} signs follow each other")
    if term.kind is Kind.NUMBER:
        return Term(Kind.NUMBER, sign * term.value, depth=term.depth + 1, sign=min(sign, term.sign))
    return Term(Kind.SIGNED, term.value, depth=term.depth + 1, sign=sign * term.sign)


def negation(term: Term) -> Term:
    """`NOT x`: unknown stays unknown."""
    _want(term, LOGICAL, "NOT")
    inner = _truths(term)

    def evaluate(properties: Stored) -> Truth:
        truth = inner(properties)
        return None if truth is None else not truth

    return _condition(evaluate, term)


def conjunction(terms: Sequence[Term]) -> Term:
    """`x AND y AND ...`, from left to right, until one is false."""
    for term in terms:
        _want(term, LOGICAL, "AND")
    inner = tuple(map(_truths, terms))

    def evaluate(properties: Stored) -> Truth:
        result: Truth = True
        for condition in inner:
            truth = condition(properties)
            if truth is False:
                return False
            if truth is None:
                result = None
        return result

    return _condition(evaluate, *terms)


def disjunction(terms: Sequence[Term]) -> Term:
    """`x OR y OR ...`, from left to right, until one is true."""
    for term in terms:
        _want(term, LOGICAL, "OR")
    inner = tuple(map(_truths, terms))

    def evaluate(properties: Stored) -> Truth:
        result: Truth = False
        for condition in inner:
            truth = condition(properties)
            if truth:
                return True
            if truth is None:
                result = None
        return result

    return _condition(evaluate, *terms)


def ordering(symbol: str, left: Term, right: Term) -> Term:
    """`<`, `<=`, `>`, `>=` of numbers and properties."""
    _want(left, NUMERIC, symbol)
    _want(right, NUMERIC, symbol)
    compare = _ORDERINGS[symbol]
    if left.kind is Kind.PROPERTY and right.kind is Kind.NUMBER:
        return _condition(_property_ordering(compare, finder(left.value), right.value), left, right)
    left_of, right_of = _numbers(left), _numbers(right)

    def evaluate(properties: Stored) -> Truth:
        a, b = left_of(properties), right_of(properties)
        return None if a is None or b is None else compare(a, b)

    return _condition(evaluate, left, right)


def _property_ordering(compare: Callable[[Any, Any], bool], find: Find, bound: Number) -> Condition:
    def evaluate(properties: Stored) -> Truth:
        number = number_of(find(properties))
        return None if number is None else compare(number, bound)

    return evaluate


_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def between(term: Term, low: Term, high: Term, *, inside: bool) -> Term:
    """`x [NOT] BETWEEN low AND high`, both bounds included. As in RocketMQ only bounds without a minus are
    compared beforehand."""
    for part in (term, low, high):
        _want(part, NUMERIC, "BETWEEN")
    are_plain = low.kind is high.kind is Kind.NUMBER and low.sign == high.sign == 1
    if inside and are_plain and low.value > high.value:
        raise TermFault(f"BETWEEN {low.value} AND {high.value} is never true: the lower bound comes first")
    value_of, low_of, high_of = _numbers(term), _numbers(low), _numbers(high)

    def evaluate(properties: Stored) -> Truth:
        value, bottom, top = value_of(properties), low_of(properties), high_of(properties)
        if value is None or bottom is None or top is None:
            return None
        return (bottom <= value <= top) is inside

    return _condition(evaluate, term, low, high)


def equality(left: Term, right: Term, *, equal: bool) -> Term:
    """`=` and `<>`."""
    symbol = "=" if equal else "<>"
    for part in (left, right):
        if part.kind is Kind.NULL:
            raise TermFault(f"{symbol} NULL is never true: write IS NULL or IS NOT NULL")
    if left.kind is Kind.BOOLEAN and right.kind in (Kind.NUMBER, Kind.STRING):
        raise TermFault(f"{left.kind.value} cannot be compared with {right.kind.value}")
    compare = _equality_of(left, right)

    def evaluate(properties: Stored) -> Truth:
        same = compare(properties)
        return None if same is None else same is equal

    return _condition(evaluate, left, right)


def _equality_of(left: Term, right: Term) -> Condition:
    """Choose how two parts are compared, by what they are."""
    if left.kind is not Kind.PROPERTY and right.kind is Kind.PROPERTY:
        left, right = right, left
    if left.kind is Kind.PROPERTY:
        return _property_equality(finder(left.value), right)
    if left.kind in NUMERIC and right.kind in NUMERIC:
        return _same(_numbers(left), _numbers(right))
    if left.kind in LOGICAL and right.kind in LOGICAL:
        return _same(_truths(left), _truths(right))
    same = left.kind is right.kind and left.value == right.value
    return lambda _: same


def _property_equality(find: Find, right: Term) -> Condition:
    if right.kind is Kind.STRING:
        text: bytes = right.value.encode()

        def same_text(properties: Stored) -> Truth:
            value = find(properties)
            return None if value is None else value == text

        return same_text
    if right.kind is Kind.PROPERTY:
        return _same(find, finder(right.value))
    if right.kind in NUMERIC:
        return _same(lambda properties: number_of(find(properties)), _numbers(right))
    truth_of = _truths(right)

    def same_truth(properties: Stored) -> Truth:
        value, truth = find(properties), truth_of(properties)
        return None if value is None or truth is None else (value.lower() == b"true") is truth

    return same_truth


def _same(left_of: Callable[[Stored], Any], right_of: Callable[[Stored], Any]) -> Condition:
    def evaluate(properties: Stored) -> Truth:
        a, b = left_of(properties), right_of(properties)
        return None if a is None or b is None else bool(a == b)

    return evaluate


def nullness(term: Term, *, null: bool) -> Term:
    """`x IS NULL` and `x IS NOT NULL`: always true or false."""
    if term.kind in (Kind.PROPERTY, Kind.SIGNED):
        find = finder(term.value)
        return _condition(lambda properties: (find(properties) is None) is null, term)
    if term.evaluate is not None:
        inner = term.evaluate
        return _condition(lambda properties: (inner(properties) is None) is null, term)
    constant = (term.kind is Kind.NULL) is null
    return _condition(lambda _: constant, term)


def membership(term: Term, texts: Sequence[str], *, inside: bool) -> Term:
    """`p [NOT] IN ('x', 'y')`."""
    _want(term, frozenset({Kind.PROPERTY}), "IN")
    find, wanted = finder(term.value), frozenset(text.encode() for text in texts)

    def evaluate(properties: Stored) -> Truth:
        value = find(properties)
        return None if value is None else (value in wanted) is inside

    return _condition(evaluate, term)


def text_search(word: str, term: Term, text: str, *, found: bool) -> Term:
    """`p [NOT] CONTAINS|STARTSWITH|ENDSWITH 's'`; with an empty text false, NOT or not, as in RocketMQ."""
    _want(term, frozenset({Kind.PROPERTY}), word)
    find, wanted, search = finder(term.value), text.encode(), _SEARCHES[word]

    def evaluate(properties: Stored) -> Truth:
        value = find(properties)
        return None if value is None else bool(wanted) and search(value, wanted) is found

    return _condition(evaluate, term)


_SEARCHES: dict[str, Callable[[bytes, bytes], bool]] = {
    "CONTAINS": operator.contains,
    "STARTSWITH": bytes.startswith,
    "ENDSWITH": bytes.endswith,
}


def whole(term: Term) -> Condition:
    """Return the closure of a whole expression, which must be a condition."""
    _want(term, LOGICAL, "an expression")
    return _truths(term)
