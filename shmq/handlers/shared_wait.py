"""WAIT_FOR_MESSAGES (30004): one wait for all idle queues of one of shmq's consumers.

A held pull asks again every 15 s for every queue. A consumer whose queues have been idle for that long waits
for all of them with one request instead, for two minutes. News end the wait; the messages themselves
are then read or pulled as ever, so nothing is checked here but that the group exists. So does a change of
the group or of a topic: then the answer names the topics that have changed, and all queues are to be looked
at. Whoever waits lives, as far as the broker is concerned, until it has got its answer.

A client whose wait has ended because its time was over mostly asks the same again, within milliseconds. So
the queues stay watched for a moment, and the same request from the same connection goes on with them;
whatever happens to one of them in between makes the next request a new one. Runs in the worker's event loop;
`connection.state` is the wait.
"""

from __future__ import annotations

from shmq.base.errors import SystemBusy
from shmq.broker import limits
from shmq.broker.pull_holds import Wake, hold_until
from shmq.handlers.context import Ask, NeedGroup, WorkerContext
from shmq.handlers.routes import Place, Route
from shmq.model.topic_config import TopicConfig
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.shared_wait import WaitForMessagesHeader
from shmq.protocol.shared_wait import Awaited, decode_waits, encode_news
from shmq.shm.queue_table import QueueRef


class SharedWait:
    """One client's wait; implements `broker.pull_holds.PullHold`."""

    __slots__ = ("_body", "_command", "_configs", "_connection", "_ctx", "_offsets", "group", "queues")

    key = None
    """A connection has one wait."""

    def __init__(
        self,
        ctx: WorkerContext,
        connection: Connection,
        command: Command,
        group: str,
        offsets: dict[QueueRef, int],
    ) -> None:
        """Answer `command` when a queue has more than its client's next offset says."""
        self._ctx = ctx
        self._connection = connection
        self._command = command
        self._body = command.body_bytes()
        self._offsets = offsets
        self._configs: dict[str, TopicConfig | None] = {
            queue.topic: ctx.view.topics.get(queue.topic) for queue in offsets
        }
        self.group = group
        self.queues = tuple(offsets)

    def is_asked_again(self, command: Command, group: str) -> bool:
        """Tell whether a request says what the last one said, and nothing came since."""
        return group == self.group and command.body == self._body and not self._news()

    def go_on(self, command: Command) -> None:
        """Answer this request, as the queues are still watched."""
        self._command = command

    def is_behind(self, queue: QueueRef, max_offset: int) -> bool:
        """Tell whether messages came to one queue, visible or not."""
        return max_offset > self._offsets[queue]

    def wake(self, why: Wake, now_ms: int) -> int | None:
        """End the wait, unless what was appended is not visible yet."""
        if why is Wake.RULES_CHANGED:
            topics = self._ctx.view.topics
            changed = {topic for topic, config in self._configs.items() if topics.get(topic) != config}
            told = [queue for queue in self.queues if queue.topic in changed]
            self._answer(ResponseCode.PULL_RETRY_IMMEDIATELY, told)
            return None
        news = self._news()
        if news:
            self._answer(ResponseCode.SUCCESS, news)
            return None
        if why is Wake.NEW_MESSAGES:
            return now_ms + limits.HOLD_MS_MAX
        self._answer(ResponseCode.PULL_NOT_FOUND, [])
        return now_ms + limits.RENEWAL_MS

    def _news(self) -> list[QueueRef]:
        """The queues that have messages."""
        find_max = self._ctx.store.max
        return [queue for queue, offset in self._offsets.items() if find_max(queue) != offset]

    def _answer(self, code: ResponseCode, queues: list[QueueRef]) -> None:
        self._ctx.waits(self._connection.id, False)
        body = encode_news((queue.topic, queue.queue_id) for queue in queues) if queues else None
        self._connection.send(self._command.response(code, body=body))


def wait_for_messages(
    ctx: WorkerContext, connection: Connection, command: Command, header: WaitForMessagesHeader
) -> Command | None:
    """30004: answer when one of the queues has news, or when the time is over."""
    group = header.consumer_group
    if group not in ctx.view.groups:
        raise Ask(NeedGroup(group))
    now_ms = ctx.clock.monotonic_ms()
    deadline_ms = hold_until(now_ms, max(0, min(header.suspend_timeout_millis, limits.HOLD_MS_MAX)))
    former = connection.state if isinstance(connection.state, SharedWait) else None
    ctx.count("shared_waits", 1)
    stays = former is not None and ctx.holds.staying(connection.id, former.key) is former
    if former is not None and stays and former.is_asked_again(command, group):
        ctx.waits(connection.id, True)
        former.go_on(command)
        ctx.holds.prolong(former, deadline_ms)
    else:
        waits = decode_waits(command.body_bytes())
        if former is not None:
            connection.state = None
            ctx.holds.end(former, now_ms)  # its answer says that the client waits no more
        ctx.waits(connection.id, True)
        offsets, news = _look(ctx, waits)
        if news:
            ctx.waits(connection.id, False)
            return command.response(ResponseCode.SUCCESS, body=encode_news(news))
        wait = connection.state = SharedWait(ctx, connection, command, group, offsets)
        if not ctx.holds.park(wait, connection.id, deadline_ms, now_ms):
            ctx.waits(connection.id, False)
            raise SystemBusy("this broker holds as many pulls as it may: pull without waiting")
    ctx.wake_by(deadline_ms)
    return None


def _look(ctx: WorkerContext, waits: list[Awaited]) -> tuple[dict[QueueRef, int], list[tuple[str, int]]]:
    """The queues with their next offsets, and those that have news: a pull will say what is the matter."""
    offsets: dict[QueueRef, int] = {}
    news: list[tuple[str, int]] = []
    for awaited in waits:
        queue = _queue(ctx, awaited)
        if queue is None or ctx.store.max(queue) != awaited.offset:
            news.append((awaited.topic, awaited.queue_id))
        else:
            offsets[queue] = awaited.offset
    return offsets, news


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
