"""OrderlyLocks: the broker locks of one orderly consumer's queues.

A broker gives a queue of a group to one client at a time (41), for 60 s from the last renewal; this side
trusts a lock for 30 s, so a client that lost its broker stops before another may begin. Facts: Apache
RocketMQ 5.3, RebalanceImpl.java, ProcessQueue.java.

Any thread; one request is under way at a time (`_asking`): a renewal that reached the broker behind the
release of its queue would take it again, for nobody, and keep it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.channel import view_of
from shmq.client.instance import ClientInstance
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.offsets import QueueLockRequest, decode_locked_queues, encode_queue_locks
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command

LOCK_INTERVAL_S = 20.0
"""Pause between two renewals."""
FIRST_RENEWAL_S = 1.0
LOCK_MAX_LIVE_S = 30.0
"""How long a granted lock is trusted without another renewal."""
TIMEOUT_S = 1.0

_LOG = log.get(__name__)


class OrderlyLocks:
    """Which queues this consumer holds, and since when."""

    def __init__(self, instance: ClientInstance, group: str) -> None:
        """Hold nothing yet."""
        self._instance = instance
        self._group = group
        self._asking = threading.Lock()
        self._granted: dict[MessageQueue, float] = {}

    def is_valid(self, queue: MessageQueue) -> bool:
        """Tell whether the queue may be consumed now."""
        granted = self._granted.get(queue)
        return granted is not None and time.monotonic() - granted < LOCK_MAX_LIVE_S

    def acquire(self, queue: MessageQueue) -> bool:
        """Ask for one queue, or renew it; False while another client has it or its broker is silent."""
        with self._asking:
            return queue in self._ask(queue.broker_name, [queue])

    def renew(self) -> None:
        """Renew what is held; what another client got meanwhile is held no longer. A periodic duty."""
        for broker_name in sorted({queue.broker_name for queue in list(self._granted)}):
            with self._asking:
                self._ask(broker_name, [queue for queue in self._granted if queue.broker_name == broker_name])

    def release(self, queues: Iterable[MessageQueue]) -> None:
        """Give queues back; offsets have to be committed before. A silent broker lets them expire."""
        with self._asking:
            held = [queue for queue in queues if self._granted.pop(queue, None) is not None]
            for broker_name in sorted({queue.broker_name for queue in held}):
                mine = [queue for queue in held if queue.broker_name == broker_name]
                command = self._command(RequestCode.UNLOCK_BATCH_MQ, mine)
                try:
                    self._instance.routes.link(broker_name).request(command, TIMEOUT_S)
                except ShmqError as error:
                    log.event(_LOG, logging.WARNING, "unlock_failed", broker=broker_name, reason=error)

    def _ask(self, broker_name: str, queues: list[MessageQueue]) -> set[MessageQueue]:
        """Lock queues of one broker; the time counts from before the request. Called with `_asking` held."""
        if not queues:
            return set()
        asked = time.monotonic()
        command = self._command(RequestCode.LOCK_BATCH_MQ, queues)
        try:
            answer = self._instance.routes.link(broker_name).request(command, TIMEOUT_S)
            granted = set(decode_locked_queues(view_of(answer)))
        except ShmqError as error:
            log.event(_LOG, logging.WARNING, "lock_failed", broker=broker_name, reason=error)
            return set()
        for queue in queues:
            if queue in granted:
                self._granted[queue] = asked
            else:
                self._granted.pop(queue, None)
        return granted

    def _command(self, code: RequestCode, queues: list[MessageQueue]) -> Command:
        body = encode_queue_locks(QueueLockRequest(self._group, self._instance.client_id, queues))
        return Command.request(code, None, body)
