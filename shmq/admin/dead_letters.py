"""Dead letters: what groups failed to consume too often, and why; deliver it again; throw it away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.message_item import message_item
from shmq.admin.options import moment_ms
from shmq.admin.output import Column, Failure, Item, Report, local_time
from shmq.admin.targets import ask_each
from shmq.base.errors import QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.model.message_ext import MessageExt
from shmq.model.names import DLQ_PREFIX, dlq_topic
from shmq.model.properties import RETRY_TOPIC, SHMQ_LAST_ERROR

Group = Annotated[str, typer.Option("-g", "--groupName", "--consumerGroup", help="consumer group")]
Ids = Annotated[
    str | None, typer.Option("-i", "--msgId", help="unique or offset ids of dead letters; several: a,b")
]

GROUP_COLUMNS = (Column("#Group", "group", 64), Column("#Dead letters", "count"))
LETTER_COLUMNS = (
    Column("#Message ID", "msgId", 34),
    Column("#Topic", "originTopic", 24),
    Column("#Tries", "reconsumeTimes", 6),
    Column("#Since", "storeTimestampMs", 24, local_time),
    Column("#Last error", "lastError"),
)
RESENT_COLUMNS = (Column("#Message ID", "msgId", 34), Column("#Topic", "originTopic"))


def dlq_list(
    group: Annotated[
        str | None,
        typer.Option("-g", "--groupName", "--consumerGroup", help="one group's dead letters, one by one"),
    ] = None,
    begin: Annotated[
        str | None, typer.Option("-s", "--beginTimestamp", help="dead since: ms or yyyy-MM-dd#HH:mm:ss:SSS")
    ] = None,
    end: Annotated[str | None, typer.Option("-e", "--endTimestamp", help="dead until")] = None,
    count: Annotated[int, typer.Option("-c", "--maxNum", help="at most so many")] = 128,
) -> Report:
    """Show which groups have dead letters, or those of one group with the error of the last try."""
    begin_ms = moment_ms(begin) if begin else 0
    end_ms = moment_ms(end) if end else None
    with session.current.admin() as admin:
        if group is None:
            return Report("DeadLetterGroups", list(_groups(admin)), GROUP_COLUMNS)
        items: list[Item] = []
        for letter in admin.dead_letters(group):
            if len(items) == count:
                break
            if letter.store_timestamp >= begin_ms and (end_ms is None or letter.store_timestamp <= end_ms):
                items.append(_item(letter))
    return Report("DeadLetters", items, LETTER_COLUMNS)


def _groups(admin: AdminClient) -> Iterator[Item]:
    for topic in sorted(admin.topic_list()):
        if topic.startswith(DLQ_PREFIX) and (count := _count(admin, topic)):
            yield {"group": topic.removeprefix(DLQ_PREFIX), "count": count}


def _count(admin: AdminClient, topic: str) -> int:
    queues = admin.topic_stats(topic).offset_table.values()
    return sum(queue.max_offset - queue.min_offset for queue in queues)


def _item(letter: MessageExt) -> Item:
    """A dead letter as it is listed: with its first topic, and why it died."""
    return {
        **message_item(letter),
        "originTopic": letter.get_property(RETRY_TOPIC) or letter.topic,
        "lastError": letter.get_property(SHMQ_LAST_ERROR) or "",
    }


def dlq_resend(
    group: Group,
    message_ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="every dead letter of the group")] = False,
) -> Report:
    """Deliver dead letters to their group again, with all tries before them; no other group gets them.

    They stay dead letters, too, until they are purged.
    """
    if (message_ids is None) is not everything:
        raise typer.BadParameter("name dead letters with -i, or every one with --all")
    wanted = None if message_ids is None else {one.strip() for one in message_ids.split(",")}
    items: list[Item] = []
    failures: list[Failure] = []
    with session.current.admin() as admin:
        for letter in admin.dead_letters(group):
            ids = {letter.msg_id, letter.offset_msg_id}
            if wanted is not None and not wanted & ids:
                continue
            try:
                admin.resend_dead_letter(group, letter)
            except (ShmqError, OSError) as error:
                failures.append(Failure(letter.msg_id, 0, str(error)))
                continue
            items.append(_item(letter))
            if wanted is not None:
                wanted -= ids
                if not wanted:
                    break
    failures += [Failure(one, 0, "is no dead letter of this group") for one in sorted(wanted or ())]
    if not items and failures:
        raise QueryNotFound("; ".join(f"{failure.target}: {failure.text}" for failure in failures))
    lines = ["", f"{len(items)} delivered to group {group} again"]
    return Report("DeadLettersResent", items, RESENT_COLUMNS, lines, failures)


def dlq_purge(group: Group) -> Report:
    """Throw all dead letters of a group away. The topic comes back with the next one."""
    topic = dlq_topic(group)
    with session.current.admin() as admin:
        count = _count(admin, topic)
        if not session.current.confirm_loss(f"{count} dead letters of group {group}", group):
            raise typer.BadParameter("nothing was purged: not confirmed (--yes)")
        addresses = [str(data.master_addr) for data in admin.topic_route(topic).broker_datas]
        done, failures = ask_each(addresses, lambda addr: admin.delete_topic_in_broker(addr, topic))
        if not failures:
            admin.delete_topic_in_namesrv(topic)
    lines = [f"{count} dead letters of group {group} purged"] if not failures else []
    items: list[Item] = [{"brokerAddr": addr, "group": group, "count": count} for addr, _ in done]
    return Report("DeadLettersPurged", items, lines=lines, errors=failures)
