"""Headers of shmq's own requests about waiting messages: 30010 list, 30011 put off. (370 is in `send.py`.)"""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class ListTimersHeader:
    """30010: messages that wait for their moment; the body of the answer is JSON (`bodies/timers.py`).

    With ``msg_id`` (unique key or offset id) that one; else those from queue offset ``first`` of the timers'
    queue on, at most ``count``, of ``topic`` or of all.
    """

    msg_id: str | None = None
    topic: str | None = None
    first: I64 = 0
    count: I32 = 32


@header
class RescheduleTimerHeader:
    """30011: put the waiting message of a recall handle off to another moment in ms."""

    topic: str
    recall_handle: str
    deliver_ms: I64


@header
class RescheduleTimerResponseHeader:
    """Answer to 30011: the unique key, and the handle by which it is taken back from now on; "" when its
    moment had come and it was delivered."""

    msg_id: str
    recall_handle: str
