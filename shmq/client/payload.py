"""What one send request carries: a single message or a batch. Knows its command and how to read the answer.

The wire form depends on the broker: log-ready records for a local shmq broker, RocketMQ's batch elsewhere.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Protocol

from shmq.client.links import BrokerLink
from shmq.client.outgoing import Outgoing
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.quick_answer import read_quick_answer
from shmq.client.send_commands import SendCommands, log_batch_place, read_result, read_stored
from shmq.client.send_result import SendResult
from shmq.model.message import Message
from shmq.model.message_id import offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.protocol.command import Command


class Payload(Protocol):
    """One request's worth of messages of one topic."""

    @property
    def topic(self) -> str:
        """Return the topic all its messages go to."""

    @property
    def message(self) -> Message:
        """Return the (first) message, for hooks."""

    def number(self, sequence: str) -> None:
        """Take the sequence that all attempts carry. Before the first."""

    def command(self, link: BrokerLink, queue_id: int) -> Command:
        """Build the request for this broker; again for each attempt."""

    def send(self, link: BrokerLink, queue: MessageQueue, timeout_s: float) -> SendResult:
        """Send the request to this broker in this thread and return what it answered."""

    def result(self, response: Command, link: BrokerLink, queue: MessageQueue) -> SendResult:
        """Read the answer to the last command; BrokerError for a refusal."""


class SinglePayload:
    """One message."""

    __slots__ = ("_commands", "_outgoing", "topic")

    def __init__(self, outgoing: Outgoing, commands: SendCommands) -> None:
        """Carry one prepared message."""
        self.topic = outgoing.topic
        self._outgoing = outgoing
        self._commands = commands

    @property
    def message(self) -> Message:
        """Return the message."""
        return self._outgoing.message

    def number(self, sequence: str) -> None:
        """Take the sequence that all attempts carry. Before the first."""
        self._outgoing.number(sequence)

    def command(self, link: BrokerLink, queue_id: int) -> Command:
        """Build request 310."""
        return self._commands.single(self._outgoing, queue_id)

    def send(self, link: BrokerLink, queue: MessageQueue, timeout_s: float) -> SendResult:
        """Send request 310; to a local broker by the short way."""
        queue_id = queue.queue_id
        if not link.is_local:
            return self.result(link.call(self.command(link, queue_id), timeout_s), link, queue)
        commands, outgoing = self._commands, self._outgoing
        answer = link.exchange_quickly(
            lambda opaque: commands.single_frame(outgoing, queue_id, opaque),
            timeout_s,
            lambda frame, opaque: read_quick_answer(frame, opaque, link, queue, outgoing.unique_key),
        )
        return self.result(answer, link, queue) if isinstance(answer, Command) else answer

    def result(self, response: Command, link: BrokerLink, queue: MessageQueue) -> SendResult:
        """Read the answer."""
        return read_result(response, link, queue, self._outgoing.unique_key)


class BatchPayload:
    """A list of messages that go to one queue together."""

    __slots__ = ("_batch", "_commands", "_sizes", "topic")

    def __init__(self, batch: OutgoingBatch, commands: SendCommands) -> None:
        """Carry a prepared batch."""
        self.topic = batch.topic
        self._batch = batch
        self._commands = commands
        self._sizes: list[int] | None = None

    @property
    def message(self) -> Message:
        """Return the first message."""
        return self._batch.messages[0]

    def number(self, sequence: str) -> None:
        """Take the sequence that all attempts carry. Before the first."""
        self._batch.number(sequence)

    def command(self, link: BrokerLink, queue_id: int) -> Command:
        """Build request 30001 for a local broker, 320 otherwise."""
        self._sizes = None
        if not link.is_local:
            return self._commands.batch(self._batch, queue_id)
        command, self._sizes = self._commands.log_batch(self._batch, queue_id)
        return command

    def send(self, link: BrokerLink, queue: MessageQueue, timeout_s: float) -> SendResult:
        """Send the batch."""
        return self.result(link.call(self.command(link, queue.queue_id), timeout_s), link, queue)

    def result(self, response: Command, link: BrokerLink, queue: MessageQueue) -> SendResult:
        """Read the answer: ids comma-joined, the first message's offset."""
        keys, sizes = self._batch.keys, self._sizes
        if sizes is None:
            return read_result(response, link, queue, lambda: ",".join(keys))
        host, first = log_batch_place(read_stored(response), link)

        def offset_ids() -> str:
            starts = accumulate(sizes[:-1], initial=first)
            return ",".join([offset_message_id(host, start) for start in starts])

        return read_result(response, link, queue, lambda: ",".join(keys), offset_ids)
