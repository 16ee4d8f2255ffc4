"""Headers of the offset family: codes 14, 15, 29, 30, 31, 32."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class QueryConsumerOffsetHeader:
    """14: where a group goes on in one queue."""

    consumer_group: str
    topic: str
    queue_id: I32
    set_zero_if_not_found: bool | None = None


@header
class UpdateConsumerOffsetHeader:
    """15: store where a group goes on; a negative offset means nothing. The last three are shmq's own.

    ``read_count``, ``read_bytes``: messages and bytes a direct reader took from the maps since the last
    commit of this queue. ``only_forward``: an offset behind the stored one comes late and is ignored.
    """

    consumer_group: str
    topic: str
    queue_id: I32
    commit_offset: I64
    read_count: I64 | None = None
    read_bytes: I64 | None = None
    only_forward: bool | None = None


@header
class OffsetResponseHeader:
    """Answer to 14, 29, 30 and 31."""

    offset: I64


@header
class SearchOffsetHeader:
    """29: the offset at a time; ``boundary_type`` is LOWER or UPPER."""

    topic: str
    queue_id: I32
    timestamp: I64
    boundary_type: str = "LOWER"


@header
class GetMaxOffsetHeader:
    """30: the next offset to be written."""

    topic: str
    queue_id: I32
    committed: bool = True


@header
class GetMinOffsetHeader:
    """31: the oldest offset that can be read."""

    topic: str
    queue_id: I32


@header
class GetEarliestMsgStoretimeHeader:
    """32: when the oldest message of a queue was stored."""

    topic: str
    queue_id: I32


@header
class TimestampResponseHeader:
    """Answer to 32; -1 for an empty queue."""

    timestamp: I64
