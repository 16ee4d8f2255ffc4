"""Loaded by every Python process that has this folder on its path and SHMQ_BENCH_STAGES in its environment:
times stages inside shmq's own processes, without a line in shmq for it.

When a module of STAGES is imported, the functions named there are replaced by ones that add their calls and
nanoseconds to a mapped file of this process, FOLDER/<pid>: two 8-byte words a stage, in the order of
STAGES, then two of OVERHEAD. A process that is killed leaves its figures behind. Stages nest: each time is
that of everything within. `LOCK_HELD` is what lies between two functions: the end of an acquire, and the
release that follows it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

LOCK_HELD = "append lock held"
OVERHEAD = "tracing one call"
STAGES: tuple[tuple[str, str, str], ...] = (
    ("the whole call", "shmq.client.producer", "Producer.send"),
    ("prepare the message", "shmq.client.outgoing", "Outgoing.__init__"),
    ("make the frame", "shmq.client.send_commands", "SendCommands.single_frame"),
    ("prepare the batch", "shmq.client.outgoing_batch", "OutgoingBatch.__init__"),
    ("encode the batch", "shmq.client.outgoing_batch", "OutgoingBatch.records"),
    ("read the answer", "shmq.client.quick_answer", "read_quick_answer"),
    ("take what was read", "shmq.net.connection", "Connection.data_received"),
    ("cut frames", "shmq.protocol.frame", "FrameDecoder.feed"),
    ("decode the command", "shmq.protocol.command", "decode_frame"),
    ("serve the request", "shmq.worker.dispatcher", "Dispatcher.on_command"),
    ("encode the record", "shmq.model.record", "encode_record"),
    ("check the batch", "shmq.model.batch_check", "check_batch"),
    ("append the turn and answer", "shmq.worker.append_turn", "AppendTurn._append"),
    ("append", "shmq.store.message_store", "MessageStore.append"),
    (LOCK_HELD, "shmq.shm.append_lock", "AppendLock"),
    ("encode the answer", "shmq.protocol.command", "encode_command"),
    ("write answers", "shmq.net.connection", "Connection._write"),
)
"""(stage, module, function or method), in the order of a message's path."""
NAMES = (*(name for name, _, _ in STAGES), OVERHEAD)
WORDS = 2 * len(NAMES)
CALIBRATION = 2_000

_clock = time.perf_counter_ns


class _Cells:
    """The mapped file of this process; made anew after a fork."""

    words: memoryview

    @classmethod
    def open(cls) -> None:
        path = os.path.join(os.environ["SHMQ_BENCH_STAGES"], str(os.getpid()))
        with open(path, "w+b") as file:
            file.truncate(8 * WORDS)
            cls.words = memoryview(mmap.mmap(file.fileno(), 8 * WORDS)).cast("q")


def _timed(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        began = _clock()
        try:
            return function(*args, **kwargs)
        finally:
            words = _Cells.words
            words[place] += 1
            words[place + 1] += _clock() - began

    return call


def _time_lock(lock: Any, place: int) -> None:
    """Patch acquire and release. One thread per process holds it: one variable is enough."""
    acquire, release = lock.acquire, lock.release
    since = 0

    @functools.wraps(acquire)
    def timed_acquire(self: Any) -> None:
        nonlocal since
        acquire(self)
        since = _clock()

    @functools.wraps(release)
    def timed_release(self: Any, *args: Any) -> None:
        words = _Cells.words
        words[place] += 1
        words[place + 1] += _clock() - since
        release(self, *args)

    lock.acquire, lock.release = timed_acquire, timed_release


def _patch(module: ModuleType) -> None:
    """Replace the module's stages; a name that this tree does not have is left out."""
    for number, (name, module_name, path) in enumerate(STAGES):
        if module_name != module.__name__:
            continue
        owner_name, _, attribute = path.rpartition(".")
        owner = getattr(module, owner_name, None) if owner_name else module
        if name == LOCK_HELD:
            _time_lock(getattr(module, attribute), 2 * number)
        elif owner is not None and hasattr(owner, attribute):
            setattr(owner, attribute, _timed(getattr(owner, attribute), 2 * number))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing by itself: lets the others find, and patches what they load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


MODULES = {module for _, module, _ in STAGES}


def _calibrate() -> None:
    """Note what tracing one call costs."""
    place = 2 * (len(NAMES) - 1)
    nothing = _timed(lambda: None, place)
    began = _clock()
    for _ in range(CALIBRATION):
        nothing()
    spent = _clock() - began
    _Cells.words[place], _Cells.words[place + 1] = CALIBRATION, spent


def _begin() -> None:
    _Cells.open()
    os.register_at_fork(after_in_child=_Cells.open)
    _calibrate()
    sys.meta_path.insert(0, _Finder())


if os.environ.get("SHMQ_BENCH_STAGES"):
    _begin()
