"""How long it took until messages were acknowledged again after a kill: a small histogram in text."""

from __future__ import annotations

from collections.abc import Sequence

BUCKETS_MS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
BAR = 40


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def histogram(title: str, seconds: Sequence[float]) -> str:
    """Lines with p50, p90 and worst in ms, and a bar for each bucket up to the worst."""
    values = [second * 1000 for second in seconds]
    worst = max(values)
    lines = [
        f"{title}: {len(values)} values, p50 {percentile(values, 50):.0f} ms, "
        f"p90 {percentile(values, 90):.0f} ms, worst {worst:.0f} ms"
    ]
    low = 0.0
    for high in (*BUCKETS_MS, float("inf")):
        count = sum(low <= value < high for value in values)
        if count or min(values) <= low <= worst:
            lines.append(f"  < {high:>6.0f} ms {count:>4} {'#' * round(BAR * count / len(values))}")
        if worst < high:
            break
        low = high
    return "\n".join(lines)
