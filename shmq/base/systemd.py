"""The two small protocols of the service manager, without a library: readiness and inherited sockets.

NOTIFY_SOCKET  datagrams `READY=1`, `STATUS=...`, `STOPPING=1`, `WATCHDOG=1` to a Unix socket (sd_notify(3)).
LISTEN_FDS     listening sockets from descriptor 3 on, with names in LISTEN_FDNAMES (sd_listen_fds(3)).
Used by the supervisor and by `shmq-namesrv`, main thread. Outside systemd everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

LISTEN_FDS_START = 3


class ServiceManager:
    """What the service manager wants to hear from this process."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own_watchdog = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.pop("WATCHDOG_USEC", "0")
        watched = own_watchdog and microseconds.isdigit() and bool(self._address)
        self.watchdog_interval_ms: int | None = (int(microseconds) // 2000 or None) if watched else None
        """How often `alive` must be called; None: nobody watches."""

    def notify(self, *lines: str) -> None:
        """Send `KEY=value` lines; a manager that is gone is nobody's trouble here."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                self._address = ""

    def ready(self, status: str) -> None:
        """Say that the service serves."""
        self.notify("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def alive(self) -> None:
        """Keep the watchdog quiet for another interval."""
        self.notify("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service is on its way out."""
        self.notify("STOPPING=1")


def inherited_sockets(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets handed over by systemd, closed for children; empty outside socket activation."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "0")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for descriptor in range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)):
        os.set_inheritable(descriptor, False)
        inherited = socket.socket(fileno=descriptor)
        inherited.setblocking(False)
        sockets.append(inherited)
    return sockets
