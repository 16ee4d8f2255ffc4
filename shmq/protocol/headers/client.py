"""Headers of client management: heartbeats, groups, requests the broker pushes to clients."""

from typing import ClassVar

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class UnregisterClientHeader:
    """35: a client leaves one group. C++ sends an empty text for the group it does not mean."""

    client_id: str
    producer_group: str | None = None
    consumer_group: str | None = None

    WIRE: ClassVar[dict[str, str]] = {"client_id": "clientID"}

    def __post_init__(self) -> None:
        """Take empty group names as absent."""
        self.producer_group = self.producer_group or None
        self.consumer_group = self.consumer_group or None


@header
class ConsumerGroupHeader:
    """38 GET_CONSUMER_LIST_BY_GROUP, 40 NOTIFY_CONSUMER_IDS_CHANGED, 203 GET_CONSUMER_CONNECTION_LIST."""

    consumer_group: str


@header
class ProducerGroupHeader:
    """204 GET_PRODUCER_CONNECTION_LIST."""

    producer_group: str


@header
class ResetConsumerClientOffsetHeader:
    """220: the broker tells a consumer to restart at the offsets of the body."""

    topic: str
    group: str
    timestamp: I64
    is_force: bool
    queue_id: I32 | None = None
    offset: I64 | None = None


@header
class GetConsumerStatusFromClientHeader:
    """221 towards a client; 223 of a tool adds the client it means."""

    topic: str
    group: str
    client_addr: str | None = None


@header
class GetConsumerRunningInfoHeader:
    """307: what a consumer is doing."""

    consumer_group: str
    client_id: str | None = None
    jstack_enable: bool = False


@header
class ConsumeMessageDirectlyHeader:
    """309: let one consumer take one message now."""

    consumer_group: str
    client_id: str | None = None
    msg_id: str | None = None
    broker_name: str | None = None
    topic: str | None = None
    topic_sys_flag: I32 | None = None
    group_sys_flag: I32 | None = None
