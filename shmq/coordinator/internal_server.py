"""The internal socket: what workers ask and tell, one method per code of `protocol.internal`.

A worker's link is found by its connection; everything but WORKER_HELLO before the hello closes the
connection. Requests that need waiting (a topic to make, a forwarded request) become tasks, started in the
order they arrived. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import orjson

from shmq.base import log
from shmq.base.errors import RemoteFault, ShmqError
from shmq.broker.client_key import ClientKey
from shmq.broker.producer_rows import ProducerRows
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.forwarding import Forwarding
from shmq.coordinator.settling import Settling
from shmq.coordinator.worker_links import WorkerLink, WorkerLinks
from shmq.handlers.client_note import CLIENT_NOTE, restore_client
from shmq.handlers.coordinator_context import CoordinatorContext
from shmq.handlers.queue_lock import LOCK_NOTE, restore_locks
from shmq.net.connection import Connection
from shmq.protocol import internal
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, decode_frame
from shmq.protocol.internal import InternalCode

_logger = log.get(__name__)


class InternalServer:
    """Serves the links of all workers."""

    def __init__(
        self,
        ctx: CoordinatorContext,
        links: WorkerLinks,
        settling: Settling,
        forwarding: Forwarding,
        calls: ClientCalls,
        producers: ProducerRows,
    ) -> None:
        """Name the parts that do the work."""
        self._ctx = ctx
        self._links = links
        self._settling = settling
        self._forwarding = forwarding
        self._calls = calls
        self._producers = producers
        self._tasks: set[asyncio.Task[None]] = set()
        self._tellers: dict[int, Callable[[WorkerLink, Command], None]] = {
            InternalCode.CLIENT_OPENED: self._client_opened,
            InternalCode.CLIENT_CLOSED: self._client_closed,
            InternalCode.CLIENT_RESPONSE: self._client_response,
            InternalCode.STATS: self._stats,
            InternalCode.BEATS: self._beats,
            InternalCode.RESET_TAKEN: self._reset_taken,
            InternalCode.KEPT: self._kept,
            InternalCode.REPLAY_DONE: self._replay_done,
        }
        self._askers: dict[int, Callable[[WorkerLink, Command], Awaitable[Command]]] = {
            InternalCode.FORWARD: self._forward,
            InternalCode.RESOLVE_TOPIC: self._resolve_topic,
            InternalCode.RESOLVE_GROUP: self._resolve_group,
            InternalCode.OFFSET_SLOTS: self._offset_slots,
            InternalCode.PRODUCER_ROW: self._producer_row,
        }

    # -- the connection's side --

    def on_command(self, connection: Connection, command: Command) -> None:
        """A frame of a worker arrived."""
        link: WorkerLink | None = connection.state
        if command.code == InternalCode.WORKER_HELLO and not command.is_response:
            connection.send(self._hello(connection, command))
        elif link is None:
            raise RemoteFault("a worker says hello first")
        elif command.is_response:
            link.answered(command)
        elif (tell := self._tellers.get(command.code)) is not None:
            tell(link, command)
        elif (ask := self._askers.get(command.code)) is not None:
            self._start(link, command, ask)
        else:
            raise RemoteFault(f"internal request {command.code} is unknown")

    def on_close(self, connection: Connection) -> None:
        """A worker's connection ended: its clients are gone with it."""
        link: WorkerLink | None = connection.state
        if link is not None and self._links.remove(link):
            log.event(_logger, logging.INFO, "worker_left", slot=link.slot, pid=link.pid)
            self._forwarding.members_changed(self._ctx.clients.worker_lost(link.slot))
            self._calls.worker_lost(link.slot)

    def _start(
        self, link: WorkerLink, command: Command, ask: Callable[[WorkerLink, Command], Awaitable[Command]]
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(link, command, ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, link: WorkerLink, command: Command, ask: Callable[[WorkerLink, Command], Awaitable[Command]]
    ) -> None:
        try:
            answer = await ask(link, command)
        except ShmqError as error:
            answer = command.refusal(error)
        except (
            Exception
        ) as error:  # the edge of a request: a defect must not leave a worker without an answer
            log.event(_logger, logging.ERROR, "request_failed", exc_info=True, code=command.code)
            answer = command.response(ResponseCode.SYSTEM_ERROR, f"coordinator: {error!r}")
        link.send(answer)

    # -- the worker's side --

    def _hello(self, connection: Connection, command: Command) -> Command:
        header = command.read_header(internal.WorkerHelloHeader)
        link = WorkerLink(connection, header.slot, header.pid)
        connection.state = link
        if self._links.get(header.slot) is not None:
            self._forwarding.members_changed(self._ctx.clients.worker_lost(header.slot))
            self._calls.worker_lost(header.slot)
        self._links.add(link)
        log.event(_logger, logging.INFO, "worker_joined", slot=header.slot, pid=header.pid)
        snapshot = self._ctx.group_states.snapshot(self._settling.settled)
        return command.response(ResponseCode.SUCCESS, body=snapshot.encode())

    def _client_opened(self, link: WorkerLink, command: Command) -> None:
        header = command.read_header(internal.ClientOpenedHeader)
        self._ctx.clients.opened(ClientKey(link.slot, header.conn_id), header.peer)

    def _client_closed(self, link: WorkerLink, command: Command) -> None:
        header = command.read_header(internal.ClientClosedHeader)
        key = ClientKey(link.slot, header.conn_id)
        self._calls.closed(key)
        clients = self._ctx.clients
        memberships = clients.consumer_memberships(key) if header.process_ended else []
        changed = clients.closed(key)
        for group, client_id in memberships:  # before the others are told: they ask for these queues at once
            members = clients.consumer_group(group)
            if members is None or members.find(client_id) is None:  # nobody else goes by that id
                self._ctx.locks.drop_client(group, client_id)
        self._forwarding.members_changed(changed)

    def _client_response(self, link: WorkerLink, command: Command) -> None:
        key = ClientKey(link.slot, command.read_header(internal.ClientHeader).conn_id)
        self._calls.answered(key, decode_frame(command.body_bytes()))

    def _beats(self, link: WorkerLink, command: Command) -> None:
        now_ms = self._ctx.clock.monotonic_ms()
        for conn_id in orjson.loads(command.body_bytes()):
            self._ctx.clients.beat_again(ClientKey(link.slot, conn_id), now_ms)

    def _stats(self, link: WorkerLink, command: Command) -> None:
        del link
        self._ctx.stats.take(internal.StatsReport.decode(command.body_bytes()), self._ctx.clock.now_ms())

    def _reset_taken(self, link: WorkerLink, command: Command) -> None:
        del link
        header = command.read_header(internal.ResetTakenHeader)
        if self._ctx.resets.taken(header.group, header.topic, header.queue_id, header.offset):
            self._forwarding.later(self._ctx.announce.group_changed(header.group))

    def _kept(self, link: WorkerLink, command: Command) -> None:
        header = command.read_header(internal.KeptHeader)
        content = command.body_bytes()
        if header.key.startswith(LOCK_NOTE):
            restore_locks(self._ctx.locks, content)
        elif header.key == CLIENT_NOTE:
            key = ClientKey(link.slot, header.conn_id)
            link.restored |= restore_client(self._ctx.clients, key, content, self._ctx.clock.monotonic_ms())

    def _replay_done(self, link: WorkerLink, command: Command) -> None:
        del command
        link.replayed = True
        if self._settling.settled:  # it had been waited for in vain, or its link only broke
            self._forwarding.members_changed(sorted(link.restored))

    async def _forward(self, link: WorkerLink, command: Command) -> Command:
        return await self._forwarding.forward(link, command)

    async def _resolve_topic(self, link: WorkerLink, command: Command) -> Command:
        del link
        header = command.read_header(internal.ResolveTopicHeader)
        topics = self._ctx.topics
        if header.create:
            made = await self._ctx.topic_changes.make(
                lambda: topics.create_on_send(
                    header.topic, header.default_topic, header.default_topic_queue_nums, header.topic_sys_flag
                )
            )
            if made is not None:
                await self._ctx.announce.topic_changed(made)
        config = topics.must_get(header.topic)
        return command.response(ResponseCode.SUCCESS, body=orjson.dumps(config.to_json()))

    async def _resolve_group(self, link: WorkerLink, command: Command) -> Command:
        del link
        group = command.read_header(internal.ResolveGroupHeader).group
        groups = self._ctx.groups
        made = groups.get(group) is None
        if made:
            _, made = await self._ctx.group_changes.make(lambda: groups.find_or_create(group))
        if made:
            await self._ctx.announce.group_changed(group)
        state = self._ctx.group_states.state(group)
        assert state is not None
        return command.response(ResponseCode.SUCCESS, body=state.encode())

    async def _offset_slots(self, link: WorkerLink, command: Command) -> Command:
        del link
        header = command.read_header(internal.OffsetSlotsHeader)
        config = self._ctx.topics.must_get(header.topic)
        self._ctx.groups.must_get(header.group)
        self._ctx.offsets.ensure(header.group, header.topic, config.queue_nums)
        return command.response(ResponseCode.SUCCESS)

    async def _producer_row(self, link: WorkerLink, command: Command) -> Command:
        del link
        self._producers.ensure(command.read_header(internal.ProducerRowHeader).producer_id)
        return command.response(ResponseCode.SUCCESS)
