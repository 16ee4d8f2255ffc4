"""Goals: what a row should reach against another system's or this machine's figure, and whether it did."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.result import Row

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """`system`'s `figure` compared with `factor` times `against`'s, or with `factor` itself.

    Judged by the median of the rounds' ratios, which the verdict names with its spread.
    """

    system: str
    figure: str
    sign: str
    factor: float
    against: str | None = None
    against_figure: str | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """The goal in words."""
        if self.against is None:
            return f"{self.system} {self.figure} {self.sign} {self.factor:,.10g}{self.unit}"
        return f"{self.system} {self.figure} {self.sign} {self.factor:g} x {self.against} {self._other}"

    @property
    def _other(self) -> str:
        return self.against_figure or self.figure

    def verdict(self, row: Row) -> str:
        """Reached, NOT reached, or why that cannot be said."""
        if self.against is None:
            median = row.median(self.system, self.figure)
            if median is None:
                return f"not judged: no figure of {self.system}"
            return f"{_word(self._holds(median))}: {median:,.4g}{self.unit}"
        ratio = row.ratio(self.system, self.against, self.figure, self.against_figure)
        if ratio is None:
            lacking = self.system if row.median(self.system, self.figure) is None else self.against
            return f"not judged: no figure of {lacking}"
        return f"{_word(self._holds(ratio.median))}: {ratio}"

    def _holds(self, value: float) -> bool:
        return OPERATORS[self.sign](value, self.factor)


def _word(holds: bool) -> str:
    return "reached" if holds else "NOT reached"
