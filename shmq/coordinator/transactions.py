"""The open transactions: which half messages are undecided, and the claims that end or move them.

    commit     the message's own topic + an op message        one claim (`AppendRequest.with_next`)
    rollback   an op message
    put back   a copy at the half queue's end + its cursor    one claim (`AppendRequest.word`); an op message
    give up    TRANS_CHECK_MAX_TIME_TOPIC + the cursor        instead, when older ones stay open

So a half message is decided, or known by a newer copy, exactly when its committed message is in the log, and
each is in the log once, whoever dies. Which are open is known from both queues: `start` reads them from their
cursors on. All decisions of one turn of the event loop are appended together.

Coordinator's loop only: this is the one place where a transaction ends. Facts: Apache RocketMQ 5.3,
EndTransactionProcessor.java, TransactionalMessageServiceImpl.java.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shmq.base import faults, log
from shmq.base.clock import Clock
from shmq.base.errors import (
    ClientFault,
    IllegalOperation,
    ServiceNotAvailable,
    ShmqError,
    TopicNotExist,
    Unavailable,
)
from shmq.broker.half_message import OP_TAGS_CODE, HalfMessage, committed, copied, op_record
from shmq.broker.open_halves import OpenHalves
from shmq.broker.outstanding_checks import OutstandingChecks
from shmq.broker.queues import Queues
from shmq.broker.transaction_cursors import TransactionCursors
from shmq.coordinator.half_queues import HalfQueues
from shmq.model.delay import clamp_level, delay_levels, delay_ms, level_of
from shmq.model.names import (
    SCHEDULE_TOPIC,
    TIMER_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    TRANSACTION_HALF_TOPIC,
)
from shmq.model.properties import DELAY, REAL_QUEUE_ID, REAL_TOPIC, TAGS, decode_properties
from shmq.model.settings import BrokerSettings
from shmq.model.subscription import tags_code_of
from shmq.model.timer import waiting_properties, wish_of
from shmq.model.transaction import LocalTransactionState, immunity_ms, own_immunity_ms
from shmq.shm.queue_table import QueueRef
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.message_store import MessageStore

RETRY_S = 0.05
"""Pause while there is no segment to append to."""
MOVE_MAX = 64
"""Half messages moved out of old segments per call."""
OPS_PER_TURN = 64
"""Op messages looked at per turn to move their cursor."""

faults.declare(
    {
        "transaction.ending": "an outcome was accepted, nothing of it appended",
        "transaction.ended": "commit and op message are appended, nobody was told",
        "transaction.putting_back": "a half message is to be checked, its copy not appended",
        "transaction.put_back": "the copy is appended and the cursor moved, no producer was asked",
    }
)

_logger = log.get(__name__)


class _Decision(NamedTuple):
    """One outcome on its way into the log."""

    half: HalfMessage
    state: LocalTransactionState
    requests: list[AppendRequest]
    done: asyncio.Future[None]


class Transactions:
    """All transactions of this broker."""

    def __init__(
        self,
        store: MessageStore,
        queues: Queues,
        cursors: TransactionCursors,
        settings: BrokerSettings,
        clock: Clock,
        count: Callable[[str, int], None],
    ) -> None:
        """Nothing is known before `start`."""
        self._store = store
        self._queues = queues
        self._cursors = cursors
        self._settings = settings
        self._levels = delay_levels(settings.message_delay_level)
        self._clock = clock
        self._count = count
        self._halves = OpenHalves(0)
        self._turn: list[_Decision] = []
        self._deciding: set[int] = set()
        self._scheduled = False
        self._stored: HalfQueues
        self.outstanding = OutstandingChecks()
        """Who was asked and has not answered."""

    def start(self) -> None:
        """Read from the queues which half messages are open. The queues of system topics exist."""
        queues = self._stored = HalfQueues(self._store, self._queues)
        base = queues.within(queues.half, self._cursors.half)
        op = queues.within(queues.op, self._cursors.op)
        halves = self._halves = OpenHalves(base)
        high = self.high
        for offset in queues.marked_since(op):
            if offset < high:
                halves.end(offset, offset)
        newest: dict[int, int] = {}
        for first, offset in queues.copies_since(base):
            # Where the cursor is behind (power loss) an original, or a copy, lies before a newer copy.
            halves.end(newest.get(first, first), first)
            newest[first] = offset
        for first, offset in newest.items():
            if halves.is_open(offset):
                halves.learn_copy(first, offset)
        for offset in queues.last_commits(self.lowest_needed() or 0) if self.open_count else ():
            half = queues.read(offset) if halves.is_open(offset) and offset < self.high else None
            if half is not None:
                self._finish_torn(half)
        self._cursors.move(base, op)
        self._advance()
        if self.open_count:
            log.event(_logger, logging.INFO, "transactions_open", count=self.open_count)

    def _finish_torn(self, half: HalfMessage) -> None:
        """Carry a commit out of which a power cut has left a beginning: its records without the op message
        behind them. They are then the last of their queue, as nothing was appended since."""
        try:
            message, op = self._requests(half, LocalTransactionState.COMMIT_MESSAGE)
        except ShmqError:
            return
        high, count = self._stored.max(message.queue), len(message.sizes)
        there = sum(
            self._stored.is_commit_of(half, message.queue, offset)
            for offset in range(max(0, high - count), high)
        )
        if not there:
            return
        begin = sum(message.sizes[:there])
        rest = AppendRequest(
            message.queue,
            message.data[begin:],
            message.sizes[there:],
            message.tags_codes[there:],
            message.delay_ms,
            with_next=True,
        )
        (*_, outcome) = self._store.append([rest, op] if there < count else [op])
        log.event(_logger, logging.WARNING, "torn_commit_finished", transaction=half.unique_key, found=there)
        if outcome is not None and outcome.error is None:
            self._halves.end(half.queue_offset, half.first)

    # -- questions --

    @property
    def open_count(self) -> int:
        """Half messages without an outcome."""
        return self._halves.count(self._stored.max(self._stored.half))

    @property
    def high(self) -> int:
        """The half queue's end."""
        return self._stored.max(self._stored.half)

    def next_open(self, queue_offset: int) -> int | None:
        """The queue offset of the first open half message at or behind an offset; None without one."""
        found = self._halves.next_open(queue_offset)
        return found if found < self.high else None

    @property
    def window(self) -> int:
        """How many half messages there are from the oldest open one on: what a start has to read."""
        return self.high - self._halves.skip_ended()

    def is_deciding(self, queue_offset: int) -> bool:
        """Whether an outcome is on its way into the log."""
        return queue_offset in self._deciding

    def lowest_needed(self) -> int | None:
        """The log offset of the oldest open half message, so that retention spares it; None without one.

        Also of one that is damaged: it may be mended, and others lie behind it.
        """
        offset = self.next_open(0)
        while offset is not None:
            if (place := self._stored.place_of(offset)) is not None:
                return place
            offset = self.next_open(offset + 1)
        return None

    def half_at(self, queue_offset: int) -> HalfMessage | None:
        """Read one; None when its record is gone or makes no sense. Unavailable: it is being looked at."""
        return self._stored.read(queue_offset, may_wait=True)

    def is_pending(self, first: int) -> bool:
        """Whether the half message with that first offset, or a copy of it, is open."""
        return self._halves.has_copy(first) or self._halves.is_open(first)

    # -- outcomes --

    async def end(
        self,
        group: str,
        queue_offset: int,
        physical_offset: int,
        state: LocalTransactionState,
        *,
        from_check: bool,
    ) -> None:
        """End the transaction whose half message a producer names; returns when that is in the log.

        "Unknown" leaves it open. Any copy names it. ClientFault (1): no such half message, another group's,
        ended already; IllegalOperation (604): later than its own immunity time, the check will decide;
        TopicNotExist: the message's topic is gone, the half message stays; Unavailable: nothing was decided.
        """
        if from_check:
            self.outstanding.answered(queue_offset)
        if state is LocalTransactionState.UNKNOWN:
            return
        named = self._stored.named(queue_offset, physical_offset)
        if named is None:
            raise ClientFault(
                f"no half message has queue offset {queue_offset} and commit log offset {physical_offset}"
            )
        if named.group != group:
            raise ClientFault(f"the half message belongs to producer group {named.group!r}, not {group!r}")
        if not from_check and own_immunity_ms(named.properties) is not None:
            limit_ms = immunity_ms(named.properties, self._settings.transaction_time_out)
            if self._clock.now_ms() - named.fields.born_timestamp > limit_ms:
                raise IllegalOperation(
                    f"the outcome comes later than the {limit_ms} ms of CHECK_IMMUNITY_TIME_IN_SECONDS: "
                    "the check will decide"
                )
        newest = self._halves.newest(named.first, queue_offset)
        half = named if newest == queue_offset else self._stored.read(newest, may_wait=True)
        if half is None or not self._halves.is_open(newest) or newest in self._deciding:
            raise ClientFault(
                f"the transaction of half message {queue_offset} ({named.unique_key}) has ended already: "
                "nothing was changed"
            )
        await self.decide(half, state)

    def decide(self, half: HalfMessage, state: LocalTransactionState) -> asyncio.Future[None]:
        """End an open one; the future says when that is in the log, or why not."""
        requests = self._requests(half, state)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn.append(_Decision(half, state, requests, done))
        self._deciding.add(half.queue_offset)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._append)
        return done

    def _requests(self, half: HalfMessage, state: LocalTransactionState) -> list[AppendRequest]:
        op = self._op([half])
        if state is not LocalTransactionState.COMMIT_MESSAGE:
            return [op]
        queue = self._queues.ref(half.topic, half.queue_id)
        if queue is None:
            raise TopicNotExist(
                f"queue {half.queue_id} of topic {half.topic} does not exist (any more): the half message "
                "stays open"
            )
        properties = half.committed_properties
        level, wish = level_of(properties.get(DELAY)), wish_of(properties)
        wait_ms, now_ms = 0, self._clock.now_ms()
        if level:
            level = clamp_level(level, self._levels)
            wait_ms = delay_ms(level, self._levels)
            waiting = self._queues.ref(SCHEDULE_TOPIC, level - 1)
            properties |= {REAL_TOPIC: half.topic, REAL_QUEUE_ID: str(half.queue_id)}
        elif wish is not None and (due_ms := wish.due_ms(now_ms)) > now_ms:
            waiting = self._queues.ref(TIMER_TOPIC, 0)
            properties |= decode_properties(waiting_properties(half.topic, half.queue_id, due_ms))
        else:
            waiting = queue
        if waiting is None:
            raise ServiceNotAvailable("there is no queue where the committed message could wait: try again")
        made = committed(half, waiting.topic, waiting.queue_id, properties)
        return [AppendRequest(waiting, made.data, made.sizes, made.tags_codes, wait_ms, with_next=True), op]

    def _append(self) -> None:
        """Append the decisions of this turn; those that find no segment stay for the next try."""
        faults.reach("transaction.ending")
        self._scheduled = False
        turn, self._turn = self._turn, []
        requests = [request for decision in turn for request in decision.requests]
        try:
            outcomes = self._store.append(requests)
        except ShmqError as error:
            outcomes = [AppendOutcome(error)] * len(requests)
        faults.reach("transaction.ended")
        position = 0
        for decision in turn:
            outcome = outcomes[position]
            position += len(decision.requests)
            if outcome is None:
                self._turn.append(decision)
                continue
            self._deciding.discard(decision.half.queue_offset)
            if outcome.error is None:
                self._ended(decision)
            _settle(decision.done, outcome.error)
        self._advance()
        if self._turn and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(RETRY_S, self._append)

    def _ended(self, decision: _Decision) -> None:
        self._halves.end(decision.half.queue_offset, decision.half.first)
        is_commit = decision.state is LocalTransactionState.COMMIT_MESSAGE
        self._count("transactions_committed" if is_commit else "transactions_rolled_back", 1)

    # -- what the check moves --

    def put_back(self, halves: Sequence[tuple[HalfMessage, int]]) -> list[AppendOutcome | None]:
        """Append open ones again at the queue's end, in their order, with so many checks noted in each.

        None: no segment yet. What is behind the first that failed may have failed with it; nothing is lost.
        """
        faults.reach("transaction.putting_back")
        moved = [(half, copied(half, TRANSACTION_HALF_TOPIC, checks)) for half, checks in halves]
        outcomes = self._move(self._stored.half, moved)
        for (half, _), outcome in zip(halves, outcomes, strict=True):
            if outcome is not None and outcome.error is None:
                self._halves.learn_copy(half.first, outcome.queue_offset)
        faults.reach("transaction.put_back")
        return outcomes

    def move_out(self, end: int) -> bool:
        """Put some of the open ones below a log offset back, as their segment is to be deleted; True when
        none is left there. One whose outcome is on its way is waited for."""
        for _ in range(MOVE_MAX):
            offset = self.next_open(0)
            if offset is None or (self._stored.place_of(offset) or 0) >= end:
                return True
            if self.is_deciding(offset):
                return False
            try:
                half = self.half_at(offset)
            except Unavailable:
                return False
            if half is None:
                log.event(_logger, logging.ERROR, "half_message_unreadable", queue_offset=offset)
                self.pass_over(offset)
                continue
            (outcome,) = self.put_back([(half, half.checks)])
            if outcome is None or outcome.error is not None:
                return False
        return False

    def give_up(self, half: HalfMessage) -> AppendOutcome | None:
        """Move an open one to TRANS_CHECK_MAX_TIME_TOPIC; None: no segment yet."""
        record = copied(half, TRANSACTION_CHECK_MAX_TOPIC, half.checks)
        (outcome,) = self._move(self._stored.own(TRANSACTION_CHECK_MAX_TOPIC), [(half, record)])
        if outcome is not None and outcome.error is None:
            self._count("transactions_discarded", 1)
        return outcome

    def _move(
        self, queue: QueueRef, moved: Sequence[tuple[HalfMessage, bytearray]]
    ) -> list[AppendOutcome | None]:
        """Append what takes the place of some half messages, in the order of their queue.

        The oldest open ones of all are appended in the claim that moves the cursor past them, the others in
        the one that marks them as ended: each of the two all or none.
        """
        requests = [
            AppendRequest(
                queue, record, (len(record),), (tags_code_of(half.properties.get(TAGS)),), with_next=True
            )
            for half, record in moved
        ]
        end, oldest = self._halves.skip_ended(), 0
        for half, _ in moved:
            if half.queue_offset != self._halves.next_open(end):
                break
            end, oldest = half.queue_offset + 1, oldest + 1
        if oldest:
            requests[oldest - 1].with_next = False
            requests[oldest - 1].word = (self._cursors.half_word, end)
        if oldest < len(moved):
            requests.append(self._op([half for half, _ in moved[oldest:]]))
        outcomes = self._store.append(requests)[: len(moved)]
        for number, ((half, _), outcome) in enumerate(zip(moved, outcomes, strict=True)):
            if outcome is not None and outcome.error is None:
                self._halves.end(half.queue_offset, half.first)
                if number < oldest:
                    self._halves.pass_to(half.queue_offset + 1)
        return outcomes

    def _op(self, halves: Sequence[HalfMessage]) -> AppendRequest:
        offsets = [half.queue_offset for half in halves]
        mark = op_record(offsets, halves[0].fields.store_host, self._clock.now_ms())
        return AppendRequest(self._stored.op, mark, (len(mark),), (OP_TAGS_CODE,))

    def pass_over(self, queue_offset: int) -> None:
        """Forget an open one: its record is gone or makes no sense."""
        self._halves.end(queue_offset, queue_offset)
        self._advance()

    def resume(self, half: HalfMessage) -> AppendOutcome | None:
        """Open a transaction again that was given up, as if it had never been checked."""
        record = copied(half, TRANSACTION_HALF_TOPIC, 0)
        code = tags_code_of(half.properties.get(TAGS))
        (outcome,) = self._store.append([AppendRequest(self._stored.half, record, (len(record),), (code,))])
        if outcome is not None and outcome.error is None:
            self._halves.learn_copy(half.first, outcome.queue_offset)
        return outcome

    # -- queues --

    def _advance(self) -> None:
        """Move both cursors past what is over."""
        base = self._halves.skip_ended()
        op, high = max(0, self._cursors.op), self._stored.max(self._stored.op)
        end = min(high, op + OPS_PER_TURN)
        while op < end and not self._stored.is_needed(op, base):
            op += 1
        self._cursors.move(base, op)


def _settle(done: asyncio.Future[None], error: ShmqError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
