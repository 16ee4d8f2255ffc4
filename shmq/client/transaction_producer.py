"""TransactionProducer: messages that appear only when a local transaction has committed.

    class Orders:
        def execute_local_transaction(self, message, argument):
            ...                                      # the database's own transaction
            return LocalTransactionState.COMMIT_MESSAGE

        def check_local_transaction(self, message):  # asked when the outcome is unknown, perhaps elsewhere
            return LocalTransactionState.COMMIT_MESSAGE if paid(message.transaction_id) else ...

    with TransactionProducer("orders", Orders()) as producer:
        producer.send_message_in_transaction(Message("paid", b"42"))

RocketMQ's TransactionMQProducer (Apache RocketMQ 5.3, DefaultMQProducerImpl.java). Beyond it, a delayed
message waits from the commit on, and a list of messages of one topic is one transaction: all or none. Unlike
there a half message that is sent again, because its answer did not come, has a new transaction id: an earlier
copy that was stored after all belongs to no local transaction, and the check rolls it back.

Any live producer of the group may be asked about any of its transactions: all of them must be able to tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from shmq.base import log
from shmq.base.errors import BrokerError, ClientFault, ShmqError
from shmq.client.batch import check_batch
from shmq.client.broker_calls import LAST_MS
from shmq.client.end_transaction_hooks import (
    EndTransactionContext,
    EndTransactionHook,
    EndTransactionHooks,
)
from shmq.client.errors import ClientError, RemotingError
from shmq.client.links import BrokerLink
from shmq.client.listener_pool import ListenerPool
from shmq.client.outgoing import Outgoing, ask_for, check_all_sendable
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.payload import SinglePayload
from shmq.client.producer import Producer
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_result import Durability, SendResult, SendStatus
from shmq.client.service_state import ServiceState
from shmq.model import properties as names
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import parse_offset_message_id, unique_key
from shmq.model.message_queue import MessageQueue
from shmq.model.names import with_namespace, without_namespace
from shmq.model.sys_flag import TRANSACTION_PREPARED
from shmq.model.transaction import LocalTransactionState
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import CheckTransactionStateHeader, EndTransactionHeader

if TYPE_CHECKING:
    from shmq.client.trace import Tracer

CHECKS_WAITING_MAX = 2000
"""Check requests that may wait for the check thread; the broker asks again for those that find no room."""
CHECK_ANSWER_S = 3.0
"""How long sending the answer to a check may take."""

_FROM_COMMIT = (names.DELAY, names.TIMER_DELAY_SEC, names.TIMER_DELAY_MS, names.TIMER_DELIVER_MS)
_LOG = log.get(__name__)


class TransactionListener(Protocol):
    """The two halves of a local transaction. None, and an exception, mean unknown."""

    def execute_local_transaction(self, message: Any, argument: Any) -> LocalTransactionState | None:
        """Run the local transaction of what was given to `send_message_in_transaction` (its
        `transaction_id` is set); in the sending thread."""

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState | None:
        """Tell what became of the transaction `message.transaction_id`, which another process may have begun;
        in the check thread."""


class TransactionSendResult(SendResult):
    """What became of a transactional send: the half message's result, and the local transaction's."""

    __slots__ = ("local_transaction_state",)

    def __init__(self, sent: SendResult, transaction_id: str, state: LocalTransactionState) -> None:
        """Take over the half message's result."""
        super().__init__(
            sent.send_status,
            sent.msg_id,
            sent.message_queue,
            sent.queue_offset,
            sent.offset_msg_id,
            transaction_id=transaction_id,
            region_id=sent.region_id,
            trace_on=sent.trace_on,
            durability=sent.durability,
        )
        self.local_transaction_state = state


class TransactionProducer(Producer):
    """A producer whose messages become visible with a local transaction."""

    def __init__(
        self,
        producer_group: str,
        transaction_listener: TransactionListener | None = None,
        config: ProducerConfig | None = None,
        *,
        check_executor: Executor | None = None,
        topics: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """`check_executor` runs the checks instead of one thread of this producer; it stays the caller's.

        Brokers can ask a producer once it knows them: those of `topics` from the start, others from its first
        send to them on. `settings` are fields of ProducerConfig.
        """
        super().__init__(producer_group, config, **settings)
        self.transaction_listener = transaction_listener
        self._check_executor = check_executor
        self._end_hooks = EndTransactionHooks()
        self._known_topics = tuple(with_namespace(self.config.namespace, topic) for topic in topics)

    def start(self) -> None:
        """Start; ClientFault without a listener."""
        self._listener()
        super().start()
        for topic in (*self._known_topics, self.config.create_topic_key):
            try:
                self._instance.routes.refresh(topic)
            except ShmqError as error:  # no name server answers yet: the first send finds out
                log.event(_LOG, logging.INFO, "transaction_topic_unknown", topic=topic, reason=error)
        self._instance.announce()

    def register_end_transaction_hook(self, hook: EndTransactionHook) -> None:
        """Have a hook see every outcome before it is sent."""
        self._end_hooks.seeing.append(hook)

    def _trace(self, tracer: Tracer) -> None:
        from shmq.client.trace import EndTransactionTrace

        super()._trace(tracer)
        self._end_hooks.seeing.append(EndTransactionTrace(tracer))

    def _begin(self) -> None:
        super()._begin()
        self._topics.update(self._known_topics)
        self._checks: ListenerPool[Callable[[], None]] = ListenerPool("shmq-check", lambda check: check(), 1)

    def shutdown(self) -> None:
        """Leave the group; other live producers of it are asked about what is still open."""
        was_running = self.state is ServiceState.RUNNING
        super().shutdown()
        if was_running:
            self._checks.stop(0)

    def _listener(self) -> TransactionListener:
        if self.transaction_listener is None:
            raise ClientFault("a TransactionProducer needs a transaction_listener: nobody could be asked")
        return self.transaction_listener

    # -- sending --

    def send_message_in_transaction(
        self,
        message: Message | Sequence[Message],
        argument: Any = None,
        *,
        queue: MessageQueue | None = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> TransactionSendResult:
        """Store a half message (a list: all of them as one), run the listener, tell the broker the outcome.

        Errors are those of `send`; the local transaction did not run then. It does not run either when the
        half message is stored less durably than the broker promises (`send_status`): rolled back. An outcome
        that does not reach the broker is found out by a check.
        """
        listener = self._listener()
        ask_for(message, wait_for)
        half, sent = self._send_half(message, queue, self._timeout_ms(timeout_ms))
        key = half.properties[names.UNIQ_KEY]
        for one in (message,) if isinstance(message, Message) else message:
            one.transaction_id = key
        if isinstance(message, Message):
            message.properties[names.UNIQ_KEY] = key
        state, remark = LocalTransactionState.ROLLBACK_MESSAGE, None
        if names.SHMQ_HALF_BATCH in half.properties and sent.durability is None:
            self._end(half, sent, state, remark)
            raise ClientFault("Apache RocketMQ has no batches in transactions: the batch was rolled back")
        if sent.send_status is SendStatus.SEND_OK:
            state, remark = _outcome(lambda: listener.execute_local_transaction(message, argument))
        self._end(half, sent, state, remark)
        return TransactionSendResult(sent, key, state)

    def _send_half(
        self, message: Message | Sequence[Message], queue: MessageQueue | None, timeout_ms: int
    ) -> tuple[Message, SendResult]:
        """Send the half message with the retries of sync mode, each attempt as another transaction."""
        deadline = time.monotonic() + timeout_ms / 1000
        attempts = 1 if queue is not None else 1 + self.config.retry_times_when_send_failed
        tried: str | None = None
        while True:
            half, config = self._half(message)
            outgoing = Outgoing(half, config)
            outgoing.sys_flag |= TRANSACTION_PREPARED
            self._use(half.topic)
            target = queue or self._path.next_queue(half.topic, tried)
            self._instance.announce()
            tried = target.broker_name
            left_ms = max(1, int((deadline - time.monotonic()) * 1000))
            try:
                return half, self._path.send(SinglePayload(outgoing, self._path.commands), left_ms, target)
            except (BrokerError, ClientError, RemotingError) as error:
                attempts -= 1
                code = error.code if isinstance(error, BrokerError) else None
                is_final = code is not None and code not in self.config.retry_response_codes
                if is_final or not attempts or time.monotonic() >= deadline:
                    raise

    def _half(self, message: Message | Sequence[Message]) -> tuple[Message, ProducerConfig]:
        """Return the half message of one attempt, and the settings it is encoded by."""
        config = self.config
        if isinstance(message, Message):
            half = Message(with_namespace(config.namespace, message.topic), message.body, flag=message.flag)
            half.properties.update(message.properties)
            for name in _FROM_COMMIT:
                if name in half.properties:
                    half.properties[names.SHMQ_COMMIT_PREFIX + name] = half.properties.pop(name)
        else:
            check_batch(message)
            check_all_sendable(message, config.max_message_size)
            elements = OutgoingBatch(message, config, may_compress=False).elements()
            half = Message(with_namespace(config.namespace, message[0].topic), elements)
            half.properties[names.SHMQ_HALF_BATCH] = str(len(message))
            for name in (names.WAIT, names.SHMQ_WAIT_FOR):
                if name in message[0].properties:
                    half.properties[name] = message[0].properties[name]
            config = replace(config, compress_msg_body_over_howmuch=LAST_MS)
        half.properties[names.TRANSACTION_PREPARED] = "true"
        half.properties[names.PRODUCER_GROUP] = self.producer_group
        half.properties[names.UNIQ_KEY] = half.transaction_id = unique_key()
        return half, config

    def _end(self, half: Message, sent: SendResult, state: LocalTransactionState, remark: str | None) -> None:
        """Tell the broker the outcome; a failure is only logged, as the check finds it out."""
        key = half.properties[names.UNIQ_KEY]
        header = EndTransactionHeader(
            self.producer_group,
            sent.queue_offset,
            parse_offset_message_id(sent.offset_msg_id)[1],
            int(state),
            key,
            topic=half.topic,
            transaction_id=key,
        )
        try:
            link = self._path.link(sent.message_queue)
            told = (sent.region_id, sent.trace_on)
            self._end_hooks.run(
                EndTransactionContext(
                    self.producer_group, half, link.tcp_address, sent.msg_id, key, state, False, *told
                )
            )
            _send_outcome(link, header, remark, self.config.send_msg_timeout_ms / 1000)
        except ShmqError as error:
            log.event(_LOG, logging.WARNING, "outcome_not_sent", transaction=key, reason=error)

    # -- checks --

    def check_transaction(self, link: BrokerLink, command: Command, message: MessageExt) -> None:
        """A broker asks: find out in the check thread. Called by the instance, on a reader thread."""
        header = command.read_header(CheckTransactionStateHeader)

        def check() -> None:
            self._check(link, header, message)

        try:
            self._submit(check)
        except RuntimeError as error:
            transaction = message.transaction_id
            log.event(_LOG, logging.WARNING, "check_dropped", transaction=transaction, reason=error)

    def _submit(self, check: Callable[[], None]) -> None:
        """Run a check elsewhere; RuntimeError without room for it, or when the caller's executor is shut."""
        if self._check_executor is not None:
            self._check_executor.submit(check)
        elif self._checks.waiting < CHECKS_WAITING_MAX:
            self._checks.submit(check)
        else:
            raise RuntimeError("too many checks wait")

    def _check(self, link: BrokerLink, asked: CheckTransactionStateHeader, message: MessageExt) -> None:
        listener = self._listener()
        message.topic = without_namespace(self.config.namespace, message.topic)
        state, remark = _outcome(lambda: listener.check_local_transaction(message))
        header = EndTransactionHeader(
            self.producer_group,
            asked.tran_state_table_offset,
            asked.commit_log_offset,
            int(state),
            message.msg_id,
            from_transaction_check=True,
            topic=asked.topic,
            transaction_id=asked.transaction_id,
        )
        self._end_hooks.run(
            EndTransactionContext(
                self.producer_group,
                message,
                link.tcp_address,
                message.msg_id,
                asked.transaction_id or message.msg_id,
                state,
                from_transaction_check=True,
                region_id=message.get_property(names.MSG_REGION) or "",
                trace_on=message.get_property(names.TRACE_ON) != "false",
            )
        )
        try:
            _send_outcome(link, header, remark, CHECK_ANSWER_S)
        except ShmqError as error:
            log.event(_LOG, logging.WARNING, "outcome_not_sent", transaction=message.msg_id, reason=error)


def _send_outcome(link: BrokerLink, header: EndTransactionHeader, remark: str | None, limit_s: float) -> None:
    command = Command.request(RequestCode.END_TRANSACTION, header, oneway=True)
    command.remark = remark
    link.send_oneway(command, limit_s)


def _outcome(
    run: Callable[[], LocalTransactionState | None],
) -> tuple[LocalTransactionState, str | None]:
    """Call the user's listener; return what it says, and why it could not."""
    try:
        state = run()
    except Exception as error:  # the user's code: whatever it raises, the outcome is unknown
        _LOG.exception("the transaction listener failed")
        return LocalTransactionState.UNKNOW, f"executeLocalTransactionBranch exception, {error!r}"
    return state if isinstance(state, LocalTransactionState) else LocalTransactionState.UNKNOW, None
