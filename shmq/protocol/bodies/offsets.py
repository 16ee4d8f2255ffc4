"""Bodies about offsets and queue locks: 41, 42, 43, 45, 208, 220, 221, 222, 223, 303, 308, 317.

Apache RocketMQ 5.3: LockBatchRequestBody.java, ConsumeStats.java, ResetOffsetBody.java.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shmq.model.data_version import DataVersion
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.dialect import (
    Body,
    dumps,
    integer_keyed,
    loads,
    queue_json,
    queue_keyed,
    queue_of,
    reads,
)
from shmq.protocol.codes import LanguageCode


@dataclass(slots=True)
class QueueLockRequest:
    """Body of 41 and 42: one client asks for, or gives up, queues of one group."""

    consumer_group: str
    client_id: str
    queues: list[MessageQueue] = field(default_factory=list)
    only_this_broker: bool = False


@dataclass(slots=True)
class ConsumeOffset:
    """What 208 says of one queue; ``last_timestamp`` is the store time of the last consumed message in ms."""

    broker_offset: int
    consumer_offset: int
    pull_offset: int = 0
    last_timestamp: int = 0


@dataclass(slots=True)
class ConsumeStats:
    """Answer to 208."""

    offset_table: dict[MessageQueue, ConsumeOffset] = field(default_factory=dict)
    consume_tps: float = 0.0


def encode_queue_locks(request: QueueLockRequest) -> bytes:
    """Return the body of 41 and 42."""
    return dumps(
        {
            "clientId": request.client_id,
            "consumerGroup": request.consumer_group,
            "mqSet": [queue_json(queue) for queue in request.queues],
            "onlyThisBroker": request.only_this_broker,
        }
    )


@reads("queue lock body")
def decode_queue_locks(body: Body | None) -> QueueLockRequest:
    """Read the body of 41 and 42."""
    members = loads(body)
    return QueueLockRequest(
        consumer_group=str(members["consumerGroup"]),
        client_id=str(members["clientId"]),
        queues=[queue_of(queue) for queue in members.get("mqSet") or ()],
        only_this_broker=bool(members.get("onlyThisBroker")),
    )


def encode_locked_queues(queues: Iterable[MessageQueue]) -> bytes:
    """Return the answer to 41."""
    return dumps({"lockOKMQSet": [queue_json(queue) for queue in queues]})


@reads("locked queues")
def decode_locked_queues(body: Body | None) -> list[MessageQueue]:
    """Read the answer to 41."""
    return [queue_of(queue) for queue in loads(body).get("lockOKMQSet") or ()]


def encode_consume_stats(stats: ConsumeStats) -> bytes:
    """Return the answer to 208."""
    return dumps(consume_stats_json(stats))


def consume_stats_json(stats: ConsumeStats) -> dict[str, Any]:
    """Return the JSON object of ConsumeStats, also found in 317."""
    return {
        "consumeTps": stats.consume_tps,
        "offsetTable": queue_keyed(
            {
                queue: {
                    "brokerOffset": offset.broker_offset,
                    "consumerOffset": offset.consumer_offset,
                    "lastTimestamp": offset.last_timestamp,
                    "pullOffset": offset.pull_offset,
                }
                for queue, offset in stats.offset_table.items()
            }
        ),
    }


@reads("consume stats")
def decode_consume_stats(body: Body | None) -> ConsumeStats:
    """Read the answer to 208."""
    members = loads(body)
    offsets: Mapping[Any, Any] = members.get("offsetTable") or {}
    return ConsumeStats(
        offset_table={
            queue_of(queue): ConsumeOffset(
                broker_offset=int(offset.get("brokerOffset") or 0),
                consumer_offset=int(offset.get("consumerOffset") or 0),
                pull_offset=int(offset.get("pullOffset") or 0),
                last_timestamp=int(offset.get("lastTimestamp") or 0),
            )
            for queue, offset in offsets.items()
        },
        consume_tps=float(members.get("consumeTps") or 0.0),
    )


def encode_broker_consume_stats(
    broker_addr: str,
    stats: Iterable[Mapping[str, list[ConsumeStats]]],
    total_diff: int,
    total_inflight_diff: int,
) -> bytes:
    """Return the answer to 317: per group the ConsumeStats of its topics."""
    groups = [
        {group: [consume_stats_json(found) for found in by_topic] for group, by_topic in entry.items()}
        for entry in stats
    ]
    return dumps(
        {
            "brokerAddr": broker_addr,
            "consumeStatsList": groups,
            "totalDiff": total_diff,
            "totalInflightDiff": total_inflight_diff,
        }
    )


def encode_reset_offsets(offsets: Mapping[MessageQueue, int], language: int = LanguageCode.JAVA) -> bytes:
    """Return the body of 220 for a client of that language, and the answer to 222: C++ reads only a list."""
    if language == LanguageCode.CPP:
        return dumps(
            {"offsetTable": [{**queue_json(queue), "offset": offset} for queue, offset in offsets.items()]}
        )
    return dumps({"offsetTable": queue_keyed(offsets)})


@reads("reset offsets")
def decode_reset_offsets(body: Body | None) -> dict[MessageQueue, int]:
    """Read the body of 220 or the answer to 222, in either form."""
    table = loads(body).get("offsetTable") or {}
    if isinstance(table, list):
        return {queue_of(entry): int(entry["offset"]) for entry in table}
    return {queue_of(queue): int(offset) for queue, offset in table.items()}


def encode_consumer_status(offsets: Mapping[MessageQueue, int]) -> bytes:
    """Return a client's answer to 221."""
    return dumps({"consumerTable": {}, "messageQueueTable": queue_keyed(offsets)})


@reads("consumer status")
def decode_consumer_status(body: Body | None) -> dict[MessageQueue, int]:
    """Read a client's answer to 221."""
    table = loads(body).get("messageQueueTable") or {}
    return {queue_of(queue): int(offset) for queue, offset in table.items()}


def encode_consumer_status_table(table: Mapping[str, Mapping[MessageQueue, int]]) -> bytes:
    """Return the answer to 223: client id -> queue -> offset."""
    return dumps({"consumerTable": {client_id: queue_keyed(offsets) for client_id, offsets in table.items()}})


def encode_correction_offsets(offsets: Mapping[int, int]) -> bytes:
    """Return the answer to 308: queue id -> offset."""
    return dumps({"correctionOffsets": integer_keyed(offsets)})


def encode_all_consumer_offsets(offsets: Mapping[str, Mapping[int, int]], version: DataVersion) -> bytes:
    """Return the answer to 43: ``topic@group`` -> queue id -> offset."""
    table = {name: integer_keyed(queues) for name, queues in offsets.items()}
    return dumps({"dataVersion": version.to_json(), "offsetTable": table})


def encode_all_delay_offsets(offsets: Mapping[int, int], version: DataVersion) -> bytes:
    """Return the answer to 45: delay level -> offset."""
    return dumps({"dataVersion": version.to_json(), "offsetTable": integer_keyed(offsets)})
