"""Two kinds of drawing as inline SVG: lines over an axis, and bars with the spread of their rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 80, 170, 28, 46
COLOURS = ("#0b6fb8", "#d1495b", "#2e8b57", "#b8860b", "#7b4fa3", "#444444", "#e07b39", "#5aa9a9", "#9a6b4f")
BAR_HEIGHT, BAR_GAP, BAR_NAMES = 18, 8, 240
TICKS = 5

Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """One axis: its label, whether it is logarithmic, and how its ticks are printed."""

    label: str
    logarithmic: bool = False
    text: Callable[[float], str] = lambda value: f"{value:,.4g}"


class _Scale:
    """From values to pixels."""

    def __init__(self, values: Sequence[float], axis: Axis, first: float, last: float) -> None:
        low, high = min(values), max(values)
        if not axis.logarithmic:
            low = min(low, 0.0)
        if low == high:
            high = low * 2 or 1.0
        self._to = math.log10 if axis.logarithmic else float
        self._low, self._high = self._to(low), self._to(high)
        self._axis, self._first, self._last = axis, first, last
        self._values = (low, high)

    def place(self, value: float) -> float:
        part = (self._to(value) - self._low) / (self._high - self._low)
        return self._first + part * (self._last - self._first)

    def ticks(self) -> list[float]:
        low, high = self._values
        if not self._axis.logarithmic:
            return [low + (high - low) * number / TICKS for number in range(TICKS + 1)]
        powers = [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]
        return powers if len(powers) > 1 else [low, math.sqrt(low * high), high]


def lines(title: str, x: Axis, y: Axis, series: Mapping[str, Points]) -> str:
    """A line for each series; values that a logarithmic axis cannot show are left out. Empty without
    points."""
    shown = {
        name: [(a, b) for a, b in points if (a > 0 or not x.logarithmic) and (b > 0 or not y.logarithmic)]
        for name, points in series.items()
    }
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return ""
    everything = [point for points in shown.values() for point in points]
    across = _Scale([a for a, _ in everything], x, LEFT, WIDTH - RIGHT)
    up = _Scale([b for _, b in everything], y, HEIGHT - BOTTOM, TOP)
    parts = [_text(LEFT, TOP - 12, title, "start", bold=True)]
    for value in across.ticks():
        place = across.place(value)
        parts.append(_line(place, TOP, place, HEIGHT - BOTTOM, "#e4e4e4"))
        parts.append(_text(place, HEIGHT - BOTTOM + 16, x.text(value), "middle"))
    for value in up.ticks():
        place = up.place(value)
        parts.append(_line(LEFT, place, WIDTH - RIGHT, place, "#e4e4e4"))
        parts.append(_text(LEFT - 6, place + 4, y.text(value), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.label, "middle"))
    parts.append(_text(14, TOP - 12, y.label, "start"))
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) < 30:
            parts += [
                f'<circle cx="{across.place(a):.1f}" cy="{up.place(b):.1f}" r="3" fill="{colour}"/>'
                for a, b in points
            ]
        parts.append(
            _line(WIDTH - RIGHT + 14, TOP + 18 * number, WIDTH - RIGHT + 34, TOP + 18 * number, colour, 3)
        )
        parts.append(_text(WIDTH - RIGHT + 40, TOP + 18 * number + 4, name, "start"))
    return _svg(WIDTH, HEIGHT, parts)


def bars(title: str, values: Mapping[str, Sequence[float]], text: Callable[[float], str]) -> str:
    """A bar for each name as long as the median of its rounds, with a line from the lowest to the highest."""
    if not values:
        return ""
    longest = max(max(rounds) for rounds in values.values()) or 1.0
    room = WIDTH - BAR_NAMES - 110
    parts = [_text(0, 14, title, "start", bold=True)]
    for number, (name, rounds) in enumerate(values.items()):
        top = 26 + number * (BAR_HEIGHT + BAR_GAP)
        middle = sorted(rounds)[len(rounds) // 2]
        colour = COLOURS[number % len(COLOURS)]
        length, low, high = (room * value / longest for value in (middle, min(rounds), max(rounds)))
        parts.append(_text(BAR_NAMES - 8, top + 13, name, "end"))
        shape = f'x="{BAR_NAMES}" y="{top}" width="{max(length, 1):.1f}" height="{BAR_HEIGHT}"'
        parts.append(f'<rect {shape} fill="{colour}"/>')
        centre = top + BAR_HEIGHT / 2
        parts.append(_line(BAR_NAMES + low, centre, BAR_NAMES + high, centre, "#000", 2))
        parts.append(_text(BAR_NAMES + high + 8, top + 13, text(middle), "start"))
    return _svg(WIDTH, 30 + len(values) * (BAR_HEIGHT + BAR_GAP), parts)


def _svg(width: int, height: int, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
