"""Message traces: what producers and consumers tell in the trace topic, in RocketMQ's format."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

import pytest

from shmq import (
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    LocalTransactionState,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
    RemotingError,
    SendResult,
    TransactionProducer,
)
from shmq.client import trace
from shmq.client.consume_hooks import ConsumeContext
from shmq.client.end_transaction_hooks import EndTransactionContext
from shmq.embedded import Broker
from shmq.model.names import TRACE_TOPIC
from shmq.model.trace_record import TracedReturn, TracedType, decode_traces
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


def records(broker: Broker, topic: str = TRACE_TOPIC) -> dict[str, list[list[str]]]:
    """All records of a trace topic by their type, and the keys of their messages under `keys`."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    with PullConsumer("TraceReader", namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(topic):
            offset = 0
            while (result := reader.pull(queue, "*", offset, 100)).status is PullStatus.FOUND:
                for message in result.messages:
                    found["keys"].append(message.key_list)
                    for kind, *fields in decode_traces(message.body):
                        found[kind].append(fields)
                offset = result.next_begin_offset
    return found


class Flaky:
    """A listener that raises at the first delivery."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        self.calls += 1
        if not messages[0].reconsume_times:
            raise ValueError("not yet")
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS


@pytest.mark.long
def test_a_traced_message_is_told_of_by_sender_and_listeners(make_broker) -> None:  # type: ignore[no-untyped-def]
    """Checklist 271: Pub, SubBefore and SubAfter have its id and keys."""
    broker = make_broker(messageDelayLevel="1s 1s 1s")
    settings = {"namesrv_addr": broker.namesrv_addr, "enable_msg_trace": True}
    listener = Flaky()
    with Producer("TraceSender", **settings) as producer:
        producer.create_topic("Traced", 1)
        sent = producer.send(Message("Traced", b"body", tags="T", keys="k1 k2"))
        batch = producer.send([Message("Traced", b"1"), Message("Traced", b"2")])
        late = producer.send(Message("Traced", b"later", delay_level=1))
        consumer = PushConsumer("TraceGroup", consume_from_where=FIRST, **settings)
        consumer.subscribe("Traced", "T")
        consumer.register_message_listener(listener)
        with consumer:
            wait_until(lambda: listener.calls == 2, 20, "the second delivery")
    found = records(broker)
    pubs = {fields[4]: fields for fields in found["Pub"]}
    pub = pubs[sent.msg_id]
    assert pub[1:8] == ["DefaultRegion", "TraceSender", "Traced", sent.msg_id, "T", "k1 k2", broker.tcp_addr]
    assert [pub[8], *pub[10:]] == ["4", str(TracedType.NORMAL.value), sent.offset_msg_id, "true"]
    assert pubs[late.msg_id][10] == str(TracedType.DELAY.value)
    assert batch.msg_id in pubs and pubs[batch.msg_id][8] == "1"
    before, after = found["SubBefore"], found["SubAfter"]
    assert [fields[1:3] + fields[4:] for fields in before] == [
        ["DefaultRegion", "TraceGroup", sent.msg_id, "0", "k1 k2"],
        ["DefaultRegion", "TraceGroup", sent.msg_id, "1", "k1 k2"],
    ]
    assert [fields[0] for fields in after] == [fields[3] for fields in before], "one id for each call"
    assert [[fields[1], *fields[3:6], fields[7]] for fields in after] == [
        [sent.msg_id, "false", "k1 k2", str(TracedReturn.EXCEPTION.value), "TraceGroup"],
        [sent.msg_id, "true", "k1 k2", str(TracedReturn.SUCCESS.value), "TraceGroup"],
    ]
    keys = {key for of_message in found["keys"] for key in of_message}
    assert {sent.msg_id, "k1", "k2", *batch.msg_id.split(",")} <= keys


def test_traces_go_to_another_topic_when_asked_and_failures_are_told(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "FLUSH_S", 0.1)
    settings = {
        "namesrv_addr": shared_broker.namesrv_addr,
        "enable_msg_trace": True,
        "customized_trace_topic": "MyTraces",
    }
    with Producer("TraceOther", **settings) as producer:
        producer.create_topic("TracedOther", 1)
        sent = producer.send(Message("TracedOther", b"x"))
        with pytest.raises(Exception, match="queue id 7"):
            producer.send(Message("TracedOther", b"y"), queue=sent.message_queue._replace(queue_id=7))
        consumer = LitePullConsumer("TraceLite", consume_from_where=FIRST, **settings)
        consumer.subscribe("TracedOther")
        with consumer:
            wait_until(lambda: consumer.poll(500), 20, "polled")

        def told() -> bool:
            found = records(shared_broker, "MyTraces")
            return len(found["Pub"]) == 2 and len(found["SubAfter"]) == 1

        wait_until(told, 20, "all is told")
    assert [fields[-1] for fields in records(shared_broker, "MyTraces")["Pub"]] == ["true", "false"]


def test_names_are_told_without_their_namespace(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "FLUSH_S", 0.1)
    settings = {
        "namesrv_addr": shared_broker.namesrv_addr,
        "namespace": "told",
        "enable_msg_trace": True,
        "customized_trace_topic": "NsTraces",
    }
    with Producer("TraceNs", **settings) as producer:
        producer.create_topic("TracedNs", 1)
        producer.send(Message("TracedNs", b"x"))
        producer.send(Message("NsTraces", b"of traces nothing is told"))
        consumer = LitePullConsumer("TraceNsLite", consume_from_where=FIRST, **settings)
        consumer.subscribe("TracedNs")
        with consumer:
            wait_until(lambda: consumer.poll(500), 20, "polled")
        wait_until(lambda: records(shared_broker, "told%NsTraces")["SubAfter"], 20, "all is told")
    found = records(shared_broker, "told%NsTraces")
    assert [fields[2:4] for fields in found["Pub"]] == [["TraceNs", "TracedNs"]]
    assert [fields[-1] for fields in found["SubAfter"]] == ["TraceNsLite"]


@pytest.mark.long
def test_the_outcomes_of_transactions_are_seen_by_hooks_and_told(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EndTransaction records, for what the sender says and for what it answers to a check."""
    monkeypatch.setattr(trace, "FLUSH_S", 0.1)
    broker = make_broker(transactionTimeOut="200", transactionCheckInterval="100")
    states = {b"1": "COMMIT_MESSAGE", b"2": "ROLLBACK_MESSAGE", b"3": "UNKNOW"}
    seen: list[tuple[str, str, bool]] = []

    class Listener:
        def execute_local_transaction(self, message: Message, _: object) -> LocalTransactionState:
            return LocalTransactionState[states[bytes(message.body)]]

        def check_local_transaction(self, _: MessageExt) -> LocalTransactionState:
            return LocalTransactionState.COMMIT_MESSAGE

    class Hook:
        def end_transaction(self, context: EndTransactionContext) -> None:
            seen.append((context.msg_id, context.transaction_state.name, context.from_transaction_check))
            raise RuntimeError("a hook's own trouble")

    settings = {"namesrv_addr": broker.namesrv_addr, "enable_msg_trace": True}
    with TransactionProducer("TraceEnds", Listener(), **settings) as producer:
        producer.register_end_transaction_hook(Hook())
        producer.create_topic("TracedEnds", 1)
        sent = {
            body: producer.send_message_in_transaction(
                Message("TracedEnds", body, tags="T", keys=f"k{body.decode()}")
            )
            for body in states
        }
        wait_until(lambda: len(seen) >= 4, 20, "three outcomes, and the answer to a check")
    ids = {body: result.msg_id for body, result in sent.items()}
    outcomes = [*((body, state, False) for body, state in states.items()), (b"3", "COMMIT_MESSAGE", True)]
    # A broker that was answered too late asks again.
    assert set(seen) == {(ids[body], state, checked) for body, state, checked in outcomes}
    found = records(broker)
    assert len(found["EndTransaction"]) == len(seen)
    told = [
        [
            *("DefaultRegion", "TraceEnds", "TracedEnds", ids[body], "T", f"k{body.decode()}"),
            *(broker.tcp_addr, str(TracedType.COMMIT.value), sent[body].transaction_id),
            *(state, "true" if checked else "false"),
        ]
        for body, state, checked in outcomes
    ]
    assert {tuple(fields[1:]) for fields in found["EndTransaction"]} == set(map(tuple, told))
    assert {fields[10] for fields in found["Pub"]} == {str(TracedType.HALF.value)}
    assert {ids[b"1"], "k1"} <= {key for of_message in found["keys"] for key in of_message}


def test_a_full_buffer_drops_records_and_delays_no_send(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 272."""
    gate = threading.Event()
    monkeypatch.setattr(trace, "BUFFER_MAX", 20)

    def stuck(self: Producer, message: Message, **_: object) -> SendResult:
        gate.wait(20)
        raise RemotingError("of no use")

    with Producer("TraceFull", namesrv_addr=shared_broker.namesrv_addr, enable_msg_trace=True) as producer:
        producer.create_topic("TracedFull", 1)
        tracer = producer._tracer
        assert tracer is not None
        monkeypatch.setattr(tracer._producer, "send", stuck.__get__(tracer._producer))
        for number in range(100):
            producer.send(Message("TracedFull", b"%d" % number))
        assert tracer.dropped >= 100 - 20 - trace.BATCH_MAX
        gate.set()


def test_hooks_see_sends_and_calls_and_may_raise(shared_broker: Broker) -> None:
    seen: list[tuple[str, str, bool]] = []

    class Hook:
        def consume_message_before(self, context: ConsumeContext) -> None:
            context.notes["begun"] = True
            raise RuntimeError("a hook's own trouble")

        def consume_message_after(self, context: ConsumeContext) -> None:
            seen.append((context.group, context.status, context.notes["begun"]))

    with Producer("Hooked", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("HookedTopic", 1)
        producer.send(Message("HookedTopic", b"x"))
    consumer = PushConsumer("HookedGroup", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST)
    consumer.subscribe("HookedTopic")
    consumer.register_message_listener(lambda messages, _: ConsumeConcurrentlyStatus.CONSUME_SUCCESS)
    consumer.register_consume_message_hook(Hook())
    with consumer:
        wait_until(lambda: seen, 20, "the hook has seen the call")
    assert seen == [("HookedGroup", "CONSUME_SUCCESS", True)]
