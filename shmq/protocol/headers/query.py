"""Headers of queries for messages: by key 12, by id 33, queue entries 321, resumed checks 323."""

from dataclasses import dataclass

from shmq.protocol.header_table import I32, I64

UNIQUE_KEY_QUERY = "_UNIQUE_KEY_QUERY"
"""Ext name beside header 12: ``true`` when the key is a UNIQ_KEY, else it is one of KEYS."""


@dataclass(slots=True)
class QueryMessageHeader:
    """12: messages of a topic with a key, stored between two times (ms)."""

    topic: str
    key: str
    max_num: I32
    begin_timestamp: I64
    end_timestamp: I64


@dataclass(slots=True)
class QueryMessageResponseHeader:
    """Answer to 12: how far the index has come."""

    index_last_update_timestamp: I64
    index_last_update_phyoffset: I64


@dataclass(slots=True)
class ViewMessageHeader:
    """33: the message at a commit-log offset."""

    offset: I64
    topic: str | None = None


@dataclass(slots=True)
class QueryConsumeQueueHeader:
    """321: ConsumeQueue entries ``index`` to ``index + count - 1``."""

    topic: str
    queue_id: I32
    index: I64
    count: I32
    consumer_group: str | None = None


@dataclass(slots=True)
class ResumeCheckHalfMessageHeader:
    """323: check a half message again that was given up."""

    msg_id: str
    topic: str | None = None
