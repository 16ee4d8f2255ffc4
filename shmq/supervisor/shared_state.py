"""The supervisor's hold on what all processes share: control page, semaphore and bells, and their repair.

    open     nobody of an earlier run can append any more (LOCK_EX); a kept page is repaired whole; recovery
             makes or keeps the page; then LOCK_EX is released and children may append
    running  a death in the append protocol stops the world and is repaired; any other is tidied
    close    a clean end removes page and semaphore; after any other both stay, with the marks of a crash

Main thread of the supervisor only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import posix_ipc

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import ShmqError, Unavailable
from shmq.base.files import SharedFileLock
from shmq.base.runtime_dir import page_name
from shmq.model.settings import BrokerSettings
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import create_semaphore, open_semaphore, semaphore_name, unlink_semaphore
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import SLOT_COUNT
from shmq.shm.worker_slots import FLUSHER_SLOT, SlotTable
from shmq.store.names import StoreLayout
from shmq.store.recovery import is_empty, open_or_recover
from shmq.store.run_marks import Identity, is_of_these_files, mark_stopped, read_marks
from shmq.supervisor.children import Child
from shmq.supervisor.crash_repair import StuckHolderDetector, needs_repair, repair, tidy_dead_slot
from shmq.supervisor.leftovers import lock_out_appenders
from shmq.supervisor.recovery_child import recover_in_child
from shmq.supervisor.signals import SignalQueue
from shmq.supervisor.zeroing import Zeroing

_logger = log.get("shmq.supervisor")

faults.declare(
    {
        "start.locked_out": "nobody else can append any more, a kept page is not repaired",
        "start.repaired": "a kept page is whole, recovery has not begun",
        "start.recovered": "the page is ready, LOCK_EX is still held",
        "stop.page_retired": "the marks say a clean end, page and semaphore still have their names",
    }
)


class SharedState:
    """Page, semaphore and bells of a running broker."""

    def __init__(self, layout: StoreLayout, name: str, page: ControlPage, bells: list[Doorbell]) -> None:
        """Take over an open page; `open` is the way in."""
        self.layout = layout
        self.page_name = name
        self.page = page
        self.bells = bells
        self.slots = SlotTable(page)
        self.counters = SlotCounters(page, FLUSHER_SLOT)
        self.semaphore_name = semaphore_name(name, page)
        self._semaphore = _open_or_create_semaphore(name, page)
        self._zeroing = Zeroing(layout, page)
        self._detector = StuckHolderDetector()
        self.next_look_ms = monotonic_ms()

    @classmethod
    def open(
        cls,
        root: Path,
        settings: BrokerSettings,
        signals: SignalQueue,
        *,
        adopt: bool,
        log_dir: Path | None,
    ) -> SharedState:
        """Make sure nobody else appends, repair what is kept, recover, and attach. ShmqError when it
        cannot."""
        layout = StoreLayout.of(root, settings)
        name = page_name(root)
        bells = [Doorbell.create() for _ in range(SLOT_COUNT)]
        kept = _attach_kept(name)
        lock = lock_out_appenders(root, _recorded(kept))
        faults.reach("start.locked_out")
        try:
            if kept is not None:
                _repair_kept(layout, name, kept, bells)
            faults.reach("start.repaired")
            if is_empty(root, settings):
                open_or_recover(root, settings, adopt, owner_pid=os.getpid())
            else:
                recover_in_child(
                    root, settings, lock, adopt=adopt, log_dir=log_dir, interrupts=signals.fileno()
                )
            faults.reach("start.recovered")
            page = ControlPage.attach(name)
            return cls(layout, name, page, bells)
        finally:
            if kept is not None:
                kept.close()
            _let_append(lock)

    def after_death(self, dead_slot: int, running: Mapping[int, Child]) -> None:
        """Make the page whole again after the process of `dead_slot` died, so that the slot can be filled
        again."""
        if needs_repair(self.page, dead_slot):
            self._repair(running)
        else:
            tidy_dead_slot(self.page, dead_slot, self.bells)
        self.slots[dead_slot].empty()

    def missing(self) -> str | None:
        """Say what of ours has no name in /dev/shm any more; None when all is there.

        Who has it mapped goes on with it; a new child cannot attach.
        """
        semaphore = f"/sem.{self.semaphore_name.removeprefix('/')}"
        for kind, name in (("control page", self.page_name), ("semaphore", semaphore)):
            if not Path(f"/dev/shm{name}").exists():
                return (
                    f"the {kind} of this broker was removed from /dev/shm by somebody (a login manager with "
                    "RemoveIPC=yes, a clean-up script): no process can be started any more. Start the broker "
                    "again: it makes a new one, and nothing is lost"
                )
        return None

    def look_for_stuck(self, running: Mapping[int, Child], now_ms: int) -> None:
        """Take a look at the AppendLock when it is due; stop the world when somebody hangs inside."""
        if now_ms < self.next_look_ms:
            return
        look = self._detector.look_at(self.page, self._semaphore)
        if look.stuck:
            log.event(_logger, logging.ERROR, "appender_stuck")
            self.counters.add("holders_stuck")
            self._repair(running)
            self._detector = StuckHolderDetector()
        self.next_look_ms = now_ms + look.next_look_ms

    def _repair(self, running: Mapping[int, Child]) -> None:
        repair(
            self.page,
            live_slots=list(running),
            kill=lambda slot: running[slot].signal(9),
            is_dead=lambda slot: running[slot].is_dead(),
            zero_log=self._zeroing.zero_log,
            zero_units=self._zeroing.zero_units,
            bells=self.bells,
            semaphore=self._semaphore,
        )

    def close(self, *, clean: bool) -> None:
        """Let go of everything. After a clean end the marks say so, and page and semaphore are removed.

        Otherwise both stay, with the marks of a crash: the next start repairs and recovers.
        """
        self._semaphore.close()
        if clean and AppendJournal(self.page).empty():
            mark_stopped(self.layout, Identity.of_stop(self.layout, self.page))
            self.page.retire()
            faults.reach("stop.page_retired")
            ControlPage.unlink(self.page_name)
            unlink_semaphore(self.semaphore_name)
        self.page.close()
        for bell in self.bells:
            bell.close()


def end_leftovers(root: Path) -> None:
    """End whoever is left of an earlier run; under the store lock, before its sockets are opened again.

    Unavailable, with their pids, when some cannot be ended.
    """
    kept = _attach_kept(page_name(root))
    try:
        lock_out_appenders(root, _recorded(kept)).release()
    finally:
        if kept is not None:
            kept.close()


def _attach_kept(name: str) -> ControlPage | None:
    """The page an earlier run left, when it can be used at all."""
    try:
        return ControlPage.attach(name)
    except Unavailable:
        return None
    except ShmqError as fault:
        log.event(_logger, logging.WARNING, "kept_page_unusable", reason=fault)
        return None


def _recorded(kept: ControlPage | None) -> list[tuple[int, int]]:
    """(pid, start time) of everybody the kept page knows."""
    if kept is None:
        return []
    return [(slot.pid, slot.start_time) for slot in SlotTable(kept).taken()]


def _repair_kept(layout: StoreLayout, name: str, kept: ControlPage, bells: list[Doorbell]) -> None:
    """Repair a kept page whole, whatever its slots say.

    Not one of another boot of the host, nor one of other files: restored, or written by another engine since.
    """
    if not is_of_these_files(kept, layout, read_marks(layout)):
        log.event(_logger, logging.WARNING, "kept_page_not_of_these_files")
        return
    zeroing = Zeroing(layout, kept)
    semaphore = _open_or_create_semaphore(name, kept)
    try:
        repair(
            kept,
            live_slots=(),
            kill=lambda slot: None,
            is_dead=lambda slot: True,
            zero_log=zeroing.zero_log,
            zero_units=zeroing.zero_units,
            bells=bells,
            semaphore=semaphore,
        )
    finally:
        semaphore.close()
    for slot in SlotTable(kept).taken():
        slot.empty()


def _open_or_create_semaphore(name: str, page: ControlPage) -> posix_ipc.Semaphore:
    try:
        return open_semaphore(semaphore_name(name, page))
    except Unavailable:
        return open_semaphore(create_semaphore(name, page))


def _let_append(lock: SharedFileLock) -> None:
    lock.unlock()
    lock.release()
