"""Header of the shared wait, code 30004 (shmq's own clients only)."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I64


@header
class WaitForMessagesHeader:
    """One wait for all idle queues of a consumer; the body names them (`protocol/shared_wait.py`).

    Answered with 0 when some of them have news, with 19 when ``suspend_timeout_millis`` are over, or when
    the same connection sends the next wait: it has one at a time.
    """

    consumer_group: str
    suspend_timeout_millis: I64
