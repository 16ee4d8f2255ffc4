"""Message properties: the well-known names and the text form they are stored and sent in.

    name 0x01 value 0x02 name 0x01 value 0x02 ...        UTF-8; the last 0x02 may be missing; 32,767 bytes
    at most

The reader drops what RocketMQ's drops: pieces shorter than three characters, without 0x01, or with an empty
name or value; a repeated name keeps its last value (Apache RocketMQ 5.3, MessageDecoder.java). Pure
functions, any process.
"""

from collections.abc import Iterable, Mapping

from shmq.base.errors import MessageIllegal

NAME_VALUE_SEPARATOR = "\x01"
PROPERTY_SEPARATOR = "\x02"
PROPERTIES_BYTES_MAX = 32767

KEYS = "KEYS"
TAGS = "TAGS"
WAIT = "WAIT"
DELAY = "DELAY"
UNIQ_KEY = "UNIQ_KEY"
RETRY_TOPIC = "RETRY_TOPIC"
REAL_TOPIC = "REAL_TOPIC"
REAL_QUEUE_ID = "REAL_QID"
TRANSACTION_PREPARED = "TRAN_MSG"
PRODUCER_GROUP = "PGROUP"
MIN_OFFSET = "MIN_OFFSET"
MAX_OFFSET = "MAX_OFFSET"
BUYER_ID = "BUYER_ID"
ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID"
TRANSFER_FLAG = "TRANSFER_FLAG"
CORRECTION_FLAG = "CORRECTION_FLAG"
MQ2_FLAG = "MQ2_FLAG"
RECONSUME_TIME = "RECONSUME_TIME"
MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES"
MSG_REGION = "MSG_REGION"
TRACE_ON = "TRACE_ON"
CLUSTER = "CLUSTER"
EXTEND_UNIQ_INFO = "EXTEND_UNIQ_INFO"
CONSUME_START_TIME = "CONSUME_START_TIME"
POP_CK = "POP_CK"
POP_CK_OFFSET = "POP_CK_OFFSET"
FIRST_POP_TIME = "1ST_POP_TIME"
TRANSACTION_PREPARED_QUEUE_OFFSET = "TRAN_PREPARED_QUEUE_OFFSET"
TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES"
TRANSACTION_ID = "__transactionId__"
CHECK_IMMUNITY_TIME = "CHECK_IMMUNITY_TIME_IN_SECONDS"
DUP_INFO = "DUP_INFO"
INSTANCE_ID = "INSTANCE_ID"
SHARDING_KEY = "__SHARDINGKEY"
CORRELATION_ID = "CORRELATION_ID"
REPLY_TO_CLIENT = "REPLY_TO_CLIENT"
TTL = "TTL"
ARRIVE_TIME = "ARRIVE_TIME"
PUSH_REPLY_TIME = "PUSH_REPLY_TIME"
MSG_TYPE = "MSG_TYPE"
INNER_NUM = "INNER_NUM"
INNER_BASE = "INNER_BASE"
INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH"
INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET"
TIMER_DELAY_SEC = "TIMER_DELAY_SEC"
TIMER_DELAY_MS = "TIMER_DELAY_MS"
TIMER_DELIVER_MS = "TIMER_DELIVER_MS"
TIMER_DEL_UNIQKEY = "TIMER_DEL_UNIQKEY"
TIMER_ENQUEUE_MS = "TIMER_ENQUEUE_MS"
TIMER_DEQUEUE_MS = "TIMER_DEQUEUE_MS"
TIMER_OUT_MS = "TIMER_OUT_MS"
TIMER_ROLL_TIMES = "TIMER_ROLL_TIMES"
TIMER_DELAY_LEVEL = "TIMER_DELAY_LEVEL"
BORN_HOST = "__BORNHOST"
BORN_TIMESTAMP = "BORN_TIMESTAMP"
DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC"
DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID"
CRC32 = "__CRC32#"
SHMQ_WAIT_FOR = "SHMQ_WAIT_FOR"
SHMQ_LAST_ERROR = "SHMQ_LAST_ERROR"
SHMQ_SEQUENCE = "SHMQ_SEQUENCE"
"""On the sends of an idempotent producer (`model/sequence.py`)."""
SHMQ_COMMIT_PREFIX = "SHMQ_COMMIT_"
"""On a half message, before DELAY and TIMER_*: they count from the commit. Apache brokers, which could not
keep their promise, ignore them so."""
SHMQ_HALF_BATCH = "SHMQ_HALF_BATCH"
"""On a half message: its body is a batch of so many messages, in the form of request 320."""

RESERVED_NAMES = frozenset(
    {
        *(KEYS, TAGS, WAIT, DELAY, UNIQ_KEY, RETRY_TOPIC, REAL_TOPIC, REAL_QUEUE_ID, TRANSACTION_PREPARED),
        *(
            PRODUCER_GROUP,
            MIN_OFFSET,
            MAX_OFFSET,
            BUYER_ID,
            ORIGIN_MESSAGE_ID,
            TRANSFER_FLAG,
            CORRECTION_FLAG,
        ),
        *(MQ2_FLAG, RECONSUME_TIME, MAX_RECONSUME_TIMES, MSG_REGION, TRACE_ON, CLUSTER, EXTEND_UNIQ_INFO),
        *(
            CONSUME_START_TIME,
            POP_CK,
            POP_CK_OFFSET,
            FIRST_POP_TIME,
            TRANSACTION_PREPARED_QUEUE_OFFSET,
            DUP_INFO,
        ),
        *(INSTANCE_ID, CORRELATION_ID, REPLY_TO_CLIENT, TTL, ARRIVE_TIME, PUSH_REPLY_TIME, MSG_TYPE),
        *(INNER_MULTI_QUEUE_OFFSET, TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS, TIMER_DEL_UNIQKEY),
        *(TIMER_ENQUEUE_MS, TIMER_DEQUEUE_MS, TIMER_OUT_MS, TIMER_ROLL_TIMES, TIMER_DELAY_LEVEL, BORN_HOST),
        *(BORN_TIMESTAMP, DLQ_ORIGIN_TOPIC, DLQ_ORIGIN_MESSAGE_ID, CRC32, SHMQ_WAIT_FOR, SHMQ_LAST_ERROR),
        *(SHMQ_HALF_BATCH, SHMQ_SEQUENCE),
        *(
            f"{SHMQ_COMMIT_PREFIX}{name}"
            for name in (DELAY, TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS)
        ),
    }
)
"""Names that a user may not set as a user property (they have their own attribute, or belong to the
broker)."""


def encode_properties(properties: Mapping[str, str]) -> bytes:
    """Return the stored form, with a final 0x02. ``MessageIllegal`` when it is longer than 32,767 bytes.

    Names and values are not searched for separators here: ``check_user_property`` did that where they came
    in.
    """
    return encode_text("".join([f"{name}\x01{value}\x02" for name, value in properties.items()]))


def encode_text(text: str) -> bytes:
    """Return properties, written as they are stored, as bytes; ``MessageIllegal`` as above."""
    encoded = text.encode()
    if len(encoded) > PROPERTIES_BYTES_MAX:
        raise MessageIllegal(
            f"properties are {len(encoded)} bytes long as stored; at most {PROPERTIES_BYTES_MAX} are allowed"
        )
    return encoded


def decode_properties(encoded: bytes | bytearray | memoryview | str) -> dict[str, str]:
    """Read the stored form; tolerant as described above. Bytes that are no UTF-8 become U+FFFD."""
    text = encoded if isinstance(encoded, str) else str(encoded, "utf-8", "replace")
    properties = {}
    for piece in text.split(PROPERTY_SEPARATOR):
        if len(piece) < 3:
            continue
        name, separator, value = piece.partition(NAME_VALUE_SEPARATOR)
        if separator and name and value:
            properties[name] = value
    return properties


def check_user_property(name: str, value: str) -> None:
    """Refuse a user property that is reserved, blank or holds a separator. ``MessageIllegal`` names the
    rule."""
    if not isinstance(name, str) or not name.strip():
        raise MessageIllegal("a property name may not be null or blank")
    if not isinstance(value, str) or not value.strip():
        raise MessageIllegal(f"property {name!r}: the value may not be null or blank")
    if name in RESERVED_NAMES:
        raise MessageIllegal(
            f"property name {name!r} is reserved: use the message's own attribute or another name"
        )
    check_separators(name, value)


def check_separators(*texts: str) -> None:
    """Refuse texts that hold one of the two separator characters of the stored form."""
    for text in texts:
        if NAME_VALUE_SEPARATOR in text or PROPERTY_SEPARATOR in text:
            raise MessageIllegal(f"{text!r}: names and values of properties may not contain U+0001 or U+0002")


def split_keys(keys: str | None) -> list[str]:
    """Return the single keys of a KEYS value: the non-empty pieces between blanks."""
    return [key for key in keys.split(" ") if key] if keys else []


def join_keys(keys: str | Iterable[str] | None) -> str:
    """Return the KEYS value of one key text or several keys."""
    if keys is None:
        return ""
    return keys if isinstance(keys, str) else " ".join(keys)
