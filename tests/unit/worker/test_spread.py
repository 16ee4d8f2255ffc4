"""Who serves the next connection, whoever accepts and however late the numbers are."""

from __future__ import annotations

import random
import socket

from shmq.worker.handoff import UNDER_WAY_MS_MAX, Handoff, Spread


class Workers:
    """Published numbers of some workers; what was handed over arrives when the test says so."""

    def __init__(self, count: int) -> None:
        self.connections: list[int | None] = [0] * count
        self.received = [0] * count
        self.under_way = [0] * count
        self.spreads = [
            Spread(own, count, self.connections.__getitem__, self.received.__getitem__)
            for own in range(count)
        ]

    def accept(self, acceptor: int) -> None:
        target = self.spreads[acceptor].choose()
        if target == acceptor:
            self._count(target)
        else:
            self.spreads[acceptor].handed_to(target)
            self.under_way[target] += 1

    def arrive(self) -> None:
        for worker, count in enumerate(self.under_way):
            self.received[worker] += count
            for _ in range(count):
                self._count(worker)
            self.under_way[worker] = 0

    def _count(self, worker: int) -> None:
        known = self.connections[worker]
        assert known is not None
        self.connections[worker] = known + 1

    def loads(self) -> list[int]:
        return [c or 0 for c in self.connections]


def test_a_burst_accepted_by_one_worker_in_one_turn_is_even() -> None:
    workers = Workers(4)
    for _ in range(200):
        workers.accept(0)
    workers.arrive()
    assert workers.loads() == [50] * 4


def test_random_acceptors_and_late_arrivals_stay_nearly_even() -> None:
    for seed in range(50):
        chosen = random.Random(seed)
        workers = Workers(2)
        for _ in range(16):
            workers.accept(chosen.randrange(2))
            if chosen.random() < 0.3:
                workers.arrive()
        workers.arrive()
        assert min(workers.loads()) >= 6, (seed, workers.loads())


def test_a_worker_that_is_not_alive_gets_nothing() -> None:
    workers = Workers(3)
    workers.connections[1] = None
    for _ in range(10):
        workers.accept(2)
    workers.arrive()
    assert workers.loads() == [5, 0, 5]


def test_what_a_worker_took_along_into_its_death_is_forgotten_in_time() -> None:
    now_ms = [0]
    connections: list[int | None] = [0, 0]
    spread = Spread(0, 2, connections.__getitem__, lambda i: 0, lambda: now_ms[0])
    for _ in range(5):
        spread.handed_to(1)
    assert [spread.choose() for _ in range(3)] == [0, 0, 0]
    now_ms[0] = UNDER_WAY_MS_MAX
    connections[0] = 2
    assert spread.choose() == 1


def test_alone_it_keeps_everything() -> None:
    assert Spread(0, 1, lambda i: 0, lambda i: 0).choose() == 0
    assert Spread(1, 2, lambda i: None, lambda i: 0).choose() == 1


def test_a_descriptor_handed_over_is_the_same_connection() -> None:
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    ours = Handoff([end[0].dup().detach() for end in ends], ends[0][1].dup().detach())
    theirs = Handoff([end[0].dup().detach() for end in ends], ends[1][1].dup().detach())
    near, far = socket.socketpair()
    assert ours.send(1, far)
    (taken,) = theirs.receive_some()
    near.sendall(b"hello")
    assert taken.recv(10) == b"hello"
    assert theirs.receive_some() == [] and ours.receive_some() == []
    for closing in (ours, theirs, near, taken, *(e for pair in ends for e in pair)):
        closing.close()
