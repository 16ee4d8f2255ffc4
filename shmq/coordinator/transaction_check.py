"""Asks producers what became of their open transactions (Apache RocketMQ 5.3,
TransactionalMessageServiceImpl.java, AbstractTransactionalMessageCheckListener.java).

A round every `transactionCheckInterval` goes through the half messages that are open at its begin, oldest
first, and for each does one of

    stop           it is younger than `transactionTimeOut`: so are the ones behind it
    leave          its own CHECK_IMMUNITY_TIME_IN_SECONDS is not over, or no producer of its group is here
    wait           its group's producers have as many checks as they can hold: until the next round is due
    ask            put back with one more check, then request 39 to a live producer of the group, in turn
    give up        asked `transactionCheckMax` times, or older than `fileReservedTime`: the listener decides,
                   RocketMQ's moves it to TRANS_CHECK_MAX_TIME_TOPIC

Only real checks count: a half message whose producers are away waits for them until it is too old. It stays
where it is (RocketMQ copies it in every round), unless a start would have to read too much that is over
behind it: then it is put back without a check. While no producer at all is connected only the oldest is
looked at. All that are asked in a turn are put back in one claim. Ages are by the wall clock, as stored; when
that was set back, a half message from the future is asked about at once.

Runs in the coordinator's duty cycle, once all workers have told which clients they hold.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping, Sequence

from shmq.base import log
from shmq.base.clock import Clock
from shmq.base.errors import ShmqError, Unavailable
from shmq.broker.check_listener import TransactionCheckListener
from shmq.broker.client_key import Client
from shmq.broker.clients import ClientTable, Member
from shmq.broker.half_message import HalfMessage, asked
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.transactions import Transactions
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import offset_message_id
from shmq.model.names import TRANSACTION_HALF_TOPIC
from shmq.model.settings import BrokerSettings
from shmq.model.transaction import LocalTransactionState, immunity_ms, own_immunity_ms
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import CheckTransactionStateHeader
from shmq.store.append_request import AppendOutcome

TURN_MAX = 64
"""Half messages per step: then the coordinator's other work gets its turn."""
ASK_BYTES_MAX = 32 << 10
"""Bytes of half messages that are put back together, unless one alone has more."""
BUSY_MS = 1
"""Pause inside a round."""
RETRY_MS = 50
"""Pause while there is no segment to append to, or an outcome is on its way."""
UNSETTLED_MS = 500
"""Pause while workers have not told yet which producers are connected."""
HOUR_MS = 3_600_000
OVER_MAX = 100_000
"""Half messages that are over and lie behind an open one: when there are more, open ones are put back."""

_logger = log.get(__name__)


class _Then(enum.Enum):
    """How a round goes on behind one half message."""

    NEXT = enum.auto()
    WAIT = enum.auto()
    STOP = enum.auto()


class TransactionCheck:
    """The rounds of checks."""

    def __init__(
        self,
        transactions: Transactions,
        clients: ClientTable,
        calls: ClientCalls,
        settled: Callable[[], bool],
        settings: BrokerSettings,
        listener: TransactionCheckListener,
        clock: Clock,
        count: Callable[[str, int], None],
    ) -> None:
        """`settled()` tells whether `clients` is complete."""
        self._transactions = transactions
        self._clients = clients
        self._calls = calls
        self._settled = settled
        self._settings = settings
        self._listener = listener
        self._clock = clock
        self._count = count
        self._end: int | None = None
        self._at = 0
        self._due_ms = 0
        self._may_wait = True
        """Whether the next round is not due yet: then busy producers are waited for."""
        self._producers: Mapping[str, list[Member]] = {}
        """Who is connected, as of this step."""
        self._asking: list[tuple[HalfMessage, Client]] = []
        """Who is to be asked at the end of this step."""
        self._ask_bytes_max = min(ASK_BYTES_MAX, settings.mapped_file_size_commit_log // 4)
        self._lonely: set[str] = set()
        self._turns: dict[str, int] = {}
        """By group: whose turn it is to be asked."""

    def step(self, now_ms: int) -> int:
        """Go on with a round, at most a turn's worth, or begin the next one."""
        if not self._settled():
            return now_ms + UNSETTLED_MS
        if self._end is None:
            self._end, self._at = self._transactions.high, 0
            self._transactions.outstanding.forget()
            self._due_ms = now_ms + self._settings.transaction_check_interval
        self._producers = self._clients.producer_groups()
        self._may_wait = now_ms < self._due_ms
        then = _Then.NEXT
        for _ in range(TURN_MAX):
            offset = self._transactions.next_open(self._at)
            then = _Then.STOP if offset is None or offset >= self._end else self._visit(offset)
            if offset is None or then is not _Then.NEXT:
                break
            self._at = offset + 1
            if sum(len(half.record) for half, _ in self._asking) > self._ask_bytes_max:
                break
        asked_then = self._ask()
        then = then if asked_then is _Then.NEXT else asked_then
        if then is _Then.STOP:
            self._end = None
            self._tell_lonely()
            return self._due_ms
        return now_ms + (RETRY_MS if then is _Then.WAIT else BUSY_MS)

    def _visit(self, queue_offset: int) -> _Then:
        if self._transactions.is_deciding(queue_offset):
            return _Then.NEXT
        try:
            half = self._transactions.half_at(queue_offset)
        except Unavailable:
            return _Then.WAIT
        if half is None:
            log.event(_logger, logging.ERROR, "half_message_unreadable", queue_offset=queue_offset)
            self._transactions.pass_over(queue_offset)
            return _Then.NEXT
        settings, fields = self._settings, half.fields
        age_ms = self._clock.now_ms() - min(fields.born_timestamp, fields.store_timestamp)
        limit_ms = immunity_ms(half.properties, settings.transaction_time_out)
        too_old_ms = max(settings.file_reserved_time * HOUR_MS, limit_ms)
        if half.checks >= settings.transaction_check_max or age_ms > too_old_ms:
            return self._give_up(half, age_ms)
        if 0 <= age_ms <= limit_ms:
            return self._leave(half) if own_immunity_ms(half.properties) is not None else _Then.STOP
        members = self._producers.get(half.group)
        if not members:
            self._turns.pop(half.group, None)
            self._lonely.add(half.group)
            return self._leave(half, _Then.NEXT if self._producers else _Then.STOP)
        producer = self._next_producer(half.group, members)
        if producer is None:
            return _Then.WAIT if self._may_wait else self._leave(half)
        self._asking.append((half, producer))
        return _Then.NEXT

    def _tell_lonely(self) -> None:
        """Say, once a round, whose producers are missed."""
        if self._lonely:
            log.event(_logger, logging.WARNING, "no_producer_to_ask", groups=sorted(self._lonely))
            self._lonely.clear()

    def _next_producer(self, group: str, members: Sequence[Member]) -> Client | None:
        """Whose turn it is, of those that can be asked more; None when nobody can."""
        for _ in members:
            turn = self._turns[group] = self._turns.get(group, -1) + 1
            client = members[turn % len(members)].client
            if self._transactions.outstanding.has_room(client.key):
                return client
        return None

    def _leave(self, half: HalfMessage, then: _Then = _Then.NEXT) -> _Then:
        """Let it wait without a check."""
        if self._transactions.window - self._transactions.open_count <= OVER_MAX:
            return then
        (outcome,) = self._transactions.put_back([(half, half.checks)])
        return _then(outcome)

    def _ask(self) -> _Then:
        """Count the checks where a death cannot forget them, then send them."""
        asking, self._asking = self._asking, []
        if not asking:
            return _Then.NEXT
        outcomes = self._transactions.put_back([(half, half.checks + 1) for half, _ in asking])
        then = _Then.NEXT
        for (half, producer), outcome in zip(asking, outcomes, strict=True):
            if outcome is not None and outcome.error is None:
                self._push(half, producer, outcome)
            elif then is _Then.NEXT:
                then = _then(outcome)
                self._at = min(self._at, half.queue_offset)
        return then

    def _push(self, half: HalfMessage, producer: Client, copy: AppendOutcome) -> None:
        """Send a check."""
        place = (copy.queue_offset, copy.physical_offset)
        header = CheckTransactionStateHeader(
            *place,
            TRANSACTION_HALF_TOPIC,
            half.unique_key,
            half.unique_key,
            offset_message_id(half.fields.store_host, copy.physical_offset),
        )
        body = asked(half, half.checks + 1, *place, copy.store_time)
        request = Command.request(RequestCode.CHECK_TRANSACTION_STATE, header, body, oneway=True)
        self._transactions.outstanding.sent(copy.queue_offset, producer.key)
        self._calls.push(producer.key, request)
        self._count("transactions_checked", 1)

    def _give_up(self, half: HalfMessage, age_ms: int) -> _Then:
        """Let the listener decide; without a decision it goes to TRANS_CHECK_MAX_TIME_TOPIC."""
        log.event(
            _logger,
            logging.ERROR,
            "transaction_given_up",
            transaction=half.unique_key,
            group=half.group,
            topic=half.topic,
            checks=half.checks,
            age_ms=age_ms,
        )
        message = MessageExt(half.record, self._settings.broker_name)
        message.topic = half.topic
        try:
            state = self._listener.resolve_discard_msg(message)
        except Exception:  # the operator's own code: the half message is kept where it can be found
            log.event(_logger, logging.ERROR, "check_listener_failed", exc_info=True)
            state = None
        if state in (LocalTransactionState.COMMIT_MESSAGE, LocalTransactionState.ROLLBACK_MESSAGE):
            try:
                done = self._transactions.decide(half, LocalTransactionState(state))
            except ShmqError as error:
                log.event(_logger, logging.ERROR, "check_listener_not_followed", reason=error)
            else:
                done.add_done_callback(lambda _: done.exception())
                return _Then.NEXT
        return _then(self._transactions.give_up(half))


def _then(outcome: AppendOutcome | None) -> _Then:
    """How a round goes on after an append: without a segment wait, after a refusal try in the next round."""
    if outcome is None:
        return _Then.WAIT
    if outcome.error is not None:
        log.event(_logger, logging.WARNING, "transaction_waits", reason=outcome.error)
        return _Then.STOP
    return _Then.NEXT
