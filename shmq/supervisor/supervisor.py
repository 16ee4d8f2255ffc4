"""Supervisor: the parent of one broker. Boring on purpose.

What it is for    it holds the store lock for life, owns sockets, bells and control page, starts coordinator
                  and workers, repairs shared memory after a death, and starts what died again. Flushing,
                  segment allocation and the name server run in threads beside it, where they may block.
How it starts     by `shmq-broker`, step by step (`_steps`); READY once every child serves.
How it ends       SIGTERM or SIGINT: the steps in reverse, within 5 s, everything flushed; a second signal
                  does not wait.
Its crash         all children see the end of their pipe and leave; the service manager starts it again, and
                  that start repairs or recovers before anything else.

The main loop (`_turn`) only reaps, restarts and looks for stuck appenders: it never takes the AppendLock,
never waits for a disk, never talks to a client.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import setproctitle

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.base.files import StoreLock
from shmq.base.systemd import ServiceManager, inherited_sockets
from shmq.model.settings import BrokerSettings, store_root
from shmq.shm.boot import ChildBoot, ChildRole
from shmq.supervisor.flush_service import FlushService
from shmq.supervisor.fronts import Fronts, advertised_address, is_loopback, open_fronts
from shmq.supervisor.lifecycle import Lifecycle, Step
from shmq.supervisor.naming_service import NamingService
from shmq.supervisor.process_tree import ProcessTree
from shmq.supervisor.shared_state import SharedState, end_leftovers
from shmq.supervisor.signals import STOP_SIGNALS, SignalQueue

READY_LIMIT_MS = 30_000
"""The broker is announced after so long even if a child does not serve yet; the log says which."""
SWITCH_INTERVAL_S = 50e-6
"""A thread back from fdatasync waits so long at most for the interpreter; the default costs a send 5 ms."""

_logger = log.get("shmq.supervisor")


class Supervisor:
    """One broker's life."""

    def __init__(
        self, settings: BrokerSettings, warnings: list[str], folder: Path, *, adopt: bool = False
    ) -> None:
        """Take frozen settings and the folder of the sockets; nothing happens before `run`."""
        self._settings = settings
        self._warnings = warnings
        self._adopt = adopt
        self._root = store_root(settings)
        self._manager = ServiceManager()
        self._selector = selectors.DefaultSelector()
        self._lock: StoreLock | None = None
        self._signals: SignalQueue | None = None
        self._folder = folder
        self._fronts: Fronts | None = None
        self._shared: SharedState | None = None
        self._flush: FlushService | None = None
        self._flushed = False
        self._children_left = True
        self._broken = False
        self._ended_clean = False
        self._naming: NamingService | None = None
        self._tree: ProcessTree | None = None
        self._pipe: tuple[int, int] = (-1, -1)
        self._announced = False
        self._stopping = False
        self._began_ms = monotonic_ms()
        self._next_alive_ms = 0

    def run(self) -> int:
        """Start, serve, stop; returns the exit status. ShmqError when it cannot start."""
        lifecycle = Lifecycle(self._steps())
        lifecycle.start()
        failure: str | None = None
        try:
            while not self._stopping and failure is None:
                self._turn()
                failure = self._failure()
        except Exception as error:
            # The edge of the process. After an error inside a repair nothing but a new start may go on.
            log.event(_logger, logging.CRITICAL, "supervisor_failed", exc_info=True)
            failure = f"failed: {error!r}; the next start repairs the store"
            self._broken = True
        self._manager.stopping()
        log.event(_logger, logging.INFO, "stopping", reason=failure or "asked")
        lifecycle.stop()
        if failure is not None:
            print(f"shmq-broker: {failure}", file=sys.stderr)
        return 0 if self._ended_clean and not failure and not lifecycle.failed_stops else 1

    def _steps(self) -> list[Step]:
        """The order of the start; the stop is the reverse."""
        return [
            Step("process", self._set_up_process),
            Step("store_lock", self._take_store_lock, self._drop_store_lock),
            Step("leftovers", lambda: end_leftovers(self._root)),
            Step("fronts", self._open_fronts, self._close_fronts),
            Step("store", self._open_store, self._close_store),
            Step("flush", self._start_flush, self._stop_flush),
            Step("naming", self._start_naming, self._stop_naming),
            Step("children", self._start_children, self._stop_children),
        ]

    # -- steps ---------------------------------------------------------------------------------------------

    def _set_up_process(self) -> None:
        name = self._settings.broker_name
        self._signals = SignalQueue()  # before the title: by that `shmq-shutdown` finds whom to signal
        setproctitle.setproctitle(f"shmq: supervisor {name}")
        log.setup("supervisor", log.log_folder(self._settings.log_dir), self._settings.log_level)
        log.event(_logger, logging.INFO, "starting", broker=name, pid=os.getpid(), store=self._root)
        for warning in self._warnings:
            log.event(_logger, logging.WARNING, "setting", warning=warning)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signal)

    def _take_store_lock(self) -> None:
        self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = StoreLock(self._root / "lock")
        lock.acquire()
        self._lock = lock

    def _drop_store_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _open_fronts(self) -> None:
        self._fronts = open_fronts(self._settings, self._folder, inherited_sockets())
        self._settings = dataclasses.replace(
            self._settings,
            listen_port=self._fronts.listen_port,
            broker_ip1=advertised_address(self._settings),
        )

    def _close_fronts(self) -> None:
        if self._fronts is not None:
            self._fronts.close()

    def _open_store(self) -> None:
        assert self._signals is not None
        self._shared = SharedState.open(
            self._root,
            self._settings,
            self._signals,
            adopt=self._adopt,
            log_dir=log.log_folder(self._settings.log_dir),
        )

    def _close_store(self) -> None:
        if self._shared is not None:
            self._ended_clean = self._flushed and self._children_left and not self._broken
            self._shared.close(clean=self._ended_clean)

    def _start_flush(self) -> None:
        assert self._shared is not None
        shared = self._shared
        self._flush = FlushService(shared.layout, shared.page, shared.bells, self._settings)
        self._flush.start()

    def _stop_flush(self) -> None:
        if self._flush is not None:
            self._flushed = self._flush.stop()

    def _start_naming(self) -> None:
        self._naming = NamingService(self._settings, self._folder, kv_config_path(self._settings))
        self._naming.start()
        self._settings = dataclasses.replace(self._settings, namesrv_addr=self._naming.addresses)
        if is_loopback(self._settings.broker_ip1):
            remote = [one for one in self._naming.addresses.split(";") if not _is_local_name_server(one)]
            if remote:
                log.event(
                    _logger,
                    logging.WARNING,
                    "loopback_address_registered",
                    address=self._settings.broker_ip1,
                    name_servers=";".join(remote),
                    advice="other hosts cannot reach it: set bindAddress or brokerIP1",
                )

    def _stop_naming(self) -> None:
        if self._naming is not None:
            self._naming.stop()

    def _start_children(self) -> None:
        assert self._shared is not None and self._fronts is not None
        self._pipe = os.pipe()
        self._tree = ProcessTree(self._shared, self._selector, self._fronts.equip)
        self._tree.start(
            ChildBoot(
                role=ChildRole.WORKER,
                slot=-1,
                index=-1,
                settings=self._settings,
                store_root=self._root,
                page_name=self._shared.page_name,
                semaphore_name=self._shared.semaphore_name,
                bell_fds=tuple(bell.fileno() for bell in self._shared.bells),
                supervisor_fd=self._pipe[0],
                status_fd=-1,
                runtime_dir=self._folder,
                log_dir=log.log_folder(self._settings.log_dir),
            )
        )

    def _stop_children(self) -> None:
        if self._tree is not None:
            self._children_left = False
            if self._broken:
                self._tree.kill()
            else:
                self._children_left = self._tree.stop(self._signals)
        for fd in self._pipe:
            if fd >= 0:
                os.close(fd)
        self._pipe = (-1, -1)

    # -- the main loop -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One duty cycle: what happened, what is due, then sleep until the next of either."""
        assert self._tree is not None and self._shared is not None
        for key, _ in self._selector.select(self._pause_s(monotonic_ms())):
            key.data(key.fd)
        now_ms = monotonic_ms()
        self._tree.start_due(now_ms)
        self._shared.look_for_stuck(self._tree.live(), now_ms)
        if now_ms >= self._next_alive_ms and self._manager.watchdog_interval_ms is not None:
            self._manager.alive()
            self._next_alive_ms = now_ms + self._manager.watchdog_interval_ms
        if not self._announced and (self._tree.all_ready or now_ms - self._began_ms > READY_LIMIT_MS):
            self._announce()

    def _pause_s(self, now_ms: int) -> float | None:
        """How long the loop may sleep: until the next start, look or watchdog beat."""
        assert self._tree is not None and self._shared is not None
        due = [self._shared.next_look_ms, self._tree.next_start_ms()]
        if self._manager.watchdog_interval_ms is not None:
            due.append(self._next_alive_ms)
        if not self._announced:
            due.append(self._began_ms + READY_LIMIT_MS)
        known = [moment for moment in due if moment is not None]
        return max(0, min(known) - now_ms) / 1000 if known else None

    def _on_signal(self, _fd: int) -> None:
        assert self._signals is not None
        for number in self._signals.take():
            if number in STOP_SIGNALS:
                log.event(_logger, logging.INFO, "signal", name=signal.Signals(number).name)
                self._stopping = True

    def _failure(self) -> str | None:
        assert self._tree is not None
        return self._tree.failure

    def _announce(self) -> None:
        """Say, once, that the broker serves and where: one line on stdout, READY to the service manager."""
        assert self._fronts is not None and self._naming is not None
        settings = self._settings
        places: dict[str, Any] = {
            "name": settings.broker_name,
            "pid": os.getpid(),
            "unix": self._fronts.unix_path,
            "tcp": f"{settings.broker_ip1}:{settings.listen_port}",
            "fast": f"{settings.broker_ip1}:{settings.listen_port - 2}",
            "namesrv": settings.namesrv_addr,
            "namesrvUnix": self._naming.unix_path or "",
            "store": self._root,
        }
        line = " ".join(f"{key}={quote(str(value), safe='/:;,.-_')}" for key, value in places.items())
        with contextlib.suppress(OSError):  # whoever started us does not listen any more
            print(f"shmq-broker ready {line}", flush=True)
        log.event(_logger, logging.INFO, "ready", ms=monotonic_ms() - self._began_ms, **places)
        self._manager.ready(f"serving {self._fronts.unix_path} and {places['tcp']}")
        self._announced = True


def kv_config_path(settings: BrokerSettings) -> Path:
    """The own name server's KV file: beside a store of its own place, else shared by this user's brokers."""
    if settings.store_path_root_dir:
        return store_root(settings) / "namesrv" / "kvConfig.json"
    return Path.home() / ".local" / "share" / "shmq" / "namesrv" / "kvConfig.json"


def _is_local_name_server(address: str) -> bool:
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0])
