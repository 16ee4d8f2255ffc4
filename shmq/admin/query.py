"""Single messages: by id, by key, by queue and offset; and which groups have had them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.deliver import push_to_client, send_again
from shmq.admin.message_item import message_item
from shmq.admin.options import truth
from shmq.admin.output import Column, Item, Report, local_time
from shmq.base.errors import ConsumerNotOnline, InvalidParameter, QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.model.consumer_group import ConsumeType, MessageModel
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.model.names import DLQ_PREFIX, RETRY_PREFIX
from shmq.model.subscription import SUBSCRIBE_ALL

LABEL_WIDTH = 20
FAR_FUTURE_MS = (1 << 63) - 1

Topic = Annotated[str, typer.Option("-t", "--topic", help="topic")]
BodyFormat = Annotated[
    str | None, typer.Option("-f", "--bodyFormat", help="print the body, decoded from this charset")
]


def query_by_id(
    message_ids: Annotated[str, typer.Option("-i", "--msgId", help="offset id or unique id; several: a,b")],
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="where to look for a unique id")] = None,
    group: Annotated[
        str | None, typer.Option("-g", "--consumerGroup", help="with -d: give the message to that client now")
    ] = None,
    client_id: Annotated[str | None, typer.Option("-d", "--clientId", help="a push consumer of -g")] = None,
    send: Annotated[
        str, typer.Option("-s", "--sendMessage", help="true: send it again as a new message")
    ] = "false",
    unit: Annotated[
        str | None, typer.Option("-u", "--unitName", help="unit name of the sender of -s")
    ] = None,
    body_format: BodyFormat = None,
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
) -> Report:
    """Find messages by the broker's offset id or the producer's unique id, and who has consumed them."""
    if (group is None) != (client_id is None):
        raise typer.BadParameter("-g and -d belong together: the group, and which of its clients")
    again = truth(send)
    with session.current.admin() as admin:
        found = [_find(admin, message_id.strip(), topic) for message_id in message_ids.split(",")]
        if group is not None and client_id is not None:
            return push_to_client(admin, found, group, client_id)
        if again:
            return send_again(found, unit)
        report = Report("Message", [])
        for message in found:
            _add_details(report, admin, message, body_format)
    return report


def query_by_key(
    topic: Topic,
    key: Annotated[str, typer.Option("-k", "--msgKey", help="key, exactly")],
    begin: Annotated[int, typer.Option("-b", "--beginTimestamp", help="stored from then on, ms")] = 0,
    end: Annotated[int, typer.Option("-e", "--endTimestamp", help="stored until then, ms")] = FAR_FUTURE_MS,
    max_count: Annotated[int, typer.Option("-m", "--maxNum", help="at most so many")] = 64,
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
) -> Report:
    """Find messages by one of their keys."""
    with session.current.admin() as admin:
        found = admin.query_message(topic, key, max_count, begin, end)
    columns = (
        Column("#Message ID", "msgId", 50),
        Column("#QID", "queueId", 4),
        Column("#Offset", "queueOffset"),
    )
    return Report("MessageList", [message_item(message) for message in found], columns)


def query_by_offset(
    topic: Topic,
    broker: Annotated[str, typer.Option("-b", "--brokerName", help="broker name")],
    queue_id: Annotated[int, typer.Option("-i", "--queueId", help="queue id")],
    offset: Annotated[int, typer.Option("-o", "--offset", help="queue offset")],
    body_format: BodyFormat = None,
) -> Report:
    """Show the message at one queue offset; nothing when the queue holds none there."""
    report = Report("Message", [])
    with session.current.admin() as admin:
        message = admin.message_at(MessageQueue(topic, broker, queue_id), offset)
        if message is not None:
            _add_details(report, admin, message, body_format)
    return report


def _find(admin: AdminClient, message_id: str, topic: str | None) -> MessageExt:
    """By offset id if it is one and leads somewhere, else by unique id in the topic (or in all)."""
    try:
        parse_offset_message_id(message_id)
        return admin.view_message(message_id)
    except (InvalidParameter, ShmqError, OSError):
        # A unique id has the same form as an offset id; its bytes then name no broker, or none that answers.
        pass
    for name in [topic] if topic else admin.topic_list():
        if name.startswith((RETRY_PREFIX, DLQ_PREFIX)) and not topic:
            continue
        if found := admin.query_by_unique_key(name, message_id):
            return found[0]
    raise QueryNotFound(f"no message has the id {message_id}{f' in topic {topic}' if topic else ''}")


def _add_details(report: Report, admin: AdminClient, message: MessageExt, body_format: str | None) -> None:
    """Append one message: its fields, then one line per group that subscribes to its topic."""
    tracks = _tracks(admin, message)
    report.items.append({**message_item(message), "messageTracks": tracks})
    report.lines += _detail_lines(message, body_format)
    report.lines += ["", ""]
    report.lines += [
        f"MessageTrack [consumerGroup={track['consumerGroup']}, trackType={track['trackType']}, "
        f"exceptionDesc={track['exceptionDesc'] or 'null'}]"
        for track in tracks
    ] or ["WARN: No Consumer"]


def _detail_lines(message: MessageExt, body_format: str | None) -> list[str]:
    fields = {
        "OffsetID": message.offset_msg_id,
        "Topic": message.topic,
        "Tags": f"[{message.tags or 'null'}]",
        "Keys": f"[{message.keys or 'null'}]",
        "Queue ID": message.queue_id,
        "Queue Offset": message.queue_offset,
        "CommitLog Offset": message.physical_offset,
        "Reconsume Times": message.reconsume_times,
        "Born Timestamp": local_time(message.born_timestamp),
        "Store Timestamp": local_time(message.store_timestamp),
        "Born Host": message.born_host,
        "Store Host": message.store_host,
        "System Flag": message.sys_flag,
        "Properties": "{" + ", ".join(f"{name}={value}" for name, value in message.properties.items()) + "}",
        "Message Body Path": _write_body(message) if not session.current.as_json else "",
    }
    if body_format:
        fields["Message Body"] = message.body.decode(body_format, "replace")
    return [f"{name + ':':<{LABEL_WIDTH}} {value}" for name, value in fields.items()]


def _write_body(message: MessageExt) -> str:
    """Store the body in a file that only this user can read; mqadmin's /tmp/rocketmq is open to everybody."""
    folder = Path(tempfile.gettempdir()) / f"shmq-admin-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        print(f"{folder} is not ours alone: body not written", file=sys.stderr)
        return ""
    path = folder / message.msg_id
    path.write_bytes(message.body)
    return str(path)


def _tracks(admin: AdminClient, message: MessageExt) -> list[Item]:
    tracks = []
    for group in sorted(admin.groups_of_topic(message.topic)):
        try:
            kind, reason = _track(admin, group, message), None
        except ConsumerNotOnline as error:
            kind, reason = "NOT_ONLINE", f"CODE:206 DESC:{error}"
        except (ShmqError, OSError) as error:
            kind, reason = "UNKNOWN", str(error)
        tracks.append({"consumerGroup": group, "trackType": kind, "exceptionDesc": reason})
    return tracks


def _track(admin: AdminClient, group: str, message: MessageExt) -> str:
    """What became of a message in one group, by the members' kind and the group's offset on its queue."""
    members = admin.consumer_connections(group)
    if members.consume_type is ConsumeType.CONSUME_ACTIVELY:
        return "PULL"
    if members.message_model is MessageModel.BROADCASTING:
        return "CONSUME_BROADCASTING"
    for queue, offsets in admin.consume_stats(group, message.topic).offset_table.items():
        if queue.queue_id == message.queue_id and queue.topic == message.topic:
            if offsets.consumer_offset <= message.queue_offset:
                return "NOT_CONSUME_YET"
            subscription = members.subscriptions.get(message.topic)
            if subscription is None or subscription.sub_string == SUBSCRIBE_ALL:
                return "CONSUMED"
            return "CONSUMED" if message.tags in subscription.tags_set else "CONSUMED_BUT_FILTERED"
    return "UNKNOWN"
