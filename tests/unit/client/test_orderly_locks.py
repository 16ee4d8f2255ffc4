"""OrderlyLocks: renewals and releases that meet on their way to the broker."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from shmq.broker.queue_locks import QueueLocks
from shmq.client.orderly_locks import OrderlyLocks
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.offsets import decode_queue_locks, encode_locked_queues
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from tests.helpers.waiting import wait_until

QUEUE = MessageQueue("T", "broker-a", 0)


class LockingBroker:
    """A broker's lock table behind a link whose lock requests wait while `gate` is closed."""

    def __init__(self) -> None:
        self.locks = QueueLocks()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = 0

    def request(self, command: Command, timeout_s: float) -> Command:
        wanted = decode_queue_locks(command.body_bytes())
        if command.code == RequestCode.UNLOCK_BATCH_MQ:
            self.locks.unlock(wanted.consumer_group, wanted.client_id, wanted.queues)
            return command.response(ResponseCode.SUCCESS)
        self.waiting += 1
        self.gate.wait(20)
        granted = self.locks.lock(wanted.consumer_group, wanted.client_id, wanted.queues, 0)
        return command.response(ResponseCode.SUCCESS, body=encode_locked_queues(granted))


def test_a_queue_that_is_released_during_its_renewal_is_free_afterwards() -> None:
    broker = LockingBroker()
    routes = SimpleNamespace(link=lambda name: broker)
    locks = OrderlyLocks(SimpleNamespace(client_id="me", routes=routes), "g")  # type: ignore[arg-type]
    assert locks.acquire(QUEUE) and locks.is_valid(QUEUE)
    broker.gate.clear()
    renewing = threading.Thread(target=locks.renew)
    renewing.start()
    wait_until(lambda: broker.waiting == 2, 10, "the renewal is on its way")
    releasing = threading.Thread(target=locks.release, args=([QUEUE],))
    releasing.start()
    releasing.join(0.2)  # whoever does not wait for the renewal is done now
    broker.gate.set()
    renewing.join(10)
    releasing.join(10)
    assert not locks.is_valid(QUEUE)
    assert broker.locks.lock("g", "another", [QUEUE], 1) == [QUEUE]
