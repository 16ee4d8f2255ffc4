"""Appends by several processes at once, and the death of all of them (of one: `test_fault_points.py`).

After each death: crash repair, the store check, then a start without the page and the check again.
Acknowledged messages are all there, in order, and no message is there twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from shmq.shm.append_lock import open_semaphore
from shmq.store.check import check_store
from shmq.supervisor.crash_repair import repair
from shmq.supervisor.zeroing import Zeroing
from tests.helpers.store import OpenStore
from tests.helpers.waiting import wait_until
from tests.unit.store.reading import read_all

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store") as opened:
        opened.make_topic("T", 8)
        opened.start_threads()
        yield opened


def start(
    store: OpenStore, slot: int, messages: int, queues: int = 8, faults_armed: str = "", seed: int = 0
) -> subprocess.Popen[str]:
    bells = [bell.fileno() for bell in store.bells]
    for fd in bells:
        os.set_inheritable(fd, True)
    words = [store.root, store.name, store.semaphore, slot, messages, queues, seed or slot, *bells]
    environment = {**os.environ, "SHMQ_FAULTS": faults_armed}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.store_appender", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=environment,
        close_fds=False,
    )


def end(process: subprocess.Popen[str], status: int = 0) -> list[tuple[int, int, int]]:
    """Wait for an appender and return what it was told: (queue, first queue offset, messages)."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    return [tuple(map(int, line.split())) for line in output.splitlines()]


def any_dead(processes: Sequence[subprocess.Popen[str]]) -> bool:
    return any(process.poll() is not None for process in processes)


def repair_whole(store: OpenStore, survivors: Mapping[int, subprocess.Popen[str]]) -> None:
    """Crash repair as the supervisor does it."""
    zeroing, semaphore = Zeroing(store.layout, store.page), open_semaphore(store.semaphore)
    repair(
        store.page,
        live_slots=list(survivors),
        kill=lambda slot: survivors[slot].kill(),
        is_dead=lambda slot: slot not in survivors or survivors[slot].poll() is not None,
        zero_log=zeroing.zero_log,
        zero_units=zeroing.zero_units,
        bells=store.bells,
        semaphore=semaphore,
    )
    semaphore.close()


def check_all(store: OpenStore, acknowledged: Sequence[tuple[int, int, int]]) -> None:
    """Acknowledged ranges are there, none twice, each appender's messages of a queue in its order."""
    assert list(check_store(store.root, store.page)) == []
    found = read_all(store)
    told: dict[int, list[int]] = {}
    for queue, first, count in acknowledged:
        told.setdefault(queue, []).extend(range(first, first + count))
    for queue, offsets in told.items():
        assert len(offsets) == len(set(offsets)), "two appenders were told the same queue offset"
        assert max(offsets) < len(found["T", queue])
    for (_, queue), bodies in found.items():
        last: dict[int, int] = {}
        for body in bodies:
            slot, own_queue, n = map(int, body.split())
            assert own_queue == queue
            assert n == last.get(slot, -1) + 1
            last[slot] = n


def test_four_processes_keep_the_order_of_every_queue(store: OpenStore) -> None:
    appenders = [start(store, slot, 1500) for slot in (2, 3, 4, 5)]
    acknowledged = [row for process in appenders for row in end(process)]
    check_all(store, acknowledged)
    total = sum(count for _, _, count in acknowledged)
    assert sum(len(bodies) for bodies in read_all(store).values()) == total >= 6_000
    report = store.reopen()
    assert report.records == 0
    check_all(store, acknowledged)


@pytest.mark.long
def test_the_death_of_all_at_random_moments_loses_nothing_acknowledged(store: OpenStore) -> None:
    acknowledged: list[tuple[int, int, int]] = []
    for turn in range(3):
        appenders = [
            start(store, slot, 10**9, faults_armed=f"claim.units_written=kill@{slot * 37 + 60 * turn}")
            for slot in (2 + 3 * turn, 3 + 3 * turn)
        ]
        appenders.append(start(store, 4 + 3 * turn, 300))
        wait_until(partial(any_dead, appenders[:2]), 60, "one of them dies")
        for process in appenders:
            process.kill()
        for process in appenders:
            output, _ = process.communicate(timeout=60)
            lines = output.splitlines(keepends=True)
            acknowledged += [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
        repair_whole(store, {})
        store.crash(keep_page=turn % 2 == 0)
        store.start_threads()
        check_all(store, acknowledged)
