"""A store opened in this process, with its page, lock and service threads; everything is gone afterwards.

`reopen` and `crash` are how tests stop and start it again: cleanly, or as if every process had died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from shmq.base.runtime_dir import page_name
from shmq.model.record import encode_record
from shmq.model.settings import BrokerSettings
from shmq.model.subscription import tags_code_of
from shmq.shm.append_lock import AppendLock, create_semaphore, semaphore_name, unlink_semaphore
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView, DirectoryWriter
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSHED_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.shm.worker_slots import FIRST_WORKER_SLOT
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.checkpointer import Checkpointer
from shmq.store.checksums import LogChecksums
from shmq.store.flusher import Flusher
from shmq.store.index_builder import IndexBuilder
from shmq.store.message_store import MessageStore
from shmq.store.names import StoreLayout
from shmq.store.recovery import RecoveryReport, open_or_recover
from shmq.store.run_marks import Identity, mark_stopped
from shmq.store.segment_allocator import SegmentAllocator
from shmq.store.segment_descriptors import SegmentDescriptors

SMALL = {
    "mapped_file_size_commit_log": 64 << 10,
    "mapped_file_size_consume_queue": 20 * 64,
    "max_hash_slot_num": 101,
    "max_index_num": 400,
    "queue_slots": 1024,
    "offset_slots": 1024,
    "zero_ahead_bytes": 0,
}


def small_settings(**changes: object) -> BrokerSettings:
    """Settings with small files, so that a test sees many of them."""
    return BrokerSettings(**{**SMALL, **changes})


class OpenStore:
    """The store at `root`, recovered and open. Use as a context manager."""

    def __init__(self, root: Path, settings: BrokerSettings | None = None, *, adopt: bool = False) -> None:
        self.root = root
        self.settings = settings or small_settings()
        self.layout = StoreLayout.of(root, self.settings)
        self.threads = self.is_open = False
        self._open(adopt)

    def _open(self, adopt: bool = False) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.report: RecoveryReport = open_or_recover(self.root, self.settings, adopt, owner_pid=os.getpid())
        self.name = page_name(self.root)
        self.page = ControlPage.attach(self.name)
        self.semaphore = semaphore_name(self.name, self.page)
        with contextlib.suppress(Exception):
            create_semaphore(self.name, self.page)
        self.bells = [Doorbell.create() for _ in range(32)]
        self.descriptors = SegmentDescriptors(self.layout)
        self.allocator = SegmentAllocator(
            self.layout,
            self.page,
            self.bells,
            self.descriptors,
            zero_ahead_bytes=self.settings.zero_ahead_bytes,
        )
        self.checksums = LogChecksums(self.layout, self.descriptors)
        self.checksums.open(self.page.words[FLUSHED_POSITION])
        self.checkpointer = Checkpointer(self.layout, self.page, self.settings, self.checksums)
        self.flusher = Flusher(
            self.layout,
            self.page,
            self.bells,
            self.descriptors,
            self.settings,
            checksums=self.checksums,
            on_wake=self._wake,
        )
        self.allocator.prepare()
        self.directory = DirectoryView(self.page)
        self.store = self.open_slot(FIRST_WORKER_SLOT)
        self.index = IndexBuilder(self.layout, self.settings, self.page)
        self.is_open = True

    def _wake(self) -> None:
        self.allocator.wake()
        self.checkpointer.wake()

    def open_slot(self, slot: int) -> MessageStore:
        """The store as the process of another appender slot has it."""
        lock = AppendLock(self.page, slot, self.semaphore, lambda: False)
        return MessageStore.open(self.root, self.settings, self.page, slot, lock, self.bells)

    def start_threads(self) -> None:
        """Start flusher, allocator and checkpointer; without them tests call their steps."""
        self.threads = True
        self.flusher.start()
        self.allocator.start()
        self.checkpointer.start()

    def stop_threads(self) -> None:
        """Stop them; the flusher flushes what is left."""
        if self.threads:
            self.threads = False
            self.allocator.stop()
            self.flusher.stop()
            self.checkpointer.stop()

    def make_topic(self, topic: str, queues: int = 1) -> list[QueueRef]:
        """Make a topic's queues known, as the coordinator does; those it has stay."""
        self.directory.catch_up()
        known = len(self.directory.queues(topic))
        if known < queues:
            DirectoryWriter(self.page).add_queues(topic, known, [(0, 0)] * (queues - known))
            self.directory.catch_up()
        return self.directory.queues(topic)

    def queue(self, topic: str, queue_id: int = 0) -> QueueRef:
        """A queue; a topic that is not known is made with as many queues as needed."""
        self.directory.catch_up()
        found = self.directory.queue(topic, queue_id)
        return found if found is not None else self.make_topic(topic, queue_id + 1)[queue_id]

    def append(self, *requests: AppendRequest) -> list[AppendOutcome]:
        """Append all of them, letting the allocator work whenever a segment is missing."""
        outcomes = self.store.append(requests)
        while None in outcomes:
            self.allocator.step()
            missing = [i for i, outcome in enumerate(outcomes) if outcome is None]
            again = self.store.append([requests[i] for i in missing])
            for i, outcome in zip(missing, again, strict=True):
                outcomes[i] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def send(self, topic: str, body: bytes = b"body", queue_id: int = 0, **more: str) -> AppendOutcome:
        """Append one message; `more` are properties."""
        (outcome,) = self.append(request(self.queue(topic, queue_id), [body], **more))
        assert outcome.error is None, outcome.error
        return outcome

    def flush(self) -> None:
        """Make everything durable and write a checkpoint."""
        self.flusher.flush()
        self.checkpointer.write()

    def index_all(self) -> None:
        """Let the index builder work until it has nothing to do."""
        while self.index.lag:
            self.index.step(0)

    # ---- stopping

    def _let_go(self) -> None:
        self.is_open = False
        self.store.close()
        self.checksums.close()
        self.descriptors.close()
        for bell in self.bells:
            bell.close()

    def close_cleanly(self) -> None:
        """Stop as the supervisor does; page and semaphore are removed."""
        if self.threads:
            self.stop_threads()
        else:
            self.flush()
        self.index.close()
        mark_stopped(self.layout, Identity.of_stop(self.layout, self.page))
        self._let_go()
        self.remove_page()

    def remove_page(self) -> None:
        """Remove the shared memory, as a restart of the host does."""
        self.page.retire()
        ControlPage.unlink(self.name)
        unlink_semaphore(self.semaphore)

    def reopen(self) -> RecoveryReport:
        """Stop cleanly and start again."""
        self.close_cleanly()
        self._open()
        return self.report

    def crash(self, *, keep_page: bool = False, adopt: bool = False) -> RecoveryReport:
        """Let everything go without a word, and start again: on the kept page, or without it."""
        self.stop_threads()
        self._let_go()
        if not keep_page:
            self.remove_page()
        self._open(adopt)
        return self.report

    def __enter__(self) -> OpenStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_open:
            self.stop_threads()
            self._let_go()
        self.remove_page()


def request(queue: QueueRef, bodies: Sequence[bytes], **properties: str) -> AppendRequest:
    """One request with a record per body; `properties` go into each (TAGS, KEYS, UNIQ_KEY ...)."""
    encoded = "".join(f"{name}\x01{value}\x02" for name, value in properties.items()).encode()
    records = [
        encode_record(
            topic=queue.topic.encode(),
            body=body,
            properties=encoded,
            queue_id=queue.queue_id,
            born_timestamp=1_700_000_000_000,
        )
        for body in bodies
    ]
    code = tags_code_of(properties.get("TAGS"))
    return AppendRequest(queue, bytearray().join(records), [len(r) for r in records], [code] * len(records))
