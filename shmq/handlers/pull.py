"""PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): read a queue, or hold the pull until there is something.

Runs in the worker's event loop. The reply carries the log's memoryviews: bodies go from the page cache to
the socket without a copy in between. Facts: Apache RocketMQ 5.3, PullMessageProcessor.java.
"""

from __future__ import annotations

from collections.abc import Hashable

from shmq.base.errors import ShmqError, TopicNotExist
from shmq.broker import limits
from shmq.broker.pull_holds import Wake, hold_until
from shmq.handlers.context import Ask, WorkerContext
from shmq.handlers.offset_commits import commit_offset, note_pulled
from shmq.handlers.pull_checks import PullTerms, check_pull
from shmq.handlers.pull_function import ask_function
from shmq.handlers.routes import Place, Route
from shmq.model.topic_config import SYS_FLAG_BROKER_FILTERS
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization
from shmq.protocol.headers.pull import PullMessageHeader, PullMessageResponseHeader
from shmq.shm.queue_table import QueueRef
from shmq.store.read import ReadResult, ReadStatus

_CODES = {
    ReadStatus.FOUND: ResponseCode.SUCCESS,
    ReadStatus.NO_MATCHED_MESSAGE: ResponseCode.PULL_RETRY_IMMEDIATELY,
    ReadStatus.MESSAGE_WAS_REMOVING: ResponseCode.PULL_RETRY_IMMEDIATELY,
    ReadStatus.IN_DOUBT: ResponseCode.PULL_RETRY_IMMEDIATELY,
    ReadStatus.OFFSET_FOUND_NULL: ResponseCode.PULL_NOT_FOUND,
    ReadStatus.OFFSET_OVERFLOW_ONE: ResponseCode.PULL_NOT_FOUND,
    ReadStatus.OFFSET_OVERFLOW_BADLY: ResponseCode.PULL_OFFSET_MOVED,
    ReadStatus.OFFSET_TOO_SMALL: ResponseCode.PULL_OFFSET_MOVED,
}
"""What each outcome of a read is on the wire; an empty or unknown queue depends on the offset asked for."""

_EMPTY = frozenset({ReadStatus.NO_MESSAGE_IN_QUEUE, ReadStatus.NO_MATCHED_LOGIC_QUEUE})

NO_QUEUE = ReadResult(ReadStatus.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)


def pull_message(
    ctx: WorkerContext, connection: Connection, command: Command, header: PullMessageHeader
) -> Command | None:
    """Answer with messages, with the reason why there are none, or later."""
    stays = ctx.holds.staying(connection.id, _key(header))
    if isinstance(stays, HeldPull) and stays.is_asked_again(command, header):
        _commit(ctx, command, header)
        ctx.count("pulls", 1)
        stays.go_on(command)
        deadline_ms = hold_until(ctx.clock.monotonic_ms(), _hold_ms(ctx, header))
        ctx.holds.prolong(stays, deadline_ms)
        ctx.wake_by(deadline_ms)
        return None
    terms = check_pull(ctx, header)
    _commit(ctx, command, header)
    ctx.count("pulls", 1)
    reset = terms.group.reset_of(header.topic, header.queue_id)
    if reset is not None:
        return _offset_was_reset(ctx, command, header, terms, reset)
    result = _read(ctx, command, header, terms, header.queue_offset)
    code = _code_of(result, header.queue_offset)
    if code == ResponseCode.SUCCESS and terms.wanted.function:
        _ask_function(ctx, connection, command, header, terms, result)
        return None
    in_doubt = result.status is ReadStatus.IN_DOUBT
    waits = in_doubt or code == ResponseCode.PULL_NOT_FOUND
    if waits and header.may_suspend and terms.queue is not None:
        hold = HeldPull(ctx, connection, command, header, terms, terms.queue)
        now_ms = ctx.clock.monotonic_ms()
        deadline_ms = hold_until(now_ms, limits.DOUBT_HOLD_MS if in_doubt else _hold_ms(ctx, header))
        if ctx.holds.park(hold, connection.id, deadline_ms, now_ms):
            ctx.wake_by(deadline_ms)
            return None
    return _reply(ctx, command, header, terms, result, code)


def _commit(ctx: WorkerContext, command: Command, header: PullMessageHeader) -> None:
    """Store the offset that a pull brings along."""
    if header.commits_offset and header.commit_offset >= 0:
        commit_offset(
            *(ctx, header.consumer_group, header.topic, header.queue_id, header.commit_offset),
            only_forward=command.serialization == Serialization.CBOR,
        )


def _ask_function(
    ctx: WorkerContext,
    connection: Connection,
    command: Command,
    header: PullMessageHeader,
    terms: PullTerms,
    result: ReadResult,
) -> None:
    """Answer with what the subscription's filter function wants of what was found."""

    def answer(left: ReadResult) -> None:
        code = _code_of(left, header.queue_offset)
        connection.send(_reply(ctx, command, header, terms, left, code))

    ask_function(ctx, connection, command, terms.wanted.function, result, answer)


def _hold_ms(ctx: WorkerContext, header: PullMessageHeader) -> int:
    """Return how long this pull may be held."""
    if not ctx.settings.long_polling_enable:
        return ctx.settings.short_polling_time_mills
    return max(0, min(header.suspend_timeout_millis, limits.HOLD_MS_MAX))


def _read(
    ctx: WorkerContext, command: Command, header: PullMessageHeader, terms: PullTerms, queue_offset: int
) -> ReadResult:
    """Read within the limits of one pull."""
    if terms.queue is None:
        return NO_QUEUE
    max_count, max_bytes = _bounds(ctx, command, header, terms.queue, queue_offset)
    wanted = terms.wanted
    return ctx.store.read(terms.queue, queue_offset, max_count, max_bytes, wanted.tag_hashes, wanted.exact)


def _bounds(
    ctx: WorkerContext, command: Command, header: PullMessageHeader, queue: QueueRef, queue_offset: int
) -> tuple[int, int]:
    """Return the most messages and bytes of one answer.

    RocketMQ's settings bound its clients; shmq's own (CBOR) say what they can take, as one answer per 32
    messages would cost them most of their speed.
    """
    settings = ctx.settings
    count = max(1, header.max_msg_nums)
    wanted_bytes = header.max_msg_bytes if header.max_msg_bytes and header.max_msg_bytes > 0 else None
    if command.serialization == Serialization.CBOR and wanted_bytes is not None:
        return min(count, limits.PULL_COUNT_MAX), min(wanted_bytes, limits.PULL_BYTES_MAX)
    if ctx.memory.is_on_disk(queue, queue_offset):
        most_count = settings.max_transfer_count_on_message_in_disk
        most_bytes = settings.max_transfer_bytes_on_message_in_disk
    else:
        most_count = settings.max_transfer_count_on_message_in_memory
        most_bytes = settings.max_transfer_bytes_on_message_in_memory
    return min(count, most_count), min(wanted_bytes or most_bytes, most_bytes)


def _code_of(result: ReadResult, queue_offset: int) -> int:
    """Map a read's outcome to its response code."""
    if result.status in _EMPTY:
        return ResponseCode.PULL_NOT_FOUND if queue_offset == 0 else ResponseCode.PULL_OFFSET_MOVED
    return _CODES[result.status]


def _offset_was_reset(
    ctx: WorkerContext, command: Command, header: PullMessageHeader, terms: PullTerms, offset: int
) -> Command:
    """Send the consumer to where an operator has put its group."""
    terms.group.take_reset(header.topic, header.queue_id)
    ctx.reset_taken(header.consumer_group, header.topic, header.queue_id, offset)
    low = high = 0
    if terms.queue is not None:
        low, high = ctx.store.min(terms.queue), ctx.store.max(terms.queue)
    result = ReadResult(ReadStatus.OFFSET_TOO_SMALL, offset, low, high)
    return _reply(ctx, command, header, terms, result, ResponseCode.PULL_OFFSET_MOVED)


def _reply(
    ctx: WorkerContext,
    command: Command,
    header: PullMessageHeader,
    terms: PullTerms,
    result: ReadResult,
    code: int,
) -> Command:
    """Build the answer and count it; every one of 0, 19, 20 and 21 carries the offsets."""
    found = code == ResponseCode.SUCCESS
    ctx.stats.pulled(found)
    if found:
        ctx.stats.got(header.topic, header.consumer_group, result.count, result.size)
        ctx.count("messages_pulled", result.count)
        ctx.count("pull_bytes", result.size)
        note_pulled(ctx, header.consumer_group, header.topic, header.queue_id, result.next_offset)
    answer = PullMessageResponseHeader(
        suggest_which_broker_id=0,
        next_begin_offset=result.next_offset,
        min_offset=result.min_offset,
        max_offset=result.max_offset,
        topic_sys_flag=terms.topic.topic_sys_flag | SYS_FLAG_BROKER_FILTERS * terms.topic.has_several_tags,
        group_sys_flag=terms.group.config.group_sys_flag,
    )
    remark = None if found else result.status.name
    return command.response(code, remark, answer, [*result.views] if found else None)


class HeldPull:
    """A pull that found nothing and waits; ``scan_offset`` moves past messages its filter refuses.

    An idle consumer asks the same again as soon as its time is over. So the hold stays for a moment, and the
    same pull on the same connection goes on with it; whatever happens to its queue, topic or group before
    makes the next pull a new one.
    """

    __slots__ = (
        "_command",
        "_connection",
        "_ctx",
        "_header",
        "_terms",
        "group",
        "key",
        "queues",
        "scan_offset",
    )

    def __init__(
        self,
        ctx: WorkerContext,
        connection: Connection,
        command: Command,
        header: PullMessageHeader,
        terms: PullTerms,
        queue: QueueRef,
    ) -> None:
        """Remember the request as it came, and what its checks found: they are made again for every look but
        the last, as every change of what they depend on is a look."""
        self._ctx = ctx
        self._connection = connection
        self._command = command
        self._header = header
        self._terms: PullTerms | None = terms
        self.group = header.consumer_group
        self.key = _key(header)
        self.queues = (queue,)
        self.scan_offset = header.queue_offset

    def is_asked_again(self, command: Command, header: PullMessageHeader) -> bool:
        """Tell whether a pull says what the last one said, and there is still nothing for it."""
        store, queue = self._ctx.store, self.queues[0]
        return (
            header == self._header
            and command.serialization == self._command.serialization
            and store.table.alive(queue)
            and store.max(queue) == self.scan_offset
        )

    def go_on(self, command: Command) -> None:
        """Answer this pull, as the queue is still watched."""
        self._command = command

    def is_behind(self, queue: QueueRef, max_offset: int) -> bool:
        """Tell whether there are messages that were not looked at."""
        return max_offset > self.scan_offset

    def wake(self, why: Wake, now_ms: int) -> int | None:
        """Read again; answer when there is something, the time is over, or it is not allowed any more.

        A peer that does not take its replies gets this one when it does: read then, and answered whatever is
        found.
        """
        if not self._connection.is_open:
            return None
        if self._connection.is_congested:
            self._connection.when_writable(self._answer_late)
            return None
        ctx, command, header = self._ctx, self._command, self._header
        try:
            terms = (self._terms if why is Wake.TIMED_OUT else None) or check_pull(ctx, header)
        except (ShmqError, Ask) as fault:
            error = TopicNotExist("the topic or the group was deleted") if isinstance(fault, Ask) else fault
            self._connection.send(command.refusal(error))
            return None
        self._terms = terms
        reset = terms.group.reset_of(header.topic, header.queue_id)
        if reset is not None:
            self._connection.send(_offset_was_reset(ctx, command, header, terms, reset))
            return None
        result = _read(ctx, command, header, terms, self.scan_offset)
        code = _code_of(result, self.scan_offset)
        if code == ResponseCode.SUCCESS and terms.wanted.function:
            try:
                _ask_function(ctx, self._connection, command, header, terms, result)
            except ShmqError as refusal:
                self._connection.send(command.refusal(refusal))
            return None
        if code == ResponseCode.PULL_RETRY_IMMEDIATELY:
            self.scan_offset = result.next_offset
        waits_on = code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY)
        if waits_on and why is not Wake.TIMED_OUT and terms.queue == self.queues[0]:
            skipped = self.scan_offset > header.queue_offset
            return now_ms + (limits.FILTERED_HOLD_MS_MAX if skipped else limits.HOLD_MS_MAX)
        if code == ResponseCode.PULL_NOT_FOUND and self.scan_offset > header.queue_offset:
            code = ResponseCode.PULL_RETRY_IMMEDIATELY
            result.status = ReadStatus.NO_MATCHED_MESSAGE
        self._connection.send(_reply(ctx, command, header, terms, result, code))
        stays = waits_on and terms.queue == self.queues[0] and result.max_offset == header.queue_offset
        return now_ms + limits.RENEWAL_MS if stays else None

    def _answer_late(self) -> None:
        self._terms = None
        self.wake(Wake.TIMED_OUT, self._ctx.clock.monotonic_ms())


def _key(header: PullMessageHeader) -> Hashable:
    """What a pull has in common with the one that may go on with its hold."""
    return header.consumer_group, header.topic, header.queue_id


ROUTES: dict[int, Route] = {
    RequestCode.PULL_MESSAGE: Route(PullMessageHeader, pull_message, Place.WORKER),
    RequestCode.LITE_PULL_MESSAGE: Route(PullMessageHeader, pull_message, Place.WORKER),
}
