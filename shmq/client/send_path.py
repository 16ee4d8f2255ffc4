"""SendPath: one producer's way of a message to a broker: queue choice, attempts, what is retried.

Everything here runs in the calling thread or, for async retries, in a small pool; the rules are RocketMQ's
(Apache RocketMQ 5.3, DefaultMQProducerImpl.java):

    sync     1 + retry_times_when_send_failed attempts, each on another broker if there is one; transport
    errors
             and `retry_response_codes` are retried, any other answer is raised. When the last attempt
             reached nobody (a broker that is being started again), it is made again until the time is over
    async    1 + retry_times_when_send_async_failed attempts; only transport errors and time-outs are retried
    oneway   one attempt; errors of delivery are not reported
    explicit queue or selector: one attempt in sync mode; async retries stay on that queue
    enable_idempotence (shmq's own): all attempts carry one sequence and stay with the first one's broker

All attempts share the call's timeout. A queue is chosen anew, queue id and all, for every retry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from shmq.base import log
from shmq.base.errors import BrokerError, ClientFault, ShmqError
from shmq.client.errors import ClientError, ConnectFailed, RemotingError, TooMuchRequest, code_of
from shmq.client.instance import ClientInstance
from shmq.client.latency_faults import LatencyFaults
from shmq.client.links import BrokerLink
from shmq.client.listener_pool import ListenerPool
from shmq.client.outgoing import Outgoing
from shmq.client.payload import Payload
from shmq.client.producer_config import ProducerConfig
from shmq.client.queue_selection import MessageQueueSelector, apply_selector, choose_queue, choose_tolerant
from shmq.client.routes import PublishInfo
from shmq.client.send_commands import SendCommands
from shmq.client.send_hooks import SendContext, SendHooks
from shmq.client.send_result import CommunicationMode, SendResult, SendStatus
from shmq.client.sequencer import Sequencer
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command

Done = Callable[[SendResult | None, Exception | None], None]
"""Called once with the result or the error of an async send."""

RECONNECT_PAUSE_S = (0.01, 0.2)
"""Shortest and longest pause between two tries to reach a broker."""

_LOG = log.get(__name__)


class SendPath:
    """The sending half of one producer."""

    def __init__(
        self, group: str, config: ProducerConfig, instance: ClientInstance, hooks: SendHooks
    ) -> None:
        """Use the instance's routes and links."""
        self.commands = SendCommands(group, config)
        self.faults = LatencyFaults()
        self._group = group
        self._config = config
        self._instance = instance
        self._hooks = hooks
        self._sequencer = Sequencer() if config.enable_idempotence else None
        self._retries: ListenerPool[Callable[[], None]] = ListenerPool("shmq-retry", lambda retry: retry(), 4)

    def publish_info(self, topic: str) -> PublishInfo:
        """Return the topic's writable queues; ClientError 10004 or 10005 when there are none."""
        config = self._config
        return self._instance.routes.publish_info(
            topic, config.create_topic_key, config.default_topic_queue_nums
        )

    def choose(self, info: PublishInfo, avoid_broker: str | None = None) -> MessageQueue:
        """Return the queue of the next attempt."""
        if self._config.send_latency_fault_enable:
            return choose_tolerant(info.queues, info.turn, avoid_broker, self.faults)
        return choose_queue(info.queues, info.turn, avoid_broker)

    def next_queue(self, topic: str, avoid_broker: str | None = None) -> MessageQueue:
        """Return the queue for the next message of a topic."""
        return self.choose(self.publish_info(topic), avoid_broker)

    def select(self, message: Message, selector: MessageQueueSelector, argument: Any) -> MessageQueue:
        """Ask the user's selector for a queue of the message's topic."""
        return apply_selector(selector, self.publish_info(message.topic).queues, message, argument)

    # Sync

    def send(self, payload: Payload, timeout_ms: int, queue: MessageQueue | None = None) -> SendResult:
        """Send and wait for the answer, with the retries of sync mode."""
        timeout_s = timeout_ms / 1000
        started = time.monotonic()
        info = self.publish_info(payload.topic) if queue is None else None
        attempts = 1 if info is None else 1 + self._config.retry_times_when_send_failed
        tried: list[str] = []
        kept: SendResult | None = None
        error: ShmqError | None = None
        attempt, waits = 0, 0
        while attempt < attempts:
            target = queue if info is None else self.choose(info, tried[-1] if tried else None)
            assert target is not None
            if self._sequencer is not None and not attempt and not waits:
                info = self._number(payload, target, info)
            left_s = timeout_s - (time.monotonic() - started)
            if left_s <= 0:
                break
            # The first attempt passes the round number on: the socket's time limit then needs no change.
            limit_s = left_s if attempt or waits else timeout_s
            if self._config.send_msg_max_timeout_per_request_ms > 0:
                limit_s = self._attempt_limit_s(limit_s, attempt == attempts - 1)
            if len(tried) == attempt:
                tried.append(target.broker_name)
            try:
                result = self._attempt(payload, target, limit_s, CommunicationMode.SYNC)
            except (BrokerError, ClientError, RemotingError) as failure:
                error = failure
                if isinstance(failure, BrokerError) and failure.code not in self._config.retry_response_codes:
                    break
                if isinstance(failure, ConnectFailed) and attempt == attempts - 1:
                    waits += 1
                    self._wait(waits, timeout_s - (time.monotonic() - started))
                else:
                    attempt += 1
                continue
            if (
                result.send_status is SendStatus.SEND_OK
                or not self._config.retry_another_broker_when_not_store_ok
            ):
                return result
            kept = result
            attempt += 1
        if kept is not None:
            return kept
        if error is None:
            raise TooMuchRequest(
                f"the {timeout_ms} ms of the send were used up before anything was sent: give it more time"
            )
        if len(tried) == 1 and isinstance(error, BrokerError):
            raise error
        raise ClientError(
            code_of(error),
            f"sending to topic {payload.topic!r} failed after {len(tried)} attempts in "
            f"{(time.monotonic() - started) * 1000:.0f} ms (brokers tried: {', '.join(tried)}): {error}",
        ) from error

    @staticmethod
    def _wait(turn: int, left_s: float) -> None:
        """Pause before the next look for a broker that nobody could reach."""
        time.sleep(max(0.0, min(RECONNECT_PAUSE_S[0] * 2 ** min(turn, 8), RECONNECT_PAUSE_S[1], left_s)))

    def _number(self, payload: Payload, target: MessageQueue, info: PublishInfo | None) -> PublishInfo | None:
        """Number a send for the broker of its first attempt; return that broker's queues for the others."""
        assert self._sequencer is not None
        payload.number(self._sequencer.next(target.broker_name))
        return None if info is None else info.of_broker(target.broker_name)

    def _attempt_limit_s(self, left_s: float, last: bool) -> float:
        """Return the time of one attempt: what is left, capped by the setting except for the last one."""
        cap_ms = self._config.send_msg_max_timeout_per_request_ms
        return left_s if last or cap_ms <= 0 else min(left_s, cap_ms / 1000)

    def _attempt(
        self, payload: Payload, queue: MessageQueue, limit_s: float, mode: CommunicationMode
    ) -> SendResult:
        """Send once to a queue and read the answer; remember how long the broker took."""
        started = time.monotonic()
        link = self.link(queue)
        context = self._before(payload, queue, mode) if self._hooks else None
        try:
            result = payload.send(link, queue, limit_s)
        except ShmqError as error:
            self._note(queue, started, error)
            self._after(context, None, error)
            raise
        if self._config.send_latency_fault_enable:
            self._note(queue, started, None)
        if context is not None:
            self._after(context, result, None)
        return result

    def link(self, queue: MessageQueue) -> BrokerLink:
        """Return the master's link; an explicit queue may name a topic nobody looked up yet."""
        try:
            return self._instance.routes.link(queue.broker_name)
        except ClientError:  # no route names that broker yet
            self.publish_info(queue.topic)
            return self._instance.routes.link(queue.broker_name)

    def is_local(self, queue: MessageQueue) -> bool:
        """Tell whether a queue's broker is shmq on this host; one that cannot be reached now is not."""
        try:
            return self.link(queue).is_local
        except ShmqError:
            return False

    def later(self, run: Callable[[], None]) -> None:
        """Run something on the retry threads: connections may be made there, not on a reader thread."""
        self._retries.submit(run)

    def _note(self, queue: MessageQueue, started: float, error: ShmqError | None) -> None:
        """Record an attempt for the latency fault tolerance, and begin anew where a sequence was refused."""
        refused = isinstance(error, BrokerError) and error.code == ResponseCode.SEQUENCE_REFUSED
        if refused and self._sequencer is not None:
            self._sequencer.renew(queue.broker_name)
        ours = isinstance(error, ClientFault) and not isinstance(error, BrokerError)
        if self._config.send_latency_fault_enable and not ours:
            self.faults.update(
                queue.broker_name,
                int((time.monotonic() - started) * 1000),
                failed=isinstance(error, BrokerError | RemotingError),
                reachable=not isinstance(error, BrokerError),
            )

    def _before(self, payload: Payload, queue: MessageQueue, mode: CommunicationMode) -> SendContext:
        address = self.link(queue).tcp_address
        context = SendContext(self._group, queue, payload.message, mode, address)
        self._hooks.before(context)
        return context

    def _after(self, context: SendContext | None, result: SendResult | None, error: Exception | None) -> None:
        if context is not None:
            context.result, context.error = result, error
            self._hooks.after(context)

    # Oneway

    def send_oneway(self, outgoing: Outgoing, queue: MessageQueue | None) -> None:
        """Send once without an answer; a delivery that fails is logged, never raised."""
        target = queue if queue is not None else self.next_queue(outgoing.topic)
        try:
            command = self.commands.single(outgoing, target.queue_id, oneway=True)
            self.link(target).send_oneway(command, self._config.send_msg_timeout_ms / 1000)
        except RemotingError as error:
            log.event(_LOG, logging.INFO, "oneway_send_failed", queue=target, reason=error)

    # Async

    def send_async(
        self,
        payload: Payload,
        deadline: float,
        queue: MessageQueue | None,
        done: Done,
        attempts: int,
        first: MessageQueue | None = None,
    ) -> None:
        """Start an async send that ends, retries included, before `deadline` (monotonic seconds).

        `queue` is the caller's and kept by every attempt; `first` is only the first attempt's choice.
        """
        info = self.publish_info(payload.topic) if queue is None else None
        self._start(_Attempts(payload, deadline, queue, info, done, attempts), first)

    def _start(self, send: _Attempts, first: MessageQueue | None = None) -> None:
        """Run one attempt; its answer, or what went wrong, goes to `_answered`."""
        left_s = send.deadline - time.monotonic()
        if left_s <= 0:
            send.done(None, send.error or TooMuchRequest("the time of the send was used up in this client"))
            return
        send.attempts -= 1
        try:
            target = send.fixed or first or self.choose(send.info, send.tried)  # type: ignore[arg-type]  # one is set
            if self._sequencer is not None and send.tried is None:
                send.info = self._number(send.payload, target, send.info)
            send.tried = target.broker_name
            link = self.link(target)
            context = self._before(send.payload, target, CommunicationMode.ASYNC) if self._hooks else None
            command = send.payload.command(link, target.queue_id)
        except Exception as error:  # a hook's veto, a bad route: whatever it is, the caller must hear of it
            send.done(None, error)
            return
        started = time.monotonic()

        def answered(response: Command | None, error: Exception | None) -> None:
            result = None
            if response is not None:
                try:
                    result = send.payload.result(response, link, target)
                except ShmqError as refusal:
                    error = refusal
            self._note(target, started, error if isinstance(error, ShmqError) else None)
            self._after(context, result, error)
            if isinstance(error, RemotingError) and send.attempts > 0:
                send.error = error
                self.later(lambda: self._start(send))
            else:
                send.done(result, error)

        link.send_async(command, self._attempt_limit_s(left_s, send.attempts == 0), answered)

    def after_fork(self) -> None:
        """In a forked child: retries under way are the parent's."""
        self._retries = ListenerPool("shmq-retry", lambda retry: retry(), 4)


class _Attempts:
    """One async request between its attempts."""

    __slots__ = ("attempts", "deadline", "done", "error", "fixed", "info", "payload", "tried")

    def __init__(
        self,
        payload: Payload,
        deadline: float,
        fixed: MessageQueue | None,
        info: PublishInfo | None,
        done: Done,
        attempts: int,
    ) -> None:
        self.payload = payload
        self.deadline = deadline
        self.fixed = fixed
        self.info = info
        self.done = done
        self.attempts = attempts
        self.tried: str | None = None
        self.error: Exception | None = None
