"""The coordinator: wires its parts around one event loop.

    workers   ConnectionTable -> InternalServer -> Forwarding -> handlers (CoordinatorContext)
    changes   handlers -> registries (files, page) -> Announcer -> workers, name servers, clients
    readers   GrantServer
    services  DutyCycle: registration, offset export, client expiry, statistics, key index, retention

Made by `coordinator/main.py`; everything runs in its event loop's thread. It appends only the claims that
end queues, with slot 1. `lifecycle.py` has the order of starting and stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from shmq.base.clock import SYSTEM_CLOCK
from shmq.base.runtime_dir import broker_socket
from shmq.broker.check_listener import load_check_listener
from shmq.broker.clients import ClientTable
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.broker.delay_cursors import DelayCursors
from shmq.broker.filter_registry import FilterRegistry
from shmq.broker.group_states import GroupStates
from shmq.broker.groups import GroupRegistry
from shmq.broker.live_settings import LiveSettings
from shmq.broker.offset_resets import OffsetResets
from shmq.broker.policy_epoch import PolicyEpoch
from shmq.broker.producer_rows import ProducerRows
from shmq.broker.queue_locks import LOCK_LIFE_MS, QueueLocks
from shmq.broker.queues import Queues
from shmq.broker.stats import BrokerStats
from shmq.broker.timer_cursors import TimerCursors
from shmq.broker.topics import TopicRegistry
from shmq.broker.transaction_cursors import TransactionCursors
from shmq.coordinator.announcer import Announcer
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.delay_service import DelayService
from shmq.coordinator.duty import DutyCycle
from shmq.coordinator.forwarding import Forwarding
from shmq.coordinator.grants import GrantServer
from shmq.coordinator.internal_server import InternalServer
from shmq.coordinator.registration import Registration
from shmq.coordinator.retention import Retention
from shmq.coordinator.services import ClientExpiry, OffsetExport, SharedNames, StatsSampling
from shmq.coordinator.settling import Settling
from shmq.coordinator.timer_changes import TimerChanges
from shmq.coordinator.timer_service import TimerService
from shmq.coordinator.transaction_check import TransactionCheck
from shmq.coordinator.transactions import Transactions
from shmq.coordinator.turn_changes import TurnChanges
from shmq.coordinator.worker_links import WorkerLinks
from shmq.handlers.coordinator_context import CoordinatorContext
from shmq.handlers.table import HANDLERS, Place
from shmq.model.delay import delay_levels
from shmq.net.connection import Connection
from shmq.net.connection_table import ConnectionTable
from shmq.net.limits import ConnectionLimits
from shmq.net.listener import adopt
from shmq.protocol.command import Command
from shmq.protocol.internal import InternalCode
from shmq.shm.append_lock import AppendLock
from shmq.shm.boot import ChildBoot
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.directory import DirectoryView
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import DOUBT
from shmq.shm.supervisor_watch import SupervisorWatch
from shmq.shm.worker_slots import FIRST_WORKER_SLOT, WORKERS_MAX, SlotTable, process_start_time
from shmq.store.index_builder import IndexBuilder
from shmq.store.log_cleaner import LogCleaner
from shmq.store.message_store import MessageStore
from shmq.store.scrub import Scrub
from shmq.store.step_thread import StepThread

LINK_LIMITS = ConnectionLimits(
    frame_bytes_max=128 << 20,
    write_pause_bytes=64 << 20,
    write_resume_bytes=16 << 20,
    write_bytes_max=512 << 20,
    idle_s=float("inf"),
)
"""Our own workers are at the other end: generous, so that a large snapshot passes."""


class Coordinator:
    """All parts of the coordinator."""

    def __init__(self, boot: ChildBoot, loop: asyncio.AbstractEventLoop) -> None:
        """Map page and store, read the registries, wire everything; nothing is served yet."""
        self.boot = boot
        self.loop = loop
        self.clock = SYSTEM_CLOCK
        self.settings = LiveSettings(boot.settings)
        self.supervisor = SupervisorWatch(boot.supervisor_fd)
        self.page = ControlPage.attach(boot.page_name)
        self.slots = SlotTable(self.page)
        self.counters = SlotCounters(self.page, boot.slot)
        self.bells = [Doorbell(fd) for fd in boot.bell_fds]
        self.lock = AppendLock(self.page, boot.slot, boot.semaphore_name, self.supervisor.gone)
        self.store = MessageStore.open(
            boot.store_root, boot.settings, self.page, boot.slot, self.lock, self.bells
        )
        self.index = IndexBuilder(self.store.layout, boot.settings, self.page)
        self._make_registries()
        self._make_links()
        self._make_services()

    def _make_registries(self) -> None:
        config, sums = self.store.layout.config, self.store.layout.checksums
        settings = self.boot.settings
        directory = DirectoryView(self.page)
        self.queues = Queues(self.page, directory, self.lock, self.store.layout, self.store.forget_ended)
        self.topics = TopicRegistry(ConfigFile(config / "topics.json", sums), self.queues, settings)
        self.groups = GroupRegistry(ConfigFile(config / "subscriptionGroup.json", sums), settings)
        self.offsets = ConsumerOffsets(ConfigFile(config / "consumerOffset.json", sums), self.page, directory)
        self.clients = ClientTable()
        self.locks = QueueLocks()
        self.resets = OffsetResets()
        self.duty = DutyCycle(self.loop, self.clock)
        self.stats = BrokerStats(settings.broker_cluster_name, self.clock.now_ms())
        self.transaction_cursors = TransactionCursors(self.page, self.offsets)
        self.transactions = Transactions(
            self.store, self.queues, self.transaction_cursors, settings, self.clock, self.counters.add
        )
        self.timers = TimerService(
            self.store,
            self.queues,
            TimerCursors(config / "timercheck", self.page, self.lock),
            settings,
            self.clock,
            self.counters.add,
        )
        self.timer_changes = TimerChanges(
            self.store, self.queues, self.timers, settings, self.bells, self.clock
        )
        self.states = GroupStates(self.topics, self.groups, self.clients, self.resets, self.settings)

    def _make_links(self) -> None:
        settings = self.boot.settings
        broker_addr = f"{settings.broker_ip1}:{settings.listen_port}"
        self.links = WorkerLinks()
        self.settling = Settling(self.links, self._live_workers)
        self.calls = ClientCalls(self.links)
        self.registration = Registration(
            self.settings,
            self.topics,
            broker_addr,
            str(broker_socket(self.boot.runtime_dir, settings.broker_name)),
            self.counters.add,
            lambda: self.duty.hurry("registration"),
        )
        self.epoch = PolicyEpoch(self.page, self.bells)
        self.retention = self._make_retention()
        announcer = Announcer(
            self.links,
            self.settling,
            self.states,
            self.groups,
            self.clients,
            self.calls,
            self.registration,
            self.epoch,
            self.settings,
        )
        self.ctx = CoordinatorContext(
            settings=self.settings,
            clock=self.clock,
            topics=self.topics,
            groups=self.groups,
            group_states=self.states,
            clients=self.clients,
            locks=self.locks,
            offsets=self.offsets,
            filters=FilterRegistry(self.store.layout.filters),
            resets=self.resets,
            queues=self.queues,
            stats=self.stats,
            topic_changes=TurnChanges(self.topics),
            group_changes=TurnChanges(self.groups),
            announce=announcer,
            calls=self.calls,
            store=self.store,
            transactions=self.transactions,
            timers=self.timer_changes,
            retention=self.retention,
            broker_addr=broker_addr,
            settled=self.settling.wait,
        )
        routes = {code: route for code, route in HANDLERS.items() if route.place is Place.COORDINATOR}
        self.forwarding = Forwarding(self.ctx, self.calls, routes)
        self.server = InternalServer(
            *(self.ctx, self.links, self.settling, self.forwarding, self.calls),
            ProducerRows(self.page, self.lock),
        )
        self.connections = ConnectionTable(
            self.server.on_command, _greet_nobody, self.server.on_close, LINK_LIMITS, _count_nothing
        )

    def _make_retention(self) -> Retention:
        store = self.store
        return Retention(
            store.layout,
            self.page,
            self.bells,
            LogCleaner(store.layout, self.page, DirectoryView(self.page), store.queues),
            self.settings,
            self.clock,
            forget_maps=(store.follow_retention, self.index.follow_retention),
            end_grants=lambda pids, reason: self.grants.end_grants(pids, reason) if self.grants else 0,
            count=self.counters.add,
            hurry=lambda: self.duty.hurry("retention"),
        )

    def _make_services(self) -> None:
        self.grants = None
        if self.boot.grant_fd >= 0:
            self.grants = GrantServer(
                self.loop,
                adopt(self.boot.grant_fd),
                self.page,
                self.boot.page_name,
                self.store.layout,
                self.queues,
                self.settings,
                self.counters.add,
            )
        self.duty.add("registration", self.registration)
        export_ms = self.settings.now.flush_consumer_offset_interval
        self.duty.add(
            "offsets", OffsetExport(self.offsets, self.transaction_cursors, self.settings), export_ms
        )
        self.duty.add("statistics", StatsSampling(self.stats, self.clock))
        expiry = ClientExpiry(self.clients, self.locks, self.forwarding, self.settings)
        self.duty.add("expiry", expiry)
        names = (self.boot.page_name, f"/sem.{self.boot.semaphore_name.removeprefix('/')}")
        self.duty.add("shared names", SharedNames([f"/dev/shm{name}" for name in names]))
        self.duty.add("index", self.index)
        self.delays = DelayCursors(
            ConfigFile(self.store.layout.config / "delayOffset.json", self.store.layout.checksums),
            self.page,
            self.offsets,
        )
        delivery = DelayService(
            self.store,
            self.queues,
            self.delays,
            delay_levels(self.boot.settings.message_delay_level),
            self.settings.now.flush_delay_offset_interval,
            self.clock,
            self.counters.add,
        )
        self.duty.add("delays", delivery)
        self.duty.add("timers", self.timers)
        transactions = self.transactions
        self.retention.needed += (
            delivery.lowest_needed,
            self.timer_changes.lowest_needed,
            transactions.lowest_needed,
        )
        self.retention.move_out += (self.timer_changes.move_out, transactions.move_out)
        self.duty.add("retention", self.retention)
        scrub = Scrub(self.store.layout, self.page, self.boot.settings, self.counters.add)
        self.scrub = StepThread("scrub", scrub.step)
        check = TransactionCheck(
            self.transactions,
            self.clients,
            self.calls,
            lambda: self.settling.settled,
            self.boot.settings,
            load_check_listener(self.boot.settings.transaction_check_listener),
            self.clock,
            self.counters.add,
        )
        self.duty.add("transactions", check, self.boot.settings.transaction_check_interval)

    def _live_workers(self) -> Iterator[int]:
        """The slots of workers that are alive."""
        for slot in self.slots.taken():
            if FIRST_WORKER_SLOT <= slot.number < FIRST_WORKER_SLOT + WORKERS_MAX:
                try:
                    if process_start_time(slot.pid) == slot.start_time:
                        yield slot.number
                except ProcessLookupError:
                    continue

    def on_bell(self) -> None:
        """Something was appended to a queue this process waits for, or a reader doubts a message."""
        self.bells[self.boot.slot].clear()
        self.duty.hurry("timers")
        if self.page.words[DOUBT]:
            self.scrub.wake()

    async def settle(self) -> None:
        """Hear all workers, then answer membership and locks, and give every worker the whole picture."""
        await self.settling.run()
        if self.settling.silent:
            self.locks.withhold(self.clock.monotonic_ms() + LOCK_LIFE_MS)
        body = self.states.snapshot(True).encode()
        for link in self.links:
            link.send(Command.request(InternalCode.SETTLED, body=body, oneway=True))


def _greet_nobody(_link: Connection) -> None:
    """A link is known when its worker says hello."""


def _count_nothing(_name: str, _n: int) -> None:
    """The page's counters are about clients: what passes between our own processes is not counted."""
