"""SHARE_CORE (30005): a client that sends one request at a time asks its worker to run on its own core.

Why and for how long is said in ``worker/shared_core.py``.
"""

from __future__ import annotations

from shmq.base.errors import SystemBusy
from shmq.handlers.context import WorkerContext
from shmq.handlers.routes import Place, Route
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.share_core import ShareCoreHeader


def share_core(
    ctx: WorkerContext, connection: Connection, command: Command, header: ShareCoreHeader
) -> Command:
    """30005: run on that core, or refuse."""
    if not (connection.peer.is_unix and ctx.share_core(connection.id, header.cpu)):
        raise SystemBusy("this worker serves others, or may not run on that core")
    return command.response(ResponseCode.SUCCESS)


ROUTES: dict[int, Route] = {
    RequestCode.SHARE_CORE: Route(ShareCoreHeader, share_core, Place.WORKER),
}
"""Served by the worker that has the connection."""
