"""Producer: sends messages; synchronously, asynchronously, oneway, in batches, to chosen queues.

    with Producer("my-group") as producer:
        producer.send(Message("orders", b"hello", tags="TagA"))

RocketMQ's DefaultMQProducer in Python's spelling. Any thread may send; a forked child goes on sending over
connections of its own. Threads are made only when needed: a sync send runs wholly in the calling thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shmq.base import log
from shmq.base.errors import ClientFault, InvalidParameter, QueryNotFound, ShmqError
from shmq.client import timer_calls
from shmq.client.accumulator import RECORD_OVERHEAD
from shmq.client.async_send import AsyncSend
from shmq.client.async_sender import AsyncSender
from shmq.client.batch import SPLIT_BYTES, check_batch
from shmq.client.broker_calls import LAST_MS
from shmq.client.errors import ClientStateError, RemotingTimeout
from shmq.client.future import SendFuture
from shmq.client.instance import ClientInstance
from shmq.client.links import BrokerLink
from shmq.client.outgoing import Outgoing, ask_for, check_all_sendable, check_sendable
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.payload import BatchPayload, Payload, SinglePayload
from shmq.client.producer_config import ProducerConfig, configured
from shmq.client.queue_selection import MessageQueueSelector
from shmq.client.request_reply import no_reply
from shmq.client.send_hooks import CheckForbiddenHook, SendHooks, SendMessageHook
from shmq.client.send_path import SendPath
from shmq.client.send_result import Durability, SendResult
from shmq.client.service_state import ServiceState
from shmq.client.split_send import SentPiece, split_send
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.names import CLIENT_INNER_PRODUCER_GROUP, RESERVED_GROUPS, check_group, with_namespace
from shmq.protocol.command import Command

if TYPE_CHECKING:
    from shmq.client.admin_client import AdminClient
    from shmq.client.trace import Tracer

_LOG = log.get(__name__)

DRAIN_LIMIT_S = 10.0
"""How long `shutdown` waits for answers of async sends."""


class Producer:
    """One producer of a group."""

    def __init__(self, producer_group: str, config: ProducerConfig | None = None, **settings: Any) -> None:
        """`settings` are fields of ProducerConfig, such as `namesrv_addr="127.0.0.1:9876"`."""
        self.config = configured(ProducerConfig, config, settings)
        self.producer_group = with_namespace(self.config.namespace, producer_group)
        self.hooks = SendHooks()
        self._state = ServiceState.CREATE_JUST
        self._state_lock = threading.Lock()
        self._topics: set[str] = set()
        self._tracer: Tracer | None = None
        self._instance: ClientInstance
        self._path: SendPath
        self._asynchronous: AsyncSender

    # Life

    @property
    def state(self) -> ServiceState:
        """Return where in its life this producer is."""
        return self._state

    @property
    def client_id(self) -> str:
        """Return the id brokers know this client by; a forked child has another one."""
        return self._instance.client_id

    def start(self) -> None:
        """Check the group and join the client instance; connections follow when needed."""
        with self._state_lock:
            if self._state is not ServiceState.CREATE_JUST:
                raise ClientStateError(
                    f"this producer is {self._state.value}: a producer is started once; make a new one"
                )
            self._state = ServiceState.START_FAILED
            check_group(self.producer_group)
            if self.producer_group in RESERVED_GROUPS | {CLIENT_INNER_PRODUCER_GROUP}:
                raise InvalidParameter(f"group name {self.producer_group!r} is reserved: choose another")
            self._instance = ClientInstance.acquire(self.config, self.config.client_id())
            try:
                self._instance.add_producer(self.producer_group, self)
            except BaseException:
                self._instance.release()
                raise
            self._begin()
            if self.config.enable_msg_trace:
                from shmq.client.trace import SendTrace, Tracer

                self._tracer = Tracer(self.config, self.producer_group, "PRODUCE")
                self._tracer.start()
                self.hooks.seeing.append(SendTrace(self._tracer))
            self._state = ServiceState.RUNNING

    def _begin(self) -> None:
        """Set up what sends go through: at start, and again in a forked child."""
        self._path = SendPath(self.producer_group, self.config, self._instance, self.hooks)
        self._asynchronous = AsyncSender(self.config, self._path, self.hooks)

    def shutdown(self) -> None:
        """Wait for async sends under way (at most 10 s), then leave the group. Again is harmless."""
        with self._state_lock:
            if self._state is not ServiceState.RUNNING:
                return
            self._state = ServiceState.SHUTDOWN_ALREADY
        self._asynchronous.close(DRAIN_LIMIT_S)
        self._instance.remove_producer(self.producer_group)
        self._instance.release()
        if self._tracer is not None:
            self._tracer.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        self.shutdown()

    def publish_topics(self) -> set[str]:
        """Return the topics this producer has sent to (their routes are kept fresh)."""
        return set(self._topics)

    def check_transaction(self, link: BrokerLink, command: Command, message: MessageExt) -> None:
        """A broker asks about a transaction: a producer without listener cannot tell. Called by the
        instance."""
        del command
        log.event(
            _LOG,
            logging.WARNING,
            "check_without_listener",
            group=self.producer_group,
            transaction=message.transaction_id,
            broker=link,
        )

    def after_fork(self) -> None:
        """In a forked child: start with nothing under way. Called by the instance."""
        self._state_lock = threading.Lock()
        self._topics = set()
        self._begin()

    def register_send_message_hook(self, hook: SendMessageHook) -> None:
        """Have a hook see every attempt."""
        self.hooks.seeing.append(hook)

    def register_check_forbidden_hook(self, hook: CheckForbiddenHook) -> None:
        """Have a hook that may veto every attempt."""
        self.hooks.forbidding.append(hook)

    def check_running(self) -> None:
        """Raise ClientStateError unless this producer is RUNNING."""
        if self._state is not ServiceState.RUNNING:
            raise ClientStateError(
                f"this producer is {self._state.value}, not RUNNING: start it (or use a with block) before "
                "sending"
            )

    def _use(self, topic: str) -> None:
        """Note that a topic is sent to, whose route is kept fresh from now on."""
        if topic not in self._topics or self._state is not ServiceState.RUNNING:
            self.check_running()
            self._topics.add(topic)
            self._instance.periodic.start()  # runs already, but for a forked child's first send

    def _place(self, message: Message | Sequence[Message]) -> None:
        """Give messages the topic that brokers know in this producer's namespace; they keep it."""
        namespace = self.config.namespace
        if namespace:
            for one in (message,) if isinstance(message, Message) else message:
                one.topic = with_namespace(namespace, one.topic)

    # Sending

    def send(
        self,
        message: Message | Sequence[Message],
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> SendResult:
        """Send one message, or a list as one batch, and wait for the broker's answer.

        `wait_for` asks for more (or less) than the broker's mode promises, such as `Durability.FLUSHED`; it
        is noted in the message, as RocketMQ's WAIT is. A broker that could not give it says so in
        `send_status`, and `durability` names what was reached.

        With `queue`, or `selector` and its `argument`, there is exactly one attempt. Errors: MessageIllegal
        and InvalidParameter for what may not be sent, BrokerError for a refusal, ClientError when all
        attempts failed; `code` tells why.
        """
        self._place(message)
        ask_for(message, wait_for)
        payload = self._payload(message)
        target = self._target(payload, queue, selector, argument)
        return self._path.send(payload, self._timeout_ms(timeout_ms), target)

    def request(
        self,
        message: Message,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
    ) -> MessageExt:
        """Send a request and wait for the reply of whoever consumes it; RequestTimeout (10006) without one.

        The time covers both ways. Errors of the send as in `send`.
        """
        limit_ms = self._timeout_ms(timeout_ms)
        reply = self.request_async(
            message, queue=queue, selector=selector, argument=argument, timeout_ms=limit_ms
        )
        try:
            return reply.result(limit_ms / 1000)
        except RemotingTimeout:
            self._instance.replies.give_up(message, no_reply(message.topic))
            return reply.result(0)

    def request_async(
        self,
        message: Message,
        on_reply: Callable[[MessageExt], object] | None = None,
        on_exception: Callable[[BaseException], object] | None = None,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
    ) -> SendFuture[MessageExt]:
        """Send a request and return the future of its reply.

        `on_reply` is called with a reply only, never for the broker's acknowledgement; a future without reply
        fails within a second after its time.
        """
        limit_ms = self._timeout_ms(timeout_ms)
        self._place(message)
        self._use(message.topic)
        self._path.publish_info(message.topic)
        instance = self._instance
        instance.announce()
        reply = instance.replies.expect(message, instance.client_id, limit_ms)
        if on_reply is not None or on_exception is not None:
            reply.add_done_callback(_calling(on_reply, on_exception))
        self.send_async(
            message,
            on_exception=lambda error: instance.replies.give_up(message, error),
            queue=queue,
            selector=selector,
            argument=argument,
            timeout_ms=limit_ms,
        )
        return reply

    def send_oneway(
        self,
        message: Message,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
    ) -> None:
        """Send one message without an answer: quick, and a loss is not noticed."""
        self._place(message)
        outgoing = Outgoing(message, self.config)
        self._use(message.topic)
        if selector is not None:
            queue = self._path.select(message, selector, argument)
        self._path.send_oneway(outgoing, queue)

    def send_async(
        self,
        message: Message | Sequence[Message],
        on_success: Callable[[SendResult], object] | None = None,
        on_exception: Callable[[BaseException], object] | None = None,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> AsyncSend:
        """Hand a message (or a list as one batch) over and return its future. `wait_for` as in `send`.

        Exactly one of the callbacks is called, by a client thread, which must not be kept long. Waits for
        room when too much is under way, up to the timeout; then the future fails with TooMuchRequest.
        """
        self._place(message)
        ask_for(message, wait_for)
        config = self.config
        limit_ms = config.send_msg_timeout_ms if timeout_ms is None else timeout_ms
        deadline = time.monotonic() + limit_ms / 1000
        retries = config.retry_times_when_send_async_failed
        if isinstance(message, Message):
            check_sendable(message, config.max_message_size)
            self._use(message.topic)
            if selector is not None:
                queue = self._path.select(message, selector, argument)
            size = len(message.body) + RECORD_OVERHEAD
            send = AsyncSend(message, deadline, retries, queue is not None, size)
            if on_success is not None or on_exception is not None:
                send.add_done_callback(_calling(on_success, on_exception))
            self._asynchronous.one(send, queue)
            return send
        payload = self._payload(message)
        target = self._target(payload, queue, selector, argument)
        size = sum(len(member.body) + RECORD_OVERHEAD for member in message)
        send = AsyncSend(message[0], deadline, retries, target is not None, size)
        if on_success is not None or on_exception is not None:
            send.add_done_callback(_calling(on_success, on_exception))
        self._asynchronous.batch(send, payload, target)
        return send

    def send_split(
        self,
        messages: Iterable[Message],
        *,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> list[SentPiece]:
        """Send any list, of several topics and any length, as batches: one or more per queue.

        Each topic goes to one queue, chosen as for a single send, unless `selector` chooses for every
        message. Returns what became of each batch, errors included; nothing is raised but for the list
        itself. Order is kept in each queue: behind a batch that failed nothing more of its queue is sent.
        """
        chosen: dict[str, MessageQueue] = {}

        def queue_of(message: Message) -> MessageQueue:
            self._place(message)
            self._use(message.topic)
            if selector is not None:
                return self._path.select(message, selector, argument)
            found = chosen.get(message.topic)
            if found is None:
                found = chosen[message.topic] = self._path.next_queue(message.topic)
            return found

        def send(piece: Message | Sequence[Message], queue: MessageQueue) -> AsyncSend:
            return self.send_async(piece, queue=queue, timeout_ms=timeout_ms, wait_for=wait_for)

        return split_send(messages, queue_of, send, min(self.config.max_message_size, SPLIT_BYTES))

    def _payload(self, message: Message | Sequence[Message]) -> Payload:
        """Check and prepare what is to be sent."""
        if isinstance(message, Message):
            outgoing = Outgoing(message, self.config)
            self._use(message.topic)
            return SinglePayload(outgoing, self._path.commands)
        check_batch(message)
        check_all_sendable(message, self.config.max_message_size)
        self._use(message[0].topic)
        return BatchPayload(OutgoingBatch(message, self.config, may_compress=False), self._path.commands)

    def _target(
        self,
        payload: Payload,
        queue: MessageQueue | None,
        selector: MessageQueueSelector | None,
        argument: Any,
    ) -> MessageQueue | None:
        if queue is not None and queue.topic != payload.topic:
            raise ClientFault(f"the queue belongs to topic {queue.topic!r}, the message to {payload.topic!r}")
        if selector is not None:
            return self._path.select(payload.message, selector, argument)
        return queue

    def _timeout_ms(self, timeout_ms: int | None) -> int:
        return timeout_ms if timeout_ms is not None else self.config.send_msg_timeout_ms

    # Queries

    def recall_message(self, topic: str, recall_handle: str, timeout_ms: int | None = None) -> str:
        """Take a message back that still waits for its moment; `recall_handle` is its SendResult's.

        Returns its unique key when that is as durable as a send; again does no harm. IllegalOperation when it
        was delivered: nothing was changed.
        """
        link = self._link_of(topic, recall_handle)
        limit_s = self._timeout_ms(timeout_ms) / 1000
        return timer_calls.recall(link, self.producer_group, topic, recall_handle, limit_s)

    def reschedule_message(
        self, topic: str, recall_handle: str, deliver_at: datetime, timeout_ms: int | None = None
    ) -> str:
        """Put a message off that still waits, later or earlier; in the past: it is delivered at once.

        Returns the handle that takes it back from now on, "" when it was delivered. IllegalOperation when it
        does not wait any more; only shmq's brokers can do it.
        """
        link = self._link_of(topic, recall_handle)
        return timer_calls.reschedule(
            link, topic, recall_handle, deliver_at, self._timeout_ms(timeout_ms) / 1000
        )

    def _link_of(self, topic: str, recall_handle: str) -> BrokerLink:
        """The link to the broker that keeps a waiting message."""
        queue = timer_calls.queue_of(topic, recall_handle)
        self._use(topic)
        return self._path.link(queue)

    def fetch_publish_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return the queues of a topic that may be sent to."""
        topic = with_namespace(self.config.namespace, topic)
        self._use(topic)
        return list(self._path.publish_info(topic).queues)

    def max_offset(self, queue: MessageQueue) -> int:
        """Return the next offset to be written."""
        return self._instance.calls.max_offset(queue)

    def min_offset(self, queue: MessageQueue) -> int:
        """Return the oldest offset that can be read."""
        return self._instance.calls.min_offset(queue)

    def search_offset(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time."""
        return self._instance.calls.search_offset(queue, timestamp_ms)

    def earliest_msg_store_time(self, queue: MessageQueue) -> int:
        """Return when the queue's oldest message was stored (ms), -1 for an empty queue."""
        return self._instance.calls.earliest_store_time(queue)

    def _admin(self) -> AdminClient:
        from shmq.client.admin_client import AdminClient  # few producers ask; the others start quicker

        return AdminClient(config=self.config)

    def view_message(self, topic: str, msg_id: str) -> MessageExt:
        """Return a stored message by its offset id, else by its unique id; QueryNotFound when neither leads
        to one."""
        with self._admin() as admin:
            try:
                return admin.view_message(msg_id)
            except (
                ShmqError
            ):  # a unique id looks like an offset id; its bytes then name no broker that answers
                found = admin.query_by_unique_key(topic, msg_id)
        if not found:
            raise QueryNotFound(f"no message of topic {topic!r} has the id {msg_id}")
        return found[0]

    def query_message(
        self, topic: str, key: str, max_count: int = 64, begin_ms: int = 0, end_ms: int = LAST_MS
    ) -> list[MessageExt]:
        """Return messages of a topic that carry a key, oldest first."""
        with self._admin() as admin:
            topic = with_namespace(self.config.namespace, topic)
            return admin.query_message(topic, key, max_count, begin_ms, end_ms)

    def create_topic(self, topic: str, queue_nums: int = 4) -> None:
        """Create a topic on every master, unless it is known already."""
        with self._admin() as admin:
            admin.ensure_topic(with_namespace(self.config.namespace, topic), queue_nums)


def _calling(
    on_success: Callable[[Any], object] | None,
    on_exception: Callable[[BaseException], object] | None,
) -> Callable[[Any], None]:
    """Return a done-callback that calls the one of the two that fits."""

    def done(future: SendFuture[Any]) -> None:
        error = future.exception()
        if error is None:
            if on_success is not None:
                on_success(future.result())
        elif on_exception is not None:
            on_exception(error)

    return done
