"""Delay levels: the table, and the ladder of retries in it."""

from __future__ import annotations

from shmq.handlers.send_back import FIRST_RETRY_LEVEL
from shmq.model.delay import clamp_level, delay_levels, delay_ms
from shmq.model.settings import BrokerSettings

MINUTE, HOUR = 60, 3600


def test_73_the_eighteen_delays_of_the_default_table() -> None:
    """Checklist 73, and 74: a level above is the last."""
    levels = delay_levels(BrokerSettings().message_delay_level)
    minutes = [MINUTE * number for number in (*range(1, 11), 20, 30)]
    seconds = [1, 5, 10, 30, *minutes, HOUR, 2 * HOUR]
    assert [delay_ms(level, levels) // 1000 for level in range(1, 19)] == seconds
    assert delay_ms(19, levels) == delay_ms(18, levels)


def test_150_the_ladder_of_retries_in_the_default_table() -> None:
    """Checklist 150: 10s 30s 1m 2m ... 10m 20m 30m 1h 2h, after the first to the sixteenth failure."""
    levels = delay_levels(BrokerSettings().message_delay_level)
    ladder = [delay_ms(FIRST_RETRY_LEVEL + tries, levels) // 1000 for tries in range(16)]
    minutes = [MINUTE * number for number in (*range(1, 11), 20, 30)]
    assert ladder == [10, 30, *minutes, HOUR, 2 * HOUR]
    assert sum(ladder) == 17_140
    assert clamp_level(FIRST_RETRY_LEVEL + 15, levels) == len(levels) == 18
