"""Registrations of brokers: who may enter, what it changes, when it expires.

A broker registers with its whole topic table at its start and every 30 s, with single topics after changes,
and leaves by request, by a closed connection (at once), or by silence (its own limit, else 120 s). Facts:
Apache RocketMQ 5.3, RouteInfoManager.java. Lives in the name server's loop thread; no locks.

A broker whose supervisor runs this name server (`kept`) is not forgotten with a connection: that ends when
the coordinator dies, while the workers go on serving. The next coordinator registers within a second or two.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from shmq.base import log
from shmq.base.errors import Unavailable
from shmq.model.data_version import DataVersion
from shmq.model.route import MASTER_ID
from shmq.model.topic_config import TopicConfig
from shmq.naming.route_table import BrokerGroup, RouteTable

EXPIRY_MS = 120_000
"""A broker that names no limit of its own is forgotten after so much silence."""

_logger = log.get("shmq.naming")


@dataclass(frozen=True)
class Registration:
    """What one REGISTER_BROKER request says."""

    cluster: str
    broker_name: str
    broker_id: int
    address: str
    ha_address: str
    topics: Mapping[str, TopicConfig]
    data_version: DataVersion
    expiry_ms: int = EXPIRY_MS
    enable_acting_master: bool = False
    zone_name: str | None = None
    unix_socket: str | None = None
    filter_servers: tuple[str, ...] = ()


@dataclass
class LiveBroker:
    """One registered broker address and when it was last heard."""

    cluster: str
    broker_name: str
    broker_id: int
    address: str
    ha_address: str
    data_version: DataVersion
    expiry_ms: int
    heard_ms: int
    connection_id: int | None
    """Where it registered last; None when that connection is gone and the broker is kept."""
    filter_servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """The answer to a registration: what a slave needs to find its master."""

    ha_server_addr: str | None = None
    master_addr: str | None = None


@dataclass
class Registrations:
    """The live brokers by (cluster, address), and the rules that change the route table."""

    table: RouteTable
    remove_missing_topics: bool = False
    kept: tuple[str, str] | None = None
    """(cluster, address) of the broker that is not forgotten when its connection ends."""
    live: dict[tuple[str, str], LiveBroker] = field(default_factory=dict)

    def register(self, request: Registration, connection_id: int, now_ms: int) -> Accepted:
        """Take over one registration; raises Unavailable for one that RocketMQ refuses.

        Nothing is changed by a newcomer that claims an id which a broker with a higher state version holds.
        """
        known_group = self.table.groups.get(request.broker_name)
        known_ids = {} if known_group is None else known_group.addresses
        if self._held_by_newer(request, known_ids):
            return Accepted()
        first = known_ids.get(request.broker_id) != request.address
        if request.broker_id not in known_ids and len(request.topics) == 1:
            raise Unavailable(
                f"register broker failed: the first registration of {request.broker_name} must hold its "
                "whole topic table, not one topic"
            )
        group = self.table.group(request.cluster, request.broker_name)
        self._place(group, request)
        former = self.live.get((request.cluster, request.address))
        self._apply_topics(group, request, first, former)
        self.live[request.cluster, request.address] = LiveBroker(
            cluster=request.cluster,
            broker_name=request.broker_name,
            broker_id=request.broker_id,
            address=request.address,
            ha_address=request.ha_address,
            data_version=request.data_version,
            expiry_ms=request.expiry_ms,
            heard_ms=now_ms,
            connection_id=connection_id,
            filter_servers=request.filter_servers,
        )
        if former is None:
            log.event(
                _logger,
                logging.INFO,
                "broker_registered",
                broker=request.broker_name,
                id=request.broker_id,
                address=request.address,
            )
        return self._answer(group, request)

    def unregister(self, cluster: str, broker_name: str, address: str, broker_id: int) -> None:
        """A broker takes its leave; nothing happens when it is not known."""
        known = self.live.pop((cluster, address), None)
        if known is not None:
            self._remove(known, "asked")
            return
        group = self.table.groups.get(broker_name)
        if group is not None and group.addresses.get(broker_id) == address:
            self.table.remove_address(broker_name, broker_id)

    def heard(self, cluster: str, address: str, now_ms: int) -> LiveBroker | None:
        """A sign of life of a broker; returns what is known of it."""
        known = self.live.get((cluster, address))
        if known is not None:
            known.heard_ms = now_ms
        return known

    def connection_closed(self, connection_id: int) -> None:
        """Forget the brokers that registered over a connection that is gone, but for the one to be kept."""
        gone = [live for live in self.live.values() if live.connection_id == connection_id]
        kept = self.live.get(self.kept) if self.kept is not None else None
        if kept is not None and kept in gone:
            kept.connection_id = None
            gone.remove(kept)
            log.event(_logger, logging.INFO, "broker_kept", broker=kept.broker_name, address=kept.address)
        self._remove_all(gone, "closed")

    def expire(self, now_ms: int) -> None:
        """Forget the brokers that were silent for longer than they said they would be."""
        silent = [live for live in self.live.values() if now_ms - live.heard_ms > live.expiry_ms]
        self._remove_all(silent, "silent")

    def filter_servers(self, broker_names: list[str]) -> dict[str, list[str]]:
        """Broker address -> filter servers, for routes."""
        return {
            live.address: list(live.filter_servers)
            for live in self.live.values()
            if live.filter_servers and live.broker_name in broker_names
        }

    # -- rules ---------------------------------------------------------------------------------------------

    def _held_by_newer(self, request: Registration, known_ids: Mapping[int, str]) -> bool:
        """True when another address holds the id with a higher state version: the newcomer is ignored."""
        holder = known_ids.get(request.broker_id)
        if holder is None or holder == request.address:
            return False
        known = self.live.get((request.cluster, holder))
        newer = known is not None and known.data_version.state_version > request.data_version.state_version
        if newer:
            self.live.pop((request.cluster, request.address), None)
            log.event(
                _logger, logging.WARNING, "registration_ignored", address=request.address, held_by=holder
            )
        return newer

    def _place(self, group: BrokerGroup, request: Registration) -> None:
        """Set the address of an id; an address that had another id (a promoted slave) leaves that one."""
        before = (dict(group.addresses), group.enable_acting_master, group.zone_name, group.unix_socket)
        for broker_id, address in list(group.addresses.items()):
            if address == request.address and broker_id != request.broker_id:
                del group.addresses[broker_id]
        group.addresses[request.broker_id] = request.address
        group.enable_acting_master = request.enable_acting_master
        group.zone_name = request.zone_name
        if request.broker_id == MASTER_ID:
            group.unix_socket = request.unix_socket
        if before != (group.addresses, group.enable_acting_master, group.zone_name, group.unix_socket):
            self.table.touch()

    def _apply_topics(
        self, group: BrokerGroup, request: Registration, first: bool, former: LiveBroker | None
    ) -> None:
        """Take over the topics of a master, or of the smallest slave of a group with an acting master."""
        acting = group.enable_acting_master and min(group.addresses) == request.broker_id
        if request.broker_id != MASTER_ID and not acting:
            return
        same = former is not None and former.data_version == request.data_version
        # A coordinator that comes after a dead one has topics under a version which that one never told.
        told = former is not None and former.connection_id is not None
        if not first and same and told:
            return
        if self.remove_missing_topics and len(request.topics) > 1:
            known = self.table.topics_of_broker(request.broker_name)
            self.table.remove_broker_topics(
                request.broker_name, [topic for topic in known if topic not in request.topics]
            )
        for config in request.topics.values():
            self.table.put_topic(request.broker_name, config)

    def _answer(self, group: BrokerGroup, request: Registration) -> Accepted:
        """Tell a slave where its master is."""
        master = group.addresses.get(MASTER_ID)
        if request.broker_id == MASTER_ID or master is None:
            return Accepted()
        live = self.live.get((request.cluster, master))
        return Accepted(live.ha_address, master) if live is not None else Accepted()

    def _remove_all(self, gone: list[LiveBroker], why: str) -> None:
        for live in gone:
            del self.live[live.cluster, live.address]
            self._remove(live, why)

    def _remove(self, live: LiveBroker, why: str) -> None:
        group = self.table.groups.get(live.broker_name)
        if group is not None and group.addresses.get(live.broker_id) == live.address:
            self.table.remove_address(live.broker_name, live.broker_id)
        log.event(
            _logger, logging.INFO, "broker_removed", broker=live.broker_name, address=live.address, why=why
        )
