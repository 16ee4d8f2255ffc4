"""PullService: the pull loop of a push or lite pull consumer, one pull under way per owned queue.

Each pull is a small state machine step: flow control, direct read, else a held pull through the socket, whose
answer continues it. Steps run on the pull thread (`TaskLoop`) or, for answers, on the connection's reader
thread; a queue has one step at a time, so its state needs no lock. RocketMQ's waits:

    stopped or paused, or an error       1000 ms (configurable)     broker says FLOW_CONTROL     20 ms
    too many messages, bytes or span in hand   50 ms, or sooner when half of them are consumed
    the broker does not know the subscription's version yet     100 ms, after a heartbeat
    FOUND, filtered out, nothing new     at once (FOUND: after pull_interval_ms)
    nothing new for a whole hold         with all idle queues of that broker in one wait (`shared_waits.py`)
    OFFSET_ILLEGAL                       take the broker's offset, give the queue up, rebalance at once
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.base.errors import BrokerError, SubscriptionNotLatest
from shmq.client.consumer_config import MIB, FetchingConfig
from shmq.client.direct_readers import DirectReaders
from shmq.client.instance import ClientInstance
from shmq.client.links import BrokerLink
from shmq.client.offset_store import OffsetStore, ReadMode, RemoteOffsetStore
from shmq.client.process_queue import ProcessQueue
from shmq.client.pull import PULL_TIMEOUT_WHEN_SUSPEND_MS, PullRequest, PullResult, PullStatus
from shmq.client.pull_state import PullState
from shmq.client.pulled_message import PulledMessage
from shmq.client.shared_waits import SharedWaits
from shmq.client.subscriptions import Subscriptions
from shmq.client.task_loop import TaskLoop
from shmq.model.consumer_group import MessageModel
from shmq.model.message_queue import MessageQueue
from shmq.model.route import MASTER_ID
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command

FLOW_CONTROL_WAIT_S = 0.05
BROKER_FLOW_CONTROL_WAIT_S = 0.02
NOT_LATEST_WAIT_S = 0.1
PAUSED_WAIT_S = 1.0
DIRECT_BATCH_MAX = 256
IDLE_SHARE = 0.9
"""A pull that was held for this share of its time without news makes its queue an idle one."""

_LOG = log.get(__name__)


class PullService:
    """Pulls for every owned queue and hands found messages on."""

    def __init__(
        self,
        group: str,
        config: FetchingConfig,
        instance: ClientInstance,
        subscriptions: Subscriptions,
        offsets: OffsetStore,
        *,
        found: Callable[[list[PulledMessage], ProcessQueue[PulledMessage], MessageQueue], None],
        offset_illegal: Callable[[MessageQueue, int], None],
        may_fetch: Callable[[], bool] = lambda: True,
        span_counts: bool = True,
        pulled: Callable[[str, int, float], None] = lambda topic, messages, took_ms: None,
    ) -> None:
        """`found` consumes messages already put into the process queue; `offset_illegal` gives a queue up.

        `may_fetch` is the owner's say in flow control; `span_counts`: the distance between the first and the
        last message in hand is bounded (not in orderly consumption); `pulled` counts (topic, messages,
        milliseconds).
        """
        self._group = group
        self._config = config
        self._instance = instance
        self._subscriptions = subscriptions
        self._offsets = offsets
        self._found = found
        self._offset_illegal = offset_illegal
        self._may_fetch = may_fetch
        self._span_counts = span_counts
        self._pulled = pulled
        self._states: dict[MessageQueue, PullState] = {}
        self.readers = DirectReaders(group, config, instance.periodic)
        self.loop = TaskLoop(f"shmq-pull-{group}")
        self._waits = SharedWaits(group, self.loop, lambda state: self._soon(state, 0), self._wait_ended)
        self.flow_controls = 0
        """How often a pull was put off because too much was in hand."""
        self.paused = False
        self.paused_queues: frozenset[MessageQueue] = frozenset()
        self._stopping = False

    def start(self) -> None:
        """Start the pull thread."""
        self.loop.start()

    def stop(self) -> None:
        """Pull no more; answers still under way are dropped."""
        self._stopping = True
        self.loop.stop(3.0)
        self.readers.close()

    def take(self, queue: MessageQueue, held: ProcessQueue[PulledMessage], offset: int) -> None:
        """Begin to pull a queue."""
        state = self._states[queue] = PullState(queue, held, offset)
        self._soon(state, 0)

    def forget(self, queue: MessageQueue) -> None:
        """A queue was given away: its state ends with the next step."""
        self._states.pop(queue, None)

    @property
    def is_resting(self) -> bool:
        """Tell whether every queue is waited for, so that brokers tell of all that changes."""
        states = list(self._states)
        return bool(states) and self._waits.covers(states)

    def waited_s(self, link: BrokerLink) -> float:
        """Return when the wait under way at a broker was sent, minus infinity without one."""
        return self._waits.sent_s(link)

    def _wait_ended(self, changed: Sequence[str] | None) -> None:
        if changed is not None and isinstance(self._offsets, RemoteOffsetStore):
            self._offsets.tell_again()  # the group may have been deleted, with its offsets
        self._instance.wait_ended(changed)

    def drained(self, queue: MessageQueue) -> None:
        """Listeners have consumed half of what held the pull back: go on before the 50 ms are over."""
        state = self._states.get(queue)
        if state is not None and state.controlled:
            state.controlled = False
            self._soon(state, 0)

    def _soon(self, state: PullState, delay_s: float) -> None:
        self.loop.later(delay_s, lambda: self._step(state))

    def _step(self, state: PullState) -> None:
        """Do one pull, or find out why not now."""
        if state.held.dropped or self._stopping:
            return
        state.held.last_pull_ms = now_ms()
        state.asked_s = time.monotonic()
        if self.paused or state.queue in self.paused_queues:
            self._soon(state, PAUSED_WAIT_S)
            return
        if self._too_much(state):
            state.controlled = True
            self.flow_controls += 1
            self.loop.later(FLOW_CONTROL_WAIT_S, lambda: self._controlled_step(state))
            return
        try:
            self._pull(state)
        except (
            Exception
        ) as error:  # the edge of a step: without a next one the queue would never be pulled again
            self._failed(state, error)

    def _controlled_step(self, state: PullState) -> None:
        """The 50 ms of flow control are over, unless draining was quicker."""
        if state.controlled:
            state.controlled = False
            self._step(state)

    def _too_much(self, state: PullState) -> bool:
        """Tell whether the queue has as much in hand as it may."""
        config, held = self._config, state.held
        count_max, mib_max = config.pull_threshold_for_queue, config.pull_threshold_size_for_queue_mib
        owned = max(1, len(self._states))
        if config.pull_threshold_for_topic != -1:
            count_max = max(1, config.pull_threshold_for_topic // owned)
        if config.pull_threshold_size_for_topic_mib != -1:
            mib_max = max(1, config.pull_threshold_size_for_topic_mib // owned)
        return (
            held.message_count > count_max
            or held.message_bytes // MIB > mib_max
            or (self._span_counts and held.span > config.consume_concurrently_max_span)
            or not self._may_fetch()
        )

    def _pull(self, state: PullState) -> None:
        """Read directly when that is granted and there is something; else ask the broker to hold the pull."""
        queue, config = state.queue, self._config
        subscription = self._subscriptions.get(queue.topic)
        if subscription is None:
            self._soon(state, PAUSED_WAIT_S)
            return
        link = self._instance.routes.reading_link(queue.broker_name, state.broker_id)
        link.duplex()  # announces us when the connection is new: a pull before the heartbeat is refused
        reader = self.readers.of(link)
        epoch = None
        if reader is not None:
            # A direct read costs no request, so it takes as many as flow control lets in.
            room = min(config.pull_threshold_for_queue - state.held.message_count, DIRECT_BATCH_MAX)
            count = max(config.pull_batch_size, room)
            size = config.pull_batch_size_in_bytes
            result = reader.pull(queue, state.offset, count, size, subscription)
            if result is not None and result.status is not PullStatus.NO_NEW_MSG:
                self._offsets.count_read(queue, len(result.messages), result.record_bytes)
                self._ended(state, result)
                return
            epoch = reader.policy_epoch()
        commit = 0
        if config.message_model is MessageModel.CLUSTERING and link.broker_id == MASTER_ID:
            commit = max(0, self._offsets.read(queue, ReadMode.MEMORY))
        request = PullRequest(
            self._group,
            queue,
            state.offset,
            config.pull_batch_size,
            subscription,
            post_subscription=config.post_subscription_when_pull,
            suspend_ms=config.broker_suspend_max_time_ms,
            commit_offset=commit,
            max_bytes=config.pull_batch_size_in_bytes,
        )

        def answered(response: Command | None, error: Exception | None) -> None:
            if state.held.dropped or self._stopping:
                return
            try:
                if response is None:
                    raise error or BrokerError(ResponseCode.SYSTEM_ERROR, "no answer")
                result = request.result(response)
            except Exception as failure:  # as above: an undecodable record must not end the pulling
                if reader is not None:
                    reader.note_socket_pull(queue, None, accepted=False)
                self._failed(state, failure)
                return
            if reader is not None:
                refused = result.status is PullStatus.OFFSET_ILLEGAL or result.is_filtered_there
                reader.note_socket_pull(queue, epoch, accepted=not refused)
            state.broker_id = result.suggested_broker_id
            held_s = time.monotonic() - state.asked_s
            is_idle = (
                result.status is PullStatus.NO_NEW_MSG and held_s * 1000 >= IDLE_SHARE * request.suspend_ms
            )
            self._ended(state, result, link if is_idle else None)

        link.send_async(request.command(), PULL_TIMEOUT_WHEN_SUSPEND_MS / 1000, answered)

    def _ended(self, state: PullState, result: PullResult, idle_at: BrokerLink | None = None) -> None:
        """Go on from a pull's result; `idle_at`: the broker held it for all its time, and nothing came."""
        if result.status is PullStatus.OFFSET_ILLEGAL:
            state.held.dropped = True
            log.event(
                _LOG, logging.WARNING, "offset_illegal", queue=state.queue, asked=state.offset, now=result
            )
            self.loop.later(0, lambda: self._offset_illegal(state.queue, result.next_begin_offset))
            return
        state.offset = result.next_begin_offset
        delay_s = 0.0
        if result.messages:
            took_ms = (time.monotonic() - state.asked_s) * 1000
            self._pulled(state.queue.topic, len(result.messages), took_ms)
            state.held.put(result.messages)
            self._found(result.messages, state.held, state.queue)
            delay_s = self._config.pull_interval_ms / 1000
        elif not state.held.message_count:
            self._offsets.update(state.queue, result.next_begin_offset)
        if idle_at is None or not self._waits.add(idle_at, state):
            self._soon(state, delay_s)

    def _failed(self, state: PullState, error: Exception) -> None:
        """Try again later; how much later depends on who said no."""
        if isinstance(error, BrokerError) and error.code == ResponseCode.FLOW_CONTROL:
            self._soon(state, BROKER_FLOW_CONTROL_WAIT_S)
            return
        if isinstance(error, SubscriptionNotLatest):  # its queues changed, and the heartbeat is on its way
            self._instance.heartbeat_soon()
            self._soon(state, NOT_LATEST_WAIT_S)
            return
        if isinstance(error, BrokerError) and error.code == ResponseCode.SUBSCRIPTION_NOT_EXIST:
            self._instance.heartbeat_soon()  # the broker has forgotten us
        log.event(_LOG, logging.WARNING, "pull_failed", queue=state.queue, reason=error)
        self._soon(state, self._config.pull_time_delay_millis_when_exception / 1000)
