"""shmq-admin's commands about consumer groups and their offsets, against a real broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from shmq import (
    AdminClient,
    BrokerError,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
    PullConsumer,
    PushConsumer,
)
from shmq.admin import main
from shmq.admin.exits import ExitCode
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

Admin = Callable[..., str]


@pytest.fixture
def admin(shared_broker: Broker, capsys: pytest.CaptureFixture[str]) -> Admin:
    """Runs a command line against the broker and returns what it printed; fails on another exit code."""

    def run(*args: str, code: ExitCode = ExitCode.OK) -> str:
        capsys.readouterr()
        assert main.run([*args, "-n", shared_broker.namesrv_addr]) == code, capsys.readouterr()
        return capsys.readouterr().out

    return run


def items(output: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(output)["items"]
    return found


def filled(broker: Broker, topic: str, count: int) -> MessageQueue:
    """A topic whose first queue has `count` messages."""
    with Producer("AdminGroups", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        queue = producer.fetch_publish_message_queues(topic)[0]
        for number in range(count):
            producer.send(Message(topic, b"%d" % number), queue=queue)
    return queue


def commit(broker: Broker, group: str, queue: MessageQueue, offset: int) -> None:
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as consumer:
        consumer.update_consume_offset(queue, offset)


def committed(broker: Broker, group: str, queue: MessageQueue) -> int:
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as consumer:
        return consumer.fetch_consume_offset(queue)


def address(broker: Broker) -> str:
    return f"127.0.0.1:{broker.tcp_port}"


def test_a_group_is_made_changed_shown_and_forgotten(admin: Admin, shared_broker: Broker) -> None:
    where = ("-b", address(shared_broker), "-g", "OpsGroup")
    made = admin("updateSubGroup", *where, "-r", "3", "-d", "true")
    assert f"create subscription group to {address(shared_broker)} success." in made
    assert "retryMaxTimes=3" in made and "consumeBroadcastEnable=true" in made
    (config,) = items(admin("getConsumerConfig", "-g", "OpsGroup", "--json"))
    assert (config["retryMaxTimes"], config["consumeBroadcastEnable"]) == (3, True)
    assert not config["consumeFromMinEnable"]
    admin("group", "update", *where, "-s", "false")
    (config,) = items(admin("getConsumerConfig", "-g", "OpsGroup", "--json"))
    assert (config["retryMaxTimes"], config["consumeEnable"]) == (16, False)
    queue = filled(shared_broker, "OpsForget", 3)
    admin("updateSubGroup", *where)
    commit(shared_broker, "OpsGroup", queue, 2)
    out = admin("deleteSubGroup", *where, "-r", "true")
    assert f"delete subscription group [OpsGroup] from broker [{address(shared_broker)}] success." in out
    assert committed(shared_broker, "OpsGroup", queue) <= 0


def test_group_settings_that_cannot_be_are_refused(admin: Admin, shared_broker: Broker) -> None:
    where = ("-b", address(shared_broker))
    admin("updateSubGroup", *where, "-g", "bad group!", code=ExitCode.BAD_DATA)
    admin("updateSubGroup", *where, "-g", "OpsBad", "-q", "-1", code=ExitCode.BAD_DATA)
    admin("updateSubGroup", *where, "-g", "OpsBad", "-s", "maybe", code=ExitCode.BAD_DATA)
    admin("updateSubGroup", "-g", "OpsBad", code=ExitCode.USAGE)
    admin("updateSubGroup", "-c", "NoCluster", "-g", "OpsBad", code=ExitCode.NOT_FOUND)
    admin("group", "delete", *where, "-g", "OpsBad", code=ExitCode.USAGE)


@pytest.mark.long
def test_members_and_producers_are_listed_with_what_they_do(admin: Admin, shared_broker: Broker) -> None:
    topic = "OpsMembers"
    filled(shared_broker, topic, 1)
    consumer = PushConsumer("OpsMembersGroup", namesrv_addr=shared_broker.namesrv_addr)
    consumer.subscribe(topic, "TagA || TagB")
    consumer.register_message_listener(lambda messages, _: None)
    with consumer, Producer("OpsProducers", namesrv_addr=shared_broker.namesrv_addr) as producer:
        wait_until(lambda: bool(consumer.assigned_queues), 20, "the consumer has its queue")
        producer.send(Message(topic, b"x"))
        document = json.loads(admin("consumerConnection", "-g", "OpsMembersGroup", "--json"))
        assert document["subscriptions"][topic] == "TagA || TagB"
        assert document["messageModel"] == "CLUSTERING"
        (member,) = document["items"]
        table = admin("consumerConnection", "-g", "OpsMembersGroup")
        assert member["clientId"] in table and "ConsumeFromWhere: CONSUME_FROM_LAST_OFFSET" in table
        status = admin("consumerStatus", "-g", "OpsMembersGroup")
        assert "Rebalance OK" in status
        one = admin("consumerStatus", "-g", "OpsMembersGroup", "-i", member["clientId"])
        assert "PROP_CONSUME_TYPE" in one and f"topic={topic}" in one
        admin("consumerStatus", "-g", "OpsMembersGroup", "-i", "nobody", code=ExitCode.UNAVAILABLE)

        def has_beaten() -> bool:
            with AdminClient(shared_broker.namesrv_addr) as client, suppress(BrokerError):
                return bool(client.producer_connections(address(shared_broker), "OpsProducers"))
            return False

        wait_until(has_beaten, 40, "the producer's heartbeat is there")
        (found,) = items(admin("producerConnection", "-g", "OpsProducers", "-t", topic, "--json"))
        assert found["clientId"] == producer.client_id
    admin("consumerConnection", "-g", "OpsNobody", code=ExitCode.UNAVAILABLE)


def test_an_offset_goes_to_a_time_to_a_number_and_to_the_end(admin: Admin, shared_broker: Broker) -> None:
    topic, group = "OpsReset", "OpsResetGroup"
    queue = filled(shared_broker, topic, 3)
    with Producer("AdminGroups", namesrv_addr=shared_broker.namesrv_addr) as producer:
        last = producer.send(Message(topic, b"before"), queue=queue)
        with PullConsumer("OpsTimes", namesrv_addr=shared_broker.namesrv_addr) as reader:
            stored = reader.pull(queue, "*", last.queue_offset, 1).messages[0].store_timestamp
        wait_until(lambda: time.time() * 1000 > stored + 5, 5, "the clock goes on")
        moment = int(time.time() * 1000)
        producer.send(Message(topic, b"after"), queue=queue)
    commit(shared_broker, group, queue, 2)
    where = ("-g", group, "-t", topic)
    (planned,) = items(admin("resetOffsetByTime", *where, "-s", str(moment), "--dry-run", "--json"))
    assert (planned["consumerOffset"], planned["offset"]) == (2, 4)
    assert committed(shared_broker, group, queue) == 2
    (moved,) = items(admin("resetOffsetByTime", *where, "-s", str(moment), "--json"))
    assert moved["offset"] == 4 == committed(shared_broker, group, queue)
    (kept,) = items(admin("resetOffsetByTime", *where, "-s", "now", "-f", "false", "--json"))
    assert kept["offset"] == 4
    one = (*where, "-b", address(shared_broker), "-q", "0")
    (zero,) = items(admin("resetOffsetByTime", *one, "-o", "0", "--json"))
    assert zero["offset"] == 0 == committed(shared_broker, group, queue)
    (end,) = items(admin("offset", "skip", *where, "--json"))
    assert end["offset"] == 5
    admin("resetOffsetByTime", *one, "-o", "99", code=ExitCode.BAD_DATA)
    admin("resetOffsetByTime", *where, "-o", "1", code=ExitCode.USAGE)
    admin("resetOffsetByTime", *where, code=ExitCode.USAGE)
    admin("resetOffsetByTime", *where, "-s", "yesterday", code=ExitCode.BAD_DATA)
    admin("resetOffsetByTime", "-g", group, "-t", "OpsNoSuchTopic", "-s", "now", code=ExitCode.NOT_FOUND)


def test_a_running_consumer_follows_a_reset(admin: Admin, shared_broker: Broker) -> None:
    topic, group = "OpsFollow", "OpsFollowGroup"
    filled(shared_broker, topic, 5)
    found: list[MessageExt] = []
    consumer = PushConsumer(
        group,
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(topic)

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        found.extend(messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer.register_message_listener(consume)
    with consumer:
        wait_until(lambda: len(found) == 5, 20, "all are consumed")
        found.clear()
        admin("resetOffsetByTime", "-g", group, "-t", topic, "-s", "0")
        wait_until(lambda: {m.queue_offset for m in found} == set(range(5)), 20, "all come again")


def test_offsets_are_cloned_for_the_topic_that_is_named(admin: Admin, shared_broker: Broker) -> None:
    first, second = filled(shared_broker, "OpsCloneA", 3), filled(shared_broker, "OpsCloneB", 3)
    for queue in (first, second):
        commit(shared_broker, "OpsSource", queue, 2)
    out = admin("cloneGroupOffset", "-s", "OpsSource", "-d", "OpsCopy", "-t", "OpsCloneA")
    assert "clone group offset success. srcGroup[OpsSource], destGroup=[OpsCopy], topic[OpsCloneA]" in out
    assert committed(shared_broker, "OpsCopy", first) == 2
    assert committed(shared_broker, "OpsCopy", second) <= 0
    admin("cloneGroupOffset", "-s", "OpsSource", "-d", "OpsCopy", "--all-topics")
    assert committed(shared_broker, "OpsCopy", second) == 2
    admin("cloneGroupOffset", "-s", "OpsSource", "-d", "OpsCopy", code=ExitCode.USAGE)
    admin("cloneGroupOffset", "-s", "OpsSource", "-d", "OpsSource", "-t", "OpsCloneA", code=ExitCode.BAD_DATA)
    admin("cloneGroupOffset", "-s", "OpsUnknown", "-d", "OpsCopy", "-t", "OpsCloneA", code=ExitCode.NOT_FOUND)


def test_the_track_of_a_message_says_what_each_group_did_with_it(admin: Admin, shared_broker: Broker) -> None:
    """Checklist 256: not yet, consumed, filtered, pulled, not online."""
    topic = "OpsTrack"
    queue = filled(shared_broker, topic, 0)
    with Producer("AdminGroups", namesrv_addr=shared_broker.namesrv_addr) as producer:
        sent = producer.send(Message(topic, b"x", tags="A"), queue=queue)
    gate = threading.Event()

    def member(group: str, expression: str, listener: object) -> PushConsumer:
        consumer = PushConsumer(
            group,
            namesrv_addr=shared_broker.namesrv_addr,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        consumer.subscribe(topic, expression)
        consumer.register_message_listener(listener)  # type: ignore[arg-type]
        return consumer

    def done(*_: object) -> ConsumeConcurrentlyStatus:
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    def slow(*_: object) -> ConsumeConcurrentlyStatus:
        gate.wait(20)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    def tracks() -> dict[str, str]:
        (found,) = items(admin("queryMsgById", "-i", sent.offset_msg_id, "--json"))
        return {track["consumerGroup"]: track["trackType"] for track in found["messageTracks"]}

    with PullConsumer("TrackPulls", namesrv_addr=shared_broker.namesrv_addr) as puller:
        puller.pull(queue, "*", 0, 1)
        consumers = [
            member("TrackDone", "*", done),
            member("TrackFiltered", "B", done),
            member("TrackSlow", "*", slow),
        ]
        for consumer in consumers:
            consumer.start()
        try:
            wanted = {
                "TrackDone": "CONSUMED",
                "TrackFiltered": "CONSUMED_BUT_FILTERED",
                "TrackSlow": "NOT_CONSUME_YET",
                "TrackPulls": "PULL",
            }

            def told() -> bool:
                for consumer in consumers:
                    consumer.persist_offsets()
                return tracks() == wanted

            wait_until(told, 20, "each group's part")
        finally:
            gate.set()
            for consumer in consumers:
                consumer.shutdown()
    wait_until(lambda: tracks().get("TrackDone") == "NOT_ONLINE", 20, "nobody is there")
