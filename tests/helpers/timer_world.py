"""The timer service over a store in this process, with a clock that tests set, and notes of what it delivers.

`die` forgets the service as a death does: the page and the files stay. `lose` may drop more.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from shmq.base.clock import ManualClock
from shmq.broker.queues import Queues
from shmq.broker.timer_cursors import TimerCursors
from shmq.coordinator.timer_changes import TimerChanges
from shmq.coordinator.timer_service import TimerService
from shmq.model.names import TIMER_TOPIC
from shmq.model.record import parse_record
from shmq.shm.append_lock import AppendLock
from shmq.shm.directory import DirectoryView
from shmq.shm.worker_slots import COORDINATOR_SLOT
from shmq.store.append_request import AppendOutcome
from tests.helpers.store import OpenStore, small_settings

TOPIC = "T"
QUEUES = 3
SETTLE_STEPS = 8


class TimerWorld:
    """One store with timers. Use as a context manager."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.world = OpenStore(root, small_settings(**settings))
        self.world.make_topic(TIMER_TOPIC)
        self.world.make_topic(TOPIC, QUEUES)
        self.clock = ManualClock()
        self.counts: Counter[str] = Counter()
        self.delivered: dict[bytes, list[int]] = {}
        """When each body was delivered, by the wall clock; more than once is a fault."""
        self._seen = [0] * QUEUES
        self.boot()

    def boot(self) -> None:
        """Begin anew, as a coordinator that was started again."""
        world = self.world
        page = world.page
        lock = AppendLock(page, COORDINATOR_SLOT, world.semaphore, lambda: False)
        self.store = world.open_slot(COORDINATOR_SLOT)
        self.queues = Queues(page, DirectoryView(page), lock, world.layout, self.store.forget_ended)
        self.cursors = TimerCursors(world.layout.config / "timercheck", page, lock, self.clock)
        self.service = TimerService(
            self.store, self.queues, self.cursors, world.settings, self.clock, self._count
        )
        self.changes = TimerChanges(
            self.store, self.queues, self.service, world.settings, world.bells, self.clock
        )

    def _count(self, name: str, number: int) -> None:
        self.counts[name] += number

    def send(self, due_ms: int, body: bytes, **more: str) -> AppendOutcome:
        """Append a message for a moment, as a worker does."""
        properties = {
            "UNIQ_KEY": body.decode(),
            "TIMER_OUT_MS": str(due_ms),
            "REAL_TOPIC": TOPIC,
            "REAL_QID": str(hash(body) % QUEUES),
        }
        return self.world.send(TIMER_TOPIC, body, **{**properties, **more})

    def cancel(self, due_ms: int, body: bytes) -> None:
        """Append what cancels a message."""
        self.send(due_ms, b"0", TIMER_DEL_UNIQKEY=f"{TOPIC}+{body.decode()}", UNIQ_KEY=body.decode())

    def step(self) -> int:
        """One step of the service; returns the pause it asks for, in ms."""
        now_ms = self.clock.monotonic_ms()
        self.world.index.step(now_ms)
        pause_ms = self.service.step(now_ms) - now_ms
        self.world.allocator.step()
        self._look()
        return pause_ms

    def run(self, ms: int, *, step_ms: int = 0) -> None:
        """Let time pass as the duty cycle does; with `step_ms` in steps of at most that."""
        end_ms = self.clock.monotonic_ms() + ms
        while (left_ms := end_ms - self.clock.monotonic_ms()) > 0:
            pause_ms = self.step()
            self.clock.advance(max(1, min(pause_ms, left_ms, step_ms or left_ms)))
        for _ in range(SETTLE_STEPS):  # what is due at the end may take several
            self.step()

    def _look(self) -> None:
        for queue_id in range(QUEUES):
            queue = self.world.queue(TOPIC, queue_id)
            high = self.store.table.max(queue.slot)
            for offset in range(self._seen[queue_id], high):
                unit = self.store.queues.unit(queue, offset)
                record = self.store.log.view(unit.physical_offset, unit.size)
                fields = parse_record(record)
                body = bytes(record[fields.body_at : fields.body_at + fields.body_length])
                self.delivered.setdefault(body, []).append(self.clock.now_ms())
            self._seen[queue_id] = high

    def die(self) -> None:
        """A kill, and the next coordinator."""
        self.service.close()
        self.store.close()
        self.boot()

    def lose_wheel(self) -> None:
        """The timer files are gone at the next start."""
        self.world.layout.timer_wheel.unlink(missing_ok=True)
        for file in self.world.layout.timer_log.glob("*"):
            file.unlink()

    def crash(self, *, keep_page: bool) -> None:
        """All processes die, and the broker starts again, on the kept page or without it."""
        self.service.close()
        self.store.close()
        self.world.crash(keep_page=keep_page)
        self.boot()

    def __enter__(self) -> TimerWorld:
        return self

    def __exit__(self, *error: object) -> None:
        self.service.close()
        self.store.close()
        self.world.__exit__(*error)
