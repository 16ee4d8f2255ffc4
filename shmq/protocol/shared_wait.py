"""Bodies of the shared wait (30004): which queues a consumer waits for, and which of them have news.

request   {"topic": [[queue id, next offset], ...], ...}
answer    {"topic": [queue id, ...], ...}                  JSON
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson

from shmq.base.errors import InvalidParameter

QUEUES_MAX = 8192
"""Queues of one wait."""

Body = bytes | bytearray | memoryview


class Awaited(NamedTuple):
    """One queue that is waited for: `offset` is the next one its consumer wants."""

    topic: str
    queue_id: int
    offset: int


def encode_waits(waits: Iterable[Awaited]) -> bytes:
    """Return the body of a wait."""
    found: dict[str, list[tuple[int, int]]] = {}
    for one in waits:
        found.setdefault(one.topic, []).append((one.queue_id, one.offset))
    return orjson.dumps(found)


def decode_waits(body: Body) -> list[Awaited]:
    """Read the body of a wait; InvalidParameter for anything but at most `QUEUES_MAX` queues."""
    try:
        waits = [
            Awaited(topic, int(queue_id), int(offset))
            for topic, rows in orjson.loads(body).items()
            for queue_id, offset in rows
        ]
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise InvalidParameter(f"the body of a wait is no list of queues: {error}") from None
    if not 0 < len(waits) <= QUEUES_MAX:
        raise InvalidParameter(f"a wait is for 1 to {QUEUES_MAX} queues, not {len(waits)}")
    return waits


def encode_news(news: Iterable[tuple[str, int]]) -> bytes:
    """Return the body of the answer: (topic, queue id) of those with news."""
    found: dict[str, list[int]] = {}
    for topic, queue_id in news:
        found.setdefault(topic, []).append(queue_id)
    return orjson.dumps(found)


def decode_news(body: Body) -> set[tuple[str, int]]:
    """Read the answer."""
    found: Mapping[str, list[int]] = orjson.loads(body) if len(body) else {}
    return {(topic, queue_id) for topic, queue_ids in found.items() for queue_id in queue_ids}
