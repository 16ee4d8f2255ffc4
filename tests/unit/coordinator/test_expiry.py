"""Silent clients and their locks end by the time that passes, not by what the wall clock says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from shmq.base.clock import ManualClock
from shmq.broker.client_key import ClientKey
from shmq.broker.clients import ClientTable
from shmq.broker.queue_locks import LOCK_LIFE_MS, QueueLocks
from shmq.coordinator.services import ClientExpiry
from shmq.handlers.admin_client import all_producers
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.heartbeat import heartbeat
from shmq.handlers.queue_lock import lock
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.heartbeat import HeartbeatData, encode_heartbeat
from shmq.protocol.bodies.offsets import QueueLockRequest, decode_locked_queues, encode_queue_locks
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command

KEY = ClientKey(2, 7)
QUEUE = MessageQueue("t", "b", 0)
SILENT_MS = 120_000
DAY_MS = 86_400_000


async def at_once() -> None:
    """Settled."""


class Coordinator:
    """Clients and locks with the handlers and the service that change them, and a clock to be set."""

    def __init__(self) -> None:
        self.clock = ManualClock(monotonic_ms=5_000)
        self.clients, self.locks = ClientTable(), QueueLocks()
        self.clients.opened(KEY, "10.0.0.1:7")
        self.context = cast(
            CoordinatorContext,
            SimpleNamespace(clients=self.clients, locks=self.locks, clock=self.clock, settled=at_once),
        )
        told = SimpleNamespace(members_changed=lambda groups: None)
        settings = SimpleNamespace(now=SimpleNamespace(channel_expired_timeout=SILENT_MS))
        self.expiry = ClientExpiry(self.clients, self.locks, cast(Any, told), cast(Any, settings))

    def ask(self, handler: Any, code: int, body: bytes | None = None) -> Command:
        answer: Command = asyncio.run(
            handler(self.context, Call(KEY, "10.0.0.1:7"), Command.request(code, body=body), None)
        )
        return answer

    def beat(self) -> None:
        self.ask(heartbeat, RequestCode.HEART_BEAT, encode_heartbeat(HeartbeatData("c", ["pg"], [])))

    def lock(self, client_id: str) -> bool:
        wanted = encode_queue_locks(QueueLockRequest("g", client_id, [QUEUE]))
        return bool(decode_locked_queues(self.ask(lock, RequestCode.LOCK_BATCH_MQ, wanted).body))

    def is_known(self) -> bool:
        self.expiry.step(self.clock.monotonic_ms())
        return "pg" in self.clients.producer_groups()


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS])
def test_setting_the_clock_throws_nobody_out_and_keeps_nobody(jump_ms: int) -> None:
    coordinator = Coordinator()
    coordinator.beat()
    assert coordinator.lock("c")
    coordinator.clock.set_wall(coordinator.clock.now_ms() + jump_ms)
    assert coordinator.is_known()
    assert not coordinator.lock("other")
    coordinator.clock.advance(LOCK_LIFE_MS + 1)
    assert coordinator.lock("other")
    coordinator.clock.advance(SILENT_MS - LOCK_LIFE_MS - 1)
    assert coordinator.is_known()
    coordinator.clock.advance(1)
    assert not coordinator.is_known()


def test_operators_are_shown_the_wall_time_of_a_heartbeat() -> None:
    coordinator = Coordinator()
    coordinator.beat()
    beat_ms = coordinator.clock.now_ms()
    coordinator.clock.advance(3_000)
    body = coordinator.ask(all_producers, RequestCode.GET_ALL_PRODUCER_INFO).body_bytes()
    assert orjson.loads(body)["data"]["pg"][0]["lastUpdateTimestamp"] == beat_ms
