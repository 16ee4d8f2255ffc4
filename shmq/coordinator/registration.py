"""Tells the name servers that this broker lives and which topics it has (requests 103 and 104).

A full registration at start, one more after `SECOND_MS`, then every `registerNameServerPeriod`; a changed
topic at once, alone, once the server has taken a full one. All name servers are told in parallel, each over
its own connection, which stays open: a name server drops a broker whose connection breaks. Facts: Apache
RocketMQ 5.3, BrokerOuterAPI.java, BrokerController.java. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from shmq.base import log
from shmq.base.checksum import body_crc
from shmq.base.errors import ShmqError
from shmq.broker.live_settings import LiveSettings
from shmq.broker.topics import TopicRegistry
from shmq.coordinator.namesrv_registration import NamesrvRegistration
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.registration import RegisterBrokerBody, encode_register_broker
from shmq.protocol.bodies.topics import TopicTable
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command, Serialization
from shmq.protocol.headers.naming import BrokerIdentityHeader, RegisterBrokerHeader

SECOND_MS = 10_000
EXPIRY_MS = 120_000
"""A name server forgets a broker it has not heard of for so long."""
RETRY_MS = 1000
"""Pause before a server that has not taken a registration is tried again."""
UNREGISTER_LIMIT_S = 1.0

_logger = log.get(__name__)


class Registration:
    """This broker at all its name servers."""

    def __init__(
        self,
        settings: LiveSettings,
        topics: TopicRegistry,
        broker_addr: str,
        unix_socket: str,
        count: Callable[[str, int], None],
        on_lost: Callable[[], None],
    ) -> None:
        """`settings.namesrvAddr` lists the servers: `host:port` or `unix:/path`, separated by `;`.

        `on_lost` is called when a server that knew this broker is gone: it forgets the broker, so `step`
        should run.
        """
        self._settings = settings
        self._topics = topics
        self._broker_addr = broker_addr
        self._unix_socket = unix_socket
        self._count = count
        addresses = dict.fromkeys(filter(None, map(str.strip, settings.now.namesrv_addr.split(";"))))
        self._servers = [
            NamesrvRegistration(address, topics, self._registration, on_lost) for address in addresses
        ]
        self._failing: set[str] = set()
        self._round: asyncio.Task[None] | None = None
        self._rounds = 0

    # -- the service --

    def step(self, now_ms: int) -> int:
        """Start a round of full registrations unless one still runs; a failing server is tried soon again."""
        self.round()
        if not all(server.channel.registered for server in self._servers):
            return now_ms + RETRY_MS
        self._rounds += 1
        return now_ms + (SECOND_MS if self._rounds == 1 else self._settings.now.register_name_server_period)

    def round(self) -> asyncio.Task[None]:
        """The round of full registrations that runs, or a new one."""
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self.register_all())
        return self._round

    async def register_all(self) -> None:
        """Send the whole topic table to every name server."""
        limit_s = self._settings.now.register_broker_timeout_mills / 1000
        await asyncio.gather(*(self._tell(server, server.tell_all(limit_s)) for server in self._servers))

    async def register_topic(self, config: TopicConfig, limit_s: float) -> None:
        """Tell a new or changed topic to servers that know this broker; the others get all of it anyway."""
        telling = [self._tell(server, server.tell_topic(config, limit_s)) for server in self._servers]
        await asyncio.gather(*telling)

    async def unregister(self) -> None:
        """Take leave of every name server (104) and close the connections."""
        settings = self._settings.now
        header = BrokerIdentityHeader(
            settings.broker_name, self._broker_addr, settings.broker_cluster_name, settings.broker_id
        )
        if self._round is not None:
            self._round.cancel()
        calls = [
            server.channel.call(_request(RequestCode.UNREGISTER_BROKER, header), UNREGISTER_LIMIT_S)
            for server in self._servers
            if server.channel.registered
        ]
        await asyncio.gather(*calls, return_exceptions=True)
        for server in self._servers:
            server.channel.close()

    # -- one server --

    async def _tell(self, server: NamesrvRegistration, telling: Awaitable[bool]) -> None:
        """Count how it went; a failure is logged once until it ends."""
        address, known = server.channel.address, server.channel.registered
        try:
            if not await telling:
                return
        except ShmqError as error:
            self._count("registrations_failed", 1)
            if address not in self._failing:
                self._failing.add(address)
                log.event(_logger, logging.WARNING, "registration_failed", namesrv=address, reason=error)
            return
        self._count("registrations", 1)
        if address in self._failing or known != server.channel.registered:
            self._failing.discard(address)
            log.event(_logger, logging.INFO, "registered", namesrv=address, topics=len(self._topics))

    def _registration(self, topics: Iterable[TopicConfig]) -> Command:
        settings = self._settings.now
        table = {config.topic_name: config for config in topics}
        body = encode_register_broker(RegisterBrokerBody(TopicTable(table, self._topics.data_version)))
        header = RegisterBrokerHeader(
            broker_name=settings.broker_name,
            broker_addr=self._broker_addr,
            cluster_name=settings.broker_cluster_name,
            ha_server_addr=f"{settings.broker_ip2 or settings.broker_ip1}:{settings.ha_listen_port}",
            broker_id=settings.broker_id,
            heartbeat_timeout_millis=EXPIRY_MS,
            body_crc32=body_crc(body),
            unix_socket=self._unix_socket,
        )
        return _request(RequestCode.REGISTER_BROKER, header, body)


def _request(code: RequestCode, header: Any, body: bytes | None = None) -> Command:
    """Name servers may be Apache's: JSON headers."""
    return Command.request(code, header, body, serialization=Serialization.JSON)
