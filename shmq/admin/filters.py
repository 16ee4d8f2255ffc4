"""Filter functions: install Python code that decides what a consumer gets, remove it, list it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.output import Column, Report, local_time
from shmq.admin.targets import ask_each, masters

Name = Annotated[str, typer.Option("-f", "--filterName", help="name that consumers subscribe with")]
Addr = Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker, ip:port")]
Cluster = Annotated[str | None, typer.Option("-c", "--clusterName", help="all masters of it")]


def install_filter(
    name: Name,
    code: Annotated[
        Path, typer.Option("-s", "--source", exists=True, dir_okay=False, help="file with wants(message)")
    ],
    broker_addr: Addr = None,
    cluster: Cluster = None,
) -> Report:
    """Install the code of a filter function, or replace it. Trusted code: it runs on the broker's host."""
    source = code.read_bytes()
    with session.current.admin() as admin:
        done, failures = ask_each(
            masters(admin, broker_addr, cluster), lambda addr: admin.install_filter(addr, name, source)
        )
    items = [{"brokerAddr": addr, "name": name, "size": len(source)} for addr, _ in done]
    lines = [f"install filter {name} at {addr} success." for addr, _ in done]
    return Report("FilterInstalled", items, lines=lines, errors=failures)


def remove_filter(name: Name, broker_addr: Addr = None, cluster: Cluster = None) -> Report:
    """Forget a filter function; consumers that use it are refused from now on."""
    with session.current.admin() as admin:
        done, failures = ask_each(
            masters(admin, broker_addr, cluster), lambda addr: admin.remove_filter(addr, name)
        )
    items = [{"brokerAddr": addr, "name": name} for addr, _ in done]
    lines = [f"remove filter {name} from {addr} success." for addr, _ in done]
    return Report("FilterRemoved", items, lines=lines, errors=failures)


def list_filters(broker_addr: Addr = None, cluster: Cluster = None) -> Report:
    """Show the installed filter functions."""
    with session.current.admin() as admin:
        answers, failures = ask_each(masters(admin, broker_addr, cluster), admin.filters)
    items = [{"brokerAddr": addr, **row} for addr, rows in answers for row in rows]
    columns = (
        Column("#Broker Addr", "brokerAddr", 24),
        Column("#Filter", "name", 32),
        Column("#Bytes", "size", 8),
        Column("#Installed", "installedMs", 0, local_time),
    )
    return Report("Filters", items, columns, errors=failures)
