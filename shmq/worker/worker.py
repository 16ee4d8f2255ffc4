"""One broker worker: wires its services around one event loop, and takes them down in order.

    sockets   Acceptor -> ConnectionTable -> Dispatcher -> handlers
    sends     handlers -> AppendTurn -> store -> PendingAcks -> Connection.send
    pulls     handlers -> store, or PullHolds until the bell rings
    the rest  CoordinatorCalls (forwarding, needs, pushes), Tally (counts), DutyCycle (bell and deadlines)

Made by ``worker/main.py``; everything runs in its event loop thread. The store's AppendLock is the only lock.
"""

from __future__ import annotations

import asyncio
import os
import socket

from shmq.base.clock import SYSTEM_CLOCK, monotonic_ms
from shmq.base.runtime_dir import internal_socket
from shmq.broker.broker_view import BrokerView
from shmq.broker.memory_reach import MemoryReach
from shmq.broker.producer_rows import ProducerFinder
from shmq.broker.pull_holds import PullHolds
from shmq.handlers.context import WorkerContext
from shmq.model.host import pack_host
from shmq.model.settings import BrokerRole, BrokerSettings, FlushDiskType
from shmq.net.connection import Connection
from shmq.net.connection_table import SWEEP_INTERVAL_S, ConnectionTable
from shmq.net.limits import ConnectionLimits
from shmq.net.outbox import Outbox
from shmq.shm.append_lock import AppendLock
from shmq.shm.boot import FIRST_WORKER_SLOT, ChildBoot
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters
from shmq.shm.directory import DirectoryView
from shmq.shm.doorbell import Doorbell
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.page_layout import FLUSHED_POSITION, STATE
from shmq.shm.supervisor_watch import SupervisorWatch
from shmq.shm.worker_slots import FLUSHER_SLOT, SlotState, SlotTable, WorkerSlot
from shmq.store.message_store import MessageStore
from shmq.store.turn_flush import TurnFlush
from shmq.worker.acceptor import Acceptor
from shmq.worker.append_turn import AppendTurn
from shmq.worker.busy_poll import BusyPoll
from shmq.worker.coordinator_calls import CoordinatorCalls
from shmq.worker.dispatcher import Dispatcher
from shmq.worker.duty import DutyCycle
from shmq.worker.filter_functions import FilterFunctions
from shmq.worker.handoff import Handoff, Spread
from shmq.worker.own_bell import OwnBell
from shmq.worker.pending_acks import PendingAcks
from shmq.worker.ring_parking import WorkerRings
from shmq.worker.shared_core import SharedCore
from shmq.worker.tally import Tally

LOOPBACK = "127.0.0.1"


class Worker:
    """All parts of one worker; ``worker/lifecycle.py`` starts and stops them in order."""

    def __init__(self, boot: ChildBoot, loop: asyncio.AbstractEventLoop) -> None:
        """Map the page and the store, and wire everything; nothing is served yet."""
        settings = boot.settings
        self.boot = boot
        self.loop = loop
        self.page = ControlPage.attach(boot.page_name)
        self.supervisor = SupervisorWatch(boot.supervisor_fd)
        bells = [Doorbell(fd) for fd in boot.bell_fds]
        lock = AppendLock(self.page, boot.slot, boot.semaphore_name, self.supervisor.gone)
        sync_flush = settings.flush_disk_type is FlushDiskType.SYNC_FLUSH
        outbox = Outbox()
        self.duty = DutyCycle(loop, bells[boot.slot], outbox, monotonic_ms)
        bells[boot.slot] = OwnBell(boot.bell_fds[boot.slot], self.duty.look_soon)
        self.store = MessageStore.open(
            boot.store_root, settings, self.page, boot.slot, lock, bells, by_write=sync_flush
        )
        self.slots = SlotTable(self.page)
        self.slot: WorkerSlot = self.slots[boot.slot]
        self.view = BrokerView()
        self.directory = DirectoryView(self.page)
        self.directory.catch_up()
        rings = WorkerRings(self.page, boot.slot, None if sync_flush else bells[FLUSHER_SLOT])
        counters = SlotCounters(self.page, boot.slot)
        self.tally = Tally(counters, self._report, self.duty.wake_by, monotonic_ms)
        count = self.tally.count
        self.holds = PullHolds(rings, count)
        self.busy_poll = BusyPoll(loop, settings.busy_poll_micros * 1000)
        self.shared_core = SharedCore(
            loop, enabled=settings.share_client_core, poll=self.busy_poll.worked, count=count
        )
        self.functions = FilterFunctions(
            loop, self.store.layout.filters, settings, count, before_start=self.shared_core.go_home
        )
        words = self.page.words
        self.acks = PendingAcks(
            lambda: words[FLUSHED_POSITION],
            settings.sync_flush_timeout,
            rings.await_acks,
            count,
            disk_failed=lambda: words[STATE] != PageState.OK,
        )
        self.appends = AppendTurn(
            loop,
            self.store,
            self.acks,
            monotonic_ms,
            outbox=outbox,
            sync_flush=sync_flush,
            own_flush=TurnFlush(self.store.layout, self.page, boot.slot, bells) if sync_flush else None,
            wake_by=self.duty.wake_by,
            count=count,
            took=self.tally.put_took,
        )
        self.connections = ConnectionTable(
            self._on_command, self._on_open, self._on_close, _connection_limits(settings), count, outbox
        )
        self.tally.traffic = self.connections.traffic
        self.coordinator = CoordinatorCalls(
            internal_socket(boot.runtime_dir, settings.broker_name),
            slot=boot.slot,
            pid=os.getpid(),
            view=self.view,
            connections=self.connections,
            on_change=self._on_change,
            monotonic_ms=monotonic_ms,
            wake_by=self.duty.wake_by,
            count=count,
        )
        self.ctx = self._context(settings)
        self.dispatcher = Dispatcher(self.ctx, self.coordinator, self.shared_core.worked)
        self.acceptor = self._acceptor(boot, counters)
        self.duty.steps = (
            self.appends.step,
            self.acks.step,
            self.holds.step,
            self.coordinator.link.step,
            self.tally.step,
            self._follow_retention,
        )

    def _follow_retention(self, _now_ms: int) -> None:
        """Let go of deleted files, for which retention has rung; one load when there are none."""
        self.store.follow_retention()

    def _context(self, settings: BrokerSettings) -> WorkerContext:
        """What handlers get."""
        address = settings.broker_ip1 or settings.bind_address
        store_host = pack_host(LOOPBACK if ":" in address else address, settings.listen_port)
        return WorkerContext(
            settings=settings,
            store=self.store,
            memory=MemoryReach(self.store, settings.access_message_in_memory_max_ratio),
            view=self.view,
            directory=self.directory,
            offsets=OffsetSlots(self.page),
            producers=ProducerFinder(self.page),
            appends=self.appends,
            holds=self.holds,
            functions=self.functions,
            stats=self.tally,
            clock=SYSTEM_CLOCK,
            store_host=store_host,
            store_host_hex=store_host.hex().upper(),
            needs_slave=settings.broker_role is BrokerRole.SYNC_MASTER,
            count=self.tally.count,
            reset_taken=self.coordinator.reset_taken,
            waits=self.coordinator.client_waits,
            wake_by=self.duty.wake_by,
            share_core=lambda connection_id, cpu: self.shared_core.share(connection_id, cpu),
        )

    def _acceptor(self, boot: ChildBoot, counters: SlotCounters) -> Acceptor:
        """The fronts and the hand-off between workers."""
        workers = max(1, len(boot.handoff_fds))
        others = [SlotCounters(self.page, FIRST_WORKER_SLOT + i) for i in range(workers)]

        def connections_of(index: int) -> int | None:
            slot = self.slots[FIRST_WORKER_SLOT + index]
            return slot.connections if slot.state == SlotState.SERVING else None

        def publish(connections: int) -> None:
            self.slot.connections = connections

        return Acceptor(
            self.loop,
            [socket.socket(fileno=fd) for fd in boot.listener_fds],
            Handoff(boot.handoff_fds, boot.handoff_in_fd),
            Spread(
                boot.index,
                workers,
                connections_of,
                lambda index: others[index].value("connections_taken_over"),
            ),
            self.connections,
            own=boot.index,
            connections_max=boot.settings.max_connections,
            publish=publish,
            count_taken_over=lambda n: counters.add("connections_taken_over", n),
            count=self.tally.count,
        )

    # -- what the parts call -------------------------------------------------------------------------------

    def _on_command(self, connection: Connection, command: object) -> None:
        self.dispatcher.on_command(connection, command)  # type: ignore[arg-type]

    def _on_open(self, connection: Connection) -> None:
        self.coordinator.client_opened(connection)

    def _on_close(self, connection: Connection) -> None:
        self.holds.drop_owner(connection.id)
        self.shared_core.closed(connection.id)
        self.coordinator.client_closed(connection)
        self.acceptor.publish()

    def _on_change(self, topic: str | None, group: str | None) -> None:
        """A topic, a group, or (both None) anything has changed: held pulls are judged again."""
        self.directory.catch_up()
        if group is None:
            self.store.forget_ended()
        self.holds.look_again(topic, group, monotonic_ms())

    def _report(self, report: object) -> bool:
        return self.coordinator.report(report)  # type: ignore[arg-type]

    def sweep(self) -> None:
        """Close silent connections; runs every ``SWEEP_INTERVAL_S``, and oftener for a short idle limit."""
        self.connections.sweep(self.loop.time(), self.coordinator.waiting)
        self.slot.beat_ms = monotonic_ms()
        idle_s = self.boot.settings.server_channel_max_idle_time_seconds
        self.loop.call_later(min(SWEEP_INTERVAL_S, idle_s / 2), self.sweep)


def _connection_limits(settings: BrokerSettings) -> ConnectionLimits:
    return ConnectionLimits(
        frame_bytes_max=settings.max_frame_size, idle_s=float(settings.server_channel_max_idle_time_seconds)
    )
