"""Which brokers a command asks: `-b` names one, `-c` a cluster's masters; `-b` wins, as with mqadmin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import typer

from shmq.admin.output import Failure
from shmq.base.errors import BrokerError, QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.model.route import BrokerData

T = TypeVar("T")


def masters(admin: AdminClient, broker_addr: str | None, cluster: str | None) -> list[str]:
    """Addresses of the brokers to ask; a usage error when neither is given, and NOT_FOUND for a cluster."""
    if broker_addr:
        return [broker_addr]
    if not cluster:
        raise typer.BadParameter("name a broker with -b ip:port, or a cluster with -c name")
    return [group.master_addr for group in _groups(admin, cluster) if group.master_addr]


def brokers_of(admin: AdminClient, cluster: str | None) -> list[str]:
    """Addresses of all brokers, slaves too, of one cluster or of all."""
    groups = _groups(admin, cluster)
    return [addr for group in groups for _, addr in sorted(group.broker_addrs.items())]


def _groups(admin: AdminClient, cluster: str | None) -> list[BrokerData]:
    info = admin.cluster_info()
    if cluster is None:
        return [group for _, group in sorted(info.broker_addr_table.items())]
    if cluster not in info.cluster_addr_table:
        known = ", ".join(sorted(info.cluster_addr_table)) or "none"
        raise QueryNotFound(f"there is no cluster {cluster!r} (known: {known})")
    return [info.broker_addr_table[name] for name in sorted(info.cluster_addr_table[cluster])]


def ask_each(addresses: Iterable[str], ask: Callable[[str], T]) -> tuple[list[tuple[str, T]], list[Failure]]:
    """Ask every address; answers and failures apart. One alone raises, so that its error is the result."""
    addresses = list(addresses)
    answers: list[tuple[str, T]] = []
    failures: list[Failure] = []
    for address in addresses:
        try:
            answers.append((address, ask(address)))
        except (ShmqError, OSError) as error:
            if len(addresses) == 1:
                raise
            code = error.code if isinstance(error, BrokerError) else 0
            failures.append(Failure(address, code, str(error)))
    return answers, failures
