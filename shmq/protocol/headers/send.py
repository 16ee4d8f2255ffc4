"""Headers of the send family: codes 10, 310, 320, replies 324 and 325, and their one response."""

from typing import ClassVar

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class SendMessageHeader:
    """A message or batch to store; its body is the command's body.

    Reads both spellings (Go sends long names with every code) and writes the long ones. A negative
    ``queue_id`` lets the broker choose; ``batch`` is true with code 320 only.
    """

    SHORT: ClassVar[dict[str, str]] = {
        "producer_group": "a",
        "topic": "b",
        "default_topic": "c",
        "default_topic_queue_nums": "d",
        "queue_id": "e",
        "sys_flag": "f",
        "born_timestamp": "g",
        "flag": "h",
        "properties": "i",
        "reconsume_times": "j",
        "unit_mode": "k",
        "max_reconsume_times": "l",
        "batch": "m",
    }

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: I32
    queue_id: I32
    sys_flag: I32
    born_timestamp: I64
    flag: I32
    properties: str | None = None
    reconsume_times: I32 = 0
    unit_mode: bool = False
    max_reconsume_times: I32 | None = None
    batch: bool = False


@header
class SendMessageV2Header(SendMessageHeader):
    """The same, written with one-letter names: codes 310, 320 and 325 towards any RocketMQ broker."""

    WRITES_SHORT: ClassVar[bool] = True


@header
class SendMessageResponseHeader:
    """Where a message was stored. Batch: ``msg_id`` is the comma-joined list, ``queue_offset`` the first
    one's.

    ``msg_id`` is the offset id. shmq answers its own clients (CBOR) with an empty one and
    ``physical_offset`` of the first record, from which they make it when somebody asks. ``flushed``: the
    message is on the disk (true) or in the page cache (false); absent when the broker does not tell.
    """

    WIRE: ClassVar[dict[str, str]] = {"msg_region": "MSG_REGION", "trace_on": "TRACE_ON"}

    msg_id: str
    queue_id: I32
    queue_offset: I64
    transaction_id: str | None = None
    batch_uniq_id: str | None = None
    recall_handle: str | None = None
    msg_region: str | None = None
    trace_on: str | None = None
    physical_offset: I64 | None = None
    flushed: bool | None = None


@header
class ConsumerSendMsgBackHeader:
    """36: a consumer failed and wants the message at commit-log ``offset`` again later.

    ``last_error`` says why, from shmq's clients; RocketMQ's brokers ignore it.
    """

    offset: I64
    group: str
    delay_level: I32
    origin_msg_id: str | None = None
    origin_topic: str | None = None
    unit_mode: bool = False
    max_reconsume_times: I32 | None = None
    last_error: str | None = None


@header
class EndTransactionHeader:
    """37: outcome of a half message; ``commit_or_rollback`` is 8 commit, 12 rollback, 0 unknown."""

    producer_group: str
    tran_state_table_offset: I64
    commit_log_offset: I64
    commit_or_rollback: I32
    msg_id: str
    from_transaction_check: bool = False
    topic: str | None = None
    transaction_id: str | None = None


@header
class CheckTransactionStateHeader:
    """39: the broker asks a producer for the outcome; the body is the half message's record."""

    tran_state_table_offset: I64
    commit_log_offset: I64
    topic: str | None = None
    msg_id: str | None = None
    transaction_id: str | None = None
    offset_msg_id: str | None = None


@header
class PushReplyMessageHeader:
    """326: a request-reply answer pushed to the requester; hosts are ``ip:port`` texts."""

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: I32
    queue_id: I32
    sys_flag: I32
    born_timestamp: I64
    flag: I32
    born_host: str
    store_host: str
    store_timestamp: I64
    properties: str | None = None
    reconsume_times: I32 = 0
    unit_mode: bool = False


@header
class RecallMessageHeader:
    """370: take back a timer message by its recall handle."""

    topic: str
    recall_handle: str
    producer_group: str | None = None


@header
class RecallMessageResponseHeader:
    """Answer to 370: the unique key of the recalled message."""

    msg_id: str
