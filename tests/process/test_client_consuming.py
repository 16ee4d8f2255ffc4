"""Push, pull and lite pull consumers on a real broker: delivery, filters, offsets, bounds, direct pull."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

import pytest

from shmq import (
    AdminClient,
    ClientFault,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageModel,
    MessageQueue,
    Producer,
    PullConsumer,
    PullScheduleService,
    PullStatus,
    PullTaskContext,
    PushConsumer,
)
from shmq.base.errors import InvalidParameter, QueryNotFound
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

DIRECT = pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])


def send(
    broker: Broker, topic: str, count: int, tag: Callable[[int], str | None] = lambda n: None
) -> list[bytes]:
    """Send numbered messages and return their bodies."""
    bodies = [b"%s %d" % (topic.encode(), number) for number in range(count)]
    with Producer("ClientTests", namesrv_addr=broker.namesrv_addr) as producer:
        futures = [
            producer.send_async(Message(topic, body, tags=tag(number), keys=f"k{number}"))
            for number, body in enumerate(bodies)
        ]
        for future in futures:
            future.result(20)
    return bodies


class Collector:
    """A listener that remembers what it got."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.messages: list[MessageExt] = []
        self.sizes: list[int] = []

    def __call__(
        self, messages: list[MessageExt], context: ConsumeConcurrentlyContext
    ) -> ConsumeConcurrentlyStatus:
        with self.lock:
            self.messages += messages
            self.sizes.append(len(messages))
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    @property
    def bodies(self) -> list[bytes]:
        with self.lock:
            return [bytes(message.body) for message in self.messages]


def make_consumer(
    broker: Broker, group: str, topic: str, listener: object, **settings: object
) -> PushConsumer:
    settings = {"consume_from_where": ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, **settings}
    expression = settings.pop("expression", "*")
    consumer = PushConsumer(group, namesrv_addr=broker.namesrv_addr, **settings)
    consumer.subscribe(topic, str(expression))
    consumer.register_message_listener(listener)  # type: ignore[arg-type]
    return consumer


@contextmanager
def counted_direct_reads(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Count the batches that were really read through the maps."""
    from shmq.client import direct_reader

    reads: list[PullStatus] = []
    original = direct_reader.DirectReader.pull

    def counted(self: direct_reader.DirectReader, *arguments: object) -> object:
        result = original(self, *arguments)  # type: ignore[arg-type]
        if result is not None:
            reads.append(result.status)
        return result

    monkeypatch.setattr(direct_reader.DirectReader, "pull", counted)
    yield reads


@DIRECT
def test_every_message_is_delivered_and_the_offsets_are_committed(
    shared_broker: Broker, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = f"Deliver{direct}", f"DeliverGroup{direct}"
    bodies = send(shared_broker, topic, 2000)
    collector = Collector()
    with (
        counted_direct_reads(monkeypatch) as reads,
        make_consumer(shared_broker, group, topic, collector, direct_pull=direct),
    ):
        wait_until(lambda: len(collector.messages) >= 2000, limit_s=30)
    assert sorted(collector.bodies) == sorted(bodies)
    assert (PullStatus.FOUND in reads) is direct
    with AdminClient(shared_broker.namesrv_addr) as admin:
        stats = admin.consume_stats(group, topic)
    assert sum(o.broker_offset for o in stats.offset_table.values()) == 2000
    assert all(o.consumer_offset == o.broker_offset for o in stats.offset_table.values())


def test_pulls_give_the_same_with_and_without_direct_reading(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(shared_broker, "Same", 300, lambda n: ["TagA", "TagB", None][n % 3])
    pulled: dict[bool, list[tuple[object, ...]]] = {}
    with counted_direct_reads(monkeypatch) as reads:
        for direct in (True, False):
            before = len(reads)
            with PullConsumer(
                f"Same{direct}", namesrv_addr=shared_broker.namesrv_addr, direct_pull=direct
            ) as consumer:
                seen: list[tuple[object, ...]] = []
                for queue in consumer.fetch_subscribe_message_queues("Same"):
                    for expression in ("*", "TagA", "TagA || TagB", "NoSuchTag"):
                        offset, status = 0, PullStatus.FOUND
                        while status in (PullStatus.FOUND, PullStatus.NO_MATCHED_MSG):
                            result = consumer.pull(queue, expression, offset, 7)
                            status, offset = result.status, result.next_begin_offset
                            facts = [
                                (m.msg_id, m.queue_offset, m.tags, bytes(m.body)) for m in result.messages
                            ]
                            seen += [(queue, expression, *fact) for fact in facts]
                            assert (result.min_offset, result.max_offset) == (0, consumer.max_offset(queue))
                        assert offset == consumer.max_offset(queue)
                pulled[direct] = seen
            assert (len(reads) > before) is direct
    assert pulled[True] == pulled[False]
    assert len(pulled[True]) == 300 + 100 + 200


@DIRECT
def test_the_four_pull_statuses(shared_broker: Broker, direct: bool) -> None:
    topic = f"Statuses{direct}"
    send(shared_broker, topic, 8, lambda n: "TagA")
    with PullConsumer("StatusGroup", namesrv_addr=shared_broker.namesrv_addr, direct_pull=direct) as consumer:
        queue = consumer.fetch_subscribe_message_queues(topic)[0]
        high = consumer.max_offset(queue)
        for _ in range(2):  # the first pull of a queue is by socket, the next may be direct
            assert consumer.pull(queue, "TagA", 0, 32).status is PullStatus.FOUND
            assert consumer.pull(queue, "*", high, 32).status is PullStatus.NO_NEW_MSG
            unmatched = consumer.pull(queue, "TagB", 0, 32)
            assert (unmatched.status, unmatched.next_begin_offset) == (PullStatus.NO_MATCHED_MSG, high)
            beyond = consumer.pull(queue, "*", high + 10, 32)
            assert (beyond.status, beyond.next_begin_offset) == (PullStatus.OFFSET_ILLEGAL, high)
        with pytest.raises(InvalidParameter):
            consumer.pull(queue, "*", -1, 32)
        with pytest.raises(InvalidParameter):
            consumer.pull(queue, "*", 0, 0)


@DIRECT
def test_a_held_pull_is_answered_when_a_message_comes(shared_broker: Broker, direct: bool) -> None:
    topic = f"Held{direct}"
    with Producer("HeldProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:
        first = producer.send(Message(topic, b"first"))
        queue = first.message_queue
        with PullConsumer(
            "HeldGroup", namesrv_addr=shared_broker.namesrv_addr, direct_pull=direct
        ) as consumer:
            assert consumer.pull_block_if_not_found(queue, "*", 0, 32).status is PullStatus.FOUND
            threading.Timer(0.3, lambda: producer.send(Message(topic, b"second"), queue=queue)).start()
            started = time.monotonic()
            result = consumer.pull_block_if_not_found(queue, "*", 1, 32)
            assert [bytes(m.body) for m in result.messages] == [b"second"]
            assert 0.2 < time.monotonic() - started < 5


@DIRECT
def test_tag_expressions_select_exactly(shared_broker: Broker, direct: bool) -> None:
    topic = f"Tags{direct}"
    # The three tags share one Java hash: only the comparison of the tags themselves tells them apart.
    tags = ["AaAa", "BBBB", "AaBB", None]
    send(shared_broker, topic, 80, lambda n: tags[n % 4])
    collector = Collector()
    settings = {
        "expression": "AaAa || AaBB",
        "direct_pull": direct,
        "persist_consumer_offset_interval_ms": 200,
    }
    with make_consumer(shared_broker, f"TagGroup{direct}", topic, collector, **settings):
        wait_until(lambda: len(collector.messages) >= 40, limit_s=20)
        with AdminClient(shared_broker.namesrv_addr) as admin:
            # What does not match is passed over for good: the committed offsets reach the end.
            def all_passed() -> bool:
                table = admin.consume_stats(f"TagGroup{direct}", topic).offset_table
                return bool(table) and all(o.consumer_offset == o.broker_offset for o in table.values())

            wait_until(all_passed, limit_s=20)
    assert {message.tags for message in collector.messages} == {"AaAa", "AaBB"}
    assert len(collector.messages) == 40


def test_consumption_goes_on_where_the_group_stopped(shared_broker: Broker) -> None:
    first = send(shared_broker, "GoOn", 50)
    one, two = Collector(), Collector()
    with make_consumer(shared_broker, "GoOnGroup", "GoOn", one):
        wait_until(lambda: len(one.messages) >= 50, limit_s=20)
    second = send(shared_broker, "GoOn", 30)
    with make_consumer(shared_broker, "GoOnGroup", "GoOn", two):
        wait_until(lambda: len(two.messages) >= 30, limit_s=20)
        time.sleep(0.3)  # anything delivered twice would come now
    assert sorted(one.bodies) == sorted(first)
    assert sorted(two.bodies) == sorted(second)


@pytest.mark.long
def test_consume_from_where_decides_only_for_new_groups(shared_broker: Broker) -> None:
    with Producer("WhereProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:
        queue = producer.send(Message("Where", b"old")).message_queue
        time.sleep(1.1)
        middle = time.time()
        producer.send(Message("Where", b"new"), queue=queue)
        stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(middle))
        collector = Collector()
        from_time = {
            "consume_from_where": ConsumeFromWhere.CONSUME_FROM_TIMESTAMP,
            "consume_timestamp": stamp,
        }
        with PullConsumer("WherePull", namesrv_addr=shared_broker.namesrv_addr) as pull:
            assert pull.search_offset(queue, int(middle * 1000)) == 1
        # A broker answers 0 for a group it does not know on a young queue: the time counts only without that.
        with make_consumer(shared_broker, "WhereTime", "Where", collector, **from_time):
            wait_until(lambda: b"new" in collector.bodies, limit_s=20)


def test_a_batch_listener_gets_lists_of_at_most_its_size(shared_broker: Broker) -> None:
    send(shared_broker, "Lists", 100)
    collector = Collector()
    with make_consumer(shared_broker, "ListGroup", "Lists", collector, consume_message_batch_max_size=10):
        wait_until(lambda: len(collector.messages) >= 100, limit_s=20)
    assert max(collector.sizes) <= 10 and len(collector.sizes) < 100


def test_flow_control_holds_the_pull_back_while_the_listener_blocks(shared_broker: Broker) -> None:
    with Producer("FlowProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:
        queue = producer.send(Message("Flow", b"0")).message_queue
        producer.send([Message("Flow", b"%d" % n) for n in range(1, 500)], queue=queue)
    gate = threading.Event()
    collector = Collector()

    def blocked(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        gate.wait(30)
        return collector(messages, context)

    consumer = make_consumer(
        shared_broker,
        "FlowGroup",
        "Flow",
        blocked,
        pull_threshold_for_queue=100,
        consume_thread_max=2,
        consume_thread_min=1,
    )
    with consumer:
        held = lambda: consumer._rebalancer.owned[queue].message_count  # noqa: E731
        wait_until(lambda: queue in consumer.assigned_queues and held() > 100, limit_s=20)
        time.sleep(0.3)  # several pulls of 32 would have come by now
        assert held() <= 100 + 32
        gate.set()
        wait_until(lambda: len(collector.messages) >= 500, limit_s=30)
    assert [int(body) for body in sorted(collector.bodies, key=int)] == list(range(500))


@pytest.mark.long
def test_suspend_stops_pulling_and_resume_goes_on(shared_broker: Broker) -> None:
    send(shared_broker, "Suspend", 4)
    collector = Collector()
    with make_consumer(shared_broker, "SuspendGroup", "Suspend", collector) as consumer:
        wait_until(lambda: len(collector.messages) == 4, limit_s=20)
        consumer.suspend()
        send(shared_broker, "Suspend", 8)
        # A pull held at the broker before the suspension may still bring what ends it.
        time.sleep(1.5)
        before = len(collector.messages)
        send(shared_broker, "Suspend", 8)
        time.sleep(0.5)
        assert len(collector.messages) == before
        consumer.resume()
        wait_until(lambda: len(collector.messages) == 20, limit_s=20)


def test_two_broadcasting_consumers_both_get_everything(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("ROCKETMQ_LOCAL_OFFSET_STORE_DIR", str(tmp_path))
    bodies = send(shared_broker, "Broadcast", 40)
    collectors = [Collector(), Collector()]
    consumers = [
        make_consumer(
            shared_broker,
            "BroadcastGroup",
            "Broadcast",
            collector,
            message_model=MessageModel.BROADCASTING,
            instance_name=f"member-{number}",
        )
        for number, collector in enumerate(collectors)
    ]
    for consumer in consumers:
        consumer.start()
    wait_until(lambda: all(len(c.messages) >= 40 for c in collectors), limit_s=20)
    for consumer in consumers:
        consumer.shutdown()
    for collector in collectors:
        assert sorted(collector.bodies) == sorted(bodies)
    again = Collector()
    with make_consumer(
        shared_broker,
        "BroadcastGroup",
        "Broadcast",
        again,
        message_model=MessageModel.BROADCASTING,
        instance_name="member-0",
    ):
        more = send(shared_broker, "Broadcast", 5)
        wait_until(lambda: len(again.messages) >= 5, limit_s=20)
    assert sorted(again.bodies) == sorted(more)


def test_lite_pull_by_subscription_and_by_assignment(shared_broker: Broker) -> None:
    bodies = send(shared_broker, "Lite", 200)
    settings = {
        "namesrv_addr": shared_broker.namesrv_addr,
        "consume_from_where": ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    }
    consumer = LitePullConsumer("LiteGroup", **settings)
    consumer.subscribe("Lite")
    with pytest.raises(ClientFault):
        consumer.assign([MessageQueue("Lite", "broker-a", 0)])
    got: list[bytes] = []
    with consumer:
        wait_until(
            lambda: bool(got.extend(bytes(m.body) for m in consumer.poll(100)) or len(got) >= 200), limit_s=30
        )
        queue = sorted(consumer.assignment)[-1]
        consumer.commit(persist=True)
        assert consumer.committed(queue) == consumer.max_offset(queue)
    assert sorted(got) == sorted(bodies)

    assigned = LitePullConsumer("LiteAssigned", auto_commit=False, **settings)
    queue = MessageQueue("Lite", "broker-a", 1)
    assigned.assign([queue])
    with assigned:
        polled: list[MessageExt] = []
        wait_until(lambda: bool(polled.extend(assigned.poll(100)) or len(polled) >= 20), limit_s=30)
        assert {m.queue_id for m in polled} == {1}
        assigned.seek_to_begin(queue)
        again: list[MessageExt] = []
        wait_until(lambda: bool(again.extend(assigned.poll(100)) or again), limit_s=30)
        assert again[0].queue_offset == 0
        with pytest.raises(InvalidParameter):
            assigned.seek(queue, 10_000)
        assigned.pause([queue])
        assert assigned.poll(0) is not None


@pytest.mark.long
@DIRECT
def test_the_broker_counts_what_is_read_either_way(broker: Broker, direct: bool) -> None:
    send(broker, "Counted", 600)
    collector = Collector()
    with AdminClient(broker.namesrv_addr) as admin:

        def got() -> int:
            return int(admin.broker_runtime_info(broker.tcp_addr)["msgGetTotalTodayNow"])

        with make_consumer(broker, "CountedGroup", "Counted", collector, direct_pull=direct):
            wait_until(lambda: len(collector.messages) >= 600, limit_s=20)
        wait_until(lambda: got() >= 600, limit_s=20)  # workers report once a second
        assert got() == 600


def test_a_producer_finds_its_messages_again(shared_broker: Broker) -> None:
    with Producer("Finder", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("Findable", 2)
        assert len(producer.fetch_publish_message_queues("Findable")) == 2
        sent = producer.send(Message("Findable", b"here I am", keys="needle"))
        assert producer.view_message("Findable", sent.offset_msg_id).body == b"here I am"
        found = wait_until(lambda: producer.query_message("Findable", "needle"), limit_s=10)
        assert [message.msg_id for message in found] == [sent.msg_id]
        assert producer.view_message("Findable", sent.msg_id).offset_msg_id == sent.offset_msg_id
        with pytest.raises(QueryNotFound):
            producer.view_message("Findable", "0" * 32)


def test_tcp_clients_send_batches_and_consume_like_local_ones(shared_broker: Broker) -> None:
    where = {"namesrv_addr": shared_broker.namesrv_tcp_addr, "use_unix_socket": False}
    with Producer("TcpProducer", **where) as producer:
        sent = [producer.send(Message("OverTcp", b"sync %d" % n, tags="TagA")) for n in range(10)]
        batch = producer.send([Message("OverTcp", b"batch %d" % n, tags="TagA") for n in range(40)])
        assert batch.msg_id.count(",") == batch.offset_msg_id.count(",") == 39
        futures = [producer.send_async(Message("OverTcp", b"async %d" % n, tags="TagA")) for n in range(50)]
        results = [future.result(10) for future in futures]
        assert len({(r.message_queue, r.queue_offset) for r in (*sent, *results)}) == 60
    collector = Collector()
    consumer = PushConsumer(
        "TcpGroup", consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, **where
    )
    consumer.subscribe("OverTcp", "TagA")
    consumer.register_message_listener(collector)
    with consumer:
        wait_until(lambda: len(collector.messages) >= 100, limit_s=20)
    kinds = [(b"sync", 10), (b"batch", 40), (b"async", 50)]
    assert sorted(collector.bodies) == sorted(
        b"%s %d" % (kind, n) for kind, count in kinds for n in range(count)
    )


@pytest.mark.long
def test_the_schedule_service_calls_for_each_owned_queue_and_goes_on_after_an_error(
    shared_broker: Broker,
) -> None:
    """Two members share the queues; a task that raises is called again; nothing runs after the shutdown."""
    topic = "Scheduled"
    with Producer("ClientTests", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic(topic, 4)
    calls: dict[str, set[int]] = {"one": set(), "two": set()}
    raised: list[int] = []

    def make(name: str) -> PullScheduleService:
        def task(queue: MessageQueue, context: PullTaskContext) -> None:
            context.pull_next_delay_time_millis = 20
            if not raised:
                raised.append(queue.queue_id)
                raise ValueError("the first call fails")
            calls[name].add(queue.queue_id)

        service = PullScheduleService("ScheduleGroup", namesrv_addr=shared_broker.namesrv_addr)
        service.register_pull_task_callback(topic, task)
        return service

    with make("one") as one:
        wait_until(lambda: calls["one"] == {0, 1, 2, 3}, 20, "one member has all queues")
        assert len(raised) == 1
        with make("two"):
            wait_until(lambda: len(calls["two"]) == 2, 20, "the second member has its share")
            wait_until(lambda: len(one.consumer.fetch_message_queues_in_balance(topic)) == 2, 20)
        with pytest.raises(ClientFault):
            one.register_pull_task_callback("Another", lambda queue, context: None)
    calls["one"].clear()
    with pytest.raises(ClientFault):
        PullScheduleService("ScheduleGroup", namesrv_addr=shared_broker.namesrv_addr).start()
    assert not calls["one"]
