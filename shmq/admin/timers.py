"""Messages that wait for their moment: list them, take them back, put them off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.options import moment_ms
from shmq.admin.output import Column, Failure, Item, Report, local_time
from shmq.admin.targets import brokers_of
from shmq.base.errors import QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.protocol.bodies.timers import TimerRow

Broker = Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker; without it all")]
Ids = Annotated[str, typer.Option("-i", "--msgId", help="unique or offset ids; several: a,b")]

COLUMNS = (
    Column("#Message ID", "msgId", 34),
    Column("#Topic", "topic", 24),
    Column("#Deliver at", "deliverTimestampMs", 24, local_time),
    Column("#Keys", "keys", 24),
    Column("#Body bytes", "bodySize"),
)


def timer_list(
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="only messages for this topic")] = None,
    message_ids: Annotated[str | None, typer.Option("-i", "--msgId", help="only these; several: a,b")] = None,
    count: Annotated[int, typer.Option("-c", "--maxNum", help="at most so many")] = 128,
    broker: Broker = None,
) -> Report:
    """Show messages that wait, in the order in which they came."""
    items: list[Item] = []
    failures: list[Failure] = []
    with session.current.admin() as admin:
        if message_ids is not None:
            for _, row, failure in _found(admin, message_ids, broker):
                items += [_item(row)] if row is not None else []
                failures += [failure] if failure is not None else []
            return _report(items, failures)
        for address in _addresses(admin, broker):
            for row in admin.waiting_messages(address, topic):
                if len(items) == count:
                    break
                items.append(_item(row))
    return _report(items, failures)


def timer_cancel(message_ids: Ids, broker: Broker = None) -> Report:
    """Take messages back that wait: they are not delivered."""
    items: list[Item] = []
    failures: list[Failure] = []
    with session.current.admin() as admin:
        for address, row, failure in _found(admin, message_ids, broker):
            if row is None:
                failures += [failure] if failure is not None else []
                continue
            admin.cancel_waiting(address, row)
            items.append(_item(row))
    return _report(items, failures, [f"{len(items)} taken back"])


def timer_reschedule(
    message_ids: Ids,
    deliver_at: Annotated[
        str, typer.Option("-s", "--deliverTimestamp", help="now, ms, or yyyy-MM-dd#HH:mm:ss:SSS")
    ],
    broker: Broker = None,
) -> Report:
    """Put messages off that wait, later or earlier; a moment in the past delivers them at once."""
    deliver_ms = moment_ms(deliver_at)
    items: list[Item] = []
    failures: list[Failure] = []
    with session.current.admin() as admin:
        for address, row, failure in _found(admin, message_ids, broker):
            if row is None:
                failures += [failure] if failure is not None else []
                continue
            handle = admin.reschedule_waiting(address, row, deliver_ms)
            items.append(_item(row._replace(deliver_timestamp=deliver_ms, recall_handle=handle)))
    return _report(items, failures, [f"{len(items)} put off"])


def _addresses(admin: AdminClient, broker: str | None) -> list[str]:
    return [broker] if broker else brokers_of(admin, None)


def _found(
    admin: AdminClient, message_ids: str, broker: str | None
) -> Iterator[tuple[str, TimerRow | None, Failure | None]]:
    """Each id with the broker where it waits, or why it was not found."""
    for msg_id in (one.strip() for one in message_ids.split(",")):
        reason = "no broker is there to be asked"
        for address in _addresses(admin, broker):
            try:
                yield address, admin.waiting_message(address, msg_id), None
                break
            except (ShmqError, OSError) as error:
                reason = str(error)
        else:
            yield "", None, Failure(msg_id, 0, reason)


def _item(row: TimerRow) -> Item:
    return {
        "msgId": row.msg_id,
        "offsetMsgId": row.offset_msg_id,
        "topic": row.topic,
        "queueId": row.queue_id,
        "deliverTimestampMs": row.deliver_timestamp,
        "storeTimestampMs": row.store_timestamp,
        "bodySize": row.body_size,
        "tags": row.tags,
        "keys": row.keys,
        "recallHandle": row.recall_handle,
    }


def _report(items: list[Item], failures: list[Failure], lines: list[str] | None = None) -> Report:
    """All that was done; when nothing was, the reasons are the result."""
    if failures and not items:
        raise QueryNotFound("; ".join(f"{failure.target}: {failure.text}" for failure in failures))
    return Report("WaitingMessages", items, COLUMNS, lines or [], failures)
