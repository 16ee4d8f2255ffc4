"""Sending any list: grouped by queue, cut where a batch would be too large, each piece sent as one batch.

RocketMQ's batches have one topic, one queue and at most 4 MiB; its users write the rest themselves. Pieces of
one queue go one after the other, so that messages keep their order in it; queues do not wait for each other.
Runs in the calling thread; the sends themselves are async ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from shmq.base.errors import ShmqError
from shmq.client.accumulator import RECORD_OVERHEAD
from shmq.client.async_send import AsyncSend
from shmq.client.batch import message_size
from shmq.client.outgoing import travels_alone
from shmq.client.send_result import SendResult
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue


class SentPiece(NamedTuple):
    """One batch of a split list: what became of it."""

    messages: Sequence[Message]
    queue: MessageQueue
    result: SendResult | None
    error: BaseException | None


Send = Callable[[Sequence[Message] | Message, MessageQueue], AsyncSend]


def split_send(
    messages: Iterable[Message],
    queue_of: Callable[[Message], MessageQueue],
    send: Send,
    limit_bytes: int,
) -> list[SentPiece]:
    """Send all of `messages` and wait for every answer; the pieces come back queue by queue.

    A piece behind a failed one of its queue is not sent: it would overtake it.
    """
    by_queue: dict[MessageQueue, list[Message]] = {}
    for message in messages:
        by_queue.setdefault(queue_of(message), []).append(message)
    lanes = [_Lane(queue, _pieces(held, limit_bytes), send) for queue, held in by_queue.items()]
    for lane in lanes:
        lane.begin()
    return [piece for lane in lanes for piece in lane.finish()]


def _pieces(messages: list[Message], limit_bytes: int) -> list[list[Message]]:
    """Cut the messages of one queue: batches of what may share one, others alone, in their order.

    Sizes are those of finished records, roughly: `MessageSplitter` counts less than a batch has on the wire.
    """
    pieces: list[list[Message]] = []
    room = 0
    for message in messages:
        alone = travels_alone(message)
        size = message_size(message) + RECORD_OVERHEAD
        last = pieces[-1] if pieces else None
        if last is None or alone or size > room or last[0].wait_store_msg_ok != message.wait_store_msg_ok:
            pieces.append([message])
            room = 0 if alone else limit_bytes - size
        else:
            last.append(message)
            room -= size
    return pieces


class _Lane:
    """The pieces of one queue: the first is under way while other queues' are sent."""

    def __init__(self, queue: MessageQueue, pieces: list[list[Message]], send: Send) -> None:
        self._queue = queue
        self._pieces = pieces
        self._send = send
        self._first: AsyncSend | ShmqError | None = None

    def _start(self, piece: list[Message]) -> AsyncSend | ShmqError:
        try:
            return self._send(piece if len(piece) > 1 else piece[0], self._queue)
        except ShmqError as error:
            return error

    def begin(self) -> None:
        self._first = self._start(self._pieces[0])

    def finish(self) -> Iterable[SentPiece]:
        """Wait for the first piece, then send the others."""
        failed: BaseException | None = None
        for number, piece in enumerate(self._pieces):
            if failed is not None:
                yield SentPiece(piece, self._queue, None, failed)
                continue
            sent = self._first if number == 0 else self._start(piece)
            assert sent is not None
            try:
                if isinstance(sent, ShmqError):
                    raise sent
                yield SentPiece(piece, self._queue, sent.result(), None)
            except ShmqError as error:
                failed = error
                yield SentPiece(piece, self._queue, None, error)
