"""BrokerLink: everything a client process has to one broker (one brokerName and broker id).

Chooses the endpoint: the Unix socket the route names, when it exists here, the broker's TCP address is this
host's own, and its server is trusted (`addresses.connect`); TCP otherwise. A refusal by socket permissions is
logged once, with the group to join, and TCP is used. Holds the pool of blocking channels and the one duplex
channel on which the broker knows this client (heartbeats, pushed requests, held pulls, async sends). All
connections are made when first needed and made again when they broke. Any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from shmq.base import log
from shmq.base.errors import BrokerError, NoPermission
from shmq.client.addresses import Address, is_local_host, parse_address
from shmq.client.channel import Buffer, Channel, ChannelPool
from shmq.client.config import ClientConfig
from shmq.client.duplex import DuplexChannel, Reply
from shmq.client.errors import ConnectFailed
from shmq.client.spin import spin_limit_ns
from shmq.model.host import pack_host
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command

T = TypeVar("T")
_LOG = log.get(__name__)


class BrokerLink:
    """One broker as seen from this process."""

    def __init__(
        self,
        broker_name: str,
        broker_id: int,
        address: str,
        unix_socket: str | None,
        config: ClientConfig,
        *,
        on_request: Callable[[BrokerLink, Command], None],
        on_connected: Callable[[BrokerLink, DuplexChannel], None],
        on_lost: Callable[[BrokerLink], None],
    ) -> None:
        """Connect nothing yet. `on_connected` runs in the thread that made the duplex channel, before others
        use it."""
        self.broker_name = broker_name
        self.broker_id = broker_id
        self.tcp_address = address
        self.unix_socket = unix_socket
        self._config = config
        self._on_request = on_request
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._endpoint: Address | None = None
        self._pool = ChannelPool(self._open_channel)
        self._duplex: DuplexChannel | None = None
        self._making_duplex = threading.Lock()
        self._closed = False
        self._complaint = ""
        """Why the Unix socket was not used last time: said once, not at every connection; "" when it was."""

    def __str__(self) -> str:
        """Name the broker and where it is reached."""
        return f"{self.broker_name}:{self.broker_id} at {self._endpoint or self.tcp_address}"

    @property
    def endpoint(self) -> Address:
        """Return where this broker is reached; the first connection decides, a failed connect decides
        anew."""
        while (endpoint := self._endpoint) is None:
            self._pool.put(self._open_channel())
        return endpoint

    @property
    def is_local(self) -> bool:
        """Tell whether the broker is shmq on this host behind its Unix socket: CBOR, log-ready batches,
        direct pull."""
        return self.endpoint.is_unix

    @cached_property
    def store_host(self) -> bytes:
        """Return the broker's address as records hold it: the TCP address that routes name."""
        address = parse_address(self.tcp_address)
        return pack_host(address.host, address.port)

    def call(self, command: Command, timeout_s: float) -> Command:
        """Send a request on a pooled channel in this thread; returns the response whatever its code."""
        return self._pool.call(command, timeout_s)

    def exchange_quickly(
        self,
        frame_of: Callable[[int], list[Buffer]],
        timeout_s: float,
        read: Callable[[Buffer, int], T | None],
    ) -> T | Command:
        """Send a ready CBOR frame on a pooled channel, only to a local broker; see
        `Channel.exchange_quickly`."""
        return self._pool.exchange_quickly(frame_of, timeout_s, read)

    def request(self, command: Command, timeout_s: float) -> Command:
        """Like `call`, but any code except SUCCESS is raised as BrokerError."""
        return _successful(self._pool.call(command, timeout_s))

    def request_over_duplex(self, command: Command, timeout_s: float) -> Command:
        """Like `request`, over the duplex channel: for what is asked every few minutes, as another connection
        would be closed in between. Not from its reader thread."""
        return _successful(self.duplex().call(command, timeout_s))

    def send_oneway(self, command: Command, timeout_s: float) -> None:
        """Send a request that gets no answer."""
        self._pool.send_oneway(command, timeout_s)

    def send_async(self, command: Command, timeout_s: float, reply: Reply) -> None:
        """Send a request on the duplex channel; `reply` runs once, on its reader thread or, when no
        connection can be made, in this one."""
        try:
            channel = self.duplex()
        except Exception as error:
            reply(None, error)
            return
        channel.send(command, timeout_s, reply)

    def duplex(self) -> DuplexChannel:
        """Return the connection on which the broker knows this client; made, and announced, when there is
        none."""
        channel = self._duplex
        if channel is not None and not channel.closed:
            return channel
        return self.announced_duplex()[0]

    def announced_duplex(self) -> tuple[DuplexChannel, bool]:
        """Return that connection, and whether this call has made it, and so announced what holds now."""
        with self._making_duplex:
            if self._closed:
                raise ConnectFailed(f"this client has closed its link to {self}")
            if self._duplex is not None and not self._duplex.closed:
                return self._duplex, False
            made = self._connecting(self._open_duplex)
            try:
                self._on_connected(self, made)
            except BaseException:
                made.close()
                raise
            self._duplex = made
            return made, True

    @property
    def has_duplex(self) -> bool:
        """Tell whether the broker knows this client through a living connection now."""
        return self._duplex is not None and not self._duplex.closed

    def answer(self, response: Command) -> None:
        """Answer a request the broker pushed; lost when the connection is gone, as the request then is."""
        channel = self._duplex
        if channel is not None:
            channel.send_oneway(response)

    def _open_channel(self) -> Channel:
        return self._connecting(
            lambda endpoint: Channel(
                endpoint,
                self._config.connect_timeout_ms / 1000,
                self._config.broker_user,
                spin_ns=spin_limit_ns(self._config.spin_micros) if endpoint.is_unix else 0,
                shares_core=self._config.share_core and endpoint.is_unix,
            )
        )

    def _open_duplex(self, endpoint: Address) -> DuplexChannel:
        return DuplexChannel(
            endpoint,
            self._config.connect_timeout_ms / 1000,
            self._config.broker_user,
            on_request=lambda channel, command: self._on_request(self, command),
            on_close=lambda channel: self._on_lost(self),
        )

    def _connecting(self, connect: Callable[[Address], T]) -> T:
        """Connect to the first candidate that lets us in, and remember it."""
        refused: NoPermission | None = None
        for candidate in self._candidates():
            try:
                connected = connect(candidate)
            except (ConnectFailed, NoPermission) as error:
                self._endpoint = None
                if not candidate.is_unix:
                    raise refused or error from None
                refused = error if isinstance(error, NoPermission) else None
                self._complain(error)
            else:
                self._endpoint = candidate
                if candidate.is_unix:
                    self._complaint = ""
                return connected
        raise AssertionError("the TCP address is always a candidate")

    def _complain(self, reason: ConnectFailed | NoPermission) -> None:
        """Log why the Unix socket is not used, unless that is known."""
        if str(reason) != self._complaint:
            self._complaint = str(reason)
            log.event(_LOG, logging.WARNING, "unix_socket_not_used", reason=reason, instead=self.tcp_address)

    def _candidates(self) -> list[Address]:
        """Return the endpoints to try, best first."""
        tcp = parse_address(self.tcp_address)
        path = self.unix_socket
        if path and self._config.use_unix_socket and is_local_host(tcp.host) and _may_exist(path):
            return [Address(path), tcp]
        return [tcp]

    def close(self) -> None:
        """Close all connections; requests under way fail."""
        self._closed = True
        self._pool.close()
        if self._duplex is not None:
            self._duplex.close()

    def forget_after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone and start with none."""
        self._making_duplex = threading.Lock()
        self._pool = ChannelPool(self._open_channel)
        if self._duplex is not None:
            self._duplex.forget_after_fork()
            self._duplex = None


def _successful(response: Command) -> Command:
    """Return an answer, or raise what it says."""
    if response.code != ResponseCode.SUCCESS:
        raise BrokerError(response.code, response.remark or "")
    return response


def _may_exist(path: str) -> bool:
    """Tell whether a socket may be there; one in a folder that is closed to us gives its reason when
    tried."""
    try:
        return Path(path).is_socket()
    except PermissionError:
        return True
