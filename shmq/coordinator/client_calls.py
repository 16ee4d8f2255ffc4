"""Requests from the broker to a client, over the worker that holds the client's connection.

A request leaves as PUSH with the whole frame as its body, in the serialization the client itself uses; its
answer comes back as CLIENT_RESPONSE and is found by (connection, opaque). Implements
`handlers.coordinator_context.ClientCalls`. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio

from shmq.base.errors import ConsumerNotOnline
from shmq.broker.client_key import ClientKey
from shmq.coordinator.worker_links import WorkerLinks
from shmq.protocol.command import Command, Serialization, encode_command
from shmq.protocol.internal import ClientHeader, InternalCode


class ClientCalls:
    """Pushes and calls to clients."""

    def __init__(self, links: WorkerLinks) -> None:
        """Reach clients over these workers."""
        self._links = links
        self._serializations: dict[ClientKey, int] = {}
        self._waiting: dict[tuple[ClientKey, int], asyncio.Future[Command]] = {}

    def heard(self, key: ClientKey, serialization: int) -> None:
        """A client's request arrived: what is sent to it is written the way it writes."""
        self._serializations[key] = serialization

    def is_ours(self, key: ClientKey) -> bool:
        """Tell whether a client is shmq's own: only those write CBOR."""
        return self._serializations.get(key) == Serialization.CBOR

    def push(self, key: ClientKey, request: Command) -> None:
        """Send a request; nothing happens when its worker is gone."""
        link = self._links.get(key.slot)
        if link is not None:
            request.serialization = self._serializations.get(key, Serialization.JSON)
            frame = list(encode_command(request))
            link.send(Command.request(InternalCode.PUSH, ClientHeader(key.conn_id), frame, oneway=True))

    async def call(self, key: ClientKey, request: Command, limit_ms: int) -> Command:
        """Send a request and await the client's answer; TimeoutError, or ConsumerNotOnline when it leaves."""
        place = (key, request.opaque)
        answer = self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            self.push(key, request)
            return await asyncio.wait_for(answer, limit_ms / 1000)
        finally:
            del self._waiting[place]

    def answered(self, key: ClientKey, response: Command) -> None:
        """A client answered; an answer nobody waits for any more is dropped."""
        waiting = self._waiting.get((key, response.opaque))
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    def closed(self, key: ClientKey) -> None:
        """A client's connection ended: whoever waits for its answer is told."""
        self._serializations.pop(key, None)
        for (waiting_key, _), waiting in list(self._waiting.items()):
            if waiting_key == key and not waiting.done():
                waiting.set_exception(ConsumerNotOnline("the client has disconnected before it answered"))

    def worker_lost(self, slot: int) -> None:
        """A worker died: all its clients are gone."""
        for key in {*self._serializations, *(key for key, _ in self._waiting)}:
            if key.slot == slot:
                self.closed(key)
