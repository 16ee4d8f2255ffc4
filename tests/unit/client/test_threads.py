"""The small thread helpers: listener pool, task loop, periodic duties, room for async sends."""

from __future__ import annotations

import threading
import time

import pytest

from shmq.client.errors import TooMuchRequest
from shmq.client.in_flight import InFlight
from shmq.client.listener_pool import ListenerPool
from shmq.client.periodic import Periodic
from shmq.client.task_loop import TaskLoop
from tests.helpers.waiting import wait_until


def test_the_pool_runs_every_task() -> None:
    done: list[int] = []
    pool: ListenerPool[int] = ListenerPool("pool", done.append, 4)
    for number in range(1000):
        pool.submit(number)
    wait_until(lambda: len(done) == 1000)
    assert sorted(done) == list(range(1000))
    assert pool.stop(1)


def test_quick_tasks_of_one_burst_run_in_order_on_one_thread() -> None:
    threads: list[str] = []
    pool: ListenerPool[int] = ListenerPool(
        "pool", lambda _: threads.append(threading.current_thread().name), 8
    )
    pool.submit(0)
    wait_until(lambda: len(threads) == 1)
    assert threads == ["pool-1"]
    assert pool.stop(1)


def test_tasks_handed_over_at_once_are_shared_by_threads_that_pay() -> None:
    together = threading.Barrier(3)
    passed: list[int] = []

    def run(number: int) -> None:
        together.wait(10)
        passed.append(number)

    pool = ListenerPool("test", run, 5)
    pool.submit(1, 2, 3)
    wait_until(lambda: sorted(passed) == [1, 2, 3])
    assert pool.stop(5)


def test_blocking_tasks_get_more_threads_up_to_the_maximum() -> None:
    inside, most, lock = [0], [0], threading.Lock()
    gate = threading.Event()

    def block(_: int) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        gate.wait(10)
        with lock:
            inside[0] -= 1

    pool: ListenerPool[int] = ListenerPool("pool", block, 3)
    for number in range(10):
        pool.submit(number)
    wait_until(lambda: inside[0] == 3)
    time.sleep(0.05)  # a fourth thread would have been woken by now
    assert most[0] == 3
    gate.set()
    wait_until(lambda: inside[0] == 0 and pool.waiting == 0)
    assert pool.stop(1)


@pytest.mark.parametrize("idle_end_s", [30.0, 0.01], ids=["it parks", "it ends"])
def test_the_watcher_of_one_burst_watches_the_next(idle_end_s: float) -> None:
    """Who watches for tasks that wait is awake only while some do."""
    gate, inside = threading.Semaphore(0), []

    def block(number: int) -> None:
        inside.append(number)
        gate.acquire()

    def watchers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "watched-watch"]

    pool: ListenerPool[int] = ListenerPool("watched", block, 3, 1, idle_end_s=idle_end_s)
    seen = set()
    for _ in range(5):
        for number in range(3):
            pool.submit(number)
        wait_until(lambda: len(inside) == 3, what="all three run beside each other")
        assert len(watchers()) <= 1
        seen.update(watchers())
        gate.release(3)
        wait_until(lambda: pool.waiting == 0 and pool.threads == (3 if idle_end_s > 1 else 1))
        if idle_end_s < 1:
            wait_until(lambda: not watchers(), what="the watcher has ended")
        inside.clear()
    assert len(seen) == 1 or idle_end_s < 1
    assert pool.stop(1)
    wait_until(lambda: not watchers(), what="nobody watches a pool that was stopped")


def test_a_failing_task_ends_no_thread() -> None:
    done: list[int] = []

    def run(number: int) -> None:
        if number == 1:
            raise ValueError("broken listener")
        done.append(number)

    pool: ListenerPool[int] = ListenerPool("pool", run, 1)
    for number in range(3):
        pool.submit(number)
    wait_until(lambda: done == [0, 2])
    assert pool.stop(1)


def test_stop_waits_for_running_tasks_and_drops_waiting_ones() -> None:
    started, gate, done = threading.Event(), threading.Event(), []

    def run(number: int) -> None:
        started.set()
        gate.wait(10)
        done.append(number)

    pool: ListenerPool[int] = ListenerPool("pool", run, 1)
    pool.submit(1)
    pool.submit(2)
    assert started.wait(5)
    assert not pool.stop(0.01)
    gate.set()
    assert pool.stop(5)
    assert done == [1]


def test_the_task_loop_keeps_the_order_of_due_times() -> None:
    loop, done = TaskLoop("loop"), []
    loop.later(0.05, lambda: done.append("late"))
    loop.later(0, lambda: done.append("now"))
    loop.later(0, lambda: 1 / 0)
    loop.start()
    wait_until(lambda: done == ["now", "late"])
    loop.stop(1)


def test_duties_run_at_their_times_and_survive_errors() -> None:
    runs: list[float] = []
    duties = Periodic("duties")

    def run() -> None:
        runs.append(time.monotonic())
        raise OSError("not today")

    duties.add("failing", run, 0.0, 0.02)
    duty = duties.add("rare", lambda: runs.append(-1.0), 60, 60)
    duties.start()
    wait_until(lambda: len(runs) >= 3)
    assert -1.0 not in runs
    duty.due = 0.0
    duties.wake()
    wait_until(lambda: -1.0 in runs)
    duties.stop()


def test_room_is_waited_for_and_given_back() -> None:
    room = InFlight(10, 1000)
    for _ in range(10):
        room.enter(10, time.monotonic() + 1)
    with pytest.raises(TooMuchRequest, match="10 async sends"):
        room.enter(10, time.monotonic() + 0.01)
    threading.Timer(0.05, lambda: room.leave(1, 10)).start()
    room.enter(10, time.monotonic() + 5)
    room.leave(10, 100)
    assert room.count == 0 and room.wait_empty(0.1)


def test_bytes_are_bounded_too_but_one_large_message_is_let_in() -> None:
    room = InFlight(10, 1000)
    room.enter(5000, time.monotonic() + 1)
    with pytest.raises(TooMuchRequest):
        room.enter(1, time.monotonic() + 0.01)
    assert not room.wait_empty(0.01)
    room.leave(1, 5000)


def test_threads_above_those_to_keep_end_when_idle_and_come_again() -> None:
    """consume_thread_min 2 of consume_thread_max 6."""
    inside, lock, gate = [0], threading.Lock(), threading.Event()

    def block(_: int) -> None:
        with lock:
            inside[0] += 1
        gate.wait(10)
        with lock:
            inside[0] -= 1

    pool: ListenerPool[int] = ListenerPool("pool", block, 6, 2, idle_end_s=0.05)
    for _ in range(2):
        gate.clear()
        for number in range(12):
            pool.submit(number)
        wait_until(lambda: inside[0] == 6, what="it grows to the maximum")
        gate.set()
        wait_until(lambda: pool.threads == 2 and not inside[0], what="it shrinks to the minimum")
    assert pool.stop(1)


def test_the_number_of_running_tasks_can_be_changed_while_it_runs() -> None:
    """Checklist 161."""
    inside, lock, gate = [0], threading.Lock(), threading.Semaphore(0)

    def block(_: int) -> None:
        with lock:
            inside[0] += 1
        gate.acquire()
        with lock:
            inside[0] -= 1

    pool: ListenerPool[int] = ListenerPool("pool", block, 8)
    for number in range(100):
        pool.submit(number)
    wait_until(lambda: inside[0] == 8)
    pool.set_threads(3)
    gate.release(5)
    wait_until(lambda: inside[0] == 3)
    assert pool.waiting == 92
    gate.release()
    wait_until(lambda: pool.waiting == 91 and inside[0] == 3, what="three go on")
    pool.set_threads(5)
    wait_until(lambda: inside[0] == 5)
    pool.set_threads(8)
    gate.release(100)
    wait_until(lambda: pool.waiting == 0 and inside[0] == 0)
    assert pool.stop(1)
