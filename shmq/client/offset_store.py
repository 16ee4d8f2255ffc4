"""Offset stores: how far each owned queue is consumed, and where that is kept.

Clustering keeps it at the broker (`RemoteOffsetStore`: every 5 s, when a queue is given away and at
shutdown); broadcasting in a local file (`LocalOffsetStore`: `<base>/<clientId>/<group>/offsets.json` and
`.bak`, RocketMQ's format, base `$ROCKETMQ_LOCAL_OFFSET_STORE_DIR` or ~/.rocketmq_offsets). Both hold the
values in memory first; `_lock` guards the map. Counts of messages read directly travel with the remote
commits.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Collection
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from shmq.base import log
from shmq.base.errors import ClientFault, ShmqError
from shmq.base.files import write_durably
from shmq.client.errors import RemotingError
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.dialect import queue_of
from shmq.protocol.fastjson import loads as tolerant_loads

NO_OFFSET = -1
"""Nothing is stored for that queue: consume-from-where decides."""

_LOG = log.get(__name__)


class ReadMode(Enum):
    """Where `read` looks."""

    MEMORY = "MEMORY"
    STORE = "STORE"
    MEMORY_THEN_STORE = "MEMORY_THEN_STORE"


class ReadCount(NamedTuple):
    """What was read of a queue directly since the last commit."""

    messages: int = 0
    bytes: int = 0


class OffsetStore(Protocol):
    """What consumers need of an offset store."""

    def load(self) -> None:
        """Read what is kept locally, if anything."""

    def update(self, queue: MessageQueue, offset: int, *, increase_only: bool = True) -> None:
        """Remember an offset; with `increase_only` a smaller one is ignored."""

    def read(self, queue: MessageQueue, mode: ReadMode) -> int:
        """Return the offset, `NO_OFFSET` when none is stored; errors of the broker are raised."""

    def persist(self, queues: Collection[MessageQueue], *, wait: bool = False) -> None:
        """Store the offsets of these queues; a failure is logged and tried again next time.

        With `wait` they are stored when this returns: whoever takes the queue next must see them.
        """

    def remove(self, queue: MessageQueue) -> None:
        """Forget a queue that is no longer owned."""

    def count_read(self, queue: MessageQueue, messages: int, size: int) -> None:
        """Note a direct read, to be reported with the next commit."""


COMMIT_TIMES = 3
COMMIT_AGAIN_S = 300.0


class _Sent(NamedTuple):
    """What was last committed of a queue, how often, and when it is committed again all the same."""

    offset: int
    times: int
    again_s: float


class RemoteOffsetStore:
    """Offsets kept at the broker of each queue.

    Commits are oneway: nobody says when one is lost. So an offset that does not move is committed
    COMMIT_TIMES, then it rests: thousands of idle consumers must not cost a broker a request per queue and
    5 s, as RocketMQ's do. Brokers that were away are told again (`tell_again`), and all of them after
    COMMIT_AGAIN_S, as an operator may have forgotten a group; not while they would tell of that.
    """

    def __init__(
        self,
        fetch: Callable[[MessageQueue], int],
        commit: Callable[[MessageQueue, int, ReadCount, bool, bool], None],
        is_told: Callable[[], bool] = lambda: False,
    ) -> None:
        """`fetch` asks a broker (NO_OFFSET when it has none); `commit` tells it, oneway or not, and whether
        an offset behind the stored one is to be ignored. `is_told`: brokers tell now of every change of the
        group, and `tell_again` is called then."""
        self._fetch = fetch
        self._commit = commit
        self._is_told = is_told
        self._lock = threading.Lock()
        self._offsets: dict[MessageQueue, int] = {}
        self._counts: dict[MessageQueue, ReadCount] = {}
        self._sent: dict[MessageQueue, _Sent] = {}
        self._goes_back: set[MessageQueue] = set()
        """Queues whose next commit may be behind the stored offset, as somebody wanted that. Any other one
        that is behind comes late: from a member that does not know yet that another owns the queue."""

    def load(self) -> None:
        """Nothing is kept locally."""

    def update(self, queue: MessageQueue, offset: int, *, increase_only: bool = True) -> None:
        """Remember an offset; with `increase_only` a smaller one is ignored."""
        with self._lock:
            held = self._offsets.get(queue)
            if not increase_only:
                self._sent.pop(queue, None)  # somebody wants it there now, whoever moved it meanwhile
                if held is None or offset < held:
                    self._goes_back.add(queue)
            if not increase_only or held is None or offset > held:
                self._offsets[queue] = offset

    def read(self, queue: MessageQueue, mode: ReadMode) -> int:
        """Return the offset in memory, or the broker's (which is then remembered)."""
        if mode is not ReadMode.STORE and (held := self._offsets.get(queue)) is not None:
            return held
        if mode is ReadMode.MEMORY:
            return NO_OFFSET
        offset = self._fetch(queue)
        if offset >= 0:
            with self._lock:
                self._offsets[queue] = offset
        return offset

    def persist(self, queues: Collection[MessageQueue], *, wait: bool = False) -> None:
        """Commit each queue's offset, oneway unless `wait`; one that rests only then."""
        silent: set[str] = set()
        now_s = -math.inf if self._is_told() else time.monotonic()
        for queue in queues:
            if queue.broker_name in silent:
                continue  # one time-out is enough: the others of that broker wait for the next round
            with self._lock:
                offset = self._offsets.get(queue)
                count = self._counts.pop(queue, ReadCount())
                goes_back = queue in self._goes_back
                self._goes_back.discard(queue)
                sent = self._sent.get(queue)
            if not count.messages and (
                offset is None or (not wait and not goes_back and _rests(sent, offset, now_s))
            ):
                continue
            try:
                # A negative offset stores nothing; the count is wanted all the same.
                # One that goes back has an answer: a later commit could overtake it on another connection.
                oneway = not (wait or goes_back)
                self._commit(queue, NO_OFFSET if offset is None else offset, count, oneway, not goes_back)
                if offset is not None:
                    self._note_sent(queue, offset, sent)
            except ShmqError as error:
                _LOG.warning("committing offset %s of %s failed: %s", offset, queue, error)
                self.count_read(queue, *count)
                if goes_back:
                    self._goes_back.add(queue)
                if isinstance(error, RemotingError):
                    silent.add(queue.broker_name)

    def _note_sent(self, queue: MessageQueue, offset: int, before: _Sent | None) -> None:
        """Count a commit, unless its broker went away or somebody moved the offset meanwhile."""
        times = before.times + 1 if before is not None and before.offset == offset else 1
        with self._lock:
            if self._sent.get(queue) is before:
                self._sent[queue] = _Sent(offset, times, time.monotonic() + COMMIT_AGAIN_S)

    def remove(self, queue: MessageQueue) -> None:
        """Forget a queue that is no longer owned."""
        with self._lock:
            self._offsets.pop(queue, None)
            self._sent.pop(queue, None)
            self._counts.pop(queue, None)
            self._goes_back.discard(queue)

    def tell_again(self) -> None:
        """A broker may be without the last commits, as it was away or its group has changed: none rests."""
        with self._lock:
            self._sent.clear()

    def count_read(self, queue: MessageQueue, messages: int, size: int) -> None:
        """Note a direct read, to be reported with the next commit."""
        with self._lock:
            held = self._counts.get(queue, ReadCount())
            self._counts[queue] = ReadCount(held.messages + messages, held.bytes + size)


def _rests(sent: _Sent | None, offset: int, now_s: float) -> bool:
    """Tell whether an offset has been committed often enough."""
    return sent is not None and sent.offset == offset and sent.times >= COMMIT_TIMES and now_s < sent.again_s


class LocalOffsetStore:
    """Offsets of a broadcasting consumer, in a file of this host."""

    def __init__(self, client_id: str, group: str) -> None:
        """Name the file; `load` reads it."""
        base = os.environ.get("ROCKETMQ_LOCAL_OFFSET_STORE_DIR") or Path.home() / ".rocketmq_offsets"
        self._path = Path(base) / client_id / group / "offsets.json"
        self._lock = threading.Lock()
        self._offsets: dict[MessageQueue, int] = {}

    def load(self) -> None:
        """Read the file or its backup; ClientFault when both are there and damaged."""
        backup = self._path.with_name(self._path.name + ".bak")
        for path in (self._path, backup):
            try:
                self._offsets = _decode(path.read_text())
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError) as error:
                _LOG.warning("the offset file %s is damaged: %s", path, error)
                continue
            return
        if self._path.exists() or backup.exists():
            raise ClientFault(
                f"the offset file {self._path} and its backup are damaged: repair or remove them"
            )

    def update(self, queue: MessageQueue, offset: int, *, increase_only: bool = True) -> None:
        """Remember an offset; with `increase_only` a smaller one is ignored."""
        with self._lock:
            if not increase_only or offset > self._offsets.get(queue, NO_OFFSET):
                self._offsets[queue] = offset

    def read(self, queue: MessageQueue, mode: ReadMode) -> int:
        """Return the offset; the file's content was loaded at start, so all modes agree."""
        return self._offsets.get(queue, NO_OFFSET)

    def persist(self, queues: Collection[MessageQueue], *, wait: bool = False) -> None:
        """Write the whole file; the old one becomes the backup."""
        with self._lock:
            if not self._offsets:
                return
            text = _encode(self._offsets)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, text.encode(), backup=True)
        except OSError as error:
            _LOG.warning("the offset file %s could not be written: %s", self._path, error)

    def remove(self, queue: MessageQueue) -> None:
        """Keep it: the file names every queue this consumer ever read."""

    def count_read(self, queue: MessageQueue, messages: int, size: int) -> None:
        """Broadcasting commits nothing to a broker, so nothing can carry the count."""


def _encode(offsets: dict[MessageQueue, int]) -> str:
    """Return RocketMQ's form: the keys are queue objects."""
    pairs = (
        json.dumps(
            {"brokerName": q.broker_name, "queueId": q.queue_id, "topic": q.topic}, separators=(",", ":")
        )
        + f":{offset}"
        for q, offset in sorted(offsets.items())
    )
    return '{"offsetTable":{' + ",".join(pairs) + "}}"


def _decode(text: str) -> dict[MessageQueue, int]:
    """Read the form above; keys may also be the queue's JSON text inside a string, as strict writers do
    it."""
    return {queue_of(key): int(offset) for key, offset in tolerant_loads(text)["offsetTable"].items()}
