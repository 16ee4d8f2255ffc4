"""Header of the request for a common core, code 30005 (shmq's own clients only)."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32


@header
class ShareCoreHeader:
    """The processor core this connection's client runs on while it waits for answers, -1: not any more.

    Answered with 0 when the worker runs there from now on, with 2 when it does not.
    """

    cpu: I32
