"""LitePullConsumer: fetches ahead by itself; the application polls.

    consumer = LitePullConsumer("my-group")
    consumer.subscribe("orders")                 # shared with the group's members, or:
    consumer.assign([MessageQueue("orders", "broker-a", 0)])
    with consumer:
        for message in consumer.poll():
            ...
        for message in consumer:                 # or so: each is consumed when the next one is asked for
            ...

RocketMQ's DefaultLitePullConsumer in Python's spelling. What `poll` returned counts as consumed; with auto
commit its position is stored by a later poll, once the interval is over, so a crash brings the messages since
then again. `_fetched_changed` guards the fetched batches and the positions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shmq.base import log
from shmq.base.errors import ClientFault, InvalidParameter
from shmq.client.channel import view_of
from shmq.client.consume_hooks import ConsumeContext
from shmq.client.consumer_base import ConsumerBase, check_place
from shmq.client.consumer_config import LitePullConsumerConfig
from shmq.client.links import BrokerLink
from shmq.client.listener_calls import hide_namespace
from shmq.client.message_loop import LOOK_S, Batch, MessageLoop
from shmq.client.offset_store import NO_OFFSET, ReadMode
from shmq.client.periodic import Duty
from shmq.client.process_queue import ProcessQueue
from shmq.client.producer_config import configured
from shmq.client.pull_service import PullService
from shmq.client.pulled_message import PulledMessage
from shmq.client.rebalancer import Owned
from shmq.client.service_state import ServiceState
from shmq.model.message_queue import MessageQueue
from shmq.model.names import is_retry_topic, with_namespace
from shmq.model.subscription import Wanted
from shmq.protocol.bodies.offsets import decode_reset_offsets
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import ResetConsumerClientOffsetHeader

_LOG = log.get(__name__)


FIRST_LOOK_S = 10.0


@dataclass(slots=True, eq=False)
class _Watch:
    """A topic whose queues somebody listens to."""

    topic: str
    listener: Callable[[str, set[MessageQueue]], object]
    queues: set[MessageQueue] | None = None


class LitePullConsumer(ConsumerBase):
    """One consumer that is polled."""

    PULLS_ITSELF = True

    def __init__(
        self, consumer_group: str, config: LitePullConsumerConfig | None = None, **settings: Any
    ) -> None:
        """`settings` are fields of LitePullConsumerConfig, such as `auto_commit=False`."""
        self.config = configured(LitePullConsumerConfig, config, settings)
        super().__init__(consumer_group, self.config)
        self._assigned: set[MessageQueue] | None = None
        self._fetched_changed = threading.Condition(threading.Lock())
        self._fetched: deque[Batch] = deque()
        self._fetched_count = 0
        self.on_news: Callable[[], object] | None = None
        """Called by any thread when there is something to poll, and when the consumer ends: for event loops,
        which must not wait in `poll`."""
        self._positions: dict[MessageQueue, int] = {}
        self._next_commit_s = 0.0
        self._watches: list[_Watch] = []
        self._looking: Duty
        self._pulling: PullService

    # Which queues

    def subscribe(self, topic: str, expression: Wanted = "*") -> None:
        """Share a topic's queues with the group's members. Not together with `assign`."""
        if self._assigned is not None:
            raise ClientFault("subscribe and assign exclude each other: this consumer has assigned queues")
        self._subscribe(topic, expression)

    def assign(self, queues: Iterable[MessageQueue], expression: Wanted = "*") -> None:
        """Read exactly these queues, whatever other members do. Not together with `subscribe`."""
        if self._assigned is None and self._subscriptions.topics:
            raise ClientFault("subscribe and assign exclude each other: this consumer has subscriptions")
        self._assigned = set(queues)
        for topic in {queue.topic for queue in self._assigned}:
            self._subscriptions.put_if_absent(topic, expression)
        if self._state is ServiceState.RUNNING:
            self._instance.heartbeat_all()
            self._instance.rebalance_now()

    def register_topic_message_queue_change_listener(
        self, topic: str, listener: Callable[[str, set[MessageQueue]], object]
    ) -> None:
        """Have a function called with (topic, its queues) when queues were added to a topic or taken away:
        for consumers that assign queues themselves. Looked at every `topic_metadata_check_interval_ms`."""
        if not callable(listener):
            raise InvalidParameter(f"listener {listener!r} cannot be called with (topic, queues)")
        self._watches.append(_Watch(topic, listener))
        if self._state is ServiceState.RUNNING:
            self._look_at_topics()

    def _look_at_topics(self) -> None:
        """Tell the listeners of topics whose queues have changed since the last look; the first one tells
        nobody."""
        for watch in list(self._watches):
            topic = with_namespace(self.config.namespace, watch.topic)
            self._instance.routes.refresh(topic)
            queues = set(self._instance.routes.subscribe_queues(topic))
            before, watch.queues = watch.queues, queues
            if before is not None and before != queues:
                watch.listener(watch.topic, queues)

    def rebalance(self) -> bool:
        """Balance, or take what was assigned; on the rebalance thread."""
        if self._assigned is None or self._state is not ServiceState.RUNNING:
            return super().rebalance()
        return self._rebalancer.take_exactly(self._assigned)

    @property
    def assignment(self) -> set[MessageQueue]:
        """Return the queues that are read now."""
        self._check_running()
        return set(self._rebalancer.owned)

    # Life

    def _check_settings(self) -> None:
        self.config.check()

    def _begin(self) -> None:
        self._pulling = PullService(
            self.consumer_group,
            self.config,
            self._instance,
            self._subscriptions,
            self._offsets,
            found=self._found,
            offset_illegal=self._jump,
            may_fetch=lambda: self._fetched_count <= self.config.pull_threshold_for_all,
        )
        self._pulling.start()
        period_s = self.config.topic_metadata_check_interval_ms / 1000
        first_s = min(FIRST_LOOK_S, period_s)
        self._looking = self._instance.periodic.add("look at topics", self._look_at_topics, first_s, period_s)

    def _pulls(self) -> PullService | None:
        return self._pulling if self._state is ServiceState.RUNNING else None

    def _end(self) -> None:
        self._instance.periodic.remove(self._looking)
        self._pulling.stop()
        with self._fetched_changed:
            self._fetched_changed.notify_all()
        self._tell_news()
        if self.config.auto_commit:
            self._store_positions()

    # Polling

    def poll(self, timeout_ms: int | None = None) -> list[PulledMessage]:
        """Return one fetched batch, or an empty list when none comes within the timeout."""
        self._check_running()
        limit_ms = timeout_ms if timeout_ms is not None else self.config.poll_timeout_ms
        if limit_ms < 0:
            raise InvalidParameter(f"timeout_ms {limit_ms} is negative")
        batch = self._take(limit_ms / 1000)
        if batch is None:
            return []
        self._done(batch, *batch.messages)
        return batch.messages

    @property
    def has_fetched(self) -> bool:
        """Tell whether a poll would find a batch now."""
        return bool(self._fetched)

    def __iter__(self) -> Iterator[PulledMessage]:
        """Yield messages until `shutdown`; each counts as consumed when the next one is asked for.

        A loop that is left early has not consumed the message it had: the next loop begins with it.
        """
        self._check_running()
        loop = self.message_loop()
        try:
            while self._state is ServiceState.RUNNING:
                message = loop.next(LOOK_S)
                if message is not None:
                    yield message
        finally:
            loop.close()

    def message_loop(self) -> MessageLoop:
        """Return what `for message in consumer` runs on, for loops of another kind."""
        return MessageLoop(self._take, self._done, self._give_back)

    def _take(self, limit_s: float) -> Batch | None:
        """Return the next fetched batch, None when none comes in time or the consumer stops."""
        if self.config.auto_commit and time.monotonic() >= self._next_commit_s:
            self._next_commit_s = time.monotonic() + self.config.auto_commit_interval_ms / 1000
            self._store_positions()
        deadline = time.monotonic() + limit_s
        with self._fetched_changed:
            while True:
                while self._fetched:
                    batch = self._fetched.popleft()
                    self._fetched_count -= len(batch.messages)
                    if batch.held.dropped:
                        continue
                    if is_retry_topic(batch.queue.topic):
                        for message in batch.messages:
                            message.restore_topic()
                    if self.config.namespace:
                        hide_namespace(batch.messages, self.config.namespace)
                    return batch
                left_s = deadline - time.monotonic()
                stopped = self._state is not ServiceState.RUNNING
                if stopped or left_s <= 0 or not self._fetched_changed.wait(left_s):
                    return None

    def _done(self, batch: Batch, *messages: PulledMessage) -> None:
        """Messages are consumed: their queue's position moves on."""
        if self.hooks:
            context = ConsumeContext(self.consumer_group, batch.queue, messages)
            self.hooks.before(context)
            context.success, context.status = True, "CONSUME_SUCCESS"
            self.hooks.after(context)
        position = batch.held.remove(messages)
        with self._fetched_changed:
            if not batch.held.dropped:
                self._positions[batch.queue] = position

    def _give_back(self, batch: Batch) -> None:
        """The rest of a batch was not consumed: it is the next to be taken."""
        with self._fetched_changed:
            self._fetched.appendleft(batch)
            self._fetched_count += len(batch.messages)
            self._fetched_changed.notify()
        self._tell_news()

    def _found(self, messages: list[PulledMessage], held: Owned, queue: MessageQueue) -> None:
        with self._fetched_changed:
            self._fetched.append(Batch(queue, held, messages))
            self._fetched_count += len(messages)
            self._fetched_changed.notify()
        self._tell_news()

    def _tell_news(self) -> None:
        if self.on_news is not None:
            self.on_news()

    def _jump(self, queue: MessageQueue, offset: int) -> None:
        """The broker says our offset is impossible: go on at its own."""
        self._restart(queue, offset)

    # Offsets

    def commit(self, offsets: Mapping[MessageQueue, int] | None = None, *, persist: bool = False) -> None:
        """Store the polled positions, or the given offsets; at the broker within 5 s, or now with `persist`.

        Queues that went to another member are left out, as in RocketMQ: their offsets are his.
        InvalidParameter, and nothing is stored, when one of the offsets is none.
        """
        self._check_running()
        owned = self._rebalancer.owned
        if offsets is None:
            self._store_positions()
        else:
            for queue, offset in offsets.items():
                check_place(queue, offset)
            for queue, offset in offsets.items():
                if queue in owned:
                    self._offsets.update(queue, offset, increase_only=False)
                else:
                    log.event(_LOG, logging.WARNING, "commit_left_out", queue=queue, offset=offset)
        if persist:
            named = owned if offsets is None else offsets
            self._offsets.persist([queue for queue in named if queue in owned], wait=True)

    def committed(self, queue: MessageQueue) -> int:
        """Return the group's stored offset, -1 when there is none."""
        self._check_running()
        return self._offsets.read(queue, ReadMode.MEMORY_THEN_STORE)

    def _store_positions(self) -> None:
        with self._fetched_changed:
            positions = {queue: at for queue, at in self._positions.items() if at != NO_OFFSET}
        for queue, position in positions.items():
            if self._offsets.read(queue, ReadMode.MEMORY) != position:
                self._offsets.update(queue, position, increase_only=False)

    def seek(self, queue: MessageQueue, offset: int) -> None:
        """Go on at `offset`, which must lie within the queue; what was fetched of it is dropped."""
        self._check_running()
        if queue not in self._rebalancer.owned:
            raise ClientFault(f"{queue} is not assigned to this consumer")
        low, high = self.min_offset(queue), self.max_offset(queue)
        if not isinstance(offset, int) or not low <= offset <= high:
            raise InvalidParameter(f"offset {offset!r} of {queue} is outside {low}..{high}")
        self._restart(queue, offset)

    def seek_to_begin(self, queue: MessageQueue) -> None:
        """Go on at the oldest message."""
        self.seek(queue, self.min_offset(queue))

    def seek_to_end(self, queue: MessageQueue) -> None:
        """Go on with what comes next."""
        self.seek(queue, self.max_offset(queue))

    def seek_to_timestamp(self, queue: MessageQueue, timestamp_ms: int) -> None:
        """Go on at the first message stored at or after a time (ms)."""
        self.seek(queue, self.offset_for_timestamp(queue, timestamp_ms))

    def offset_for_timestamp(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time (ms)."""
        return self.search_offset(queue, timestamp_ms)

    def _restart(self, queue: MessageQueue, offset: int) -> None:
        """Begin a queue anew at an offset; batches fetched before are recognised by their dropped process
        queue."""
        held: Owned = ProcessQueue()
        if self._rebalancer.replace(queue, held):
            with self._fetched_changed:
                self._positions[queue] = offset
            self._pulling.take(queue, held, offset)

    def handle_request(self, link: BrokerLink, command: Command) -> Command | None:
        """Serve a request the broker pushed; an operator moves the group's offsets (220)."""
        if command.code != RequestCode.RESET_CONSUMER_CLIENT_OFFSET:
            return super().handle_request(link, command)
        if command.read_header(ResetConsumerClientOffsetHeader).group == self.consumer_group:
            for queue, offset in decode_reset_offsets(view_of(command)).items():
                self._restart(queue, offset)
        return None

    def pause(self, queues: Iterable[MessageQueue]) -> None:
        """Fetch nothing more of these queues."""
        self._check_running()
        self._pulling.paused_queues |= frozenset(queues)

    def resume(self, queues: Iterable[MessageQueue]) -> None:
        """Fetch these queues again, within a second."""
        self._check_running()
        self._pulling.paused_queues -= frozenset(queues)

    # What the rebalancer asks

    def queue_taken(self, queue: MessageQueue, held: Owned, offset: int) -> None:
        """Begin to fetch a queue."""
        self._pulling.take(queue, held, offset)

    def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
        """Store the polled position of a queue that is given away."""
        self._pulling.forget(queue)
        with self._fetched_changed:
            position = self._positions.pop(queue, NO_OFFSET)
        if self.config.auto_commit and position != NO_OFFSET:
            self._offsets.update(queue, position, increase_only=False)
        super().queue_dropped(queue, held)
