"""The broker's listening sockets: bound or inherited by the supervisor, accepted from by its children.

    <name>.sock           Unix front, mode 0660, group `socketGroup`        workers
    bindAddress:port      TCP front, `listenPort`, and `listenPort - 2`     workers
    <name>.grant.sock     reader grants, same mode and group                coordinator
    <name>.internal.sock  workers call the coordinator, mode 0600           coordinator

They are held for the supervisor's life, so that clients may connect while a child is started again. A front
that systemd handed over is used instead of binding, and is left alone at the end: systemd holds it over
restarts.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

from shmq.base import runtime_dir
from shmq.model.settings import BrokerSettings
from shmq.net.listener import bind_unix
from shmq.net.ports import bind_or_explain, bind_pair
from shmq.shm.boot import ChildBoot, ChildRole

FRONT_MODE = 0o660
INTERNAL_MODE = 0o600


@dataclass
class Fronts:
    """All listening sockets of one broker, and the files to remove at the end."""

    unix: socket.socket
    tcp: socket.socket
    fast: socket.socket
    grant: socket.socket
    internal: socket.socket
    unix_path: Path
    bound_paths: list[Path] = field(default_factory=list)

    @property
    def listen_port(self) -> int:
        """The TCP front's port, after 0 was resolved."""
        return int(self.tcp.getsockname()[1])

    def equip(self, boot: ChildBoot) -> ChildBoot:
        """Give a child the sockets of its role."""
        if boot.role is ChildRole.WORKER:
            return replace(boot, listener_fds=(self.unix.fileno(), self.tcp.fileno(), self.fast.fileno()))
        return replace(boot, grant_fd=self.grant.fileno(), internal_fd=self.internal.fileno())

    def close(self) -> None:
        """Close all and remove the socket files made here."""
        for listening in (self.unix, self.tcp, self.fast, self.grant, self.internal):
            listening.close()
        for path in self.bound_paths:
            path.unlink(missing_ok=True)
        self.bound_paths.clear()


def open_fronts(settings: BrokerSettings, folder: Path, inherited: list[socket.socket]) -> Fronts:
    """Bind what systemd did not hand over.

    Raises ConfigFault (bad path, address or group) or Unavailable (somebody else is listening there).
    """
    group = settings.socket_group or None
    paths: list[Path] = []
    opened: list[socket.socket] = []

    def unix(path: Path, mode: int, owner_group: str | None) -> socket.socket:
        bound = bind_unix(path, mode=mode, group=owner_group)
        paths.append(path)
        opened.append(bound)
        return bound

    name = settings.broker_name
    try:
        front_path = runtime_dir.broker_socket(folder, name)
        front = _inherited_unix(inherited)
        if front is None:
            front = unix(front_path, FRONT_MODE, group)
        else:
            front_path = Path(front.getsockname())
        grant = unix(runtime_dir.grant_socket(folder, name), FRONT_MODE, group)
        internal = unix(runtime_dir.internal_socket(folder, name), INTERNAL_MODE, None)
        tcp, fast = _tcp_pair(settings, inherited)
    except BaseException:
        for bound in opened:
            bound.close()
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return Fronts(front, tcp, fast, grant, internal, front_path, paths)


def _inherited_unix(inherited: list[socket.socket]) -> socket.socket | None:
    return next((front for front in inherited if front.family == socket.AF_UNIX), None)


def _tcp_pair(
    settings: BrokerSettings, inherited: list[socket.socket]
) -> tuple[socket.socket, socket.socket]:
    """Both TCP fronts: inherited ones by their port, else bound here."""
    handed = {front.getsockname()[1]: front for front in inherited if front.family != socket.AF_UNIX}
    if not handed:
        return bind_pair(settings.bind_address, settings.listen_port, "listenPort")
    port = settings.listen_port if settings.listen_port in handed else max(handed)
    tcp = handed[port]
    fast = handed.get(port - 2)
    if fast is None:
        fast = bind_or_explain(settings.bind_address, port - 2, "listenPort - 2")
    return tcp, fast


def advertised_address(settings: BrokerSettings) -> str:
    """The address clients are told (`brokerIP1`): as set, else the bound one, else this host's towards the
    network.

    Needs no name resolution: for a wildcard address the kernel is asked which source address it would use.
    """
    if settings.broker_ip1:
        return settings.broker_ip1
    if settings.bind_address not in ("0.0.0.0", "::", ""):
        return settings.bind_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET: nothing is sent, only the route is looked up
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def is_loopback(address: str) -> bool:
    """True for addresses other hosts cannot reach."""
    try:
        return socket.inet_aton(address)[:1] == struct.pack("B", 127)
    except OSError:
        return address in ("::1", "localhost")
