"""NameServers: the name servers of one cluster, asked one at a time.

A client picks one at random and stays with it until it fails, then takes the next (they know the same).
Addresses are searched at first use, and again while none was found: a broker started later is found then.
A resting client asks every few minutes: a name server lets Unix connections rest as long, which costs it less
than new ones. Blocking, any thread.
"""

from __future__ import annotations

import math
import random
import threading

from shmq.client.addresses import Address, name_server_addresses
from shmq.client.channel import IDLE_CLOSE_S, Channel, ChannelPool, view_of
from shmq.client.config import ClientConfig
from shmq.client.errors import RemotingError
from shmq.model.route import TopicRoute
from shmq.protocol.bodies.route import decode_route
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.naming import GetRouteInfoHeader


class NameServers:
    """The way to routes and cluster facts."""

    def __init__(self, config: ClientConfig) -> None:
        """Search and connect nothing yet."""
        self._config = config
        self._lock = threading.Lock()
        self._pools: dict[Address, ChannelPool] = {}
        self._order: list[Address] = []

    @property
    def addresses(self) -> list[Address]:
        """Return all name servers, the one in use first; ClientError 10004 when none is known."""
        if not self._order:
            with self._lock:
                if not self._order:
                    found = name_server_addresses(self._config.namesrv_addr)
                    random.shuffle(found)
                    self._order = found
        return list(self._order)

    def call(self, command: Command, timeout_s: float | None = None) -> Command:
        """Ask the name server in use, then the others; returns a response whatever its code."""
        limit_s = self._limit_s(timeout_s)
        failed: RemotingError | None = None
        for address in self.addresses:
            try:
                response = self._pool(address).call(command, limit_s)
            except RemotingError as error:
                failed = error
                self._move_back(address)
            else:
                return response
        assert failed is not None
        raise failed

    def call_each(self, command: Command, timeout_s: float | None = None) -> dict[Address, Command]:
        """Ask every name server (changes of permissions, deletions); the first that fails ends it."""
        limit_s = self._limit_s(timeout_s)
        return {address: self._pool(address).call(command, limit_s) for address in self.addresses}

    def topic_route(self, topic: str) -> TopicRoute | None:
        """Return a topic's route, None when no name server knows the topic."""
        header = GetRouteInfoHeader(topic=topic, accept_standard_json_only=True)
        response = self.call(Command.request(RequestCode.GET_ROUTEINFO_BY_TOPIC, header))
        if response.code == ResponseCode.TOPIC_NOT_EXIST:
            return None
        if response.code != ResponseCode.SUCCESS or response.body is None:
            raise error_of(response.code, response.remark)
        return decode_route(view_of(response))

    def _limit_s(self, timeout_s: float | None) -> float:
        return timeout_s if timeout_s is not None else self._config.mq_client_api_timeout_ms / 1000

    def _pool(self, address: Address) -> ChannelPool:
        with self._lock:
            pool = self._pools.get(address)
            if pool is None:
                config = self._config
                pool = self._pools[address] = ChannelPool(
                    lambda: Channel(address, config.connect_timeout_ms / 1000, config.broker_user),
                    math.inf if address.is_unix else IDLE_CLOSE_S,
                )
            return pool

    def _move_back(self, address: Address) -> None:
        """Ask this one last from now on; with the only one gone, search anew next time."""
        with self._lock:
            if len(self._order) > 1:
                self._order = [other for other in self._order if other != address] + [address]
            else:
                self._order = []

    def forget_after_fork(self) -> None:
        """In a forked child: start without the parent's connections."""
        self._lock = threading.Lock()
        self._pools = {}

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
