"""Accumulator: makes batches of asynchronous sends by themselves, per queue.

Messages for one queue that wait for the same (WAIT, SHMQ_WAIT_FOR) share a lane. While fewer than two
batches of the lane are under way, the sending thread itself sends what waits; otherwise the answer to an
earlier batch does, on the connection's reader thread. So a lone message leaves at once, and under load
batches grow to what arrives during one round trip. `batch_max_delay_ms` > 0 lets messages wait for company
instead. Order within a lane is kept on the wire: one thread at a time sends for it.

A batch that failed by transport is taken apart and its messages are tried again, each with its own attempts;
a batch refused as illegal is sent again message by message, so only the guilty one fails. Each lane's `lock`
guards its counters; the deque is safe by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from shmq.base.errors import BrokerError, ShmqError
from shmq.client.async_send import AsyncSend, StoredBatch, settle_stored
from shmq.client.errors import RemotingError, TooMuchRequest
from shmq.client.in_flight import InFlight
from shmq.client.links import BrokerLink
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.periodic import Periodic
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_commands import SendCommands, log_batch_place, read_stored
from shmq.client.send_result import SendStatus, durability_of
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue
from shmq.model.properties import SHMQ_WAIT_FOR, WAIT
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command

BATCHES_UNDER_WAY = 2
RECORD_OVERHEAD = 256
"""Bytes counted per message beside its body: record header, topic, properties, roughly."""


class _Lane:
    """What waits for one queue."""

    __slots__ = ("lock", "pending", "queue", "sending", "under_way")

    def __init__(self, queue: MessageQueue) -> None:
        self.queue = queue
        self.lock = threading.Lock()
        self.pending: deque[AsyncSend] = deque()
        self.under_way = 0
        self.sending = False


class Accumulator:
    """The lanes of one producer."""

    def __init__(
        self,
        config: ProducerConfig,
        commands: SendCommands,
        room: InFlight,
        link_of: Callable[[MessageQueue], BrokerLink],
        *,
        again: Callable[[AsyncSend, MessageQueue], None],
        alone: Callable[[AsyncSend, MessageQueue], None],
    ) -> None:
        """`again` retries a message after a transport error, `alone` sends it outside any batch."""
        self._config = config
        self._commands = commands
        self._room = room
        self._link_of = link_of
        self._again = again
        self._alone = alone
        self._lanes: dict[MessageQueue, _Lane] = {}
        self._unwaiting_lanes: dict[MessageQueue, _Lane] = {}
        self._asking_lanes: dict[str, dict[MessageQueue, _Lane]] = {}
        """By what is asked for: there are only a few values."""
        self._ticker: Periodic | None = None
        if config.batch_max_delay_ms > 0:
            period_s = max(1, config.batch_max_delay_ms // 2) / 1000
            self._ticker = Periodic("shmq-linger")
            self._ticker.add("send waiting batches", self.flush, period_s, period_s)
            self._ticker.start()

    def has_lane(self, queue: MessageQueue) -> bool:
        """Tell whether messages for this queue have been batched before."""
        return queue in self._lanes

    def add(self, waiting: AsyncSend, queue: MessageQueue) -> None:
        """Put a message into its lane, and send the lane when nothing is to be waited for."""
        lanes = self._lanes if waiting.message.is_plain else self._lanes_of(waiting.message)
        lane = lanes.get(queue)
        if lane is None:
            lane = lanes.setdefault(queue, _Lane(queue))
        lane.pending.append(waiting)
        if lane.under_way < BATCHES_UNDER_WAY and (
            self._ticker is None or len(lane.pending) >= self._config.batch_max_messages
        ):
            self._send_lane(lane)

    def _lanes_of(self, message: Message) -> dict[MessageQueue, _Lane]:
        """Return the lanes of messages that wait for the same."""
        held = message.properties
        if SHMQ_WAIT_FOR in held:
            return self._asking_lanes.setdefault(held[SHMQ_WAIT_FOR], {})
        return self._lanes if held.get(WAIT) != "false" else self._unwaiting_lanes

    def flush(self) -> None:
        """Send what waits in every lane, as far as batches may be under way."""
        for lanes in [self._lanes, self._unwaiting_lanes, *self._asking_lanes.values()]:
            for lane in list(lanes.values()):
                if lane.pending:
                    self._send_lane(lane)

    def close(self) -> None:
        """Stop lingering; what waits goes out with the answers still to come."""
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
        self.flush()

    def _send_lane(self, lane: _Lane) -> None:
        """Send batches until two are under way or nothing waits; one thread at a time, to keep the order."""
        with lane.lock:
            if lane.sending:
                return
            lane.sending = True
        while True:
            with lane.lock:
                if lane.under_way >= BATCHES_UNDER_WAY or not lane.pending:
                    lane.sending = False
                    return
                taken = self._take(lane)
                lane.under_way += 1
            self._send(lane, taken)

    def _take(self, lane: _Lane) -> list[AsyncSend]:
        """Return the next batch's messages: as many as fit the limits, at least one."""
        pending, limit = lane.pending, self._config.batch_max_bytes
        taken = [pending.popleft()]
        size = taken[0].size
        while pending and len(taken) < self._config.batch_max_messages:
            size += pending[0].size
            if size > limit:
                break
            taken.append(pending.popleft())
        return taken

    def _send(self, lane: _Lane, taken: list[AsyncSend]) -> None:
        """Send one batch; whatever goes wrong before it is out counts as its answer."""
        now = time.monotonic()
        deadlines = [waiting.deadline for waiting in taken]
        live = taken
        if min(deadlines) <= now:
            live = [waiting for waiting in taken if waiting.deadline > now]
            late = [waiting for waiting in taken if waiting.deadline <= now]
            self._fail(
                late, TooMuchRequest("the time of the send was used up while it waited in this client")
            )
        if not live:
            self._next(lane)
            return
        queue = lane.queue
        sizes: list[int] | None = None
        try:
            link = self._link_of(queue)
            local = link.is_local
            batch = OutgoingBatch([w.message for w in live], self._config, may_compress=local)
            if local:
                command, sizes = self._commands.log_batch(batch, queue.queue_id)
            else:
                command = self._commands.batch(batch, queue.queue_id)
        except Exception as error:  # nothing was sent; every future must hear of it
            self._fail(live, error)
            self._next(lane)
            return

        def answered(response: Command | None, error: Exception | None) -> None:
            try:
                if response is not None:
                    self._stored(response, link, queue, live, batch.keys, sizes)
                else:
                    self._lost(live, queue, error or RemotingError("no answer"))
            except ShmqError as refusal:
                self._refused(live, queue, refusal)
            self._next(lane)

        link.send_async(command, max(deadlines) - now, answered)

    def _next(self, lane: _Lane) -> None:
        """A batch has ended: send what has gathered meanwhile."""
        with lane.lock:
            lane.under_way -= 1
        if lane.pending:
            self._send_lane(lane)

    def _stored(
        self,
        response: Command,
        link: BrokerLink,
        queue: MessageQueue,
        live: list[AsyncSend],
        keys: Sequence[str],
        sizes: list[int] | None,
    ) -> None:
        """Settle every message of a stored batch; BrokerError when the broker refused it."""
        header = read_stored(response)
        placed = MessageQueue(queue.topic, queue.broker_name, header.queue_id)
        status = SendStatus(response.code)
        durability = durability_of(header.flushed)
        if sizes is None:
            ids = header.msg_id.split(",")
            stored = StoredBatch(status, placed, header.queue_offset, keys, ids=ids, durability=durability)
        else:
            host, first = log_batch_place(header, link)
            stored = StoredBatch(
                *(status, placed, header.queue_offset, keys),
                host=host,
                first=first,
                sizes=sizes,
                durability=durability,
            )
        self._leave(live)
        settle_stored(live, stored)

    def _lost(self, live: list[AsyncSend], queue: MessageQueue, error: Exception) -> None:
        """The batch broke on the way: retry the messages that may be, fail the others."""
        retry = [w for w in live if w.attempts > 0] if isinstance(error, RemotingError) else []
        self._fail([w for w in live if w not in retry] if retry else live, error)
        for waiting in retry:
            self._again(waiting, queue)

    def _refused(self, live: list[AsyncSend], queue: MessageQueue, refusal: ShmqError) -> None:
        """The broker stored nothing: one message may have spoilt it for all, so ask for each alone."""
        illegal = isinstance(refusal, BrokerError) and refusal.code == ResponseCode.MESSAGE_ILLEGAL
        if illegal and len(live) > 1:
            for waiting in live:
                self._alone(waiting, queue)
        else:
            self._fail(live, refusal)

    def _fail(self, some: list[AsyncSend], error: Exception) -> None:
        if some:
            self._leave(some)
            for waiting in some:
                waiting.set_exception(error)

    def _leave(self, some: list[AsyncSend]) -> None:
        self._room.leave(len(some), sum([waiting.size for waiting in some]))
