"""Messages: send one, pull some and print them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.message_item import message_item
from shmq.admin.options import moment_ms, truth
from shmq.admin.output import Column, Item, Report, Stream
from shmq.base.clock import now_ms
from shmq.base.errors import TopicNotExist
from shmq.client.producer import Producer
from shmq.client.pull import PullStatus
from shmq.client.pull_consumer import PullConsumer
from shmq.client.send_result import SendResult, SendStatus
from shmq.model.host import host_text
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.model.names import TOOLS_CONSUMER_GROUP, TRACE_TOPIC
from shmq.model.trace_record import encode_sent

PRODUCER_GROUP = "TOOLS_PRODUCER"
PULL_COUNT = 32

Topic = Annotated[str, typer.Option("-t", "--topic", help="topic")]


def send_message(
    topic: Topic,
    body: Annotated[str, typer.Option("-p", "--body", help="text of the body, sent as UTF-8")],
    keys: Annotated[str | None, typer.Option("-k", "--key", help="keys, separated by blanks")] = None,
    tags: Annotated[str | None, typer.Option("-c", "--tags", help="tag")] = None,
    broker: Annotated[str | None, typer.Option("-b", "--broker", help="broker name")] = None,
    queue_id: Annotated[int | None, typer.Option("-i", "--qid", help="queue id; needs -b")] = None,
    trace: Annotated[
        str, typer.Option("-m", "--msgTraceEnable", help=f"true: tell of it in topic {TRACE_TOPIC}")
    ] = "false",
) -> Report:
    """Send one message and print where it was stored."""
    traced = truth(trace)
    if queue_id is not None and broker is None:
        raise typer.BadParameter("-i names a queue of one broker: say which with -b")
    message = Message(topic, body.encode(), tags=tags, keys=keys)
    timeout_ms = int(session.current.timeout_s * 1000)
    with Producer(PRODUCER_GROUP, namesrv_addr=session.current.namesrv) as producer:
        queue = None
        if broker is not None:
            queue = _choose(producer.fetch_publish_message_queues(topic), broker, queue_id)
        began_ms, began = now_ms(), time.monotonic()
        result = producer.send(message, queue=queue, timeout_ms=timeout_ms)
        if traced and result.trace_on:
            cost_ms = round((time.monotonic() - began) * 1000)
            producer.send(_trace_of(message, result, began_ms, cost_ms), timeout_ms=timeout_ms)
    item = {
        "brokerName": result.message_queue.broker_name,
        "queueId": result.message_queue.queue_id,
        "sendResult": result.send_status.name,
        "msgId": result.msg_id,
        "offsetMsgId": result.offset_msg_id,
        "queueOffset": result.queue_offset,
    }
    columns = (
        Column("#Broker Name", "brokerName", 32),
        Column("#QID", "queueId", 4),
        Column("#Send Result", "sendResult", 20),
        Column("#MsgId", "msgId"),
    )
    return Report("SendResult", [item], columns)


def _trace_of(message: Message, result: SendResult, began_ms: int, cost_ms: int) -> Message:
    """The message that tells of a send, for those who follow messages (mqadmin's queryMsgTraceById)."""
    host, _ = parse_offset_message_id(result.offset_msg_id)
    record = encode_sent(
        time_ms=began_ms,
        region=result.region_id,
        group=PRODUCER_GROUP,
        topic=message.topic,
        msg_id=result.msg_id,
        tags=message.tags,
        keys=message.keys,
        store_host=host_text(host),
        body_bytes=len(message.body),
        cost_ms=cost_ms,
        offset_msg_id=result.offset_msg_id,
        success=result.send_status is SendStatus.SEND_OK,
    )
    return Message(TRACE_TOPIC, record, keys=[result.msg_id, *message.key_list])


def _choose(queues: list[MessageQueue], broker: str, queue_id: int | None) -> MessageQueue:
    """The queue that was named, or the first writable one of the broker."""
    for queue in sorted(queues):
        if queue.broker_name == broker and queue_id in (None, queue.queue_id):
            return queue
    known = ", ".join(f"{queue.broker_name}:{queue.queue_id}" for queue in sorted(queues))
    raise TopicNotExist(f"the topic has no such writable queue; it has {known}")


def consume_message(
    topic: Topic,
    broker: Annotated[str | None, typer.Option("-b", "--brokerName", help="broker name, with -i")] = None,
    queue_id: Annotated[int | None, typer.Option("-i", "--queueId", help="only this queue")] = None,
    offset: Annotated[int | None, typer.Option("-o", "--offset", help="start there; needs -i")] = None,
    group: Annotated[
        str, typer.Option("-g", "--consumerGroup", help="group to pull as; nothing is committed")
    ] = TOOLS_CONSUMER_GROUP,
    begin: Annotated[
        str | None, typer.Option("-s", "--beginTimestamp", help="from: ms or yyyy-MM-dd#HH:mm:ss:SSS")
    ] = None,
    end: Annotated[str | None, typer.Option("-e", "-d", "--endTimestamp", help="to")] = None,
    count: Annotated[int, typer.Option("-c", "--MessageNumber", help="messages wanted")] = 128,
) -> Stream:
    """Pull messages and print them; the group's progress stays as it is."""
    if offset is not None and queue_id is None:
        raise typer.BadParameter("-o is an offset of one queue: say which with -i")
    begin_ms = moment_ms(begin) if begin else None
    end_ms = moment_ms(end) if end else None
    if begin_ms is not None and begin_ms > time.time() * 1000:
        raise typer.BadParameter("-s lies in the future")
    if begin_ms is not None and end_ms is not None and end_ms < begin_ms:
        raise typer.BadParameter("the end lies before the beginning")
    return Stream(_pulled(topic, broker, queue_id, offset, group, begin_ms, end_ms, count))


def _pulled(
    topic: str,
    broker: str | None,
    queue_id: int | None,
    offset: int | None,
    group: str,
    begin_ms: int | None,
    end_ms: int | None,
    count: int,
) -> Iterator[tuple[str, Item]]:
    with PullConsumer(group, namesrv_addr=session.current.namesrv) as consumer:
        queues = [
            queue
            for queue in sorted(consumer.fetch_subscribe_message_queues(topic))
            if broker in (None, queue.broker_name) and queue_id in (None, queue.queue_id)
        ]
        if not queues:
            raise TopicNotExist(f"topic {topic} has no such readable queue")
        left = count
        for queue in queues:
            if offset is not None:
                start = offset
            elif begin_ms is not None:
                start = consumer.search_offset(queue, begin_ms)
            else:
                start = consumer.min_offset(queue)
            stop = consumer.max_offset(queue)
            for message in _messages(consumer, queue, start, stop, end_ms):
                if left == 0:
                    return
                left -= 1
                yield f"MSGID: {message.msg_id} {message!r} BODY: {_text(message)}", message_item(message)


def _messages(
    consumer: PullConsumer, queue: MessageQueue, start: int, stop: int, end_ms: int | None
) -> Iterator[MessageExt]:
    """The messages of one queue from `start` to where it ended when the command began."""
    while start < stop:
        result = consumer.pull(queue, "*", start, PULL_COUNT)
        start = result.next_begin_offset
        if result.status is PullStatus.NO_NEW_MSG:
            return
        for message in result.messages:
            # Another producer may have gone on meanwhile: that is the next run's business.
            if message.queue_offset >= stop or (end_ms is not None and message.store_timestamp > end_ms):
                return
            yield message


def _text(message: MessageExt) -> str:
    return message.body.decode(errors="replace")
