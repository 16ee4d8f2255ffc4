"""Headers of queries for messages: by key 12, by id 33, queue entries 321, resumed checks 323."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64

UNIQUE_KEY_QUERY = "_UNIQUE_KEY_QUERY"
"""Ext name beside header 12: ``true`` when the key is a UNIQ_KEY, else it is one of KEYS."""


@header
class QueryMessageHeader:
    """12: messages of a topic with a key, stored between two times (ms)."""

    topic: str
    key: str
    max_num: I32
    begin_timestamp: I64
    end_timestamp: I64


@header
class QueryMessageResponseHeader:
    """Answer to 12: how far the index has come."""

    index_last_update_timestamp: I64
    index_last_update_phyoffset: I64


@header
class ViewMessageHeader:
    """33: the message at a commit-log offset."""

    offset: I64
    topic: str | None = None


@header
class QueryConsumeQueueHeader:
    """321: ConsumeQueue entries ``index`` to ``index + count - 1``."""

    topic: str
    queue_id: I32
    index: I64
    count: I32
    consumer_group: str | None = None


@header
class ResumeCheckHalfMessageHeader:
    """323: check a half message again that was given up."""

    msg_id: str
    topic: str | None = None
