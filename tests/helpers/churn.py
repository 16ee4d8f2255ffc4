"""A group that churns: members join, leave and are killed while messages flow; then notes are compared.

`Churn.run` makes the storm and lets it settle, `Notes` reads what the members wrote down, `judge` says what
was wrong, and counts what is not wrong but has to be explained: messages that were delivered more than once.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from shmq import AdminClient, Message, Producer
from shmq.base.errors import TopicNotExist
from shmq.embedded import Broker
from tests.helpers.churn_member import RECONSUME_MAX, is_poison
from tests.helpers.waiting import wait_until

MEMBERS_MIN, MEMBERS_MAX = 1, 5
STEP_S = (0.3, 2.0)
RATE = 150
SETTLE_S = 90
CLOSE_NS = 1_000_000_000
"""A call that ended so shortly before its queue was given away may not have been counted yet."""

OVERLAP_NS = 3_000_000_000
"""How long two members may have one queue before the group has settled."""

Place = tuple[str, int, int]


class Delivery(NamedTuple):
    """One call of a listener; `ended_ns` 0: it never ended."""

    member: int
    place: Place
    number: int
    tries: int
    started_ns: int
    ended_ns: int
    failed: bool


@dataclass
class Member:
    """A member's process and how it ended."""

    process: subprocess.Popen[str]
    log: Path
    was_killed: bool = False
    left_ns: int = 0
    """When it was told to leave, or killed."""


@dataclass
class Verdict:
    """What came of it."""

    sent: int = 0
    deliveries: int = 0
    members: int = 0
    killed: int = 0
    dead: int = 0
    dead_copies: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    """Deliveries of a message that had been delivered before, by the reason."""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.repeated.items()))
        return (
            f"{self.sent} sent, {self.deliveries} deliveries by {self.members} members "
            f"({self.killed} killed), {self.dead} dead letters ({self.dead_copies} copies); "
            f"delivered again: {reasons or 'none'}; faults: {len(self.faults)}"
        )


class Churn:
    """One storm over one topic and group of a broker."""

    def __init__(self, broker: Broker, folder: Path, seed: int, *, queues: int = 16) -> None:
        self.broker = broker
        self.folder = folder
        self.chance = random.Random(seed)
        self.topic, self.group = f"Churn{seed}", f"Churn{seed}Group"
        self.members: list[Member] = []
        self.sent: set[int] = set()
        with Producer("ChurnMaker", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic(self.topic, queues)

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.process.poll() is None]

    def run(self, seconds: float) -> Verdict:
        """Storm for so long, then let two members finish what is left; returns the verdict."""
        stop = threading.Event()
        sender = threading.Thread(target=self._send, args=(stop,))
        try:
            self._join()
            sender.start()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                self._step()
                stop.wait(self.chance.uniform(*STEP_S))
            stop.set()
            sender.join()
            while len(self.alive) < 2:
                self._join()
            wait_until(self._settled, SETTLE_S, "everything is consumed or dead")
            for member in self.alive:
                self._leave(member)
        finally:
            stop.set()
            for member in self.alive:
                member.process.kill()
                member.process.communicate()
        return judge(self.sent, Notes(self.members), self._dead())

    def _step(self) -> None:
        """Join, leave or kill."""
        alive = self.alive
        what = self.chance.choice(("join", "leave", "kill"))
        if len(alive) <= MEMBERS_MIN:
            what = "join"
        elif len(alive) >= MEMBERS_MAX and what == "join":
            what = "kill"
        if what == "join":
            self._join()
        elif what == "leave":
            self._leave(self.chance.choice(alive))
        else:
            member = self.chance.choice(alive)
            member.was_killed, member.left_ns = True, time.time_ns()
            member.process.kill()
            member.process.communicate()

    def _join(self) -> None:
        log = self.folder / f"member-{len(self.members)}"
        log.touch()
        seed = str(self.chance.randrange(1 << 30))
        arguments = (self.broker.namesrv_addr, self.group, self.topic, str(log), seed)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.churn_member", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.members.append(Member(process, log))
        assert process.stdout and process.stdout.readline() == "ready\n"

    @staticmethod
    def _leave(member: Member) -> None:
        member.left_ns = time.time_ns()
        member.process.communicate(timeout=30)

    def _send(self, stop: threading.Event) -> None:
        with Producer("ChurnSender", namesrv_addr=self.broker.namesrv_addr) as producer:
            began, number = time.monotonic(), 0
            while not stop.is_set():
                producer.send(Message(self.topic, b"%d" % number))
                self.sent.add(number)
                number += 1
                stop.wait(max(0.0, began + number / RATE - time.monotonic()))

    def _dead(self) -> Counter[int]:
        """Numbers among the dead letters, with how many copies."""
        with AdminClient(self.broker.namesrv_addr) as admin:
            try:
                return Counter(int(letter.body) for letter in admin.dead_letters(self.group))
            except TopicNotExist:
                return Counter()

    def _settled(self) -> bool:
        """Whether every number was consumed or is dead, and nothing waits for a retry."""
        notes, dead = Notes(self.members), self._dead()
        consumed = {one.number for one in notes.deliveries if one.ended_ns and not one.failed}
        if self.sent - consumed - dead.keys():
            time.sleep(0.5)
            return False
        with AdminClient(self.broker.namesrv_addr) as admin:
            progress = admin.consume_stats(self.group).offset_table.values()
            behind = sum(max(0, one.broker_offset - one.consumer_offset) for one in progress)
        time.sleep(0.5)
        return behind == 0 and notes.quiet_s > 4  # longer than the longest delay level


class Notes:
    """What all members wrote down."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.deliveries: list[Delivery] = []
        self.drops: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        """(member, topic, queue id) -> times at which it gave the queue away."""
        self.takes: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        """The same, at which it read where to begin."""
        self._last_ns = 0
        for index, member in enumerate(members):
            self._read(index, member)
        self.deliveries.sort(key=lambda one: one.started_ns)
        self.by_place: dict[Place, list[Delivery]] = defaultdict(list)
        self.of_queue: dict[tuple[str, int], list[Delivery]] = defaultdict(list)
        for one in self.deliveries:
            self.by_place[one.place].append(one)
            self.of_queue[one.place[:2]].append(one)

    def taken(self, delivery: Delivery) -> int:
        """When the member of a delivery read where to begin its queue; 0: unknown."""
        topic, queue_id, _ = delivery.place
        times = self.takes[delivery.member, topic, queue_id]
        return max((at for at in times if at <= delivery.started_ns), default=0)

    def given_away(self, delivery: Delivery) -> int | None:
        """When the member of a delivery gave its queue away, or left; None: never."""
        topic, queue_id, _ = delivery.place
        times = self.drops[delivery.member, topic, queue_id]
        after = [at for at in times if at >= delivery.started_ns]
        left = self.members[delivery.member].left_ns
        return min([*after, *([left] if left else [])], default=None)

    @property
    def quiet_s(self) -> float:
        """Seconds since anything was delivered."""
        return (time.time_ns() - self._last_ns) / 1e9

    def _read(self, index: int, member: Member) -> None:
        open_calls: dict[Place, tuple[int, int, int]] = {}
        for line in member.log.read_text().rpartition("\n")[0].splitlines():
            kind, stamp, topic, queue_id, *rest = line.split()
            at_ns = int(stamp)
            self._last_ns = max(self._last_ns, at_ns)
            if kind in ("take", "drop"):
                moves = self.takes if kind == "take" else self.drops
                moves[index, topic, int(queue_id)].append(at_ns)
                continue
            place = (topic, int(queue_id), int(rest[0]))
            if kind == "start":
                open_calls[place] = (at_ns, int(rest[1]), int(rest[2]))
            else:
                started, number, tries = open_calls.pop(place)
                failed = rest[1] == "fail"
                self.deliveries.append(Delivery(index, place, number, tries, started, at_ns, failed))
        for place, (started, number, tries) in open_calls.items():
            self.deliveries.append(Delivery(index, place, number, tries, started, 0, False))


def judge(sent: set[int], notes: Notes, dead: Counter[int]) -> Verdict:
    """Compare what was sent, delivered and buried."""
    verdict = Verdict(
        *(len(sent), len(notes.deliveries), len(notes.members)),
        killed=sum(member.was_killed for member in notes.members),
        dead=len(dead),
        dead_copies=dead.total(),
    )
    faults = verdict.faults
    delivered = {one.number for one in notes.deliveries}
    consumed = {one.number for one in notes.deliveries if one.ended_ns and not one.failed}
    for number in sorted(sent - delivered):
        faults.append(f"number {number} was never delivered")
    for number in sorted(sent - consumed - dead.keys()):
        faults.append(f"number {number} was neither consumed nor buried")
    for number in sorted((delivered | dead.keys()) - sent):
        faults.append(f"number {number} was never sent")
    for number in sorted(number for number in sent - dead.keys() if is_poison(number)):
        faults.append(f"number {number} fails always and is not among the dead letters")
    _judge_tries(notes, dead, faults)
    for place in notes.by_place.values():
        for before, again in pairwise(place):
            reason = _reason(notes, before, again)
            if reason is None:
                faults.append(f"{again} came again after {before} for no reason")
            else:
                verdict.repeated[reason] += 1
    return verdict


def _judge_tries(notes: Notes, dead: Counter[int], faults: list[str]) -> None:
    """Each copy comes from a failed call; who failed the last time is dead, and nobody else."""
    failures = Counter((one.number, one.tries) for one in notes.deliveries if one.failed or not one.ended_ns)
    copies = Counter((place[0].number, place[0].tries) for place in notes.by_place.values())
    for (number, tries), count in copies.items():
        if tries > RECONSUME_MAX:
            faults.append(f"number {number} was tried {tries} times")
        if tries and count > failures[number, tries - 1]:
            faults.append(f"number {number} has {count} copies of try {tries}, and fewer failures before")
    for number, count in dead.items():
        if count > failures[number, RECONSUME_MAX]:
            faults.append(f"number {number} is dead {count} times, and failed the last try less often")
    for place in notes.by_place.values():
        ended = [one for one in place if one.ended_ns]
        hopeless = bool(ended) and all(one.failed for one in ended) and ended[0].tries == RECONSUME_MAX
        if hopeless and ended[0].number not in dead:
            faults.append(f"number {ended[0].number} failed its last try and is not among the dead letters")


def _reason(notes: Notes, before: Delivery, again: Delivery) -> str | None:
    """Why a stored message was delivered once more; None: it should not have been."""
    topic, queue_id, _ = again.place
    if notes.members[before.member].was_killed:
        return "after a kill"
    # Members hear of a change one after the other: for a moment the old and the new owner both have a queue.
    ends = [notes.given_away(one) for one in (before, again)]
    if ends[0] is not None and 0 < notes.taken(again) <= ends[0]:
        return "two members had its queue while they balanced"
    if any(end is not None and 0 <= end - again.started_ns <= OVERLAP_NS for end in ends):
        return "two members had its queue while they balanced"
    given_away = ends[0]
    if given_away is None or given_away > again.started_ns:
        return None
    # The next owner begins where the old one had committed: at the first message that was not finished.
    first = min(
        one.place[2]
        for one in notes.of_queue[topic, queue_id]
        if one.member == again.member and given_away - CLOSE_NS <= one.started_ns <= again.started_ns
    )
    finished = any(
        one.member == before.member and 0 < one.ended_ns < given_away - CLOSE_NS
        for one in notes.by_place.get((topic, queue_id, first), ())
    )
    return None if finished else "its queue moved while it, or one before it, was in hand"
