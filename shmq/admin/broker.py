"""Brokers: the runtime figures that a broker tells about itself (request 28)."""

from __future__ import annotations

from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.output import Item, Report
from shmq.admin.targets import ask_each, brokers_of

KEY_WIDTH = 32


def broker_status(
    broker_addr: Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker, ip:port")] = None,
    cluster: Annotated[str | None, typer.Option("-c", "--clusterName", help="every broker of it")] = None,
) -> Report:
    """Print a broker's runtime figures, one key a line."""
    with session.current.admin() as admin:
        targets = [broker_addr] if broker_addr else brokers_of(admin, cluster)
        answers, failures = ask_each(targets, admin.broker_runtime_info)
    items: list[Item] = [
        {"brokerAddr": addr, "table": dict(sorted(table.items()))} for addr, table in answers
    ]
    prefixed = broker_addr is None and len(targets) > 1
    lines = [
        f"{item['brokerAddr'] + ' ' if prefixed else ''}{key:<{KEY_WIDTH}}: {value}"
        for item in items
        for key, value in item["table"].items()
    ]
    return Report("BrokerStatus", items, lines=lines, errors=failures)
