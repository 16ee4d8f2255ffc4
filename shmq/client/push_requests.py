"""PushRequests: what a broker may ask of a running push consumer: reset offsets (220), its offsets (221),
what it is doing (307).

Called on a reader thread; a reset runs on the pull thread, because it waits for a broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shmq.client.channel import view_of
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.offsets import decode_reset_offsets, encode_consumer_status
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import (
    GetConsumerRunningInfoHeader,
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
            RequestCode.GET_CONSUMER_RUNNING_INFO: self._running_info,
        }

    def handle(self, command: Command) -> Command | None:
        """Return the answer; None for a request that is not ours or needs none."""
        handler = self._handlers.get(command.code)
        return handler(command) if handler is not None else None

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

    def _running_info(self, command: Command) -> Command | None:
        header = command.read_header(GetConsumerRunningInfoHeader)
        if header.consumer_group != self._consumer.consumer_group:
            return None
        return command.response(ResponseCode.SUCCESS, None, None, self._consumer.running_info())
