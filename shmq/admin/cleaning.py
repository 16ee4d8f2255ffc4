"""Cleaning up a broker's store: expired queue files (306), queues of no topic (316), expired segments (329).

The broker answers at once and does it in small steps afterwards; `brokerStatus` shows its commitLogMinOffset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.output import Report
from shmq.admin.targets import ask_each, brokers_of
from shmq.client.admin_client import AdminClient

Broker = Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker, ip:port")]
Cluster = Annotated[str | None, typer.Option("-c", "--cluster", help="every broker of it; else of all")]


def clean_expired_cq(broker_addr: Broker = None, cluster: Cluster = None) -> Report:
    """Remove ConsumeQueue files that speak only of deleted segments. Queues keep their numbers."""
    return _clean("QueueCleaning", broker_addr, cluster, AdminClient.clean_expired_consume_queue)


def clean_unused_topic(broker_addr: Broker = None, cluster: Cluster = None) -> Report:
    """Remove the queues of topics that no broker has in its table any more."""
    _confirm("the queues of all topics that are in no table", broker_addr or cluster or "all")
    return _clean("TopicCleaning", broker_addr, cluster, AdminClient.clean_unused_topic)


def delete_expired_commit_log(broker_addr: Broker = None, cluster: Cluster = None) -> Report:
    """Delete CommitLog segments older than fileReservedTime now, whatever the hour."""
    if not broker_addr and not cluster:
        raise typer.BadParameter("name a broker with -b ip:port, or a cluster with -c name")
    _confirm("the expired part of the log", broker_addr or cluster or "")
    return _clean("LogCleaning", broker_addr, cluster, AdminClient.delete_expired_commit_log)


def _confirm(what: str, name: str) -> None:
    if not session.current.confirm_loss(what, name):
        raise typer.BadParameter(f"{what} was not deleted: not confirmed (--yes)")


def _clean(
    kind: str, broker_addr: str | None, cluster: str | None, ask: Callable[[AdminClient, str], None]
) -> Report:
    with session.current.admin() as admin:
        targets = [broker_addr] if broker_addr else brokers_of(admin, cluster)
        done, failures = ask_each(targets, lambda addr: ask(admin, addr))
    items = [{"brokerAddr": addr} for addr, _ in done]
    return Report(kind, items, lines=["success" if not failures else "false"], errors=failures)
