"""A tiny store for tests of lock, journal and repair with real processes: a log, units of four queues.

A record is 40 bytes: magic, its own position, the slot that wrote it, queue, queue offset. A unit is
8 bytes: 1 + position. As a program it is one appender: it claims in a loop until its counter `sends` reached
the wanted number, then leaves by the ordinary way; SHMQ_FAULTS in its environment says where it dies.

    python -m tests.helpers.append_world FOLDER PAGE SEMAPHORE SLOT RECORDS BELL_FD...
    python -m tests.helpers.append_world FOLDER PAGE SEMAPHORE repair        (a whole one, as at a start)
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from shmq.base import faults
from shmq.base.errors import QueueGone
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock, die, open_semaphore
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.queue_table import QueueTable, ring_block
from shmq.shm.rings import ring_parked
from shmq.supervisor.crash_repair import RepairReport, repair

RECORD = struct.Struct("<5q")
MAGIC = 0x5245434F5244
QUEUES = 4
LOG_BYTES = 4 << 20
UNITS = 16384

faults.declare(
    {
        "world.first_record_written": "journal PREPARED, a part of the records written",
        "world.units_written": "journal PREPARED, all records and units written",
    }
)


class World:
    """The store as one process maps it."""

    def __init__(self, folder: Path, page_name: str) -> None:
        self.page = ControlPage.attach(page_name)
        self.table = QueueTable(self.page)
        self._log = _map(folder / "log", LOG_BYTES)
        self._units = _map(folder / "units", QUEUES * UNITS * 8)

    def write_record(self, position: int, slot: int, queue: int, queue_offset: int) -> None:
        RECORD.pack_into(self._log, position, MAGIC, position, slot, queue, queue_offset)

    def write_unit(self, queue: int, queue_offset: int, position: int) -> None:
        struct.pack_into("<q", self._units, (queue * UNITS + queue_offset) * 8, position + 1)

    def zero_log(self, start: int, end: int) -> None:
        self._log[start:end] = bytes(end - start)

    def zero_units(self, queue: int, old_max: int, new_max: int) -> None:
        first = (queue * UNITS + old_max) * 8
        self._units[first : first + (new_max - old_max) * 8] = bytes((new_max - old_max) * 8)

    def findings(self) -> Iterator[str]:
        """Check everything that must hold while nobody appends."""
        end = self.page.words[at.WRITE_POSITION]
        next_offset = [0] * QUEUES
        for position in range(0, end, RECORD.size):
            magic, own, _, queue, queue_offset = RECORD.unpack_from(self._log, position)
            if (magic, own) != (MAGIC, position) or queue_offset != next_offset[queue]:
                yield f"bad record at {position}: {magic:x} {own} queue {queue} offset {queue_offset}"
                return
            if struct.unpack_from("<q", self._units, (queue * UNITS + queue_offset) * 8) != (position + 1,):
                yield f"unit {queue_offset} of queue {queue} does not point to {position}"
            next_offset[queue] += 1
        if any(self._log[end:]):
            yield f"bytes behind write_position {end}"
        for queue in range(QUEUES):
            if self.table.max(queue) != next_offset[queue]:
                yield f"queue {queue} has max {self.table.max(queue)}, the log holds {next_offset[queue]}"
            if any(self._units[(queue * UNITS + next_offset[queue]) * 8 : (queue + 1) * UNITS * 8]):
                yield f"units behind the max of queue {queue}"

    def records_of(self, slot: int) -> int:
        """Count the published records that `slot` wrote."""
        end = self.page.words[at.WRITE_POSITION]
        return sum(RECORD.unpack_from(self._log, p)[2] == slot for p in range(0, end, RECORD.size))

    def claim(self, lock: AppendLock, slot: int, turn: int, bells: Sequence[Doorbell]) -> int:
        """Append one to three records to one or two queues; return how many."""
        journal, page = AppendJournal(self.page), self.page
        queues = [(turn * 7 + slot + n) % QUEUES for n in (0, 0, 1)][: 1 + turn % 3]
        lock.acquire()
        try:
            start = page.words[at.WRITE_POSITION]
            maxima = {queue: self.table.max(queue) for queue in queues}
            entries = [
                (queue, self.table.generation(queue), low, low + queues.count(queue))
                for queue, low in maxima.items()
            ]
            journal.prepare(start, start + len(queues) * RECORD.size, turn, entries)
            for n, queue in enumerate(queues):
                self.write_record(start + n * RECORD.size, slot, queue, maxima[queue])
                faults.reach("world.first_record_written")
                self.write_unit(queue, maxima[queue], start + n * RECORD.size)
                maxima[queue] += 1
            faults.reach("world.units_written")
            journal.committed()
            journal.publish()
            lock.release(lambda: [ring_parked(page, ring_block(queue), bells) for queue in maxima] and None)
        except QueueGone:
            raise
        except BaseException as error:
            die(repr(error))
        return len(queues)

    def repair_whole(self, semaphore_name: str) -> RepairReport:
        """Repair as a start on a kept page does: no appender lives."""
        semaphore = open_semaphore(semaphore_name)
        try:
            return repair(
                self.page,
                live_slots=(),
                kill=lambda slot: None,
                is_dead=lambda slot: True,
                zero_log=self.zero_log,
                zero_units=self.zero_units,
                bells=(),
                semaphore=semaphore,
            )
        finally:
            semaphore.close()

    def close(self) -> None:
        self.page.close()
        self._log.close()
        self._units.close()


def _map(path: Path, size: int) -> mmap.mmap:
    with open(path, "a+b") as file:
        os.ftruncate(file.fileno(), size)
        return mmap.mmap(file.fileno(), size)


def start(
    folder: Path,
    page_name: str,
    semaphore_name: str,
    *arguments: object,
    fault: str = "",
    bells: Sequence[Doorbell] = (),
) -> subprocess.Popen[bytes]:
    """Start this program; `fault` arms its fault points."""
    fds = [bell.fileno() for bell in bells]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            __name__,
            str(folder),
            page_name,
            semaphore_name,
            *map(str, (*arguments, *fds)),
        ],
        env={**os.environ, "SHMQ_FAULTS": fault, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        pass_fds=fds,
    )


def main(folder: str, page_name: str, semaphore_name: str, role: str, *numbers: str) -> None:
    world = World(Path(folder), page_name)
    if role == "repair":
        world.repair_whole(semaphore_name)
        return
    slot, wanted = int(role), int(numbers[0])
    bells = [Doorbell(int(fd)) for fd in numbers[1:]]
    parent = os.getppid()
    lock = AppendLock(world.page, slot, semaphore_name, lambda: os.getppid() != parent)
    counters = SlotCounters(world.page, slot)
    turn = 0
    while counters.values()["sends"] < wanted:
        counters.add("sends", world.claim(lock, slot, turn, bells))
        turn += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
