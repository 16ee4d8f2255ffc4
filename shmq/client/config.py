"""ClientConfig: the settings all clients share, RocketMQ's names in Python's spelling, and the client id.

Plain values, read when a client starts; times in milliseconds. `namesrv_addr` decides which cluster a program
talks to (shmq on this host, shmq elsewhere, Apache RocketMQ); nothing else has to change.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field

DEFAULT_INSTANCE = "DEFAULT"
CREATE_TOPIC_KEY = "TBW102"


@dataclass(slots=True)
class ClientConfig:
    """Settings of one client; change them before `start()`."""

    namesrv_addr: str | None = None
    """`host:port;host:port` or `unix:/path`; None searches (see `addresses.name_server_addresses`)."""
    instance_name: str = DEFAULT_INSTANCE
    """Clients of one process with the same name share connections; DEFAULT gives each its own."""
    unit_name: str | None = None
    namespace: str | None = None
    """Topics and groups of this client are `namespace%name` at the brokers, and shown without it."""
    poll_name_server_interval_ms: int = 30_000
    heartbeat_broker_interval_ms: int = 30_000
    persist_consumer_offset_interval_ms: int = 5_000
    mq_client_api_timeout_ms: int = 3_000
    pull_time_delay_millis_when_exception: int = 1_000
    connect_timeout_ms: int = 3_000
    use_unix_socket: bool = True
    """Prefer the Unix socket that a route names, when its server is trusted; False: always TCP."""
    broker_user: str | None = field(default_factory=lambda: os.environ.get("SHMQ_BROKER_USER"))
    """User besides root and ourselves whose Unix sockets are trusted."""
    enable_msg_trace: bool = False
    """Tell of each send and each call of a listener in a trace topic, in RocketMQ's format (`trace.py`)."""
    customized_trace_topic: str | None = None
    """Another trace topic than RMQ_SYS_TRACE_TOPIC."""
    spin_micros: int = -1
    """How long a sync call to a local broker looks for the answer before it sleeps; 0 sleeps at once, -1 is
    adaptive (see `spin`)."""

    share_core: bool = True
    """Let a sync call to a local broker wait on the core its worker runs on, where that is quicker (see
    `core_sharing`)."""

    def client_id(self, *, fixed_name: bool = False) -> str:
        """Build `ip@instance[@unit]`. A default instance name becomes pid#nanotime unless `fixed_name`
        (broadcasting, where it selects the local offset file)."""
        name = self.instance_name
        if name == DEFAULT_INSTANCE and not fixed_name:
            name = f"{os.getpid()}#{time.monotonic_ns()}"
        parts = [host_address(), name, *([self.unit_name] if self.unit_name else [])]
        return "@".join(parts)


def host_address() -> str:
    """Return this host's IPv4 address as RocketMQ shows it in client ids; needs no name resolution.

    Connecting a UDP socket sends nothing: it only asks the routing table which address would be used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
