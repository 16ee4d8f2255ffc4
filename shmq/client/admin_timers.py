"""AdminTimers: the part of `AdminClient` that looks after messages that wait for their moment.

Addresses, threads and errors as in `AdminClient`; only shmq's brokers answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from shmq.base.errors import QueryNotFound
from shmq.client.admin_links import AdminLinks
from shmq.model.names import CLIENT_INNER_PRODUCER_GROUP
from shmq.protocol.bodies.timers import TimerList, TimerRow
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import RecallMessageHeader
from shmq.protocol.headers.timer import (
    ListTimersHeader,
    RescheduleTimerHeader,
    RescheduleTimerResponseHeader,
)

PAGE = 64


class AdminTimers:
    """Requests about waiting messages."""

    _links: AdminLinks

    def waiting_messages(self, broker_addr: str, topic: str | None = None) -> Iterator[TimerRow]:
        """Yield a broker's waiting messages, of one topic or of all, in the order in which they came."""
        first = 0
        while first >= 0:
            page = self._timers(broker_addr, ListTimersHeader(topic=topic, first=first, count=PAGE))
            yield from page.timers
            first = page.next

    def waiting_message(self, broker_addr: str, msg_id: str) -> TimerRow:
        """Return the waiting message with a unique key or offset id; QueryNotFound without one."""
        found = self._timers(broker_addr, ListTimersHeader(msg_id=msg_id)).timers
        if not found:
            raise QueryNotFound(f"no message {msg_id} waits there")
        return found[0]

    def cancel_waiting(self, broker_addr: str, message: TimerRow) -> None:
        """Take a waiting message back; IllegalOperation when it was delivered."""
        header = RecallMessageHeader(message.topic, message.recall_handle, CLIENT_INNER_PRODUCER_GROUP)
        self._links.ask_broker(broker_addr, Command.request(RequestCode.RECALL_MESSAGE, header))

    def reschedule_waiting(self, broker_addr: str, message: TimerRow, deliver_ms: int) -> str:
        """Put a waiting message off to another moment in ms; returns its new handle, "" when it was
        delivered at once."""
        header = RescheduleTimerHeader(message.topic, message.recall_handle, deliver_ms)
        answer = self._links.ask_broker(broker_addr, Command.request(RequestCode.RESCHEDULE_TIMER, header))
        return answer.read_header(RescheduleTimerResponseHeader).recall_handle

    def _timers(self, broker_addr: str, header: ListTimersHeader) -> TimerList:
        answer = self._links.ask_broker(broker_addr, Command.request(RequestCode.LIST_TIMERS, header))
        return TimerList.decode(answer.body_bytes())
