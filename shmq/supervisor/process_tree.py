"""The children of one broker: who runs in which slot, who died, who starts again and when.

Main thread of the supervisor only. It neither takes the AppendLock nor waits for a disk or a client. What a
death means for shared memory is `shared_state.py`'s business, which is asked before a slot is filled again.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.net.descriptor_passing import give, take_some
from shmq.shm.boot import COORDINATOR_SLOT, FIRST_WORKER_SLOT, ChildBoot, ChildExit, ChildRole
from shmq.shm.worker_slots import process_start_time
from shmq.supervisor.children import Child, NotStarted, Restarts, exit_text, spawn, wait_for_deaths
from shmq.supervisor.shared_state import SharedState
from shmq.supervisor.signals import SignalQueue

WORKERS_DRAIN_MS = 2800
COORDINATOR_DRAIN_MS = 1200
KILLED_GO_MS = 300
"""How long each kind may take to leave when the broker stops; together with the last flush below 5 s."""

_logger = log.get("shmq.supervisor")

faults.declare(
    {
        "tree.spawned": "a child was started, its slot is not filled",
        "tree.slot_filled": "a child's slot is filled, it was not told to go",
    }
)


class ProcessTree:
    """Coordinator and workers, by slot."""

    def __init__(
        self, shared: SharedState, selector: selectors.BaseSelector, equip: Callable[[ChildBoot], ChildBoot]
    ) -> None:
        """`equip` adds to a boot what its role needs; `selector` is the main loop's."""
        self._shared = shared
        self._selector = selector
        self._equip = equip
        self._running: dict[int, Child] = {}
        self._restarts: dict[int, Restarts] = {}
        self._pending: dict[int, ChildBoot] = {}
        self._handoffs: list[tuple[socket.socket, socket.socket]] = []
        self.failure: str | None = None
        """Why the broker cannot go on, once a child cannot start."""

    # -- up ------------------------------------------------------------------------------------------------

    def start(self, template: ChildBoot) -> None:
        """Spawn the coordinator and all workers; they import and boot at the same time."""
        workers = template.settings.broker_workers
        self._handoffs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        for sending, receiving in self._handoffs:
            sending.setblocking(False)
            receiving.setblocking(False)
        boots = [replace(template, role=ChildRole.COORDINATOR, slot=COORDINATOR_SLOT, index=0)]
        sending_fds = tuple(sending.fileno() for sending, _ in self._handoffs)
        for index, (_, receiving) in enumerate(self._handoffs):
            boots.append(
                replace(
                    template,
                    role=ChildRole.WORKER,
                    slot=FIRST_WORKER_SLOT + index,
                    index=index,
                    handoff_fds=sending_fds,
                    handoff_in_fd=receiving.fileno(),
                )
            )
        for boot in boots:
            self._restarts[boot.slot] = Restarts()
            self._pending[boot.slot] = self._equip(boot)
        self.start_due(monotonic_ms())

    def start_due(self, now_ms: int) -> None:
        """Start every child whose time has come."""
        for slot in list(self._pending):
            self._pass_on_connections(self._pending[slot])
            if self._restarts[slot].due_ms <= now_ms:
                self._start_one(self._pending.pop(slot))

    def _pass_on_connections(self, dead: ChildBoot) -> None:
        """Give connections that were handed to a dead worker to one that serves.

        Their clients would wait for answers until it is started again. When nobody serves they do wait: the
        first one that does takes its own. A full pair costs a connection, which its client makes again.
        """
        serving = [one.boot.index for one in self._running.values() if one.serves(ChildRole.WORKER)]
        if dead.role is not ChildRole.WORKER or not serving:
            return
        for turn, connection in enumerate(take_some(self._handoffs[dead.index][1])):
            if not give(self._handoffs[serving[turn % len(serving)]][0], connection):
                connection.close()

    def _start_one(self, boot: ChildBoot) -> None:
        restarts = self._restarts[boot.slot]
        try:
            fresh = spawn(boot)
        except NotStarted as error:
            restarts.after_failure(error, monotonic_ms())
            self._pending[boot.slot] = boot
            self._shared.counters.add("starts_delayed")
            log.event(_logger, logging.ERROR, "child_not_started", child=boot.title, reason=error)
            if restarts.hopeless:
                self.failure = f"{boot.title} could not be started: {error}"
            return
        self._running[boot.slot] = fresh
        self._selector.register(fresh.pid_fd, selectors.EVENT_READ, self._on_death)
        self._selector.register(fresh.status_fd, selectors.EVENT_READ, self._on_status)
        faults.reach("tree.spawned")
        try:
            self._shared.slots[boot.slot].fill(fresh.pid, process_start_time(fresh.pid))
        except ProcessLookupError:
            return  # it is dead already: its pidfd says so in the next turn
        faults.reach("tree.slot_filled")
        fresh.go()
        log.event(_logger, logging.INFO, "child_started", child=boot.title, pid=fresh.pid, slot=boot.slot)

    @property
    def all_ready(self) -> bool:
        """True when every child serves."""
        return not self._pending and all(running.ready for running in self._running.values())

    def next_start_ms(self) -> int | None:
        """When the next child is due to start; None: none waits."""
        return min((self._restarts[slot].due_ms for slot in self._pending), default=None)

    def live(self) -> dict[int, Child]:
        """The children that run, by slot (a dead one counts until its death was handled)."""
        return dict(self._running)

    # -- deaths --------------------------------------------------------------------------------------------

    def _on_status(self, fd: int) -> None:
        """A child wrote into its status pipe, or closed it (then its pidfd tells the rest)."""
        running = next((one for one in self._running.values() if one.status_fd == fd), None)
        if running is None or not running.read_status():
            self._selector.unregister(fd)

    def _on_death(self, fd: int) -> None:
        """A child died: repair what it left, and plan its restart."""
        running = next((one for one in self._running.values() if one.pid_fd == fd), None)
        if running is not None:
            self.after_death(running)

    def after_death(self, dead: Child) -> None:
        """Bury a dead child; may find more dead ones, when the repair had to kill."""
        slot = dead.boot.slot
        dead.read_status()  # it may have said that it serves in the moment before
        exit_code = self._bury(dead)
        restarts, now_ms = self._restarts[slot], monotonic_ms()
        restarts.after_death(dead, exit_code, now_ms)
        log.event(
            _logger,
            logging.WARNING,
            "child_died",
            child=dead.boot.title,
            pid=dead.pid,
            exit=exit_text(exit_code),
            again_in_ms=max(0, restarts.due_ms - now_ms),
        )
        self._shared.counters.add("children_died")
        if exit_code == -signal.SIGBUS:
            # The next one reads with care (`store/commit_log.py`): dying again of the same page helps nobody.
            self._shared.counters.add("deaths_by_sigbus")
        if restarts.due_ms > now_ms:
            self._shared.counters.add("starts_delayed")
        self._shared.after_death(slot, self._running)
        if (missing := self._shared.missing()) is not None:
            self.failure = missing
        elif exit_code == ChildExit.CANNOT_BOOT:
            self.failure = f"{dead.boot.title} cannot boot; its log line says why"
        elif restarts.hopeless:
            self.failure = f"{dead.boot.title} died {restarts.unready_deaths} times before it served"
        self._pending[slot] = dead.boot

    def _bury(self, dead: Child) -> int:
        del self._running[dead.boot.slot]
        for fd in (dead.pid_fd, dead.status_fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        return dead.bury()

    # -- down ----------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End every child at once, without a look at what they leave: the next start repairs it."""
        self._pending.clear()
        for running in self._running.values():
            running.signal(signal.SIGKILL)
        wait_for_deaths(self._running.values(), KILLED_GO_MS)

    def stop(self, signals: SignalQueue | None) -> bool:
        """Drain the workers, then the coordinator; kill who does not leave in time. Twice is harmless.

        A stop signal that comes meanwhile ends the waiting. Shared state is repaired after every death, so
        that the last flush and the clean end that follow see no half-written claim. False when a killed child
        is still there (it waits for a disk): then nobody may call this end clean.
        """
        self._pending.clear()
        for role, limit_ms in (
            (ChildRole.WORKER, WORKERS_DRAIN_MS),
            (ChildRole.COORDINATOR, COORDINATOR_DRAIN_MS),
        ):
            leaving = [one for one in self._running.values() if one.boot.role is role]
            for running in leaving:
                running.signal(signal.SIGTERM)
            late = wait_for_deaths(leaving, limit_ms, signals)
            for running in late:
                log.event(_logger, logging.WARNING, "child_killed", child=running.boot.title, pid=running.pid)
                running.signal(signal.SIGKILL)
            stuck = wait_for_deaths(late, KILLED_GO_MS)
            for running in leaving:
                if running not in stuck and self._running.get(running.boot.slot) is running:
                    exit_code = self._bury(running)
                    log.event(
                        _logger,
                        logging.INFO,
                        "child_left",
                        child=running.boot.title,
                        exit=exit_text(exit_code),
                    )
                    self._shared.after_death(running.boot.slot, self._running)
        for sending, receiving in self._handoffs:
            sending.close()
            receiving.close()
        self._handoffs.clear()
        return not self._running
