"""A store with the topics of transactions, and what a coordinator makes of it, without processes."""

from __future__ import annotations

import asyncio

from shmq.base.clock import SYSTEM_CLOCK
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.broker.queues import Queues
from shmq.broker.transaction_cursors import TransactionCursors
from shmq.coordinator.transactions import Transactions
from shmq.model.names import (
    TRANSACTION_CHECK_MAX_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
)
from shmq.model.record import parse_record
from shmq.model.transaction import LocalTransactionState
from shmq.shm.append_lock import AppendLock
from shmq.shm.worker_slots import FIRST_WORKER_SLOT
from tests.helpers.store import OpenStore

COMMIT, ROLLBACK = LocalTransactionState.COMMIT_MESSAGE, LocalTransactionState.ROLLBACK_MESSAGE
REAL = {"REAL_TOPIC": "T", "REAL_QID": "0", "PGROUP": "G", "TRAN_MSG": "true"}


class TransactionWorld:
    """A store with the topics of transactions, and what a coordinator makes of it."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        for topic in (
            "T",
            TRANSACTION_HALF_TOPIC,
            TRANSACTION_OP_HALF_TOPIC,
            TRANSACTION_CHECK_MAX_TOPIC,
        ):
            store.queue(topic)
        self.counts: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """As a new coordinator begins."""
        store = self.store
        self.file = ConfigFile(store.layout.config / "consumerOffset.json")
        self.offsets = ConsumerOffsets(self.file, store.page, store.directory)
        self.cursors = TransactionCursors(store.page, self.offsets)
        lock = AppendLock(store.page, FIRST_WORKER_SLOT, store.semaphore, lambda: False)
        queues = Queues(store.page, store.directory, lock, store.layout, lambda: None)
        self.transactions = Transactions(
            store.store, queues, self.cursors, store.settings, SYSTEM_CLOCK, self._count
        )
        self.transactions.start()

    def _count(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def half(self, body: bytes = b"x", **more: str) -> tuple[int, int]:
        """Store a half message; its queue offset and log offset."""
        sent = self.store.send(TRANSACTION_HALF_TOPIC, body, UNIQ_KEY=f"K{body!r}", **{**REAL, **more})
        return sent.queue_offset, sent.physical_offset

    def end(self, at: tuple[int, int], state: LocalTransactionState = COMMIT, group: str = "G") -> None:
        asyncio.run(self.transactions.end(group, *at, state, from_check=False))

    def bodies(self, topic: str = "T") -> list[bytes]:
        queue, found = self.store.queue(topic), []
        for offset in range(self.store.store.max(queue)):
            record = self.store.store.record_at(self.store.store.queues.unit(queue, offset).physical_offset)
            assert record is not None
            fields = parse_record(record)
            found.append(bytes(record[fields.body_at : fields.body_at + fields.body_length]))
        return found
