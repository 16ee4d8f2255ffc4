"""WAIT_FOR_MESSAGES (30004): one wait for all idle queues of one of shmq's consumers.

A held pull asks again every 15 s for every queue. A consumer whose queues have been idle for that long waits
for all of them with one request instead, for a minute or more. News end the wait; the messages themselves
are then read or pulled as ever, so nothing is checked here but that the group exists. So does a change of
the group or of a topic: then the answer names the topics that have changed, and all queues are to be looked
at. A wait is a sign of life like a heartbeat. Runs in the worker's event loop; each queue of a wait is a
hold of its own (`broker/pull_holds.py`); `connection.state` is the wait.
"""

from __future__ import annotations

from shmq.base.errors import SystemBusy
from shmq.broker import limits
from shmq.broker.pull_holds import Wake, hold_until
from shmq.handlers.context import Ask, NeedGroup, WorkerContext
from shmq.handlers.routes import Place, Route
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.shared_wait import WaitForMessagesHeader
from shmq.protocol.shared_wait import Awaited, decode_waits, encode_news
from shmq.shm.queue_table import QueueRef


class SharedWait:
    """One client's wait; ended once, with an answer."""

    def __init__(self, ctx: WorkerContext, connection: Connection, command: Command) -> None:
        """Wait for nothing yet."""
        self._ctx = ctx
        self._connection = connection
        self._command = command
        self.holds: list[_QueueHold] = []
        self.ended = False

    def end(self, why: Wake) -> None:
        """Answer, and forget the holds."""
        if self.ended:
            return
        self.ended = True
        is_told = _QueueHold.has_changed if why is Wake.RULES_CHANGED else _QueueHold.has_news
        told = [(hold.topic, hold.queue.queue_id) for hold in self.holds if is_told(hold)]
        for hold in self.holds:
            self._ctx.holds.drop(hold)
        self.holds = []
        if why is Wake.RULES_CHANGED:
            code = ResponseCode.PULL_RETRY_IMMEDIATELY
        else:
            code = ResponseCode.SUCCESS if told else ResponseCode.PULL_NOT_FOUND
        self._connection.send(self._command.response(code, body=encode_news(told) if told else None))


class _QueueHold:
    """One queue of a wait; implements `broker.pull_holds.PullHold`."""

    __slots__ = ("_config", "_ctx", "_wait", "group", "queue", "scan_offset", "topic")

    def __init__(
        self, ctx: WorkerContext, wait: SharedWait, group: str, awaited: Awaited, queue: QueueRef
    ) -> None:
        self._ctx = ctx
        self._wait = wait
        self.group = group
        self.topic = awaited.topic
        self.queue = queue
        self.scan_offset = awaited.offset
        self._config = ctx.view.topics.get(awaited.topic)

    def has_news(self) -> bool:
        """Tell whether messages came."""
        return self._ctx.store.max(self.queue) != self.scan_offset

    def has_changed(self) -> bool:
        """Tell whether the topic is another than when the wait began."""
        return self._ctx.view.topics.get(self.topic) != self._config

    def wake(self, why: Wake, now_ms: int) -> int | None:
        """End the wait, unless what was appended is not visible yet."""
        if why is Wake.NEW_MESSAGES and not self.has_news():
            return now_ms + limits.HOLD_MS_MAX
        self._wait.end(why)
        return None


def wait_for_messages(
    ctx: WorkerContext, connection: Connection, command: Command, header: WaitForMessagesHeader
) -> Command | None:
    """30004: answer when one of the queues has news, or when the time is over."""
    group = header.consumer_group
    if group not in ctx.view.groups:
        raise Ask(NeedGroup(group))
    waits = decode_waits(command.body_bytes())
    ctx.lives(connection.id)
    if isinstance(connection.state, SharedWait):
        connection.state.end(Wake.TIMED_OUT)
    ctx.count("shared_waits", 1)
    wait = SharedWait(ctx, connection, command)
    news = []
    for awaited in waits:
        queue = _queue(ctx, awaited)
        if queue is None or ctx.store.max(queue) != awaited.offset:
            news.append((awaited.topic, awaited.queue_id))  # a pull will say what is the matter
        else:
            wait.holds.append(_QueueHold(ctx, wait, group, awaited, queue))
    if news:
        return command.response(ResponseCode.SUCCESS, body=encode_news(news))
    connection.state = wait
    now_ms = ctx.clock.monotonic_ms()
    # Who waits longer than half of what a client may be silent would have to beat as well.
    longest_ms = min(limits.HOLD_MS_MAX, ctx.view.client_expiry_ms // 2)
    deadline_ms = hold_until(now_ms, max(0, min(header.suspend_timeout_millis, longest_ms)))
    for hold in list(wait.holds):
        if not wait.ended and not ctx.holds.park(hold, connection.id, deadline_ms, now_ms):
            wait.ended = True
            for parked in wait.holds:
                ctx.holds.drop(parked)
            raise SystemBusy("this broker holds as many pulls as it may: pull without waiting")
    ctx.wake_by(deadline_ms)
    return None


def _queue(ctx: WorkerContext, awaited: Awaited) -> QueueRef | None:
    config = ctx.view.topics.get(awaited.topic)
    if config is None or not 0 <= awaited.queue_id < config.read_queue_nums:
        return None
    queue = ctx.directory.queue(awaited.topic, awaited.queue_id)
    if queue is None:
        ctx.directory.catch_up()
        queue = ctx.directory.queue(awaited.topic, awaited.queue_id)
    return queue


ROUTES: dict[int, Route] = {
    RequestCode.WAIT_FOR_MESSAGES: Route(WaitForMessagesHeader, wait_for_messages, Place.WORKER),
}
"""Served by the worker that has the consumer's connection."""
