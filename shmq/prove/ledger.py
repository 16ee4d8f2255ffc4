"""Ledger: what a load was told, to compare with what a recovered store holds.

Every body carries its own CRC, so that a message that was put together of two is noticed without the ledger.
Producers and consumers append from their own threads; `Ledger.now` is a snapshot. Pure.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

CRC_BYTES = 8


class Place(NamedTuple):
    """Where a message is."""

    topic: str
    queue_id: int
    queue_offset: int


class Entry(NamedTuple):
    """One message somebody was told of: its place, its body's CRC, where it lies in the log."""

    place: Place
    crc: int
    physical_offset: int


@dataclass(slots=True)
class Ledger:
    """What a load was told: `acked` is stored, `seen` was given to a consumer."""

    acked: list[Entry] = field(default_factory=list)
    seen: list[Entry] = field(default_factory=list)
    made: dict[str, bool] = field(default_factory=dict)
    """Topics that were made (true) or deleted (false) by request; absent while a request is under way."""

    def now(self) -> Ledger:
        """The ledger as it is now."""
        return Ledger(list(self.acked), list(self.seen), dict(self.made))


Queues = dict[tuple[str, int], list[int | None]]
"""(topic, queue id) -> the CRC of each message in order, None: damaged."""


@dataclass(slots=True)
class Recovered:
    """What a store holds after recovery; `findings` are those of the store check."""

    queues: Queues = field(default_factory=dict)
    """The queues of the load's topics."""
    others: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """Minimum and maximum of all other queues."""
    topics: frozenset[str] = frozenset()
    """What topics.json lists."""
    findings: list[str] = field(default_factory=list)
    write_position: int = 0
    cut_bytes: int = 0
    ms: int = 0


@dataclass(slots=True)
class Judgement:
    """One recovered store against the ledger. All of it must be empty."""

    lost: list[Entry] = field(default_factory=list)
    """Acknowledged and gone, or another message in its place."""
    unseen: list[Entry] = field(default_factory=list)
    """Given to a consumer and gone."""
    torn: list[Place] = field(default_factory=list)
    """There, but no message that was sent."""
    findings: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.unseen or self.torn or self.findings)


def new_body(rng: random.Random, size: int) -> bytes:
    """A body of `size` random bytes that carries its own CRC."""
    content = rng.randbytes(size)
    return b"%08x" % zlib.crc32(content) + content


def body_crc(body: bytes | bytearray | memoryview) -> int | None:
    """The CRC a body carries; None when the body is not the one it was made for."""
    told = bytes(body[:CRC_BYTES])
    found = zlib.crc32(body[CRC_BYTES:])
    return found if told == b"%08x" % found else None


def judge(
    ledger: Ledger,
    recovered: Recovered,
    *,
    promised_below: int | None = None,
    seen_below: int | None = None,
) -> Judgement:
    """Compare. Only what ends before `promised_below` of the log was promised to producers, only what ends
    before `seen_below` to consumers; None: all of it.
    """

    def gone(entry: Entry, below: int | None) -> bool:
        found = recovered.queues.get(entry.place[:2], [])
        if entry.place.queue_offset < len(found):
            return found[entry.place.queue_offset] != entry.crc
        return below is None or entry.physical_offset < below

    return Judgement(
        lost=[entry for entry in ledger.acked if gone(entry, promised_below)],
        unseen=[entry for entry in ledger.seen if gone(entry, seen_below)],
        torn=[
            Place(*queue, offset)
            for queue, found in recovered.queues.items()
            for offset, crc in enumerate(found)
            if crc is None
        ],
        findings=recovered.findings
        + [
            f"topic {topic} was {'made and is gone' if made else 'deleted and is back'}"
            for topic, made in ledger.made.items()
            if made is not (topic in recovered.topics)
        ],
    )
