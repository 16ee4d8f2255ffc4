"""Offset stores: how far each owned queue is consumed, and where that is kept.

Clustering keeps it at the broker (`RemoteOffsetStore`: every 5 s, when a queue is given away and at
shutdown); broadcasting in a local file (`LocalOffsetStore`: `<base>/<clientId>/<group>/offsets.json` and
`.bak`, RocketMQ's format, base `$ROCKETMQ_LOCAL_OFFSET_STORE_DIR` or ~/.rocketmq_offsets). Both hold the
values in memory first; `_lock` guards the map. Counts of messages read directly travel with the remote
commits.
"""

from __future__ import annotations

import json
import os
import threading
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


class RemoteOffsetStore:
    """Offsets kept at the broker of each queue."""

    def __init__(
        self,
        fetch: Callable[[MessageQueue], int],
        commit: Callable[[MessageQueue, int, ReadCount, bool, bool], None],
    ) -> None:
        """`fetch` asks a broker (NO_OFFSET when it has none); `commit` tells it, oneway or not, and whether
        an offset behind the stored one is to be ignored."""
        self._fetch = fetch
        self._commit = commit
        self._lock = threading.Lock()
        self._offsets: dict[MessageQueue, int] = {}
        self._counts: dict[MessageQueue, ReadCount] = {}
        self._goes_back: set[MessageQueue] = set()
        """Queues whose next commit may be behind the stored offset, as somebody wanted that. Any other one
        that is behind comes late: from a member that does not know yet that another owns the queue."""

    def load(self) -> None:
        """Nothing is kept locally."""

    def update(self, queue: MessageQueue, offset: int, *, increase_only: bool = True) -> None:
        """Remember an offset; with `increase_only` a smaller one is ignored."""
        with self._lock:
            held = self._offsets.get(queue)
            if not increase_only and (held is None or offset < held):
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
        """Commit each queue's offset, oneway unless `wait`."""
        silent: set[str] = set()
        for queue in queues:
            if queue.broker_name in silent:
                continue  # one time-out is enough: the others of that broker wait for the next round
            with self._lock:
                offset = self._offsets.get(queue)
                count = self._counts.pop(queue, ReadCount())
                goes_back = queue in self._goes_back
                self._goes_back.discard(queue)
            if offset is None and not count.messages:
                continue
            try:
                # A negative offset stores nothing; the count is wanted all the same.
                self._commit(queue, NO_OFFSET if offset is None else offset, count, not wait, not goes_back)
            except ShmqError as error:
                _LOG.warning("committing offset %s of %s failed: %s", offset, queue, error)
                self.count_read(queue, *count)
                if goes_back:
                    self._goes_back.add(queue)
                if isinstance(error, RemotingError):
                    silent.add(queue.broker_name)

    def remove(self, queue: MessageQueue) -> None:
        """Forget a queue that is no longer owned."""
        with self._lock:
            self._offsets.pop(queue, None)
            self._counts.pop(queue, None)
            self._goes_back.discard(queue)

    def count_read(self, queue: MessageQueue, messages: int, size: int) -> None:
        """Note a direct read, to be reported with the next commit."""
        with self._lock:
            held = self._counts.get(queue, ReadCount())
            self._counts[queue] = ReadCount(held.messages + messages, held.bytes + size)


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
