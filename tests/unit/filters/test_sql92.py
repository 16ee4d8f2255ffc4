"""SQL-92 filters: the tables of RocketMQ's outcomes, the strict grammar, three-valued logic, hostile text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import SubscriptionParseFailed
from shmq.filters import sql92
from shmq.filters.sql92 import EXPRESSION_BYTES_MAX, compile_sql
from shmq.filters.sql_terms import DEPTH_MAX
from shmq.model.properties import encode_properties


def matches(expression: str, **properties: str) -> bool:
    return compile_sql(expression).matches(encode_properties(properties))


OUTCOMES = [
    # checklist 225 to 231, 236
    ("a > 5 AND b = 'abc'", {"a": "10", "b": "abc", "c": "true"}, True),
    ("a > 5 AND b = 'abc'", {"a": "1", "b": "abc", "c": "true"}, False),
    ("a IS NULL", {}, True),
    ("a IS NULL", {"a": "1"}, False),
    ("a IS NOT NULL", {"a": "1"}, True),
    ("a IS NOT NULL", {}, False),
    ("a IN ('x','y')", {"a": "x"}, True),
    ("a IN ('x','y')", {"a": "z"}, False),
    ("a IN ('x','y')", {}, False),
    ("a NOT IN ('x','y')", {"a": "z"}, True),
    ("a NOT IN ('x','y')", {}, False),
    ("NOT (a = 5)", {"a": "6"}, True),
    ("NOT (a = 5)", {}, False),
    ("a = TRUE", {"a": "true"}, True),
    ("a = TRUE", {"a": "TRUE"}, True),
    ("a = FALSE", {"a": "yes"}, True),
    ("a <> 'x'", {}, False),
    ("a <> 'x'", {"a": "y"}, True),
    ("a <> 4", {}, False),
    ("a CONTAINS 'bc'", {"a": "abcd"}, True),
    ("a STARTSWITH 'ab'", {"a": "abcd"}, True),
    ("a ENDSWITH 'cd'", {"a": "abcd"}, True),
    ("a NOT CONTAINS 'bc'", {"a": "abcd"}, False),
    ("a NOT STARTSWITH 'x'", {"a": "abcd"}, True),
    ("a CONTAINS ''", {"a": "abcd"}, False),
    ("a NOT CONTAINS ''", {"a": "abcd"}, False),
    ("a BETWEEN 1 AND -7", {"a": "0"}, False),
    # the reference's table of outcomes
    ("a between 0 and 3", {"a": "4"}, False),
    ("a not between 0 and 3", {"a": "4"}, True),
    ("a not between 3 and 0", {"a": "1"}, True),
    ("a = 3.0", {"a": "3"}, True),
    ("a = '3'", {"a": "3.0"}, False),
    ("a > 3000000000", {"a": "3000000001"}, True),
    ("a > -5", {"a": "0"}, True),
    ("a > 5", {"a": "+6"}, True),
    ("NOT a = 5", {"a": "6"}, False),
    ("a = 'it''s'", {"a": "it's"}, True),
    ("NULL IS NULL", {}, True),
    ("a", {"a": "true"}, False),
    ("NOT a", {"a": "false"}, True),
    ("NOT a", {}, False),
    ("a = b", {"a": "5", "b": "5"}, True),
    ("a = b", {"a": "5"}, False),
    ("a > b", {"a": "10", "b": "9"}, True),
    ("1 = TRUE", {}, False),
    ("TRUE", {}, True),
    ("a = 1 OR b = 1 AND c = 1", {"a": "1"}, True),
    ("(a = 1 OR b = 1) AND c = 1", {"a": "1"}, False),
    ("a = 1 -- the rest is a comment", {"a": "1"}, True),
    ("a /* b */ = 1", {"a": "1"}, True),
    ("a = 10L", {"a": "10"}, True),
    ("a >= 1e3", {"a": "1000"}, True),
    ("a < .5", {"a": "0.25"}, True),
    ("+a > 3", {"a": "4"}, True),
    ("order_ID$ = 'x'", {"order_ID$": "x"}, True),
    ("a = 'grün'", {"a": "grün"}, True),
    # what is an error or an accident there, and has a plain meaning here
    ("a = 3", {"a": "3.0"}, True),
    ("a between 0 and 3", {"a": "2.5"}, True),
    ("a > 5", {"a": "3000000000"}, True),
    ("a > 9007199254740992.0", {"a": "9007199254740993"}, True),
    ("a > 0.0", {"a": "1"}, True),
    ("TRUE = a", {"a": "true"}, True),
    ("a > 5 OR b = 'x'", {"a": "abc", "b": "x"}, True),
    ("a > 1.0", {"a": "NaN"}, False),
    ("a > 1.0", {"a": "Infinity"}, False),
    ("a = b", {}, False),
    ("a <> b", {"a": "5"}, False),
    ("a NOT CONTAINS 's'", {}, False),
    ("-a > 3", {"a": "-4"}, True),
]


@pytest.mark.parametrize(("expression", "properties", "delivered"), OUTCOMES)
def test_an_expression_delivers_what_it_says(
    expression: str, properties: dict[str, str], delivered: bool
) -> None:
    assert matches(expression, **properties) is delivered


def test_between_takes_both_ends_and_nothing_else() -> None:
    """Checklist 226."""
    assert [n for n in range(10) if matches("a between 0 and 3", a=str(n))] == [0, 1, 2, 3]


REFUSED = [
    ("a BETWEEN 3 AND 0", "column 1: BETWEEN 3 AND 0 is never true"),  # checklist 233
    ("a > 'x'", "> takes a number or a property, not a string"),  # 234
    ("a = 1 garbage", "column 7: 'garbage' is not expected"),  # 235
    ("a > 1 > 2", "not a condition"),
    ("a > TRUE", "not TRUE or FALSE"),
    ("a = NULL", "write IS NULL"),
    ("TRUE = 1", "cannot be compared"),
    ("a BETWEEN 'x' AND 'y'", "not a string"),
    ("'a' IN ('x')", "IN takes a property"),
    ("a IN (1, 2)", "'1' is not expected"),
    ("a IN ()", "')' is not expected"),
    ("5 CONTAINS 'x'", "CONTAINS takes a property"),
    ("a = 1 AND 5", "AND takes"),
    ("'x' OR a = 1", "OR takes"),
    ("NOT 5", "NOT takes"),
    ("5", "not a number"),
    ("'abc'", "not a string"),
    ("NULL", "not NULL"),
    ("-'x' > 1", "a sign takes"),
    ("a like 'x%'", "column 3: 'like' is not expected (LIKE does not exist here"),
    ("a != 3", "not equal is written <>"),
    ('a = "x"', "single quotes"),
    ("a = 007", "'0' is not expected"),
    ("a = 9223372036854775808", "over the largest whole number"),
    ("a = " + "9" * 5_000, "column 5: " + "9" * 40 + "... is over the largest whole number"),
    ("a = " + "9" * 5_000 + ".5", "column 5: " + "9" * 40 + "... is over the largest decimal number"),
    ("a = 1 '" + "x" * 5_000 + "'", "column 7: \"'" + "x" * 39 + '..." is not expected'),
    ("a = 1e999", "over the largest decimal number"),
    ("a =", "column 4: the end is not expected"),
    ("(a = 1", "the end is not expected"),
    ("a = 1\n  AND", "line 2, column 6: the end is not expected"),
    ("and = 1", "'and' is not expected"),
    ("a = 'x", "is not expected"),
    ("", "the end is not expected"),
]


@pytest.mark.parametrize(("expression", "why"), REFUSED)
def test_a_bad_expression_is_refused_with_its_place(expression: str, why: str) -> None:
    with pytest.raises(SubscriptionParseFailed) as caught:
        compile_sql(expression)
    assert why in str(caught.value)
    assert "line " in str(caught.value)


def test_size_and_depth_are_bounded_but_long_chains_are_not_deep() -> None:
    with pytest.raises(SubscriptionParseFailed, match="at most"):
        compile_sql("a = 1 OR " * EXPRESSION_BYTES_MAX)
    with pytest.raises(SubscriptionParseFailed, match="nested"):
        compile_sql("NOT " * (DEPTH_MAX + 1) + "a = 1")
    with pytest.raises(SubscriptionParseFailed, match="signs"):
        compile_sql("- " * (DEPTH_MAX + 1) + "a = 1")
    assert matches(" AND ".join(["a = 1"] * 1_500), a="1")
    assert matches("(" * 5_000 + "a = 1" + ")" * 5_000, a="1")


@pytest.mark.parametrize("length", [10, 2_000])
def test_what_was_compiled_or_refused_is_not_compiled_again(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = "a = 1" + " " * length, "a = = 1" + " " * length
    compiled = compile_sql(good)
    errors = []
    for _ in range(2):
        with pytest.raises(SubscriptionParseFailed) as caught:
            compile_sql(bad)
        errors.append(caught.value)
        monkeypatch.setattr(sql92, "_parser", lambda: None)
    assert str(errors[0]) == str(errors[1]) and errors[0] is not errors[1]
    assert compile_sql(good) is compiled


TRUTHS = {"TRUE": True, "FALSE": False, "(x = 1)": None}


@pytest.mark.parametrize("left", TRUTHS)
@pytest.mark.parametrize("right", TRUTHS)
def test_three_valued_logic(left: str, right: str) -> None:
    """False beats unknown in AND, true beats it in OR, and unknown never delivers."""
    a, b = TRUTHS[left], TRUTHS[right]
    both = False if False in (a, b) else None if None in (a, b) else True
    one = True if True in (a, b) else None if None in (a, b) else False
    for operator, truth in (("AND", both), ("OR", one)):
        expression = f"{left} {operator} {right}"
        assert matches(expression) is (truth is True)
        assert matches(f"NOT ({expression})") is (truth is False)
        assert matches(f"({expression}) IS NULL") is (truth is None)


@given(st.text(max_size=60))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with contextlib.suppress(SubscriptionParseFailed):
        compile_sql(text)


WORDS = ["a", "b", "1", "2.5", "'x'", "TRUE", "NULL", "=", "<>", "<", ">=", "AND", "OR", "NOT", "IS", "IN"]
WORDS += ["(", ")", ",", "BETWEEN", "CONTAINS", "+", "-"]


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.dictionaries(st.sampled_from("ab"), st.text()))
def test_no_combination_of_its_words_breaks_the_evaluation(
    words: list[str], properties: dict[str, str]
) -> None:
    try:
        compiled = compile_sql(" ".join(words))
    except SubscriptionParseFailed:
        return
    stored = "".join(f"{name}\x01{value}\x02" for name, value in properties.items())
    assert compiled.matches(stored.encode("utf-8", "replace")) in (True, False)


def test_a_repeated_property_has_its_last_value_and_an_empty_one_none() -> None:
    compiled = compile_sql("a = '2'")
    assert compiled.matches(b"a\x011\x02a\x012\x02")
    assert compiled.matches(b"a\x012\x02a\x01\x02")
    assert compiled.matches(b"a\x012")
    assert not compiled.matches(b"xa\x012\x02")
    assert not compiled.matches(b"a\x01" + b"9" * 20_000 + b"\x02")
    assert not compile_sql("a > 1").matches(b"a\x01" + b"9" * 20_000 + b"\x02")
