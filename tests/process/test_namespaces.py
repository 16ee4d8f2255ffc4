"""Namespaces: two programs that use the same names and never meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    LocalTransactionState,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PushConsumer,
    RemotingError,
    RequestTimeout,
    TransactionProducer,
)
from shmq.base.errors import QueryNotFound
from shmq.client.broker_calls import BrokerCalls
from shmq.embedded import Broker
from shmq.model.names import with_namespace, without_namespace
from tests.helpers.waiting import wait_until
from tests.helpers.whole_broker import read_all

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
    [pytest.param(True, id="given-back"), pytest.param(False, id="published")],
)
@pytest.mark.long
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
            assert (message.topic, message.unique_key) == ("Orders", sent.msg_id)
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


def test_a_sent_message_is_its_senders_and_every_way_finds_its_topic(shared_broker: Broker) -> None:
    """The object that was sent keeps its topic; sent again elsewhere, it goes there."""
    where = {"namesrv_addr": shared_broker.namesrv_addr}
    with Producer("NsMine", namespace="mine", **where) as mine, Producer("NsNone", **where) as none:
        mine.create_topic("NsSent", 1)
        none.create_topic("NsSent", 1)
        messages = [Message("NsSent", b"%d" % number) for number in range(7)]
        mine.send(messages[0])
        mine.send(messages[1:3])
        mine.send_async(messages[3]).result(10)
        mine.send_oneway(messages[4])
        assert [piece.error for piece in mine.send_split(messages[5:])] == [None]
        assert {message.topic for message in messages} == {"NsSent"}
        assert none.send(messages[0]).message_queue.topic == "NsSent"
        wait_until(lambda: len(read_all(shared_broker, "mine%NsSent")) == 7, 20, "all are in the namespace")
        assert [message.body for message in read_all(shared_broker, "NsSent")] == [b"0"]

        def found() -> bytes | None:
            """The index has a key within a second, not at once."""
            with suppress(QueryNotFound):
                return mine.view_message("NsSent", messages[3].unique_key or "").body
            return None

        assert wait_until(found, 10, "its key is found") == b"3"
        dead = Message("%DLQ%NsMine", b"dead")
        mine.create_topic(dead.topic, 1)
        assert mine.send(dead).message_queue.topic == "%DLQ%mine%NsMine"
        assert dead.topic == "%DLQ%NsMine"
        asked = Message("NsSent", b"nobody answers")
        with pytest.raises(RequestTimeout, match="'NsSent'"):
            mine.request(asked, timeout_ms=300)
        assert asked.topic == "NsSent"
        late = mine.send(Message("NsSent", b"late", delay=timedelta(hours=1)))
        assert mine.recall_message("NsSent", late.recall_handle or "") == late.msg_id


@pytest.mark.long
def test_a_transaction_stays_in_its_namespace(make_broker: Callable[..., Broker]) -> None:
    """Its message, its group's checks, and what its listener is shown."""
    broker = make_broker(transactionTimeOut="200", transactionCheckInterval="100")
    shown: list[tuple[str, str]] = []

    class Listener:
        def execute_local_transaction(self, message: Message, argument: object) -> LocalTransactionState:
            shown.append(("execute", message.topic))
            return LocalTransactionState.UNKNOW if argument else LocalTransactionState.COMMIT_MESSAGE

        def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
            shown.append(("check", message.topic))
            return LocalTransactionState.COMMIT_MESSAGE

    settings = {"namesrv_addr": broker.namesrv_addr, "namespace": "bank"}
    with TransactionProducer("NsTransactions", Listener(), topics=["Paid"], **settings) as producer:
        producer.create_topic("Paid", 1)
        message = Message("Paid", b"at once")
        sent = producer.send_message_in_transaction(message)
        assert (message.topic, sent.message_queue.topic) == ("Paid", "bank%Paid")
        producer.send_message_in_transaction(Message("Paid", b"checked"), argument="unknown")
        wait_until(lambda: len(read_all(broker, "bank%Paid")) == 2, 20, "both are committed")
    assert [message.body for message in read_all(broker, "bank%Paid")] == [b"at once", b"checked"]
    assert set(shown) == {("execute", "Paid"), ("check", "Paid")}
