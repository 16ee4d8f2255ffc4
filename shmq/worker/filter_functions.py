"""Filter functions: Python code that an operator installed, run in processes of their own, asked per pull.

A worker has one process per function that its consumers use, at most `filterServerNums` of them; it starts
one when first needed, again when the installed file is another one, and again after it died. The worker never
waits: records go into the process's socket, verdicts come back through the loop. What takes longer than
`filterFunctionTimeout` is killed. A batch whose process died is tried again half as large; a single message
whose process dies is let through, as is one for which the function raised: a filter's mistake may cost its
group some messages it did not want, never one it did. Runs in the worker's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import socket
import struct
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from shmq.base import log
from shmq.base.errors import InvalidParameter, RequestNotSupported, ServiceNotAvailable, ShmqError, SystemBusy
from shmq.filters import function_child
from shmq.filters.function_child import RAISED
from shmq.handlers.context import Then, Verdicts
from shmq.model.broker_settings import BrokerSettings

BATCHES_WAITING_MAX = 256
START_LIMIT_S = 10.0
"""How long a process may take until it has loaded its function."""

_U32 = struct.Struct(">I")
_ANSWER_MAX = 1 << 20

_logger = log.get(__name__)


class _Batch(NamedTuple):
    records: Sequence[bytes]
    then: Then


class FilterFunctions:
    """The function processes of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        folder: Path,
        settings: BrokerSettings,
        count: Callable[[str, int], None],
        before_start: Callable[[], None],
    ) -> None:
        """`folder` holds the installed code, a file per function; call `before_start` before each process."""
        self._loop = loop
        self._folder = folder
        self._settings = settings
        self._count = count
        self._before_start = before_start
        self._running: OrderedDict[str, _FunctionProcess] = OrderedDict()

    def judge(self, name: str, records: Sequence[bytes], then: Then) -> None:
        """Have a function judge records; `then` gets the verdicts of at least the first one, or an error.

        Raises RequestNotSupported when functions are off, InvalidParameter for one that is not installed,
        SystemBusy when too much waits for it.
        """
        process = self._process(name)
        if len(process.waiting) >= BATCHES_WAITING_MAX:
            raise SystemBusy(f"[OVERLOAD] too many pulls wait for filter function {name}: pull again later")
        process.submit(_Batch(records, then))

    def _process(self, name: str) -> _FunctionProcess:
        most = self._settings.filter_server_nums
        if not most:
            raise RequestNotSupported("filter functions are off (filterServerNums=0)")
        path = self._folder / f"{name}.py"
        try:
            found = path.stat()
        except FileNotFoundError:
            raise InvalidParameter(
                f"filter function {name} is not installed: an operator does that with installFilter"
            ) from None
        version = (found.st_ino, found.st_mtime_ns)
        process = self._running.get(name)
        if process is not None and process.version != version:
            process.end()
            process = None
        if process is None:
            while len(self._running) >= most:
                oldest = next((other for other, p in self._running.items() if not p.is_busy), None)
                if oldest is None:
                    raise SystemBusy(
                        f"all {most} filter processes of this worker are busy (filterServerNums): pull again"
                    )
                self._running.pop(oldest).end()
            process = _FunctionProcess(
                self._loop, path, version, self._settings, self._count, self._before_start
            )
            self._running[name] = process
        self._running.move_to_end(name)
        return process

    def close(self) -> None:
        """End all of them."""
        for process in self._running.values():
            process.end()
        self._running.clear()


class _FunctionProcess:
    """One function's process, started and started again as needed; one batch is under way at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        version: tuple[int, int],
        settings: BrokerSettings,
        count: Callable[[str, int], None],
        before_start: Callable[[], None],
    ) -> None:
        self.version = version
        self.waiting: deque[_Batch] = deque()
        self._loop = loop
        self._path = path
        self._settings = settings
        self._count = count
        self._before_start = before_start
        self._current: _Batch | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._loaded = False
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self._limit: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        return self._current is not None

    def submit(self, batch: _Batch) -> None:
        self.waiting.append(batch)
        self._next()

    def _next(self) -> None:
        if self._current is not None or not self.waiting:
            return
        self._current = self.waiting.popleft()
        if self._sock is None:
            try:
                self._start()
            except OSError as error:
                self._settle(ServiceNotAvailable(f"no process for filter {self._path.stem}: {error}"))
                return
        if self._loaded:
            self._send()
        else:
            self._arm(START_LIMIT_S)

    def _start(self) -> None:
        self._before_start()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._child = subprocess.Popen(
                    _command(theirs.fileno(), self._path, self._settings),
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._sock = ours
        self._loaded = False
        self._loop.add_reader(ours, self._on_readable)
        self._count("filter_starts", 1)
        name, pid = self._path.stem, self._child.pid
        log.event(_logger, logging.INFO, "filter_process_started", function=name, pid=pid)

    def _send(self) -> None:
        assert self._current is not None and self._sock is not None
        self._arm(self._settings.filter_function_timeout / 1000)
        parts = [_U32.pack(len(self._current.records))]
        for record in self._current.records:
            parts += (_U32.pack(len(record)), record)
        self._outgoing = memoryview(b"".join(parts))
        self._on_writable()

    def _on_writable(self) -> None:
        assert self._sock is not None
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._sock.send(self._outgoing) :]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._on_writable)
            return
        except OSError as error:
            self._died(str(error))
            return
        self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died("it ended")
            return
        self._incoming += data
        if len(self._incoming) < _U32.size:
            return
        (length,) = _U32.unpack_from(self._incoming)
        if not 1 <= length <= _ANSWER_MAX:
            self._died("its answer makes no sense")
        elif len(self._incoming) >= _U32.size + length:
            answer = bytes(self._incoming[_U32.size : _U32.size + length])
            del self._incoming[: _U32.size + length]
            self._answered(answer)

    def _answered(self, answer: bytes) -> None:
        if answer[0]:
            text = answer[1:].decode("utf-8", "replace")
            self._stop()
            self._settle(ServiceNotAvailable(f"filter function {self._path.stem} cannot be loaded: {text}"))
        elif not self._loaded:
            self._loaded = True
            if self._current is not None:
                self._send()
        elif self._current is None or len(answer) - 1 != len(self._current.records):
            self._died("its answer makes no sense")
        else:
            raised = answer.count(RAISED, 1)
            if raised:
                self._count("filter_failures", raised)
            self._count("filter_judged", len(answer) - 1)
            self._settle(answer[1:])

    def _died(self, why: str) -> None:
        """Its process is gone, or must go: try less at once, and let a single message through."""
        was_loaded = self._loaded
        self._stop()
        self._count("filter_deaths", 1)
        batch = self._current
        log.event(
            _logger,
            logging.WARNING,
            "filter_process_died",
            function=self._path.stem,
            reason=why,
            records=0 if batch is None else len(batch.records),
        )
        if batch is None:
            return
        if not was_loaded:
            self._settle(
                ServiceNotAvailable(f"the process of filter function {self._path.stem} did not start: {why}")
            )
            return
        if len(batch.records) == 1:
            self._count("filter_failures", 1)
            self._settle(bytes([RAISED]))
            return
        self._disarm()
        self._current = None
        self.waiting.appendleft(_Batch(batch.records[: len(batch.records) // 2], batch.then))
        self._next()

    def _settle(self, outcome: Verdicts | ShmqError) -> None:
        self._disarm()
        batch, self._current = self._current, None
        if batch is not None:
            batch.then(outcome)
        self._next()

    def _arm(self, limit_s: float) -> None:
        self._disarm()
        self._limit = self._loop.call_later(limit_s, self._died, f"no answer in {limit_s:g} s")

    def _disarm(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _stop(self) -> None:
        """Kill the process and forget its socket."""
        self._loaded = False
        self._outgoing = memoryview(b"")
        self._incoming.clear()
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(1)
            self._child = None

    def end(self) -> None:
        """End for good; what waits is told to come again."""
        self._stop()
        gone = ServiceNotAvailable(f"filter function {self._path.stem} was replaced or stopped: pull again")
        waiting, self.waiting = list(self.waiting), deque()
        for batch in waiting:
            batch.then(gone)
        self._settle(gone)


def _command(fd: int, path: Path, settings: BrokerSettings) -> list[str]:
    uid = _nobody() if os.getuid() == 0 else -1
    cpu_s = max(1, -(-settings.filter_function_timeout // 1000))
    limits = (settings.filter_function_memory, cpu_s, uid, os.getpid())
    return [
        *(sys.executable, "-I", "-S", "-B", function_child.__file__),
        *(str(fd), str(path), *map(str, limits), json.dumps([entry for entry in sys.path if entry])),
    ]


def _nobody() -> int:
    """Who a function is when the broker is root; everywhere that number when there is no such name."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534
