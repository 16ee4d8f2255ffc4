"""Real appender processes that die, stop or lose their supervisor at every point of the append protocol."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base import faults
from shmq.base.runtime_dir import page_name as name_of
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal, JournalState
from shmq.shm.append_lock import create_semaphore, open_semaphore, unlink_semaphore
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters, totals
from shmq.shm.doorbell import Doorbell
from shmq.shm.worker_slots import Phase, SlotTable, process_start_time
from shmq.supervisor.crash_repair import (
    RepairReport,
    StuckHolderDetector,
    needs_repair,
    repair,
    tidy_dead_slot,
)
from tests.helpers import append_world
from tests.helpers.append_world import QUEUES, World
from tests.helpers.waiting import is_readable, wait_until

SLOTS = (2, 3)
RECORDS = 120
APPEND_POINTS = sorted(name for name in faults.KNOWN if name.split(".")[0] in ("append", "journal", "world"))
REPAIR_POINTS = sorted(name for name in faults.KNOWN if name.startswith("repair."))


class Broker:
    """The supervisor of the tests: starts appenders, repairs after their deaths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page_name = name_of(folder)
        self.page = ControlPage.create(
            self.page_name, queue_slots=16, offset_slots=16, directory_bytes=4096, store_identity=1
        )
        self.page.state = PageState.OK
        self.semaphore_name = create_semaphore(self.page_name, self.page)
        self.semaphore = open_semaphore(self.semaphore_name)
        self.world = World(folder, self.page_name)
        self.world.table.new_slots([(0, 0)] * QUEUES)
        self.slots = SlotTable(self.page)
        self.bells = [Doorbell.create() for _ in range(at.SLOT_COUNT)]
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.reports: list[RepairReport] = []

    def start(self, slot: int, fault: str = "", records: int = RECORDS) -> None:
        child = append_world.start(
            self.folder,
            self.page_name,
            self.semaphore_name,
            slot,
            records,
            fault=fault,
            bells=self.bells,
        )
        self.slots[slot].fill(child.pid, process_start_time(child.pid))
        self.children[slot] = child

    def is_dead(self, slot: int) -> bool:
        return self.children[slot].poll() is not None

    def repair(self) -> RepairReport:
        report = repair(
            self.page,
            live_slots=self.children,
            kill=lambda slot: self.children[slot].kill(),
            is_dead=self.is_dead,
            zero_log=self.world.zero_log,
            zero_units=self.world.zero_units,
            bells=self.bells,
            semaphore=self.semaphore,
        )
        self.reports.append(report)
        return report

    def run(self, limit_s: float = 30) -> None:
        """Watch, repair and start again until every appender has left by itself."""
        detector = StuckHolderDetector()

        def step() -> bool:
            for slot, child in list(self.children.items()):
                code = child.poll()
                if code is None:
                    continue
                if needs_repair(self.page, slot):
                    self.repair()
                tidy_dead_slot(self.page, slot, self.bells)
                del self.children[slot]
                if code != 0:
                    assert code == -signal.SIGKILL
                    self.start(slot)
            if self.children and detector.look_at(self.page, self.semaphore).stuck:
                self.repair()
            return not self.children

        wait_until(step, limit_s, "all appenders done")

    def check(self) -> None:
        """What was acknowledged is there, nothing is half there, the lock is free."""
        assert list(self.world.findings()) == []
        for slot in SLOTS:
            sends = SlotCounters(self.page, slot).values()["sends"]
            assert sends <= self.world.records_of(slot) <= sends + 6
            assert self.slots[slot].phase == Phase.IDLE
        assert self.semaphore.value == 1
        assert self.page.words[at.QUIESCE] == 0

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()
        self.world.close()
        self.page.close()
        self.semaphore.close()
        ControlPage.unlink(self.page_name)
        unlink_semaphore(self.semaphore_name)
        for bell in self.bells:
            bell.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.close()


def test_without_deaths_all_records_arrive(broker: Broker) -> None:
    for slot in SLOTS:
        broker.start(slot)
    broker.run()
    broker.check()
    assert broker.reports == []
    assert totals(broker.page)["sends"] >= len(SLOTS) * RECORDS


@pytest.mark.long
@pytest.mark.parametrize("point", APPEND_POINTS)
def test_an_appender_may_die_at(point: str, broker: Broker) -> None:
    broker.start(SLOTS[0], fault=f"{point}=kill@5")
    broker.start(SLOTS[1])
    broker.run()
    broker.check()
    inside = point not in ("append.before_acquire", "append.idle")
    assert len(broker.reports) == inside
    if inside:
        undone = point.startswith("world.") or point == "journal.prepared"
        carried_out = point in (
            "journal.committed",
            "journal.position_stored",
            "journal.max_stored",
            "journal.maxima_stored",
            "journal.words_stored",
        )
        expected = JournalState.PREPARED if undone else JournalState.EMPTY
        assert broker.reports[0].journal is (JournalState.COMMITTED if carried_out else expected)
        assert broker.reports[0].killed_slots == []


@pytest.mark.long
@pytest.mark.parametrize("point", ["append.semaphore_taken", "world.first_record_written", "append.released"])
def test_a_stopped_holder_is_found_and_killed(point: str, broker: Broker) -> None:
    broker.start(SLOTS[0], fault=f"{point}=stop@5")
    broker.start(SLOTS[1])
    broker.run()
    broker.check()
    assert SLOTS[0] in [slot for report in broker.reports for slot in report.killed_slots]


@pytest.mark.long
@pytest.mark.parametrize(
    "left_by",
    [
        "world.units_written",
        *(
            pytest.param(left, marks=pytest.mark.long)
            for left in ("journal.prepared", "journal.maxima_stored")
        ),
    ],
)
def test_a_repair_may_die_anywhere_and_be_repeated(left_by: str, broker: Broker) -> None:
    broker.start(SLOTS[0], fault=f"{left_by}=kill@9")
    broker.children.pop(SLOTS[0]).wait()
    died = []
    for point in REPAIR_POINTS:
        other = append_world.start(
            broker.folder, broker.page_name, broker.semaphore_name, "repair", fault=f"{point}=kill"
        )
        died += [point] if other.wait() else []
    passed_always = {"repair.quiesced", "repair.still", "repair.journal_emptied", "repair.semaphore_drained"}
    assert passed_always <= set(died)
    broker.world.repair_whole(broker.semaphore_name)
    broker.check()
    for slot in SLOTS:
        broker.start(slot)
    broker.run()
    broker.check()


def test_a_repair_kills_nobody_who_leaves_by_himself(broker: Broker) -> None:
    for slot in SLOTS:
        broker.start(slot, records=20_000)
    for _ in range(5):
        before = totals(broker.page)["sends"]
        wait_until(lambda before=before: totals(broker.page)["sends"] > before)
        assert broker.repair().killed_slots == []
    for child in broker.children.values():
        child.kill()
    for slot in SLOTS:
        broker.children.pop(slot).wait()
    broker.repair()
    broker.check()
    assert totals(broker.page)["lock_quiesced"] > 0
    assert totals(broker.page)["repairs"] == 6


def test_a_storm_of_kills_loses_nothing_acknowledged(broker: Broker) -> None:
    dice = random.Random(20)
    for slot in SLOTS:
        broker.start(slot, records=20_000)
    for _ in range(8):
        slot = dice.choice(SLOTS)
        wanted = totals(broker.page)["sends"] + dice.randrange(1, 400)
        wait_until(lambda wanted=wanted: totals(broker.page)["sends"] >= wanted)
        broker.children[slot].kill()
        broker.children.pop(slot).wait()
        if needs_repair(broker.page, slot):
            broker.repair()
        broker.start(slot, records=20_000)
    for slot in SLOTS:
        broker.children[slot].kill()
        broker.children.pop(slot).wait()
    broker.repair()
    broker.check()


def test_appenders_leave_a_repair_that_nobody_will_end(broker: Broker) -> None:
    """They stand still, IDLE, while quiesce is set; when the supervisor is gone they end."""
    broker.page.words[at.QUIESCE] = 1
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.helpers.append_world import start\n"
        "print(start(Path(sys.argv[1]), sys.argv[2], sys.argv[3], 2, 10).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(broker.folder), broker.page_name, broker.semaphore_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as supervisor:
        assert supervisor.stdout is not None
        orphan = os.pidfd_open(int(supervisor.stdout.readline()))
        wait_until(lambda: totals(broker.page)["lock_quiesced"])
        assert broker.slots[2].phase == Phase.IDLE
    ended = is_readable(orphan, 10)
    os.close(orphan)
    assert ended
    assert broker.page.words[at.WRITE_POSITION] == 0


def test_an_exception_inside_the_lock_is_a_death(broker: Broker) -> None:
    broker.start(SLOTS[0], fault="journal.prepared=raise@3")
    assert broker.children[SLOTS[0]].wait() == -signal.SIGKILL
    broker.start(SLOTS[1])
    broker.run()
    broker.check()
    assert broker.reports[0].journal is JournalState.PREPARED


def test_whoever_finds_a_claim_under_way_behind_a_free_lock_dies_at_once(broker: Broker) -> None:
    AppendJournal(broker.page).prepare(0, 40, 1, [(0, 2, 0, 1)])
    broker.start(SLOTS[0])
    assert broker.children[SLOTS[0]].wait() == -signal.SIGKILL
    broker.run()
    broker.check()
