"""Namespaces: two programs that use the same names and never meet."""

from __future__ import annotations

import threading

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PushConsumer,
    RemotingError,
)
from shmq.client.broker_calls import BrokerCalls
from shmq.embedded import Broker
from shmq.model.names import with_namespace, without_namespace
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


def test_names_are_wrapped_once_and_unwrapped() -> None:
    for name, wrapped in (
        ("Orders", "ns%Orders"),
        ("ns%Orders", "ns%Orders"),
        ("%RETRY%Group", "%RETRY%ns%Group"),
        ("%DLQ%ns%Group", "%DLQ%ns%Group"),
        ("TBW102", "TBW102"),
        ("CID_RMQ_SYS_X", "CID_RMQ_SYS_X"),
    ):
        assert with_namespace("ns", name) == wrapped
        assert with_namespace(None, name) == name
        assert without_namespace(None, wrapped) == wrapped
    assert without_namespace("ns", "%RETRY%ns%Group") == "%RETRY%Group"
    assert without_namespace("ns", "other%Orders") == "other%Orders"


@pytest.mark.parametrize(
    "way_back",
    [pytest.param(True, id="given-back"), pytest.param(False, id="published", marks=pytest.mark.long)],
)
def test_equal_names_in_two_namespaces_are_two_things(
    make_broker,
    monkeypatch: pytest.MonkeyPatch,
    way_back: bool,  # type: ignore[no-untyped-def]
) -> None:
    broker: Broker = make_broker(messageDelayLevel="1s 1s 1s")
    if not way_back:

        def refuse(*_: object) -> str:
            raise RemotingError("the way back is closed")

        monkeypatch.setattr(BrokerCalls, "send_back", refuse)
    seen: dict[str, list[tuple[str, bytes, int]]] = {"one": [], "two": []}
    lock = threading.Lock()

    def member(namespace: str) -> PushConsumer:
        def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
            with lock:
                seen[namespace] += [(m.topic, m.body, m.reconsume_times) for m in messages]
            if messages[0].body == b"again" and not messages[0].reconsume_times:
                return ConsumeConcurrentlyStatus.RECONSUME_LATER
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        consumer = PushConsumer(
            "Group", namesrv_addr=broker.namesrv_addr, namespace=namespace, consume_from_where=FIRST
        )
        consumer.subscribe("Orders", "*")
        consumer.register_message_listener(consume)
        return consumer

    for namespace in seen:
        with Producer("Sender", namesrv_addr=broker.namesrv_addr, namespace=namespace) as producer:
            producer.create_topic("Orders", 1)
            message = Message("Orders", namespace.encode())
            sent = producer.send(message)
            assert sent.message_queue.topic == f"{namespace}%Orders"
            producer.send_async(Message("Orders", b"async")).result(10)
            producer.send([Message("Orders", b"batch")])
            producer.send_oneway(Message("Orders", b"again"))
            assert [queue.topic for queue in producer.fetch_publish_message_queues("Orders")]
    with member("one"), member("two"):
        wait_until(lambda: all(len(found) == 5 for found in seen.values()), 20, "each its own, and a retry")
    for namespace, found in seen.items():
        assert {topic for topic, _, _ in found} == {"Orders"}
        bodies = sorted((body, tries) for _, body, tries in found)
        own = namespace.encode()
        assert bodies == sorted([(b"async", 0), (b"batch", 0), (b"again", 0), (b"again", 1), (own, 0)])
    with AdminClient(broker.namesrv_addr) as admin:
        assert {"one%Orders", "two%Orders", "%RETRY%one%Group"} <= set(admin.topic_list())
    pulling = PullConsumer("Pulls", namesrv_addr=broker.namesrv_addr, namespace="two")
    lite = LitePullConsumer(
        "Lite", namesrv_addr=broker.namesrv_addr, namespace="two", consume_from_where=FIRST
    )
    lite.subscribe("Orders")
    with pulling, lite:
        (queue,) = pulling.fetch_subscribe_message_queues("Orders")
        assert {m.topic for m in pulling.pull(queue, "*", 0, 32).messages} == {"Orders"}
        assert {m.topic for m in wait_until(lambda: lite.poll(500), 20, "polled")} == {"Orders"}
