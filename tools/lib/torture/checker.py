"""The checker: compares what processes were told with the files of the stopped store. Pure but for `read`.

lost        acknowledged, and another message or none at that place
torn        a message there that nobody sent
order       a producer's later message before its earlier one in the same queue
doubled     one message at two places, though its producer never tried twice
unseen      acknowledged and never given to the group
went back   a committed offset that was smaller later
retention   more of the log deleted than was asked for

What retention has deleted is only asked for its order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shmq.model.record import parse_record
from shmq.store.check import check_store
from shmq.store.store_view import StoreView
from torture.body import Sender, sender_of
from torture.lines import rows

Queue = tuple[str, int]


class Ack(NamedTuple):
    """One acknowledgement: whose, and where the message is said to be."""

    sender: Sender
    queue: Queue
    offset: int
    at_s: float


@dataclass(slots=True)
class Evidence:
    """Everything that was noted, and what the store holds."""

    acks: list[Ack] = field(default_factory=list)
    tries: Counter[Sender] = field(default_factory=Counter)
    seen: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    stored: dict[Queue, list[Sender | None]] = field(default_factory=dict)
    minima: dict[Queue, int] = field(default_factory=dict)
    """The first offset of each queue in `stored`, 0 when not given."""
    min_offset: int = 0
    expired_end: int = 0
    """Where the log begins, and up to where it was to be deleted."""
    committed: list[Mapping[Queue, int]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind; `doubled` and `seen_again` are what at-least-once allows."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: int = 0
    doubled: int = 0
    seen_again: int = 0
    deleted: int = 0

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not any(self.wrong.values())


def read(folder: Path, store: Path, topics: Iterable[str]) -> Evidence:
    """Collect the notes in `folder` and read the stopped store at `store`, queue by queue, from its files."""
    found = Evidence(findings=[str(finding) for finding in check_store(store, None)])
    for path in sorted(folder.glob("*.sent")):
        for row in rows(path):
            sender = Sender(path.stem, row[1])
            if row[0] == "ack":
                found.acks.append(Ack(sender, (row[2], row[3]), row[4], row[5]))
            else:
                found.tries[sender] += 1
    for path in sorted(folder.glob("*.seen")):
        for topic, queue_id, offset, *_ in rows(path):
            found.seen[topic, queue_id, offset] += 1
    view = StoreView(store, None)
    found.min_offset = view.min_offset
    wanted = set(topics)
    for topic, queue_id, low, high in view.queues():
        if topic in wanted:
            found.minima[topic, queue_id] = low
            found.stored[topic, queue_id] = [
                _sender_at(view, unit.physical_offset) for unit in view.units(topic, queue_id, low, high)
            ]
    return found


def _sender_at(view: StoreView, physical_offset: int) -> Sender | None:
    record = view.record_at(physical_offset)
    if record is None:
        return None
    fields = parse_record(record)
    return sender_of(record[fields.body_at : fields.body_at + fields.body_length])


def judge(evidence: Evidence) -> Verdict:
    """Compare."""
    verdict = Verdict(acknowledged=len(evidence.acks))
    wrong = verdict.wrong
    wrong["store"] = list(evidence.findings)
    kept = [ack for ack in evidence.acks if ack.offset >= evidence.minima.get(ack.queue, 0)]
    verdict.deleted = len(evidence.acks) - len(kept)
    wrong["lost"] = [str(ack) for ack in kept if _at(evidence, ack) != ack.sender]
    wrong["torn"] = [
        f"{queue} offset {offset}"
        for queue, senders in evidence.stored.items()
        for offset, sender in enumerate(senders, evidence.minima.get(queue, 0))
        if sender is None
    ]
    wrong["order"] = _disorder(evidence.acks)
    places = Counter(sender for senders in evidence.stored.values() for sender in senders if sender)
    twice = {sender: count for sender, count in places.items() if count > 1}
    wrong["doubled"] = [
        f"{sender} {count} times" for sender, count in twice.items() if evidence.tries[sender] < count
    ]
    verdict.doubled = len(twice) - len(wrong["doubled"])
    wrong["unseen"] = [str(ack) for ack in kept if (*ack.queue, ack.offset) not in evidence.seen]
    verdict.seen_again = sum(count - 1 for count in evidence.seen.values())
    wrong["went back"] = _backward(evidence.committed)
    wrong["retention"] = [
        f"the log begins at {evidence.min_offset}, only what is below {evidence.expired_end} was to go"
        for _ in range(evidence.min_offset > evidence.expired_end)
    ]
    return verdict


def _at(evidence: Evidence, ack: Ack) -> Sender | None:
    senders = evidence.stored.get(ack.queue, [])
    place = ack.offset - evidence.minima.get(ack.queue, 0)
    return senders[place] if place < len(senders) else None


def _disorder(acks: list[Ack]) -> list[str]:
    found: list[str] = []
    last: dict[tuple[str, Queue], Ack] = {}
    for ack in sorted(acks, key=lambda ack: ack.sender):
        before = last.get((ack.sender.name, ack.queue))
        if before is not None and before.offset >= ack.offset:
            found.append(f"{before} then {ack}")
        last[ack.sender.name, ack.queue] = ack
    return found


def _backward(committed: list[Mapping[Queue, int]]) -> list[str]:
    found: list[str] = []
    highest: defaultdict[Queue, int] = defaultdict(int)
    for offsets in committed:
        for queue, offset in offsets.items():
            if offset < highest[queue]:
                found.append(f"{queue}: {offset} after {highest[queue]}")
            highest[queue] = max(highest[queue], offset)
    return found
