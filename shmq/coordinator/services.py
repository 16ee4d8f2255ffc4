"""The coordinator's small periodic services: offset export, client expiry, statistics sampling.

Each is `step(now_ms) -> next_ms` for the duty cycle (`duty.py`), monotonic milliseconds. The index builder
and the registration, the two large ones, have files of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from shmq.base import log
from shmq.base.clock import Clock
from shmq.broker.clients import ClientTable
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.broker.live_settings import LiveSettings
from shmq.broker.queue_locks import QueueLocks
from shmq.broker.stats import SAMPLE_INTERVAL_MS, BrokerStats
from shmq.broker.transaction_cursors import TransactionCursors
from shmq.coordinator.forwarding import Forwarding

EXPIRY_LOOK_MS = 10_000
"""RocketMQ scans its channels at the same pace."""

_logger = log.get(__name__)


class OffsetExport:
    """Writes consumerOffset.json every `flushConsumerOffsetInterval`; waits for the disk."""

    def __init__(
        self, offsets: ConsumerOffsets, transactions: TransactionCursors, settings: LiveSettings
    ) -> None:
        """Export `offsets`; the interval is looked up each time, as operators may change it."""
        self._offsets = offsets
        self._transactions = transactions
        self._settings = settings

    def step(self, now_ms: int) -> int:
        """Write the file if an offset moved."""
        self._transactions.cover()
        self._offsets.export()
        return now_ms + self._settings.now.flush_consumer_offset_interval


class ClientExpiry:
    """Drops clients that are silent and queue locks nobody renewed."""

    def __init__(
        self,
        clients: ClientTable,
        locks: QueueLocks,
        forwarding: Forwarding,
        settings: LiveSettings,
    ) -> None:
        """`forwarding` tells the other members."""
        self._clients = clients
        self._locks = locks
        self._forwarding = forwarding
        self._settings = settings

    def step(self, now_ms: int) -> int:
        """Look for what is too old."""
        changed = self._clients.expire(now_ms, self._settings.now.channel_expired_timeout)
        if changed:
            log.event(_logger, logging.WARNING, "clients_expired", groups=sorted(changed))
            self._forwarding.members_changed(changed)
        self._locks.expire(now_ms)
        return now_ms + EXPIRY_LOOK_MS


class SharedNames:
    """Says when somebody has removed the broker's names from /dev/shm.

    Whoever runs goes on with what it has mapped; the next child that is started cannot. So an operator
    should hear of it before that.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are paths; nothing is looked at yet."""
        self._names = [Path(name) for name in names]
        self._told = False

    def step(self, now_ms: int) -> int:
        """Look once in a while; tell once."""
        gone = [str(name) for name in self._names if not name.exists()]
        if gone and not self._told:
            log.event(
                _logger,
                logging.CRITICAL,
                "shared_memory_removed",
                gone=", ".join(gone),
                advice="restart the broker soon: nothing is lost, but no child of it can be started again",
            )
        self._told = bool(gone)
        return now_ms + EXPIRY_LOOK_MS


class StatsSampling:
    """Keeps the statistics' windows going."""

    def __init__(self, stats: BrokerStats, clock: Clock) -> None:
        """Sample `stats` by the wall clock, as its windows end at local midnights."""
        self._stats = stats
        self._clock = clock

    def step(self, now_ms: int) -> int:
        """Take one sample."""
        self._stats.sample(self._clock.now_ms())
        return now_ms + SAMPLE_INTERVAL_MS
