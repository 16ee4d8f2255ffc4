"""PushRequests: what a broker may ask of a running push consumer beside what it asks of any (307): reset
offsets (220), its offsets (221), to take one message now (309).

Called on a reader thread, but for 309, which runs the listener: that has a thread of its own. A reset runs on
the pull thread, because it waits for a broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shmq.base.errors import MessageIllegal, ShmqError
from shmq.client.channel import view_of
from shmq.client.consume_directly import consume_directly
from shmq.model.message_ext import decode_messages
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.direct_result import encode_direct_result
from shmq.protocol.bodies.offsets import decode_reset_offsets, encode_consumer_status
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import (
    ConsumeMessageDirectlyHeader,
    GetConsumerStatusFromClientHeader,
    ResetConsumerClientOffsetHeader,
)

if TYPE_CHECKING:
    from shmq.client.push_consumer import PushConsumer


class PushRequests:
    """The pushed requests of one consumer, by code."""

    def __init__(self, consumer: PushConsumer) -> None:
        """Serve for one consumer."""
        self._consumer = consumer
        self._handlers: dict[int, Callable[[Command], Command | None]] = {
            RequestCode.RESET_CONSUMER_CLIENT_OFFSET: self._reset,
            RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT: self._status,
            RequestCode.CONSUME_MESSAGE_DIRECTLY: self._consume_directly,
        }

    def handle(self, command: Command) -> Command | None:
        """Return the answer; None for a request that is not ours or needs none."""
        handler = self._handlers.get(command.code)
        try:
            return handler(command) if handler is not None else None
        except ShmqError as error:
            return command.refusal(error)

    def _reset(self, command: Command) -> None:
        header = command.read_header(ResetConsumerClientOffsetHeader)
        if header.group == self._consumer.consumer_group:
            self._consumer.reset_offsets(header.topic, decode_reset_offsets(view_of(command)))

    def _status(self, command: Command) -> Command | None:
        header = command.read_header(GetConsumerStatusFromClientHeader)
        if header.group != self._consumer.consumer_group:
            return None
        offsets: dict[MessageQueue, int] = self._consumer.known_offsets(header.topic)
        return command.response(ResponseCode.SUCCESS, None, None, encode_consumer_status(offsets))

    def _consume_directly(self, command: Command) -> Command | None:
        header = command.read_header(ConsumeMessageDirectlyHeader)
        if header.consumer_group != self._consumer.consumer_group:
            return None
        found = decode_messages(bytes(view_of(command)), header.broker_name or "")
        if len(found) != 1:
            raise MessageIllegal(f"one message is consumed directly at a time, not {len(found)}")
        result = consume_directly(self._consumer.listener, header.consumer_group, found[0])
        return command.response(ResponseCode.SUCCESS, None, None, encode_direct_result(result))
