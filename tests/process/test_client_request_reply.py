"""Request and reply: through a real broker, between clients of one and of several connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shmq import (
    ClientError,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageIllegal,
    Producer,
    PullConsumer,
    PushConsumer,
    RequestTimeout,
    ShmqError,
    aio,
    create_reply_message,
)
from shmq.embedded import Broker
from shmq.model.properties import CORRELATION_ID, PUSH_REPLY_TIME
from tests.helpers.waiting import wait_until


@contextmanager
def responder(broker: Broker, topic: str, hold: threading.Event | None = None) -> Iterator[list[Message]]:
    """Consume a topic and answer every message with its body in capitals."""
    sent: list[Message] = []
    consumer = PushConsumer(f"{topic}Responder", namesrv_addr=broker.namesrv_addr)
    consumer.subscribe(topic)
    with Producer(f"{topic}Answers", namesrv_addr=broker.namesrv_addr) as producer:

        def answer(messages: list[MessageExt], _: object) -> None:
            if hold is not None:
                hold.wait(20)
            for message in messages:
                sent.append(create_reply_message(message, message.body.upper()))
                producer.send(sent[-1])

        consumer.register_message_listener(answer)
        producer.create_topic(topic, 1)
        with consumer:
            wait_until(lambda: bool(consumer.assigned_queues), 20, "the responder has its queue")
            yield sent


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_a_request_gets_the_reply_to_itself(shared_broker: Broker, unix: bool) -> None:
    """Checklist 267."""
    topic = f"Ask{unix}"
    with (
        responder(shared_broker, topic) as sent,
        Producer("Asking", namesrv_addr=shared_broker.namesrv_addr, use_unix_socket=unix) as producer,
    ):
        for number in range(5):
            reply = producer.request(Message(topic, b"hello %d" % number), timeout_ms=10_000)
            assert reply.body == b"HELLO %d" % number
            assert reply.properties[CORRELATION_ID] == sent[-1].properties[CORRELATION_ID]
            assert reply.properties[PUSH_REPLY_TIME]
            assert reply.topic.endswith("_REPLY_TOPIC")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["pull", "lite"])
def test_any_consumer_may_reply(shared_broker: Broker, kind: str) -> None:
    topic = f"AskOne{kind}"
    address = {"namesrv_addr": shared_broker.namesrv_addr}
    with Producer(f"{topic}Asking", **address) as asking, Producer(f"{topic}Answers", **address) as answering:
        asking.create_topic(topic, 1)
        if kind == "pull":
            with PullConsumer(f"{topic}Group", **address) as pulling:
                (queue,) = pulling.fetch_subscribe_message_queues(topic)
                reply = asking.request_async(Message(topic, b"hello"), timeout_ms=20_000)
                (found,) = pulling.pull_block_if_not_found(queue, "*", 0, 1).messages
                answering.send(create_reply_message(found, b"pulled"))
                assert reply.result(20).body == b"pulled"
            return
        lite = LitePullConsumer(
            f"{topic}Group", consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, **address
        )
        lite.subscribe(topic)
        with lite:
            reply = asking.request_async(Message(topic, b"hello"), timeout_ms=20_000)
            polled: list[MessageExt] = []

            def poll() -> bool:
                polled.extend(lite.poll(200))
                return bool(polled)

            wait_until(poll, 20, "the request is polled")
            answering.send(create_reply_message(polled[0], b"polled"))
            assert reply.result(20).body == b"polled"


@pytest.mark.long
def test_a_request_that_cannot_be_sent_says_so_at_once(shared_broker: Broker) -> None:
    with Producer("AskBadly", namesrv_addr=shared_broker.namesrv_addr) as producer:
        for wrong in (Message("SCHEDULE_TOPIC_XXXX", b"?"), Message("AskBadly", b"x" * (5 << 20))):
            with pytest.raises(ShmqError) as caught:
                producer.request(wrong, timeout_ms=60_000)
            assert not isinstance(caught.value, RequestTimeout)


def test_requests_of_an_event_loop_are_answered_side_by_side(shared_broker: Broker) -> None:
    async def run() -> None:
        async with aio.Producer("AskingAio", namesrv_addr=shared_broker.namesrv_addr) as producer:
            with pytest.raises(MessageIllegal):
                await producer.request(Message("AskAio", b""))
            asked = (producer.request(Message("AskAio", b"a %d" % n), timeout_ms=20_000) for n in range(10))
            assert [reply.body for reply in await asyncio.gather(*asked)] == [b"A %d" % n for n in range(10)]
            with pytest.raises(RequestTimeout):
                await producer.request(Message("AskNobody", b"?"), timeout_ms=200)

    with responder(shared_broker, "AskAio"):
        asyncio.run(run())


def test_many_requests_at_once_each_get_their_own(shared_broker: Broker) -> None:
    with (
        responder(shared_broker, "AskMany"),
        Producer("AskingMany", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        replies = [
            producer.request_async(Message("AskMany", b"a %d" % n), timeout_ms=20_000) for n in range(50)
        ]
        assert [reply.result(20).body for reply in replies] == [b"A %d" % n for n in range(50)]


@pytest.mark.long
def test_without_a_reply_the_request_ends_in_10006(shared_broker: Broker) -> None:
    """Checklist 268."""
    with Producer("AskingNobody", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("AskNobody", 1)
        with pytest.raises(RequestTimeout) as caught:
            producer.request(Message("AskNobody", b"?"), timeout_ms=300)
        assert caught.value.code == 10006
        failed: list[BaseException] = []
        producer.request_async(Message("AskNobody", b"?"), None, failed.append, timeout_ms=200)
        wait_until(lambda: bool(failed), 10, "the future fails by itself")
        assert isinstance(failed[0], RequestTimeout)


def test_a_late_reply_is_dropped_and_the_callback_runs_for_replies_only(shared_broker: Broker) -> None:
    """Checklist 269 and 270."""
    hold = threading.Event()
    with (
        responder(shared_broker, "AskLate", hold) as sent,
        Producer("AskingLate", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        with pytest.raises(RequestTimeout):
            producer.request(Message("AskLate", b"too late"), timeout_ms=300)
        got: list[bytes] = []
        queue = producer.fetch_publish_message_queues("AskLate")[0]
        before = producer.max_offset(queue)
        question = Message("AskLate", b"in time")
        producer.request_async(question, lambda reply: got.append(reply.body), timeout_ms=20_000)
        wait_until(lambda: producer.max_offset(queue) == before + 1, 10, "the broker has the request")
        assert got == []
        hold.set()
        wait_until(lambda: got == [b"IN TIME"], 20, "the reply arrives")
        assert len(sent) == 2


def test_what_is_no_request_cannot_be_answered_and_a_gone_client_is_said_to_be_gone(
    shared_broker: Broker,
) -> None:
    with Producer("AskGone", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send(Message("AskGone", b"plain"))
        found: list[MessageExt] = []
        consumer = PushConsumer("AskGoneReader", namesrv_addr=shared_broker.namesrv_addr)
        consumer.config.consume_from_where = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
        consumer.subscribe("AskGone")
        consumer.register_message_listener(lambda messages, _: found.extend(messages))
        with consumer:
            wait_until(lambda: bool(found), 20, "the plain message arrives")
            with pytest.raises(ClientError) as caught:
                create_reply_message(found[0], b"?")
            assert caught.value.code == 10007
            with Producer("AskAndGo", namesrv_addr=shared_broker.namesrv_addr) as asking:
                asking.request_async(Message("AskGone", b"request"), timeout_ms=20_000)
                wait_until(lambda: len(found) == 2, 20, "the request arrives")
            with pytest.raises(ClientError, match="is not connected"):
                producer.send(create_reply_message(found[1], b"?"))
