"""Transactions: outcomes, op messages, and how long a half message is left alone.

    half message   RMQ_SYS_TRANS_HALF_TOPIC, queue 0: the message as it was sent, with REAL_TOPIC and REAL_QID
    op message     RMQ_SYS_TRANS_OP_HALF_TOPIC, queue 0: tag "d", body "offset,offset,...," of the half
                   messages that are decided

Apache RocketMQ 5.3: TransactionalMessageUtil.java, TransactionalMessageServiceImpl.java,
LocalTransactionState.java. Pure, any process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from shmq.model import sys_flag
from shmq.model.properties import CHECK_IMMUNITY_TIME

OP_TAG = "d"


class LocalTransactionState(IntEnum):
    """What became of a local transaction; the number is that of request 37."""

    COMMIT_MESSAGE = sys_flag.TRANSACTION_COMMIT
    ROLLBACK_MESSAGE = sys_flag.TRANSACTION_ROLLBACK
    UNKNOW = sys_flag.TRANSACTION_NONE
    UNKNOWN = UNKNOW
    """RocketMQ's spelling is the other one."""


def op_body(queue_offsets: Sequence[int]) -> bytes:
    """Return the body of the op message that marks half messages as decided."""
    return b"".join(b"%d," % offset for offset in queue_offsets)


def op_offsets(body: bytes | bytearray | memoryview) -> list[int]:
    """Return the queue offsets of the half messages that an op message marks; what is no number is nobody's.

    RocketMQ 5 lists several, 4 has one without a comma.
    """
    return [int(part) for part in bytes(body).split(b",") if part.isdigit()]


def own_immunity_ms(properties: Mapping[str, str]) -> int | None:
    """Return CHECK_IMMUNITY_TIME_IN_SECONDS in ms; None without one, and for what is no positive number."""
    text = properties.get(CHECK_IMMUNITY_TIME, "")
    return int(text) * 1000 if text.isascii() and text.isdecimal() and int(text) > 0 else None


def immunity_ms(properties: Mapping[str, str], timeout_ms: int) -> int:
    """Return how long after its birth a half message is not checked: the message's own time, if that is
    longer than `transactionTimeOut`."""
    return max(own_immunity_ms(properties) or 0, timeout_ms)
