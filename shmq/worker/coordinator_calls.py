"""What worker and coordinator say to each other, as this worker speaks it: greeting, forwarding, needs,
pushes.

The messages and their order are drawn in ``protocol/internal.py``. Runs in the worker's event loop. The
coordinator's changes are applied to the BrokerView before they are answered, so that an administrator's
change holds on every worker when his command returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from pathlib import Path

import orjson

from shmq.base import log
from shmq.base.errors import RequestNotSupported, ShmqError, SystemBusy
from shmq.broker import limits
from shmq.broker.broker_view import BrokerView
from shmq.handlers.context import Need, NeedGroup, NeedOffsetSlots, NeedProducerRow, NeedTopic
from shmq.model.topic_config import TopicConfig
from shmq.net.connection import Connection
from shmq.net.connection_table import ConnectionTable
from shmq.net.peer import has_ended
from shmq.protocol.bodies.groups import encode_consumer_list
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame
from shmq.protocol.headers.client import ConsumerGroupHeader
from shmq.protocol.internal import (
    ClientClosedHeader,
    ClientHeader,
    ClientOpenedHeader,
    ForwardAnswerHeader,
    ForwardHeader,
    GroupChangedHeader,
    GroupState,
    InternalCode,
    KeptHeader,
    OffsetSlotsHeader,
    ProducerRowHeader,
    ResetTakenHeader,
    ResolveGroupHeader,
    ResolveTopicHeader,
    SettingChangedHeader,
    Snapshot,
    StatsReport,
    TopicChangedHeader,
    WorkerHelloHeader,
)
from shmq.worker.coordinator_link import CoordinatorLink
from shmq.worker.kept_notes import KeptNote, KeptNotes
from shmq.worker.known_beats import KnownBeats

BEATS_S_MAX = 5.0
"""How long the coordinator may not know of a heartbeat that says nothing new."""
VOUCHES = 4
"""So often in that time the coordinator is told of clients that wait."""
BEATS_SHARE = 24_000
"""And at most such a part of the milliseconds that a client may be silent, in seconds."""

_logger = log.get(__name__)

Resolved = Callable[[ShmqError | None], None]


class CoordinatorCalls:
    """The worker's half of the internal protocol over one CoordinatorLink."""

    def __init__(
        self,
        path: Path,
        *,
        slot: int,
        pid: int,
        view: BrokerView,
        connections: ConnectionTable,
        on_change: Callable[[str | None, str | None], None],
        monotonic_ms: Callable[[], int],
        wake_by: Callable[[int], None],
        count: Callable[[str, int], None],
    ) -> None:
        """``on_change(topic, group)`` is called after the view changed; both None: everything may have."""
        self._slot = slot
        self._pid = pid
        self._view = view
        self._connections = connections
        self._on_change = on_change
        self._count = count
        self._monotonic_ms = monotonic_ms
        self._notes = KeptNotes()
        self._beats = KnownBeats()
        self._beats_due = False
        self._vouching: asyncio.TimerHandle | None = None
        self._served_before = False
        self._asking: dict[Need, list[Resolved]] = {}
        self._taken_resets: list[ResetTakenHeader] = []
        self.link = CoordinatorLink(
            path,
            greet=self._greet,
            on_command=self._on_command,
            outbox=connections.outbox,
            monotonic_ms=monotonic_ms,
            wake_by=wake_by,
            count=count,
        )

    # -- greeting ------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """Say who this is, take the snapshot, and tell a new coordinator all that the old one knew."""
        hello = WorkerHelloHeader(slot=self._slot, pid=self._pid)
        await self.link.request_now(InternalCode.WORKER_HELLO, hello, self._take_snapshot)
        for connection in self._connections:
            self.client_opened(connection)
        if self._served_before:
            for note in self._notes.all(self._monotonic_ms()):
                header = KeptHeader(conn_id=note.connection_id, key=note.key, until_ms=note.until_ms)
                self.link.oneway(InternalCode.KEPT, header, note.content)
        taken, self._taken_resets = self._taken_resets, []
        for reset in taken:
            self.link.oneway(InternalCode.RESET_TAKEN, reset)
        self.link.oneway(InternalCode.REPLAY_DONE, None)
        self._served_before = True
        self._on_change(None, None)

    def _take_snapshot(self, command: Command) -> None:
        """Take over everything; changes that were sent behind it are applied to it."""
        self._beats.forget_all()
        self._view.apply_snapshot(Snapshot.decode(command.body_bytes()))

    # -- clients -------------------------------------------------------------------------------------------

    def client_opened(self, connection: Connection) -> None:
        """Tell that a client connected to this worker."""
        peer = connection.peer
        self.link.oneway(
            InternalCode.CLIENT_OPENED,
            ClientOpenedHeader(
                conn_id=connection.id,
                kind=peer.kind,
                peer=peer.text,
                pid=peer.pid,
                uid=peer.uid,
                gid=peer.gid,
            ),
        )

    def client_closed(self, connection: Connection) -> None:
        """Tell that a client's connection is gone, and forget what lived as long as it did."""
        self._beats.forget(connection.id)
        ended = has_ended(connection.peer)
        self._notes.connection_closed(connection.id, process_ended=ended)
        header = ClientClosedHeader(conn_id=connection.id, process_ended=ended)
        self.link.oneway(InternalCode.CLIENT_CLOSED, header)

    def client_response(self, connection: Connection, frame: memoryview) -> None:
        """Pass on a client's answer to a request the coordinator pushed."""
        self.link.oneway(InternalCode.CLIENT_RESPONSE, ClientHeader(conn_id=connection.id), frame)

    def forward(self, connection: Connection, command: Command, frame: memoryview) -> None:
        """Let the coordinator answer a client's request; its answer frame is written as it is.

        What members of a group ask for all the time is answered here, when it is known.
        """
        if command.code == RequestCode.GET_CONSUMER_LIST_BY_GROUP and self._listed(connection, command):
            return
        digest = None
        if command.code == RequestCode.HEART_BEAT:
            digest = KnownBeats.digest(command.body_bytes())
            if self._beats.knows(connection.id, digest):
                self._beaten(connection, command)
                return
        elif command.code == RequestCode.UNREGISTER_CLIENT:
            self._beats.forget(connection.id)
        generation = self._beats.generation

        def answered(answer: Command | None, error: ShmqError | None) -> None:
            if answer is None:
                assert error is not None
                if not command.is_oneway:
                    connection.send(command.refusal(error))
                return
            self._keep_note(connection, answer)
            if digest is not None and connection.is_open and _accepted(answer):
                self._beats.learn(connection.id, digest, generation)
            self._write(connection, answer)

        self.link.request(InternalCode.FORWARD, ForwardHeader(conn_id=connection.id), frame, answered)

    def _listed(self, connection: Connection, command: Command) -> bool:
        """Answer who is in a group; False when that is the coordinator's to say.

        Changes are told to every worker before a member hears of them.
        """
        if not (self.link.is_ready and self._view.settled) or command.is_oneway:
            return False
        try:
            name = command.read_header(ConsumerGroupHeader).consumer_group
        except ShmqError:
            return False
        group = self._view.groups.get(name)
        if group is None or not group.client_ids:
            return False
        body = encode_consumer_list(group.client_ids)
        connection.send(command.response(ResponseCode.SUCCESS, body=body, ext={}))
        return True

    def _beaten(self, connection: Connection, command: Command) -> None:
        """Answer a heartbeat that says nothing new; the coordinator hears of it soon."""
        if not command.is_oneway:
            connection.send(command.response(ResponseCode.SUCCESS, ext={}))
        self._beats.lives(connection.id)
        self._tell_beats_soon()

    @property
    def waiting(self) -> Set[int]:
        """The connections whose clients wait for messages."""
        return self._beats.waiting

    def client_waits(self, connection_id: int, waits: bool) -> None:
        """A client waits for messages, or no more: tell soon, and now and then meanwhile, that it lives."""
        self._beats.waits(connection_id, waits)
        self._tell_beats_soon()
        if waits and self._vouching is None:
            self._vouch_later()

    def _vouch_later(self) -> None:
        delay_s = self._view.client_expiry_ms / 1000 / VOUCHES
        self._vouching = asyncio.get_running_loop().call_later(delay_s, self._vouch)

    def _vouch(self) -> None:
        """Tell that those live who wait; again as long as somebody does."""
        self._vouching = None
        if self._beats.all_waiting_live():
            self._tell_beats()
            self._vouch_later()

    def _tell_beats_soon(self) -> None:
        if not self._beats_due:
            self._beats_due = True
            soon_s = min(BEATS_S_MAX, self._view.client_expiry_ms / BEATS_SHARE)
            asyncio.get_running_loop().call_later(soon_s, self._tell_beats)

    def _tell_beats(self) -> None:
        self._beats_due = False
        beaten = self._beats.take_beaten()
        if beaten and not self.link.oneway(InternalCode.BEATS, None, orjson.dumps(beaten)):
            self._beats.give_back(beaten)

    def _keep_note(self, connection: Connection, answer: Command) -> None:
        header = answer.read_header(ForwardAnswerHeader)
        if header.keep_key is None:
            return
        if header.keep is None:
            self._notes.drop(connection.id, header.keep_key)
        elif connection.is_open or header.keep_until_ms:
            note = KeptNote(connection.id, header.keep_key, bytes(header.keep), header.keep_until_ms)
            if not self._notes.keep(note):
                self._count("busy_refused", 1)

    # -- what a handler needs ------------------------------------------------------------------------------

    def ask(self, need: Need, then: Resolved) -> None:
        """Get what a handler needs; equal needs are asked for once, and each ``then`` is called in order."""
        waiting = self._asking.get(need)
        if waiting is not None:
            if len(waiting) >= limits.RESOLVE_WAITERS_MAX:
                then(SystemBusy("[OVERLOAD] too many requests wait for the same name: send again later"))
            else:
                waiting.append(then)
            return
        self._asking[need] = [then]
        code, header = _NEEDS[type(need)](need)

        def answered(answer: Command | None, error: ShmqError | None) -> None:
            if answer is not None:
                self._take(need, answer)
            for waiter in self._asking.pop(need):
                waiter(error)

        self.link.request(code, header, None, answered)

    def _take(self, need: Need, answer: Command) -> None:
        """Put the answer to a need into the view; offset slots are found in the page's directory."""
        body = answer.body_bytes()
        if isinstance(need, NeedTopic):
            self._view.topic_changed(TopicConfig.from_json(orjson.loads(body), need.topic))
            self._on_change(need.topic, None)
        elif isinstance(need, NeedGroup):
            self._view.group_changed(need.group, GroupState.decode(body))
            self._on_change(None, need.group)

    def reset_taken(self, group: str, topic: str, queue_id: int, offset: int) -> None:
        """Tell that a pull was answered with a reset offset; kept while there is no coordinator."""
        header = ResetTakenHeader(group=group, topic=topic, queue_id=queue_id, offset=offset)
        if not self.link.oneway(InternalCode.RESET_TAKEN, header):
            self._taken_resets.append(header)

    def report(self, report: StatsReport) -> bool:
        """Hand over what was counted; False when there is no coordinator to take it."""
        return self.link.oneway(InternalCode.STATS, None, report.encode())

    # -- the coordinator's own requests --------------------------------------------------------------------

    def _on_command(self, link: Connection, command: Command) -> None:
        """Serve one request of the coordinator."""
        serve = _SERVED.get(command.code)
        try:
            if serve is None:
                raise RequestNotSupported(f"workers do not serve internal code {command.code}")
            serve(self, command)
        except ShmqError as error:
            log.event(
                _logger, logging.WARNING, "coordinator_request_refused", code=command.code, reason=str(error)
            )
            if not command.is_oneway:
                link.send(command.refusal(error))
            return
        if not command.is_oneway:
            link.send(command.response(ResponseCode.SUCCESS))

    def _push(self, command: Command) -> None:
        """Write a frame to one of this worker's clients; it may have gone meanwhile."""
        connection = self._connections.get(command.read_header(ClientHeader).conn_id)
        if connection is not None:
            self._write(connection, command)

    @staticmethod
    def _write(connection: Connection, carrier: Command) -> None:
        """Write the client's frame that a command carries, if any."""
        if carrier.body is not None and not isinstance(carrier.body, list):
            connection.send_raw([carrier.body])

    def _topic_changed(self, command: Command) -> None:
        header = command.read_header(TopicChangedHeader)
        if header.deleted:
            self._beats.forget_all()  # a heartbeat makes a group's retry topic again
            self._view.topic_deleted(header.topic)
        else:
            self._view.topic_changed(TopicConfig.from_json(orjson.loads(command.body_bytes()), header.topic))
        self._on_change(header.topic, None)

    def _group_changed(self, command: Command) -> None:
        self._beats.forget_all()
        header = command.read_header(GroupChangedHeader)
        if header.deleted:
            self._view.group_deleted(header.group)
        else:
            self._view.group_changed(header.group, GroupState.decode(command.body_bytes()))
        self._on_change(None, header.group)

    def _setting_changed(self, command: Command) -> None:
        """Whoever waits lives, also by the new measure."""
        header = command.read_header(SettingChangedHeader)
        if header.key == "channelExpiredTimeout":
            self._view.client_expiry_ms = int(header.value)
            if self._vouching is not None:
                self._vouching.cancel()
                self._vouch()

    def _settled(self, command: Command) -> None:
        self._take_snapshot(command)
        self._on_change(None, None)


def _accepted(carrier: Command) -> bool:
    """Tell whether the answer that a command carries says yes."""
    body = carrier.body
    if body is None or isinstance(body, list):
        return False
    return decode_frame(memoryview(body)).code == ResponseCode.SUCCESS


_SERVED: dict[int, Callable[[CoordinatorCalls, Command], None]] = {
    InternalCode.PUSH: CoordinatorCalls._push,
    InternalCode.TOPIC_CHANGED: CoordinatorCalls._topic_changed,
    InternalCode.GROUP_CHANGED: CoordinatorCalls._group_changed,
    InternalCode.SETTLED: CoordinatorCalls._settled,
    InternalCode.SETTING_CHANGED: CoordinatorCalls._setting_changed,
}
"""The coordinator's requests and what serves them."""


def _topic_request(need: Need) -> tuple[int, object]:
    assert isinstance(need, NeedTopic)
    header = ResolveTopicHeader(
        topic=need.topic,
        default_topic=need.default_topic,
        default_topic_queue_nums=need.queue_nums,
        topic_sys_flag=need.sys_flag,
        create=need.create,
    )
    return InternalCode.RESOLVE_TOPIC, header


def _group_request(need: Need) -> tuple[int, object]:
    assert isinstance(need, NeedGroup)
    return InternalCode.RESOLVE_GROUP, ResolveGroupHeader(group=need.group)


def _slots_request(need: Need) -> tuple[int, object]:
    assert isinstance(need, NeedOffsetSlots)
    return InternalCode.OFFSET_SLOTS, OffsetSlotsHeader(group=need.group, topic=need.topic)


def _producer_request(need: Need) -> tuple[int, object]:
    assert isinstance(need, NeedProducerRow)
    return InternalCode.PRODUCER_ROW, ProducerRowHeader(producer_id=need.producer_id)


_NEEDS: dict[type, Callable[[Need], tuple[int, object]]] = {
    NeedTopic: _topic_request,
    NeedGroup: _group_request,
    NeedOffsetSlots: _slots_request,
    NeedProducerRow: _producer_request,
}
"""Which request gets which need."""
