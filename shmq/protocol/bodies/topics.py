"""Bodies about topics: lists 206, 224, 304, 305, 343; settings 18, 21, 351; statistics 202.

Apache RocketMQ 5.3: TopicList.java, TopicConfigSerializeWrapper.java, TopicStatsTable.java.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shmq.model.data_version import DataVersion
from shmq.model.message_queue import MessageQueue
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.dialect import Body, dumps, loads, queue_keyed, queue_of, reads


@dataclass(slots=True)
class TopicTable:
    """All topics of a broker and the version of that table."""

    topics: dict[str, TopicConfig] = field(default_factory=dict)
    data_version: DataVersion = field(default_factory=DataVersion)


@dataclass(slots=True)
class TopicOffset:
    """What 202 says of one queue; ``last_update_timestamp`` is the last message's store time in ms, 0 for
    none."""

    min_offset: int
    max_offset: int
    last_update_timestamp: int = 0


@dataclass(slots=True)
class TopicStats:
    """Answer to 202."""

    offset_table: dict[MessageQueue, TopicOffset] = field(default_factory=dict)
    topic_put_tps: float = 0.0


def encode_topic_list(topics: Iterable[str], broker_addr: str | None = None) -> bytes:
    """Return a TopicList."""
    members: dict[str, Any] = {}
    if broker_addr:
        members["brokerAddr"] = broker_addr
    members["topicList"] = list(topics)
    return dumps(members)


@reads("topic list")
def decode_topic_list(body: Body | None) -> list[str]:
    """Read a TopicList."""
    return list(map(str, loads(body).get("topicList") or ()))


def topic_table_json(table: TopicTable) -> dict[str, Any]:
    """Return the members shared by the answer to 21 and the body of 103."""
    return {
        "dataVersion": table.data_version.to_json(),
        "mappingDataVersion": DataVersion().to_json(),
        "topicConfigTable": {name: config.to_json() for name, config in table.topics.items()},
        "topicQueueMappingDetailMap": {},
        "topicQueueMappingInfoMap": {},
    }


def topic_table_of(members: Any) -> TopicTable:
    """Read those members."""
    return TopicTable(
        topics={
            str(name): TopicConfig.from_json(config, str(name))
            for name, config in (members.get("topicConfigTable") or {}).items()
        },
        data_version=DataVersion.from_json(members.get("dataVersion")),
    )


def encode_topic_table(table: TopicTable) -> bytes:
    """Return the answer to 21."""
    members = topic_table_json(table)
    return dumps({name: members[name] for name in ("dataVersion", "mappingDataVersion", "topicConfigTable")})


@reads("topic table")
def decode_topic_table(body: Body | None) -> TopicTable:
    """Read the answer to 21."""
    return topic_table_of(loads(body))


def encode_topic_config(config: TopicConfig) -> bytes:
    """Return the answer to 351."""
    return dumps(config.to_json())


@reads("topic config")
def decode_topic_config(body: Body | None) -> TopicConfig:
    """Read the answer to 351."""
    return TopicConfig.from_json(loads(body))


def encode_topic_config_list(configs: Iterable[TopicConfig]) -> bytes:
    """Return the body of 18."""
    return dumps({"topicConfigList": [config.to_json() for config in configs]})


@reads("topic config list")
def decode_topic_config_list(body: Body | None) -> list[TopicConfig]:
    """Read the body of 18."""
    return [TopicConfig.from_json(config) for config in loads(body).get("topicConfigList") or ()]


def encode_topic_stats(stats: TopicStats) -> bytes:
    """Return the answer to 202."""
    return dumps(
        {
            "offsetTable": queue_keyed(
                {queue: _offset_json(offset) for queue, offset in stats.offset_table.items()}
            ),
            "topicPutTps": stats.topic_put_tps,
        }
    )


@reads("topic stats")
def decode_topic_stats(body: Body | None) -> TopicStats:
    """Read the answer to 202."""
    members = loads(body)
    offsets: Mapping[Any, Any] = members.get("offsetTable") or {}
    return TopicStats(
        offset_table={
            queue_of(queue): TopicOffset(
                min_offset=int(offset.get("minOffset") or 0),
                max_offset=int(offset.get("maxOffset") or 0),
                last_update_timestamp=int(offset.get("lastUpdateTimestamp") or 0),
            )
            for queue, offset in offsets.items()
        },
        topic_put_tps=float(members.get("topicPutTps") or 0.0),
    )


def _offset_json(offset: TopicOffset) -> dict[str, int]:
    return {
        "lastUpdateTimestamp": offset.last_update_timestamp,
        "maxOffset": offset.max_offset,
        "minOffset": offset.min_offset,
    }
