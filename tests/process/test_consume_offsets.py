"""Where consumers begin, where they go on, and who is refused: groups, modes and offsets on a real broker."""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from pathlib import Path

import pytest

from shmq import (
    AdminClient,
    BrokerError,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageModel,
    MessageQueue,
    Producer,
    PullConsumer,
    PushConsumer,
    ShmqError,
)
from shmq.admin import main
from shmq.client import broker_calls
from shmq.embedded import Broker
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.topic_config import PERM_READ, PERM_WRITE, TopicConfig
from shmq.protocol.codes import ResponseCode
from shmq.protocol.headers.offset import QueryConsumerOffsetHeader
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
LAST = ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
TIMESTAMP = ConsumeFromWhere.CONSUME_FROM_TIMESTAMP
BROADCASTING = MessageModel.BROADCASTING


class Seen:
    """A listener that keeps the bodies it was called with, and succeeds unless told otherwise."""

    def __init__(self, status: object = ConsumeConcurrentlyStatus.CONSUME_SUCCESS) -> None:
        self.status = status
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()

    def __call__(self, messages: list[MessageExt], _: object) -> object:
        with self._lock:
            self.bodies += [bytes(message.body) for message in messages]
        return self.status


@pytest.fixture
def cold(shared_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A broker to whose clients no topic is young: a new group does not begin at 0 by itself."""
    asking = functools.partial(QueryConsumerOffsetHeader, set_zero_if_not_found=False)
    monkeypatch.setattr(broker_calls, "QueryConsumerOffsetHeader", asking)
    return shared_broker


@pytest.fixture(autouse=True)
def _local_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKETMQ_LOCAL_OFFSET_STORE_DIR", str(tmp_path))


def queue_of(broker: Broker, topic: str) -> MessageQueue:
    with Producer("Offsets", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        return producer.fetch_publish_message_queues(topic)[0]


def send(broker: Broker, queue: MessageQueue, *bodies: bytes) -> None:
    with Producer("Offsets", namesrv_addr=broker.namesrv_addr) as producer:
        for body in bodies:
            producer.send(Message(queue.topic, body), queue=queue)


def member(broker: Broker, group: str, topic: str, seen: object, **settings: object) -> PushConsumer:
    made = PushConsumer(group, namesrv_addr=broker.namesrv_addr, **settings)
    made.subscribe(topic)
    made.register_message_listener(seen)  # type: ignore[arg-type]
    return made


_ends = map(b"end %d".__mod__, itertools.count())


def starts(broker: Broker, group: str, queue: MessageQueue, **settings: object) -> list[bytes]:
    """What a member gets of what is there; a last message, sent when it has its queue, ends the wait."""
    seen, end = Seen(), next(_ends)
    one = {"consume_thread_min": 1, "consume_thread_max": 1}
    with member(broker, group, queue.topic, seen, **one, **settings) as consumer:
        wait_until(lambda: queue in consumer.assigned_queues, 20, "it has its queue")
        send(broker, queue, end)
        wait_until(lambda: end in seen.bodies, 20, "the last message is there")
    return [body for body in seen.bodies if not body.startswith(b"end")]


@pytest.mark.parametrize("model", MessageModel, ids=lambda model: model.value)
def test_a_new_group_begins_exactly_where_it_is_told(cold: Broker, model: MessageModel) -> None:
    """Checklist 186, 188, 189 (and 191): first, last, and a time between two messages, to the second."""
    queue = queue_of(cold, f"Where{model.value}")
    send(cold, queue, b"1", b"2")
    with PullConsumer("WhereReader", namesrv_addr=cold.namesrv_addr) as reader:
        second = reader.pull(queue, "*", 1, 1).messages[0].store_timestamp
    stamp = second // 1000 + 1
    wait_until(lambda: time.time() >= stamp, 5, "the clock shows the next second")
    send(cold, queue, b"3", b"4")
    text = time.strftime("%Y%m%d%H%M%S", time.localtime(stamp))
    before = time.strftime("%Y%m%d%H%M%S", time.localtime(stamp - 3600))

    def group(name: str) -> str:
        return f"Where{model.value}{name}"

    def begin(name: str, where: ConsumeFromWhere, stamp: str | None = None) -> list[bytes]:
        settings = {"consume_from_where": where, "consume_timestamp": stamp, "message_model": model}
        return starts(cold, group(name), queue, **settings)

    assert begin("Last", LAST) == []
    assert begin("First", FIRST) == [b"1", b"2", b"3", b"4"]
    assert begin("Time", TIMESTAMP, text) == [b"3", b"4"]
    assert begin("Hour", TIMESTAMP, before)[:4] == [b"1", b"2", b"3", b"4"]
    assert begin("HalfAnHour", TIMESTAMP)[:4] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("model", MessageModel, ids=lambda model: model.value)
def test_a_known_group_goes_on_whatever_it_is_told(cold: Broker, model: MessageModel) -> None:
    """Checklist 184, 185, 180: a stored offset wins, the broker's or the local file's."""
    queue = queue_of(cold, f"Known{model.value}")
    send(cold, queue, b"old")
    group = f"Known{model.value}Group"

    def go_on(where: ConsumeFromWhere) -> list[bytes]:
        return starts(cold, group, queue, consume_from_where=where, message_model=model)

    assert go_on(FIRST) == [b"old"]
    for where in (LAST, TIMESTAMP, FIRST):
        send(cold, queue, b"meanwhile")
        assert go_on(where) == [b"meanwhile"]


def test_a_young_topic_is_consumed_from_its_start(shared_broker: Broker) -> None:
    """Checklist 187: RocketMQ's own rule for groups without an offset, while all is still in memory."""
    queue = queue_of(shared_broker, "YoungTopic")
    send(shared_broker, queue, b"1", b"2")
    assert starts(shared_broker, "YoungGroup", queue, consume_from_where=LAST) == [b"1", b"2"]


@pytest.mark.long
def test_a_new_group_consumes_its_retries_whatever_it_is_told(cold: Broker) -> None:
    """Checklist 190: LAST_OFFSET skips no retry."""
    queue = queue_of(cold, "RetryWhere")
    with PullConsumer("RetryWhereGroup", namesrv_addr=cold.namesrv_addr) as reader:
        send(cold, queue, b"1")
        (message,) = reader.pull(queue, "*", 0, 1).messages
        reader.send_message_back(message, delay_level=1)
        reader.update_consume_offset(queue, 1)
    seen = Seen()
    with member(cold, "RetryWhereGroup", queue.topic, seen, consume_from_where=LAST):
        wait_until(lambda: seen.bodies == [b"1"], 20, "the retry is consumed")


def test_a_broadcasting_consumer_goes_on_from_its_file_after_a_kill(
    cold: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Checklist 179, 180, 181: offsets.json in RocketMQ's form; its backup when it is damaged; failures are
    logged, not repeated."""
    queue = queue_of(cold, "Broad")
    send(cold, queue, b"1", b"2")
    seen = Seen(ConsumeConcurrentlyStatus.RECONSUME_LATER)
    settings = {"message_model": BROADCASTING, "instance_name": "radio", "consume_from_where": FIRST}
    consumer = member(cold, "BroadGroup", queue.topic, seen, **settings)
    (tmp_path / "hidden").mkdir()
    with consumer:
        file = tmp_path / consumer.client_id / "BroadGroup" / "offsets.json"
        wait_until(lambda: seen.bodies == [b"1", b"2"], 20, "both are there")
        consumer.persist_offsets()
        stored = file.read_bytes()
    assert caplog.text.count("broadcast_message_dropped") == 2
    assert b'"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"Broad"}:2}' in stored
    file.write_bytes(stored.replace(b"}:2}", b"}:1}"))  # a kill: the last progress is not in the file
    assert starts(cold, "BroadGroup", queue, **settings) == [b"2"]
    backup = file.with_name("offsets.json.bak")
    backup.write_bytes(stored)
    file.write_bytes(b"no json")
    assert starts(cold, "BroadGroup", queue, **settings) == []
    file.write_bytes(b"no json")
    backup.write_bytes(b"no json")
    with pytest.raises(Exception, match="damaged"):
        member(cold, "BroadGroup", queue.topic, seen, **settings).start()


def wait_refused(caplog: pytest.LogCaptureFixture, words: str) -> None:
    wait_until(lambda: words in caplog.text, 20, f"a pull is refused: {words}")


@pytest.mark.long
@pytest.mark.parametrize("what", ["broadcast", "consume"])
def test_a_group_that_may_not_is_told_so_and_goes_on_when_it_may(
    shared_broker: Broker, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Checklist 182 and 246: code 16; held and direct pulls end at once, too."""
    queue = queue_of(shared_broker, f"May{what}")
    group = f"May{what}Group"
    seen = Seen()
    settings = {"message_model": BROADCASTING} if what == "broadcast" else {}
    forbidden = SubscriptionGroupConfig(
        group, consume_enable=what != "consume", consume_broadcast_enable=what != "broadcast"
    )
    with (
        AdminClient(shared_broker.namesrv_addr) as admin,
        member(shared_broker, group, queue.topic, seen, **settings) as consumer,
    ):
        wait_until(lambda: queue in consumer.assigned_queues, 20, "it has its queue")
        send(shared_broker, queue, b"1")
        wait_until(lambda: seen.bodies == [b"1"], 20, "it consumes")
        admin.update_group(shared_broker.tcp_addr, forbidden)
        wait_refused(caplog, f"{what}Enable=false" if what == "consume" else "consumeBroadcastEnable=false")
        send(shared_broker, queue, b"2")
        caplog.clear()
        wait_refused(caplog, "Enable=false")
        assert seen.bodies == [b"1"]
        admin.update_group(shared_broker.tcp_addr, SubscriptionGroupConfig(group))
        wait_until(lambda: seen.bodies == [b"1", b"2"], 20, "it goes on")


@pytest.mark.parametrize("direct", [False, True], ids=["socket", "direct"])
def test_a_pull_that_names_its_own_subscription_does_not_broadcast_either(
    shared_broker: Broker, direct: bool
) -> None:
    """Checklist 182, where RocketMQ does not look: pull consumers send their expression with each pull."""
    queue = queue_of(shared_broker, f"OwnWords{direct}")
    group = f"OwnWords{direct}Group"
    send(shared_broker, queue, b"1")
    settings = {"message_model": BROADCASTING, "direct_pull": direct}
    with (
        AdminClient(shared_broker.namesrv_addr) as admin,
        PullConsumer(group, namesrv_addr=shared_broker.namesrv_addr, **settings) as consumer,
    ):
        for allowed in (True, False, True):
            admin.update_group(
                shared_broker.tcp_addr, SubscriptionGroupConfig(group, consume_broadcast_enable=allowed)
            )
            if allowed:
                assert [m.body for m in consumer.pull(queue, "*", 0, 1).messages] == [b"1"]
                continue
            with pytest.raises(BrokerError, match="consumeBroadcastEnable=false") as caught:
                consumer.pull(queue, "*", 0, 1)
            assert caught.value.code == ResponseCode.NO_PERMISSION


def test_a_member_of_another_mode_is_refused_and_nothing_changes(shared_broker: Broker) -> None:
    """The fault is named at the start; the group goes on as it was."""
    queue = queue_of(shared_broker, "OneMode")
    seen = Seen()
    with member(shared_broker, "OneModeGroup", queue.topic, seen) as consumer:
        wait_until(lambda: queue in consumer.assigned_queues, 20, "it has its queue")
        other = member(shared_broker, "OneModeGroup", queue.topic, seen, message_model=BROADCASTING)
        with pytest.raises(BrokerError, match=r"consumes by CLUSTERING .*wants BROADCASTING"):
            other.start()
        with AdminClient(shared_broker.namesrv_addr) as admin:
            found = admin.consumer_connections("OneModeGroup")
        assert found.message_model is MessageModel.CLUSTERING
        assert [one.client_id for one in found.connections] == [consumer.client_id]
        send(shared_broker, queue, b"1")
        wait_until(lambda: seen.bodies == [b"1"], 20, "the group goes on")


def status_of(broker: Broker, group: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main.run(["consumerStatus", "-g", group, "--json", "-n", broker.namesrv_addr]) == 0
    found: list[str] = json.loads(capsys.readouterr().out)["differences"]
    return found


def test_members_that_differ_are_reported(shared_broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """Checklist 163: in the broker's log (see test_clients.py) and to whoever asks."""
    queue = queue_of(shared_broker, "Differ")
    one = member(shared_broker, "DifferGroup", queue.topic, Seen(), instance_name="one")
    with one:
        wait_until(lambda: queue in one.assigned_queues, 20, "it has its queue")
        assert status_of(shared_broker, "DifferGroup", capsys) == []
        two = PushConsumer("DifferGroup", namesrv_addr=shared_broker.namesrv_addr, instance_name="two")
        two.subscribe(queue.topic, "TagA")
        two.register_message_listener_orderly(lambda messages, _: None)
        with two:
            wait_until(lambda: len(status_of(shared_broker, "DifferGroup", capsys)) == 2, 20, "both")
            order, topic = status_of(shared_broker, "DifferGroup", capsys)
            assert order.startswith("order: ") and f"{two.client_id} orderly" in order
            assert topic.startswith("topic Differ: ") and f"{one.client_id} *" in topic
            assert f"{two.client_id} TagA" in topic


def test_a_reset_moves_a_running_direct_reader_at_once(shared_broker: Broker) -> None:
    """Printed (`-s`): from the operator's answer to the first message from the new place."""
    queue = queue_of(shared_broker, "ResetFast")
    bodies = [b"%d" % number for number in range(2000)]
    with Producer("Offsets", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send([Message(queue.topic, body) for body in bodies], queue=queue)
    pace, seen, firsts = threading.Event(), Seen(), list[float]()

    def consume(messages: list[MessageExt], context: object) -> object:
        if messages[0].queue_offset == 0:
            firsts.append(time.monotonic())
        pace.wait(0.001)
        return seen(messages, context)

    consumer = member(shared_broker, "ResetFastGroup", queue.topic, consume, consume_from_where=FIRST)
    with consumer, AdminClient(shared_broker.namesrv_addr) as admin:
        for run in range(3):
            wait_until(lambda: len(seen.bodies) > 200, 20, "it is under way")
            admin.reset_offset(shared_broker.tcp_addr, "ResetFastGroup", queue.topic, 0, offset=0, queue_id=0)
            seen.bodies.clear()
            began = time.monotonic()
            wait_until(lambda: len(firsts) > run + 1, 20, "it begins anew")  # noqa: B023
            print(f"reset {run}: moved after {(firsts[-1] - began) * 1000:.1f} ms")
        pace.set()
        wait_until(lambda: set(bodies) <= set(seen.bodies), 30, "nothing is missing")


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])
def test_a_reset_reaches_a_consumer_that_has_its_hands_full(shared_broker: Broker, direct: bool) -> None:
    """Flow control keeps it from pulling; what it has in hand of the old place is forgotten all the same."""
    queue = queue_of(shared_broker, f"ResetFull{direct}")
    group = f"{queue.topic}Group"
    with Producer("Offsets", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send([Message(queue.topic, b"%d" % number) for number in range(500)], queue=queue)
    gate, seen = threading.Semaphore(1), Seen()

    def consume(messages: list[MessageExt], context: object) -> object:
        gate.acquire(timeout=30)
        return seen(messages, context)

    few = {"consume_thread_min": 1, "consume_thread_max": 1, "pull_threshold_for_queue": 50}
    consumer = member(
        shared_broker, group, queue.topic, consume, consume_from_where=FIRST, direct_pull=direct, **few
    )
    with consumer, AdminClient(shared_broker.namesrv_addr) as admin:
        held = lambda: consumer._rebalancer.owned[queue].message_count  # noqa: E731
        wait_until(lambda: seen.bodies == [b"0"] and held() > 50, 20, "its hands are full")
        admin.reset_offset(shared_broker.tcp_addr, group, queue.topic, 0, offset=400, queue_id=0)

        def there() -> bool:
            owned = consumer._rebalancer.owned.get(queue)
            return owned is not None and owned.max_offset_seen >= 400

        wait_until(there, 20, "it pulls from there")
        gate.release(500)
        wait_until(lambda: seen.bodies[-1] == b"499", 20, "it goes on")
    assert seen.bodies[2:] == [b"%d" % number for number in range(400, 500)], "one call was under way"


def test_a_reset_moves_a_lite_pull_consumer_and_drops_what_it_has_fetched(shared_broker: Broker) -> None:
    queue = queue_of(shared_broker, "ResetLite")
    with Producer("Offsets", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send([Message(queue.topic, b"%d" % number) for number in range(100)], queue=queue)
    consumer = LitePullConsumer(
        "ResetLiteGroup", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
    )
    consumer.subscribe(queue.topic)
    with consumer, AdminClient(shared_broker.namesrv_addr) as admin:
        assert wait_until(lambda: consumer.poll(1000))[0].body == b"0"
        admin.reset_offset(shared_broker.tcp_addr, "ResetLiteGroup", queue.topic, 0, offset=90, queue_id=0)
        wait_until(lambda: consumer._positions[queue] == 90, 20, "it was told")
        assert wait_until(lambda: consumer.poll(1000))[0].body == b"90"


def test_a_late_commit_takes_nothing_back_and_a_wanted_one_does(shared_broker: Broker) -> None:
    """Found by the storm: two members owned a queue for a moment, and the one behind committed last."""
    with Producer("LateCommits", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("LateCommits", 1)
        queue = [producer.send(Message("LateCommits", b"%d" % n)) for n in range(9)][-1].message_queue
    with (
        PullConsumer("LateCommits", namesrv_addr=shared_broker.namesrv_addr, instance_name="ahead") as ahead,
        PullConsumer(
            "LateCommits", namesrv_addr=shared_broker.namesrv_addr, instance_name="behind"
        ) as behind,
    ):

        def commit(consumer: PullConsumer, offset: int, increase_only: bool = True) -> int:
            consumer._offsets.update(queue, offset, increase_only=increase_only)
            consumer._offsets.persist([queue], wait=True)
            return consumer.fetch_consume_offset(queue, from_store=True)

        assert commit(behind, 3, increase_only=False) == 3
        assert commit(ahead, 8, increase_only=False) == 8
        assert commit(behind, 5) == 8
        assert commit(ahead, 6, increase_only=False) == 6


@pytest.mark.long
def test_a_direct_reader_obeys_the_topics_permission(
    shared_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Checklist 243 and 244: write only is refused with 16, read only is read; each holds at once."""
    queue = queue_of(shared_broker, "DirectPerm")
    seen = Seen()
    with (
        AdminClient(shared_broker.namesrv_addr) as admin,
        member(shared_broker, "DirectPermGroup", queue.topic, seen, consume_from_where=FIRST) as consumer,
    ):
        send(shared_broker, queue, b"1")
        wait_until(lambda: seen.bodies == [b"1"], 20, "it consumes")
        assert reads_directly(consumer)
        admin.create_topic(shared_broker.tcp_addr, TopicConfig(queue.topic, 1, 1, perm=PERM_WRITE))
        send(shared_broker, queue, b"2")
        wait_refused(caplog, "has no read permission")
        assert seen.bodies == [b"1"]
        admin.create_topic(shared_broker.tcp_addr, TopicConfig(queue.topic, 1, 1, perm=PERM_READ))
        wait_until(lambda: seen.bodies == [b"1", b"2"], 20, "it goes on")
        with pytest.raises(ShmqError):
            send(shared_broker, queue, b"3")


@pytest.mark.long
def test_a_direct_reader_whose_grant_is_withdrawn_goes_on_by_socket(broker: Broker) -> None:
    queue = queue_of(broker, "DirectGrant")
    seen = Seen()
    with (
        AdminClient(broker.namesrv_addr) as admin,
        member(broker, "DirectGrantGroup", queue.topic, seen, consume_from_where=FIRST) as consumer,
    ):
        send(broker, queue, b"1")
        wait_until(lambda: seen.bodies == [b"1"], 20, "it consumes")
        wait_until(lambda: reads_directly(consumer), 20, "directly")
        admin.update_broker_config(broker.tcp_addr, {"directPullEnable": "false"})
        send(broker, queue, b"2")
        wait_until(lambda: seen.bodies == [b"1", b"2"], 20, "it goes on")
        wait_until(lambda: not reads_directly(consumer), 20, "not directly any more")


def reads_directly(consumer: PushConsumer) -> bool:
    """Whether the consumer holds a grant that stands."""
    readers = consumer._pulling.readers._readers.values()
    return any(reader.policy_epoch() is not None for reader in readers)
