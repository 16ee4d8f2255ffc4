"""ProducerConfig: a producer's settings with RocketMQ's names (in Python's spelling) and defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from shmq.base.errors import InvalidParameter
from shmq.client.config import CREATE_TOPIC_KEY, ClientConfig
from shmq.protocol.codes import ResponseCode

RETRY_RESPONSE_CODES = frozenset(
    {
        *(ResponseCode.TOPIC_NOT_EXIST, ResponseCode.SERVICE_NOT_AVAILABLE, ResponseCode.SYSTEM_ERROR),
        *(ResponseCode.SYSTEM_BUSY, ResponseCode.NO_PERMISSION, ResponseCode.NO_BUYER_ID),
        *(ResponseCode.NOT_IN_CURRENT_UNIT, ResponseCode.GO_AWAY),
    }
)
"""Broker answers after which a sync send is tried again."""

MIB = 1 << 20


@dataclass(slots=True)
class ProducerConfig(ClientConfig):
    """Settings of one producer; change them before `start()`."""

    create_topic_key: str = CREATE_TOPIC_KEY
    default_topic_queue_nums: int = 4
    send_msg_timeout_ms: int = 3000
    """Budget of one send call, all attempts together."""
    send_msg_max_timeout_per_request_ms: int = -1
    """Cap of one attempt (not of the last); -1: none."""
    compress_msg_body_over_howmuch: int = 4096
    """Bodies of at least so many bytes are compressed."""
    compress_type: str = "ZLIB"
    compress_level: int = 5
    retry_times_when_send_failed: int = 2
    retry_times_when_send_async_failed: int = 2
    retry_another_broker_when_not_store_ok: bool = False
    retry_response_codes: frozenset[int] = RETRY_RESPONSE_CODES
    max_message_size: int = 4 * MIB
    """Largest body, and largest batch, in bytes."""
    enable_idempotence: bool = False
    """Have shmq brokers store each send once, however often it is tried: all attempts of a send stay with one
    broker, and async sends make no batches by themselves."""
    send_latency_fault_enable: bool = False
    enable_backpressure_for_async_mode: bool = False
    """Bound unanswered async sends by the two settings below, not by the client's own wider bounds. Either
    way a send waits for room in the caller, and fails when there is none within its timeout."""
    back_pressure_for_async_send_num: int = 1024
    back_pressure_for_async_send_size: int = 100 * MIB
    auto_batch: bool | None = None
    """Send async messages as batches. None: towards a local shmq broker, where each keeps its own result."""
    batch_max_delay_ms: int = 0
    """How long a message may wait for company when the connection is free; 0 sends at once."""
    batch_max_bytes: int = 512 << 10
    batch_max_messages: int = 2000
    total_batch_max_bytes: int = 32 * MIB
    """Bytes waiting to be sent, over all queues; a further async send waits for room."""


C = TypeVar("C", bound=ClientConfig)


def configured(config_class: type[C], given: C | None, settings: dict[str, Any]) -> C:
    """Return `given` or a new config with `settings` applied; InvalidParameter names an unknown setting."""
    config = given if given is not None else config_class()
    known = {field.name for field in fields(config_class)}
    for name, value in settings.items():
        if name not in known:
            raise InvalidParameter(f"unknown setting {name!r}; known: {', '.join(sorted(known))}")
        setattr(config, name, value)
    return config
