"""AdminLinks: the connections of one admin client: name servers, and brokers by address."""

from __future__ import annotations

from shmq.base.errors import TopicNotExist
from shmq.client.addresses import Address, parse_address
from shmq.client.channel import Channel, ChannelPool
from shmq.client.config import ClientConfig
from shmq.client.name_servers import NameServers
from shmq.model.route import BrokerData, TopicRoute
from shmq.protocol.codes import ResponseCode, error_of
from shmq.protocol.command import Command


class AdminLinks:
    """Asks name servers and brokers; every code but SUCCESS is raised."""

    def __init__(self, config: ClientConfig, timeout_s: float) -> None:
        """Connect nothing yet."""
        self._config = config
        self._timeout_s = timeout_s
        self.name_servers = NameServers(config)
        self._brokers: dict[Address, ChannelPool] = {}

    def ask_namesrv(self, command: Command) -> Command:
        """Ask one name server."""
        return _successful(self.name_servers.call(command, self._timeout_s))

    def tell_namesrvs(self, command: Command) -> None:
        """Tell every name server."""
        for response in self.name_servers.call_each(command, self._timeout_s).values():
            _successful(response)

    def ask_broker(self, address: str, command: Command, timeout_s: float | None = None) -> Command:
        """Ask the broker at `host:port`, or `unix:/path`."""
        return _successful(self.call_broker(address, command, timeout_s))

    def call_broker(self, address: str, command: Command, timeout_s: float | None = None) -> Command:
        """Like `ask_broker`, but return any response."""
        parsed = parse_address(address)
        pool = self._brokers.get(parsed)
        if pool is None:
            pool = self._brokers[parsed] = ChannelPool(
                lambda: Channel(parsed, self._config.connect_timeout_ms / 1000, self._config.broker_user)
            )
        return pool.call(command, self._timeout_s if timeout_s is None else timeout_s)

    def route(self, topic: str) -> TopicRoute:
        """Return a topic's route; TopicNotExist when no name server knows it."""
        route = self.name_servers.topic_route(topic)
        if route is None:
            raise TopicNotExist(f"no name server knows a topic {topic!r}")
        return route

    def masters(self, topic: str) -> list[BrokerData]:
        """Return the brokers that serve a topic and have a master, by name."""
        found = [data for data in self.route(topic).broker_datas if data.master_addr]
        return sorted(found, key=lambda data: data.broker_name)

    def close(self) -> None:
        """Close all connections."""
        self.name_servers.close()
        for pool in self._brokers.values():
            pool.close()


def _successful(response: Command) -> Command:
    if response.code != ResponseCode.SUCCESS:
        raise error_of(response.code, response.remark)
    return response
