"""SQL92 expressions by the thousand, judged by RocketMQ's own filter and by shmq's: the same is delivered.

What differs by intention (docs/from-rocketmq.md) is not among them: a property that is searched for a text or
stands on the right of `=` and `<>` is there; none has a sign or stands behind TRUE; no number is 0.0 or NaN.
Where the original's evaluation ends in an error it says nothing about the message.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from shmq.base.errors import SubscriptionParseFailed
from shmq.filters.sql92 import compile_sql
from shmq.model.properties import encode_properties
from tests.helpers import java

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(120)]

COUNT = 20_000
PRESENT = ("p", "q", "$r_1")
ANY = (*PRESENT, "a", "b", "Not_", "TRUEish")
VALUES = ("1", "5", "-7", "0", "3.0", "2.5", "abc", "x", "it's", "true", "TRUE", "False", "3000000000", "+5")
DECIMAL = ("2.5", "1e3", ".5", "3.0")
NUMBERS = (*DECIMAL, "0", "1", "5", "-7", "+ 3", "2147483647", "2147483648", "-9000000000", "7L")
TEXTS = ("'x'", "'abc'", "'bc'", "'it''s'", "''", "'true'", "'5'")
NO_CONDITION = ("5", "'abc'", "NOT 5", "p > 'x'", "p > TRUE", "p = NULL", "p > 1 > 2")
NO_OPERAND = ("'a' IN ('a')", "p CONTAINS q", "p BETWEEN 'a' AND 'b'", "p IN (1)")
WRONG = (*NO_CONDITION, *NO_OPERAND, "p IN ()", "(p = 1", "= 1")


class Sentences:
    """Makes expressions at random, most of them sound."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def any_case(self, words: str) -> str:
        return self.chance.choice((words, words.lower(), words.title()))

    def one_of(self, choices: Sequence[str]) -> str:
        return self.chance.choice(choices)

    def maybe_not(self) -> str:
        return self.any_case("NOT ") if self.chance.random() < 0.4 else ""

    def number(self) -> str:
        return self.one_of(NUMBERS)

    def simple(self) -> str:
        order, equal = self.one_of((">", ">=", "<", "<=")), self.one_of(("=", "<>"))
        name, there = self.one_of(ANY), self.one_of(PRESENT)
        texts = ", ".join(self.one_of(TEXTS) for _ in range(self.chance.randrange(1, 4)))
        search = self.any_case(self.one_of(("CONTAINS", "STARTSWITH", "ENDSWITH")))
        bounds = f"{self.number()} {self.any_case('AND')} {self.number()}"
        return self.one_of(
            (
                f"{name} {order} {self.number()}",
                f"{self.number()} {order} {name}",
                f"{self.number()} {order} {self.number()}",
                f"{there} {order} {self.one_of(PRESENT)}",
                f"{name} {equal} {self.number()}",
                f"{self.number()} {equal} {there}",
                f"{name} {equal} {self.one_of(TEXTS)}",
                f"{self.one_of(TEXTS)} {equal} {there}",
                f"{there} {equal} {self.one_of(PRESENT)}",
                f"{name} {equal} {self.any_case(self.one_of(('TRUE', 'FALSE')))}",
                f"{name} {self.maybe_not()}{self.any_case('BETWEEN')} {bounds}",
                f"{name} {self.maybe_not()}{self.any_case('IN')} ({texts})",
                f"{there} {self.maybe_not()}{search} {self.one_of(TEXTS)}",
                f"{name} {self.any_case('IS')} {self.maybe_not()}{self.any_case('NULL')}",
                f"{self.any_case('NOT')} {name}",
                name,
                self.any_case(self.one_of(("TRUE", "FALSE"))),
                self.any_case("NULL IS NULL"),
            )
        )

    def condition(self, depth: int) -> str:
        if not depth or self.chance.random() < 0.3:
            return self.simple() if self.chance.random() > 0.01 else self.one_of(WRONG)
        inner, other = self.condition(depth - 1), self.condition(depth - 1)
        word = self.any_case(self.one_of(("AND", "OR")))
        return self.one_of(
            (
                f"({inner})",
                f"{self.any_case('NOT')} ({inner})",
                f"{inner} {word} {other}",
                f"({inner}) {word} {other}",
                f"{inner}\t{word} /* why */ ({other})",
            )
        )

    def properties(self) -> dict[str, str]:
        absent = {name: self.one_of(VALUES) for name in ANY if self.chance.random() < 0.6}
        return {name: self.one_of(VALUES) for name in PRESENT} | absent


def test_the_same_is_delivered_as_by_rocketmqs_own_filter(tmp_path: Path, java_home: Path) -> None:
    sentences = Sentences(5)
    cases = [(sentences.condition(3), sentences.properties()) for _ in range(COUNT)]
    lines = [f"{text}\x1f{encode_properties(held).decode()}\n" for text, held in cases]
    (tmp_path / "cases").write_text("".join(lines))
    (answer,) = java.run_probe("server-5.3.3", str(tmp_path / "cases"), home=java_home, main="SqlProbe")
    counts: Counter[str] = Counter(answer["outcomes"])
    wrong = []
    for (text, held), theirs in zip(cases, answer["outcomes"], strict=True):
        try:
            ours = "T" if compile_sql(text).matches(encode_properties(held)) else "-"
        except SubscriptionParseFailed:
            ours = "X"
        if theirs != "E" and ours != {"T": "T", "X": "X"}.get(theirs, "-"):
            wrong.append((text, held, theirs, ours))
        if theirs == "E" and ours == "X":
            wrong.append((text, held, theirs, ours))
    assert wrong == []
    assert min(counts[letter] for letter in "TFNX") > COUNT / 100, counts
