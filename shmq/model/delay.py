"""Delay levels: the table of `messageDelayLevel`, and where a delayed message waits.

    level L (from 1)   queue L - 1 of SCHEDULE_TOPIC_XXXX; the unit's tags code is the time of delivery

Apache RocketMQ 5.3: MessageStoreConfig.java, ScheduleMessageService.java, HookUtils.java. Pure, any process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shmq.base.errors import MessageIllegal

UNKNOWN_LEVEL_MS = 1000
"""What RocketMQ adds to the store time for a delay level that its table does not have."""

_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def delay_levels(text: str) -> list[int]:
    """Return the delays in ms of `messageDelayLevel` ("1s 5s 10s ..."), level 1 first."""
    return [int(number) * _UNIT_MS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)]


def clamp_level(level: int, levels: Sequence[int]) -> int:
    """Return the level a message really gets: one above the table is its last."""
    return min(level, len(levels))


def delay_ms(level: int, levels: Sequence[int]) -> int:
    """Return the delay of a level, above the table that of its last."""
    index = clamp_level(level, levels) - 1
    return levels[index] if index >= 0 else UNKNOWN_LEVEL_MS


def wished_level(text: str | None) -> int:
    """Read the DELAY of a message that is being sent: 0 for none; MessageIllegal for what is no number."""
    if text is not None and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise MessageIllegal(
            f"property DELAY: {text!r} is no delay level; levels are whole numbers from 1 on"
        )
    return level_of(text)


def level_of(text: str | None) -> int:
    """Read the property DELAY: 0 without one, and for what is no positive number."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0
