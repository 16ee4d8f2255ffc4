"""What operators see of a consumer's pace."""

from __future__ import annotations

import pytest

from shmq.client import consume_stats
from shmq.client.consume_stats import ConsumeStats


def test_rates_are_those_of_the_last_minute_and_failures_of_the_last_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(consume_stats.time, "monotonic", lambda: now[0])
    stats = ConsumeStats()
    stats.consumed("T", 60, True, 10.0, now[0])
    stats.consumed("T", 30, False, 20.0, now[0])
    stats.pulled("T", 120, 4.0)
    now[0] = 1020.0
    stats.consumed("T", 60, True, 30.0, now[0])
    assert stats.status_table() == {
        "T": {
            "consumeFailedMsgs": 30,
            "consumeFailedTPS": 0.5,
            "consumeOKTPS": 2.0,
            "consumeRT": 20.0,
            "pullRT": 4.0,
            "pullTPS": 2.0,
        }
    }
    now[0] = 1200.0
    later = stats.status_table()["T"]
    assert (later["consumeFailedMsgs"], later["consumeOKTPS"], later["consumeRT"]) == (30, 0, 0)
    now[0] = 5000.0
    assert stats.status_table()["T"]["consumeFailedMsgs"] == 0
