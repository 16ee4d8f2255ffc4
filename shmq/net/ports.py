"""Who has a TCP port: for the one error message an operator needs when a port is taken.

Called by the supervisor and `shmq-namesrv` at the start only; psutil is imported there and then.
"""

from __future__ import annotations

import socket

from shmq.base.errors import ConfigFault, Unavailable
from shmq.net.listener import bind_tcp

FREE_PORT_TRIES = 50


def bind_or_explain(host: str, port: int, key: str) -> socket.socket:
    """Bind, or raise Unavailable naming the setting and the process that has the port."""
    try:
        return bind_tcp(host, port)
    except Unavailable:
        raise port_taken(host, port, key) from None


def port_taken(host: str, port: int, key: str) -> Unavailable:
    """The error for a port that somebody else has: who, and what to do."""
    return Unavailable(f"{key}: {host}:{port} is taken by {holder_of(port)}: stop it or choose another {key}")


def bind_pair(host: str, port: int, key: str) -> tuple[socket.socket, socket.socket]:
    """Bind `port` and `port - 2` (where clients up to 4.4 send); 0: any two free ports that lie so."""
    if port:
        main = bind_or_explain(host, port, key)
        try:
            return main, bind_or_explain(host, port - 2, f"{key} - 2")
        except (Unavailable, ConfigFault):
            main.close()
            raise
    for _ in range(FREE_PORT_TRIES):
        main = bind_tcp(host, 0)
        try:
            return main, bind_tcp(host, main.getsockname()[1] - 2)
        except Unavailable:
            main.close()
    raise Unavailable(f"{key}=0: no two free ports with a distance of 2 found on {host}")


def holder_of(port: int) -> str:
    """The process that listens on a TCP port: `process 4711 (java)`, as far as we may see it."""
    import psutil

    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return "a process of another user"
            try:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.Error:
                return f"process {connection.pid}"
    return "a process that is gone by now or belongs to another user"
