"""SQL-92 filter expressions over message properties, compiled once to closures.

    a > 5 AND (region = 'north' OR vip = TRUE) AND note IS NOT NULL

Grammar and meaning are those of Apache RocketMQ 5.3 (SelectorParser.jj), read strictly: what follows a whole
expression is an error here, as are LIKE and `!=`. `lark` is imported with the first expression only.
Workers evaluate; the coordinator checks what a consumer is about to subscribe to.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from shmq.base.errors import SubscriptionParseFailed
from shmq.filters import sql_terms as terms
from shmq.filters.sql_terms import Condition, Kind, Term, TermFault
from shmq.filters.stored_properties import stored

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

EXPRESSION_BYTES_MAX = 16_384
COMPILED_MAX = 1_024
"""Compiled expressions kept per process, refusals among them; one more and the one unused for longest is
compiled again when needed."""
LONG_CHARACTERS = 1_024
LONG_KEPT_MAX = 32
"""Of those that are longer so many are kept: one of the largest has a megabyte of closures."""

INTEGER_MAX = 2**63 - 1
SHOWN_MAX = 40
"""Characters of an expression that an error quotes."""

GRAMMAR = r"""
start: or_expr
or_expr: and_expr (_OR and_expr)*
and_expr: equality (_AND equality)*
?equality: comparison
    | equality "=" comparison                        -> equal
    | equality _UNEQUAL comparison                     -> unequal
    | equality _IS _NULL                             -> is_null
    | equality _IS _NOT _NULL                        -> is_not_null
?comparison: unary
    | comparison ORDER unary                         -> order
    | comparison SEARCH STRING                       -> search
    | comparison _NOT SEARCH STRING                  -> no_search
    | comparison _BETWEEN unary _AND unary           -> inside
    | comparison _NOT _BETWEEN unary _AND unary      -> outside
    | comparison _IN "(" STRING ("," STRING)* ")"      -> member
    | comparison _NOT _IN "(" STRING ("," STRING)* ")" -> no_member
?unary: primary
    | "+" unary                                      -> plus
    | "-" unary                                      -> minus
    | _NOT unary                                     -> negation
?primary: INTEGER                                    -> integer
    | FLOAT                                          -> decimal
    | STRING                                         -> string
    | _TRUE                                          -> true
    | _FALSE                                         -> false
    | _NULL                                          -> null
    | NAME                                           -> name
    | "(" or_expr ")"

_UNEQUAL.2: "<>"
ORDER: "<=" | ">=" | "<" | ">"
SEARCH.2: /(CONTAINS|STARTSWITH|ENDSWITH)(?![\w$])/i
_NOT.2: /NOT(?![\w$])/i
_AND.2: /AND(?![\w$])/i
_OR.2: /OR(?![\w$])/i
_BETWEEN.2: /BETWEEN(?![\w$])/i
_IN.2: /IN(?![\w$])/i
_IS.2: /IS(?![\w$])/i
_TRUE.2: /TRUE(?![\w$])/i
_FALSE.2: /FALSE(?![\w$])/i
_NULL.2: /NULL(?![\w$])/i
NAME: /[a-zA-Z_$][a-zA-Z0-9_$]*/
FLOAT.1: /([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+/
INTEGER: /(0|[1-9][0-9]*)[lL]?/
STRING: /'([^']|'')*'/
%ignore /\s+/
%ignore /--[^\n]*/
%ignore /\/\*(.|\n)*?\*\//
"""


class SqlFilter:
    """One compiled expression."""

    __slots__ = ("_condition", "expression")

    def __init__(self, expression: str, condition: Condition) -> None:
        """Keep the text and its closure; `compile_sql` makes these."""
        self.expression = expression
        self._condition = condition

    def matches(self, properties: bytes | memoryview) -> bool:
        """Tell whether a message with these stored properties is wanted: only what is true is."""
        return self._condition(stored(properties)) is True


def compile_sql(expression: str) -> SqlFilter:
    """Compile an expression; SubscriptionParseFailed names line, column and what is wrong there."""
    size = len(expression.encode("utf-8", "replace"))
    if size > EXPRESSION_BYTES_MAX:
        raise SubscriptionParseFailed(
            f"a filter expression has at most {EXPRESSION_BYTES_MAX:,} bytes, not {size:,}"
        )
    found = (_kept if len(expression) <= LONG_CHARACTERS else _long_kept)(expression)
    if isinstance(found, SqlFilter):
        return found
    raise SubscriptionParseFailed(str(found))  # a new one: what is raised again and again grows


def _compiled(expression: str) -> SqlFilter | SubscriptionParseFailed:
    """The filter, or why there is none."""
    from lark.exceptions import UnexpectedInput, VisitError

    try:
        return SqlFilter(expression, _transformer().transform(_parser().parse(expression)))
    except UnexpectedInput as error:
        at_end = getattr(getattr(error, "token", None), "type", "") == "$END"
        line, column = (0, 0) if at_end else (error.line, error.column)
        return _refused(expression, line, column, _complaint(expression, error))
    except VisitError as error:
        if isinstance(error.orig_exc, _Misfit):
            fault = error.orig_exc
            return _refused(expression, fault.line, fault.column, str(fault))
        raise


_kept = lru_cache(maxsize=COMPILED_MAX)(_compiled)
_long_kept = lru_cache(maxsize=LONG_KEPT_MAX)(_compiled)


def _refused(expression: str, line: int, column: int, why: str) -> SubscriptionParseFailed:
    """Say what is wrong and where; line 0 is the end of the text."""
    if line < 1:
        line, column = expression.count("\n") + 1, len(expression) - expression.rfind("\n")
    return SubscriptionParseFailed(f"SQL92 expression, line {line}, column {column}: {why}")


_HINTS = {
    "like": "LIKE does not exist here: use CONTAINS, STARTSWITH or ENDSWITH",
    "!": "not equal is written <>",
    '"': "strings stand in single quotes",
    "*": "arithmetic does not exist here",
    "/": "arithmetic does not exist here",
}


def _complaint(expression: str, error: UnexpectedInput) -> str:
    """Say what was found where something else was expected."""
    token = getattr(error, "token", None)
    if token is not None:
        found = "the end" if token.type == "$END" else repr(_shown(token))
        hint = _HINTS.get(str(token).lower())
    else:
        found = repr(expression[error.pos_in_stream or 0])
        hint = _HINTS.get(found[1:-1])
    return f"{found} is not expected" + (f" ({hint})" if hint else "")


class _Misfit(Exception):
    """Parts that do not go together, and where."""

    def __init__(self, fault: TermFault, line: int, column: int) -> None:
        super().__init__(str(fault))
        self.line = line
        self.column = column


@cache
def _parser() -> Lark:
    """The parser of this process. The lexer knows no context: a keyword is never a name."""
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True)


@cache
def _transformer() -> Any:
    """The functions that make terms of what the grammar finds, by rule name.

    It walks without recursion: thousands of brackets are no problem for the parser either.
    """
    from lark import v_args
    from lark.visitors import Transformer_NonRecursive

    def rule(make: Any) -> Any:
        def called(_: Any, meta: Any, *parts: Any) -> Any:
            try:
                return make(*parts)
            except TermFault as fault:
                raise _Misfit(fault, getattr(meta, "line", 0), getattr(meta, "column", 0)) from None

        return called

    return v_args(inline=True, meta=True)(
        type("Terms", (Transformer_NonRecursive,), {name: rule(make) for name, make in _RULES.items()})
    )()


def _shown(text: str) -> str:
    """A piece of an expression as an error quotes it."""
    return str(text) if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _text(token: Token) -> str:
    return str(token)[1:-1].replace("''", "'")


def _integer(token: Token) -> Term:
    digits = token.rstrip("lL")
    if len(digits) > len(str(INTEGER_MAX)) or int(digits) > INTEGER_MAX:
        raise TermFault(f"{_shown(digits)} is over the largest whole number, {INTEGER_MAX}")
    return Term(Kind.NUMBER, int(digits))


def _decimal(token: Token) -> Term:
    value = float(token)
    if value == float("inf"):
        raise TermFault(f"{_shown(token)} is over the largest decimal number")
    return Term(Kind.NUMBER, value)


def _one_or(combine: Any) -> Any:
    """A chain of one is its only part."""
    return lambda *parts: combine(parts) if len(parts) > 1 else parts[0]


_RULES: dict[str, Any] = {
    "start": terms.whole,
    "or_expr": _one_or(terms.disjunction),
    "and_expr": _one_or(terms.conjunction),
    "equal": lambda left, right: terms.equality(left, right, equal=True),
    "unequal": lambda left, right: terms.equality(left, right, equal=False),
    "is_null": lambda term: terms.nullness(term, null=True),
    "is_not_null": lambda term: terms.nullness(term, null=False),
    "order": lambda left, symbol, right: terms.ordering(str(symbol), left, right),
    "search": lambda term, word, text: terms.text_search(word.upper(), term, _text(text), found=True),
    "no_search": lambda term, word, text: terms.text_search(word.upper(), term, _text(text), found=False),
    "inside": lambda term, low, high: terms.between(term, low, high, inside=True),
    "outside": lambda term, low, high: terms.between(term, low, high, inside=False),
    "member": lambda term, *texts: terms.membership(term, [*map(_text, texts)], inside=True),
    "no_member": lambda term, *texts: terms.membership(term, [*map(_text, texts)], inside=False),
    "plus": lambda term: terms.signed(1, term),
    "minus": lambda term: terms.signed(-1, term),
    "negation": terms.negation,
    "integer": _integer,
    "decimal": _decimal,
    "string": lambda token: Term(Kind.STRING, _text(token)),
    "true": lambda: Term(Kind.BOOLEAN, True),
    "false": lambda: Term(Kind.BOOLEAN, False),
    "null": lambda: Term(Kind.NULL),
    "name": lambda token: Term(Kind.PROPERTY, str(token)),
}
