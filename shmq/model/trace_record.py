"""The record of a message trace that tells of one send, as RocketMQ's clients write it to their trace topic.

    Pub 01 time 01 region 01 group 01 topic 01 msgId 01 tags 01 keys 01 storeHost 01 bodyLength 01 costMs 01
    msgType 01 offsetMsgId 01 success 02

(Apache RocketMQ 5.3, TraceDataEncoder.java.) A missing text is written as nothing, the message type is 0 for
an ordinary one. Pure.
"""

from __future__ import annotations

FIELD_SEPARATOR = "\x01"
RECORD_SEPARATOR = "\x02"

_NORMAL_MESSAGE = 0


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
) -> bytes:
    """Return the record of one send of an ordinary message."""
    parts: tuple[object, ...] = (
        *("Pub", time_ms, region, group, topic, msg_id, tags or "", keys or "", store_host),
        *(body_bytes, cost_ms, _NORMAL_MESSAGE, offset_msg_id, "true" if success else "false"),
    )
    return (FIELD_SEPARATOR.join(map(str, parts)) + RECORD_SEPARATOR).encode()
