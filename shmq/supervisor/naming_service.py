"""The broker's own NameServer: a thread of the supervisor with an event loop of its own.

    namesrvAddr set                      no own name server: register where it says
    namesrvPort free                     own name server on that TCP port and on <runtimeDir>/namesrv.sock
    a shmq name server has the port      register there; look every 5 s whether it is gone, then take over
    something else has the port          an error that names its pid

The port decides. When only namesrv.sock is taken (a broker with another namesrvPort in the same runtime
folder), the own one serves TCP alone and the broker registers at both, so that clients find it by either.

Started and stopped by the main thread; everything between runs in the thread. Its crash would end the
supervisor's only name server, so whatever escapes the loop is logged and the loop is started again.

Routes to the supervisor's own broker stay when its coordinator dies (`kept_broker`); they go when the broker
takes its leave, when nobody registers for two minutes, or with the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from pathlib import Path

from shmq.base import log, runtime_dir
from shmq.base.errors import Unavailable
from shmq.model.settings import BrokerSettings, NamesrvSettings
from shmq.naming.name_server import NameServer
from shmq.naming.probe import is_name_server
from shmq.net.listener import bind_tcp, bind_unix
from shmq.net.ports import port_taken

TAKE_OVER_S = 5.0
STOP_S = 1.0

_logger = log.get("shmq.naming")


class NamingService:
    """Runs a NameServer beside the broker, or watches the one that is there."""

    def __init__(self, settings: BrokerSettings, folder: Path, kv_config: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._namesrv_settings = _namesrv_settings(settings, kv_config)
        self._sockets: list[socket.socket] = []
        self._unix_path: Path | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self.addresses = settings.namesrv_addr
        """Where the broker registers, in RocketMQ's form `host:port;...`; known after `start`."""

    @property
    def unix_path(self) -> Path | None:
        """The name server's Unix socket, when it is ours."""
        return self._unix_path

    def start(self) -> None:
        """Bind and begin to serve, or find who serves. Unavailable when another process has the port.

        The port is tried before anybody is asked: of two brokers that start together one gets it, and the
        other finds a name server that may take a moment to answer.
        """
        if self._settings.namesrv_addr:
            return
        port = self._settings.namesrv_port
        try:
            tcp = bind_tcp(self._settings.bind_address, port)
        except Unavailable:
            if not is_name_server((self._host(), port)):
                raise port_taken(self._settings.bind_address, port, "namesrvPort") from None
            self.addresses = f"{self._host()}:{port}"
            log.event(_logger, logging.INFO, "name_server_found", address=self.addresses)
        else:
            self._sockets.append(tcp)
            self.addresses = f"{self._host()}:{tcp.getsockname()[1]}"
            path = self._bind_unix()
            if self._unix_path is None:
                log.event(_logger, logging.WARNING, "name_server_socket_taken", path=path)
                self.addresses += f";unix:{path}"
        self._thread = threading.Thread(target=self._run, name="naming", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and remove the socket file. Twice is harmless."""
        self._stopping.set()
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join(STOP_S)
            self._thread = None
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
            self._unix_path = None

    # -- binding -------------------------------------------------------------------------------------------

    def _host(self) -> str:
        bound = self._settings.bind_address
        return "127.0.0.1" if bound in ("0.0.0.0", "::", "") else bound

    def _bind_unix(self) -> Path:
        """Bind namesrv.sock unless another name server of this folder has it; returns its path."""
        path = runtime_dir.namesrv_socket(self._folder)
        with contextlib.suppress(Unavailable):
            self._sockets.append(bind_unix(path, mode=0o660, group=self._settings.socket_group or None))
            self._unix_path = path
        return path

    def _take_over(self) -> bool:
        """Become the name server when the one that was found has gone."""
        try:
            self._sockets.append(bind_tcp(self._settings.bind_address, self._settings.namesrv_port))
        except Unavailable:
            return False
        self._bind_unix()
        log.event(_logger, logging.WARNING, "name_server_taken_over", address=self.addresses)
        return True

    # -- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._sockets:
            if self._stopping.wait(TAKE_OVER_S) or (self._take_over() and self._stopping.is_set()):
                return
        while not self._stopping.is_set():
            try:
                self._serve()
            except Exception:  # the edge of the thread: a broker without name server is worse than a new try
                log.event(_logger, logging.CRITICAL, "name_server_failed", exc_info=True)
                self._stopping.wait(1.0)

    def _serve(self) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        try:
            settings = self._settings
            own = (settings.broker_cluster_name, f"{settings.broker_ip1}:{settings.listen_port}")
            server = NameServer(self._namesrv_settings, kept_broker=own)
            server.start(loop, self._sockets)
            if not self._stopping.is_set():
                loop.run_forever()
            server.stop()
            loop.run_until_complete(asyncio.sleep(0))  # transports close in the turn after
        finally:
            self._loop = None
            loop.close()


def _namesrv_settings(settings: BrokerSettings, kv_config: Path) -> NamesrvSettings:
    """What the broker's settings mean for its name server."""
    return NamesrvSettings(
        bind_address=settings.bind_address,
        listen_port=settings.namesrv_port,
        runtime_dir=settings.runtime_dir,
        socket_group=settings.socket_group,
        log_dir=settings.log_dir,
        log_level=settings.log_level,
        kv_config_path=str(kv_config),
        order_message_enable=settings.order_message_enable,
        max_frame_size=settings.max_frame_size,
    )
