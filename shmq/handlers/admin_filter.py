"""Filter functions for operators: 30020 install, 30021 remove, 30022 list (shmq's own). Coordinator's
handlers; durable when answered, used by pulls from then on."""

from __future__ import annotations

import orjson

from shmq.base.errors import RequestNotSupported
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import FilterHeader


async def install_filter(
    ctx: CoordinatorContext, _call: Call, command: Command, header: FilterHeader
) -> Command:
    """30020: install the code in the body, or replace what that name had."""
    if not ctx.settings.now.filter_server_nums:
        raise RequestNotSupported(
            "filter functions are off at this broker: start it with filterServerNums=1 or more. They are "
            "trusted code: whoever may install one runs it on this host"
        )
    ctx.filters.install(header.name, command.body_bytes())
    return command.response(ResponseCode.SUCCESS)


async def remove_filter(
    ctx: CoordinatorContext, _call: Call, command: Command, header: FilterHeader
) -> Command:
    """30021: forget a function."""
    ctx.filters.remove(header.name)
    return command.response(ResponseCode.SUCCESS)


async def list_filters(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """30022: the installed functions as JSON: name, size in bytes, time of installation in ms."""
    found = [
        {"name": one.name, "size": one.size, "installedMs": one.installed_ms}
        for one in ctx.filters.installed()
    ]
    return command.response(ResponseCode.SUCCESS, body=orjson.dumps(found))


ROUTES: dict[int, Route] = {
    RequestCode.INSTALL_FILTER: Route(FilterHeader, install_filter, Place.COORDINATOR),
    RequestCode.REMOVE_FILTER: Route(FilterHeader, remove_filter, Place.COORDINATOR),
    RequestCode.LIST_FILTERS: Route(None, list_filters, Place.COORDINATOR),
}
"""Served by the coordinator."""
