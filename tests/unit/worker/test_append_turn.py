"""Append turns and pending acks with a scripted store: who is answered when, and with what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shmq.base.errors import QueueGone, ServiceNotAvailable, ShmqError, SystemBusy
from shmq.broker import limits
from shmq.model.wait_for import AS_CONFIGURED, NOTHING, Wait
from shmq.net.outbox import Outbox
from shmq.protocol.codes import ResponseCode
from shmq.shm.queue_table import QueueRef
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.worker.append_turn import AppendTurn
from shmq.worker.pending_acks import PendingAcks


class Loop:
    """The one method of a loop that a turn uses."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()


class Store:
    """Appends everything, unless told otherwise; the log grows by 100 a request."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.room: int | None = None
        self.error: ShmqError | None = None
        self.position = 0
        self.rung: list[bool] = []

    def append(
        self, requests: list[AppendRequest], *, rings_flusher: bool = True
    ) -> list[AppendOutcome | None]:
        self.calls.append(len(requests))
        self.rung.append(rings_flusher)
        if self.error is not None:
            raise self.error
        outcomes: list[AppendOutcome | None] = []
        for n, _ in enumerate(requests):
            if self.room is not None and n >= self.room:
                outcomes.append(None)
                continue
            self.position += 100
            outcomes.append(AppendOutcome(physical_offset=self.position - 100, end=self.position))
        return outcomes


class Reply:
    def __init__(self, wait: Wait = AS_CONFIGURED) -> None:
        self.wait = wait
        self.codes: list[int] = []
        self.errors: list[ShmqError] = []

    def settle(self, outcome: AppendOutcome, code: int) -> None:
        self.codes.append(code)

    def refuse(self, error: ShmqError) -> None:
        self.errors.append(error)


class Disk:
    """A worker's own flush: it covers what it is asked for, unless told otherwise."""

    def __init__(self) -> None:
        self.willing, self.works = True, True
        self.flushes: list[int] = []
        self.left = 0

    def may(self) -> bool:
        return self.willing

    def flush(self, end: int) -> int:
        self.flushes.append(end)
        return end if self.works else 0

    def leave(self) -> None:
        self.left += 1


class Bench:
    """One turn with everything around it under the test's control."""

    def __init__(self, sync_flush: bool = False, disk: Disk | None = None) -> None:
        self.loop, self.store = Loop(), Store()
        self.now_ms = 0
        self.flushed = 0
        self.parked: list[bool] = []
        self.disk_failed = False
        self.acks = PendingAcks(
            lambda: self.flushed,
            5000,
            self.parked.append,
            lambda name, n: None,
            disk_failed=lambda: self.disk_failed,
        )
        self.turn = AppendTurn(
            self.loop,  # type: ignore[arg-type]
            self.store,
            self.acks,
            lambda: self.now_ms,
            outbox=Outbox(),
            sync_flush=sync_flush,
            own_flush=disk,
            wake_by=lambda deadline_ms: None,
            count=lambda name, n: None,
            took=lambda ms: None,
        )

    def add(self, count: int = 1, wait: Wait = AS_CONFIGURED) -> list[Reply]:
        replies = [Reply(wait) for _ in range(count)]
        for reply in replies:
            self.turn.add(AppendRequest(QueueRef("T", 0, 0, 2), bytearray(100), (100,), (0,)), reply)
        return replies


def test_all_sends_of_a_turn_are_one_append_and_are_answered_in_order() -> None:
    bench = Bench()
    replies = bench.add(5)
    assert bench.store.calls == []
    bench.loop.turn()
    assert bench.store.calls == [5]
    assert [r.codes for r in replies] == [[0]] * 5


def test_what_found_no_segment_is_kept_in_order_and_tried_again_at_the_bell() -> None:
    bench = Bench()
    bench.store.room = 2
    first = bench.add(4)
    bench.loop.turn()
    assert [r.codes for r in first] == [[0], [0], [], []]
    later = bench.add(1)
    assert bench.loop.soon == [], "new sends queue behind the kept ones"
    bench.store.room = None
    assert bench.turn.step(10) is None
    assert [r.codes for r in first + later] == [[0]] * 5
    assert bench.store.calls == [4, 3]


def test_what_waits_too_long_for_a_segment_is_refused_and_was_not_stored() -> None:
    bench = Bench()
    bench.store.room = 0
    (reply,) = bench.add()
    bench.loop.turn()
    assert bench.turn.step(limits.APPEND_WAITING_MS_MAX - 1) == limits.APPEND_WAITING_MS_MAX
    assert bench.turn.step(limits.APPEND_WAITING_MS_MAX) is None
    assert isinstance(reply.errors[0], SystemBusy) and reply.codes == []
    bench.store.room = None
    (again,) = bench.add()
    bench.loop.turn()
    assert again.codes == [0]


def test_waiting_sends_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "APPEND_WAITING_BYTES_MAX", 350)
    bench = Bench()
    bench.store.room = 0
    bench.add(1)
    bench.loop.turn()
    bench.add(2)
    with pytest.raises(SystemBusy):
        bench.add(1)


def test_a_failed_send_fails_alone_and_a_failed_append_fails_all() -> None:
    bench = Bench()
    bench.store.append = lambda requests, **_: [AppendOutcome(error=QueueGone([1])), AppendOutcome(end=1)]  # type: ignore[method-assign,assignment]
    gone, stored = bench.add(2)
    bench.loop.turn()
    assert isinstance(gone.errors[0], QueueGone) and stored.codes == [0]
    bench = Bench()
    bench.store.error = ServiceNotAvailable("flush failed")
    replies = bench.add(3)
    bench.loop.turn()
    assert all(isinstance(r.errors[0], ServiceNotAvailable) for r in replies)


def test_sync_flush_answers_when_the_flushed_position_covers_the_message() -> None:
    bench = Bench(sync_flush=True)
    first, second = bench.add(2)
    (careless,) = bench.add(1, wait=NOTHING)
    bench.loop.turn()
    assert careless.codes == [0] and first.codes == []
    assert bench.parked == [True]
    bench.flushed = 100
    assert bench.acks.step(1) == 5000
    assert first.codes == [0] and second.codes == []
    bench.flushed = 300
    assert bench.acks.step(2) is None
    assert second.codes == [0] and bench.parked == [True, False]


def test_a_disk_that_is_too_slow_answers_flush_disk_timeout() -> None:
    bench = Bench(sync_flush=True)
    (reply,) = bench.add()
    bench.loop.turn()
    assert bench.acks.step(4999) == 5000
    assert bench.acks.step(5000) is None
    assert reply.codes == [ResponseCode.FLUSH_DISK_TIMEOUT]
    assert bench.parked[-1] is False


def test_a_send_that_waits_alone_is_flushed_in_its_turn_and_the_flusher_not_woken() -> None:
    disk = Disk()
    bench = Bench(sync_flush=True, disk=disk)
    replies = []
    for _ in range(3):
        replies += bench.add()
        bench.loop.turn()
    assert [r.codes for r in replies] == [[0]] * 3
    assert disk.flushes == [100, 200, 300] and disk.left == 0
    assert bench.store.rung == [False] * 3 and bench.parked == []


def test_where_more_than_one_send_waits_one_flush_of_the_flusher_serves_them() -> None:
    disk = Disk()
    bench = Bench(sync_flush=True, disk=disk)
    first = bench.add(2)
    bench.loop.turn()
    first += bench.add(1)  # alone in its turn, but others wait already
    bench.loop.turn()
    assert disk.flushes == [] and bench.store.rung == [True, True]
    assert [r.codes for r in first] == [[]] * 3
    bench.flushed = 300
    assert bench.acks.step(1) is None
    assert [r.codes for r in first] == [[0]] * 3
    (later,) = bench.add()
    bench.loop.turn()
    assert later.codes == [0] and disk.flushes == [400]


def test_who_does_not_wait_for_the_disk_gets_no_flush_of_his_own() -> None:
    disk = Disk()
    bench = Bench(sync_flush=True, disk=disk)
    (careless,) = bench.add(1, wait=NOTHING)
    bench.loop.turn()
    assert careless.codes == [0] and disk.flushes == [] and bench.store.rung == [True]


def test_a_disk_that_was_slow_is_left_to_the_flusher() -> None:
    disk = Disk()
    disk.willing = False
    bench = Bench(sync_flush=True, disk=disk)
    (reply,) = bench.add()
    bench.loop.turn()
    assert reply.codes == [] and disk.flushes == [] and bench.store.rung == [True]


def test_a_flush_that_could_not_be_made_is_left_to_the_flusher_and_waited_for() -> None:
    disk = Disk()
    disk.works = False
    bench = Bench(sync_flush=True, disk=disk)
    (reply,) = bench.add()
    bench.loop.turn()
    assert (disk.flushes, disk.left, reply.codes) == ([100], 1, [])
    bench.flushed = 100
    assert bench.acks.step(1) is None
    assert reply.codes == [0]


def test_a_failed_disk_is_told_at_once() -> None:
    disk = Disk()
    disk.works = False
    bench = Bench(sync_flush=True, disk=disk)
    bench.disk_failed = True
    (reply,) = bench.add()
    bench.loop.turn()
    assert reply.codes == [ResponseCode.FLUSH_DISK_TIMEOUT] and bench.parked[-1] is False


@pytest.mark.parametrize(
    "fails",
    [
        lambda store: setattr(store, "room", 0),
        lambda store: setattr(store, "error", ServiceNotAvailable("disk")),
        lambda store: setattr(store, "append", lambda *_, **__: [AppendOutcome(error=QueueGone([1]))]),
        lambda store: setattr(store, "append", lambda *_, **__: 1 // 0),
    ],
    ids=["no segment", "refused", "queue gone", "bug"],
)
def test_whatever_becomes_of_an_append_that_did_not_ring_the_flusher_it_is_rung(fails: Any) -> None:
    """A BLANK may have been published, or a claim before the failure."""
    disk = Disk()
    bench = Bench(sync_flush=True, disk=disk)
    fails(bench.store)
    (reply,) = bench.add()
    bench.loop.turn()
    assert disk.flushes == [] and disk.left == 1 and reply.codes == []
    if not bench.turn:
        return
    bench.store.room = None
    bench.turn.step(1)  # the segment has come: flushed by itself like any other
    assert reply.codes == [0] and disk.flushes == [100] and disk.left == 1
    assert bench.turn.step(2) is None, "nothing is kept any more"


def test_a_real_loop_runs_one_turn_for_many_adds() -> None:
    async def scenario() -> list[int]:
        bench = Bench()
        bench.turn._loop = asyncio.get_running_loop()
        bench.add(10)
        await asyncio.sleep(0)
        bench.add(3)
        await asyncio.sleep(0)
        return bench.store.calls

    assert asyncio.run(scenario()) == [10, 3]
