"""Tells the name servers that this broker lives and which topics it has (requests 103 and 104).

A full registration at start, one more after `SECOND_MS`, then every `registerNameServerPeriod`; a changed
topic at once, alone, once the server has taken a full one. All name servers are told in parallel, each over
its own connection, which stays open: a name server drops a broker whose connection breaks. Facts: Apache
RocketMQ 5.3, BrokerOuterAPI.java, BrokerController.java. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from shmq.base import log
from shmq.base.checksum import body_crc
from shmq.base.errors import ShmqError
from shmq.broker.live_settings import LiveSettings
from shmq.broker.topics import TopicRegistry
from shmq.coordinator.namesrv_channel import NamesrvChannel
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.registration import RegisterBrokerBody, encode_register_broker
from shmq.protocol.bodies.topics import TopicTable
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
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
        self._channels = [NamesrvChannel(address, on_lost) for address in addresses]
        self._failing: set[str] = set()
        self._round: asyncio.Task[None] | None = None
        self._rounds = 0

    # -- the service --

    def step(self, now_ms: int) -> int:
        """Start a round of full registrations unless one still runs; a failing server is tried soon again."""
        self.round()
        if not all(channel.registered for channel in self._channels):
            return now_ms + RETRY_MS
        self._rounds += 1
        return now_ms + (SECOND_MS if self._rounds == 1 else self._settings.now.register_name_server_period)

    def round(self) -> asyncio.Task[None]:
        """The round of full registrations that runs, or a new one."""
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self.register_all())
        return self._round

    async def register_all(self) -> None:
        """Send the whole topic table to every name server; failures are logged once until they end."""
        limit_s = self._settings.now.register_broker_timeout_mills / 1000
        await asyncio.gather(
            *(self._register(channel, list(self._topics), limit_s) for channel in self._channels)
        )

    async def register_topic(self, config: TopicConfig, limit_s: float) -> None:
        """Tell a new or changed topic to servers that know this broker; others get all of it anyway.

        A full registration that is under way may have been encoded without the topic: it comes first.
        """
        if self._round is not None and not self._round.done():
            await asyncio.wait([self._round], timeout=limit_s)
        known = [channel for channel in self._channels if channel.registered]
        await asyncio.gather(*(self._register(channel, [config], limit_s) for channel in known))

    async def unregister(self) -> None:
        """Take leave of every name server (104) and close the connections."""
        settings = self._settings.now
        header = BrokerIdentityHeader(
            settings.broker_name, self._broker_addr, settings.broker_cluster_name, settings.broker_id
        )
        if self._round is not None:
            self._round.cancel()
        calls = [
            channel.call(_request(RequestCode.UNREGISTER_BROKER, header), UNREGISTER_LIMIT_S)
            for channel in self._channels
            if channel.registered
        ]
        await asyncio.gather(*calls, return_exceptions=True)
        for channel in self._channels:
            channel.close()

    # -- one server --

    async def _register(self, channel: NamesrvChannel, topics: list[TopicConfig], limit_s: float) -> None:
        is_full = len(topics) > 1
        try:
            answer = await channel.call(self._registration(topics), limit_s)
            if answer.code != ResponseCode.SUCCESS:
                raise error_of(answer.code, answer.remark)
        except ShmqError as error:
            self._count("registrations_failed", 1)
            if channel.address not in self._failing:
                self._failing.add(channel.address)
                log.event(
                    _logger, logging.WARNING, "registration_failed", namesrv=channel.address, reason=error
                )
            return
        self._count("registrations", 1)
        if channel.address in self._failing or (is_full and not channel.registered):
            self._failing.discard(channel.address)
            log.event(_logger, logging.INFO, "registered", namesrv=channel.address, topics=len(self._topics))
        channel.registered = channel.registered or is_full

    def _registration(self, topics: list[TopicConfig]) -> Command:
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
