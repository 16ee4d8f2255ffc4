"""The records of a message trace, as RocketMQ's clients write them to their trace topic.

    Pub        01 time 01 region 01 group 01 topic 01 msgId 01 tags 01 keys 01 storeHost 01 bodyLength 01
               costMs 01 msgType 01 offsetMsgId 01 success 02
    SubBefore  01 time 01 region 01 group 01 requestId 01 msgId 01 retryTimes 01 keys 02
    SubAfter   01 requestId 01 msgId 01 costMs 01 success 01 keys 01 returnType 01 time 01 group 02
    EndTransaction  01 time 01 region 01 group 01 topic 01 msgId 01 tags 01 keys 01 storeHost 01 msgType
               01 transactionId 01 state 01 fromTransactionCheck 02

(Apache RocketMQ 5.3, TraceDataEncoder.java.) A missing text is written as nothing. SubBefore and SubAfter of
one call of a listener have one request id. Pure.
"""

from __future__ import annotations

from enum import IntEnum

FIELD_SEPARATOR = "\x01"
RECORD_SEPARATOR = "\x02"


class TracedType(IntEnum):
    """What kind of message was sent (RocketMQ's MessageType)."""

    NORMAL = 0
    HALF = 1
    COMMIT = 2
    DELAY = 3
    ORDER = 4


class TracedReturn(IntEnum):
    """How a call of a listener ended (RocketMQ's ConsumeReturnType)."""

    SUCCESS = 0
    TIME_OUT = 1
    EXCEPTION = 2
    RETURNED_NOTHING = 3
    FAILED = 4


def encode_sent(
    *,
    time_ms: int,
    region: str,
    group: str,
    topic: str,
    msg_id: str,
    tags: str | None,
    keys: str | None,
    store_host: str,
    body_bytes: int,
    cost_ms: int,
    offset_msg_id: str,
    success: bool,
    kind: TracedType = TracedType.NORMAL,
) -> bytes:
    """Return the record of one send."""
    parts: tuple[object, ...] = (
        *("Pub", time_ms, region, group, topic, msg_id, tags or "", keys or "", store_host),
        *(body_bytes, cost_ms, kind.value, offset_msg_id, _truth(success)),
    )
    return _record(parts)


def encode_before(
    *, time_ms: int, region: str, group: str, request_id: str, msg_id: str, retry_times: int, keys: str | None
) -> bytes:
    """Return the record that tells that a listener is called with a message."""
    return _record(("SubBefore", time_ms, region, group, request_id, msg_id, retry_times, keys or ""))


def encode_after(
    *,
    time_ms: int,
    group: str,
    request_id: str,
    msg_id: str,
    cost_ms: int,
    success: bool,
    keys: str | None,
    returned: TracedReturn,
) -> bytes:
    """Return the record that tells how that call ended."""
    how = (cost_ms, _truth(success), keys or "", returned.value, time_ms, group)
    return _record(("SubAfter", request_id, msg_id, *how))


def encode_ended(
    *,
    time_ms: int,
    region: str,
    group: str,
    topic: str,
    msg_id: str,
    tags: str | None,
    keys: str | None,
    store_host: str,
    transaction_id: str,
    state: str,
    from_check: bool,
) -> bytes:
    """Return the record of one outcome of a transaction; `state` is a name such as COMMIT_MESSAGE."""
    message = (topic, msg_id, tags or "", keys or "", store_host, TracedType.COMMIT.value)
    outcome = (transaction_id, state, _truth(from_check))
    return _record(("EndTransaction", time_ms, region, group, *message, *outcome))


def decode_traces(body: bytes) -> list[list[str]]:
    """Return the fields of each record of a trace message."""
    records = body.decode(errors="replace").split(RECORD_SEPARATOR)
    return [record.split(FIELD_SEPARATOR) for record in records if record]


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _record(parts: tuple[object, ...]) -> bytes:
    return (FIELD_SEPARATOR.join(map(str, parts)) + RECORD_SEPARATOR).encode()
