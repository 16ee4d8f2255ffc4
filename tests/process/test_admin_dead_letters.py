"""shmq-admin dlq: list, resend and purge what a group failed to consume, against a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from shmq import (
    BrokerError,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PushConsumer,
)
from shmq.admin import main
from shmq.admin.exits import ExitCode
from shmq.embedded import Broker
from shmq.model.properties import SHMQ_LAST_ERROR
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


def bury(broker: Broker, topic: str, group: str, bodies: list[bytes]) -> None:
    """Have a group fail at these messages of a new topic so that all are dead letters."""
    with Producer("DeadLetters", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        for body in bodies:
            producer.send(Message(topic, body, tags="T", keys=body.decode()))
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as consumer:
        (queue,) = consumer.fetch_subscribe_message_queues(topic)
        for message in consumer.pull(queue, "*", 0, 32).messages:
            consumer.send_message_back(message, -1, f"no place for {message.body.decode()}")
        consumer.update_consume_offset(queue, len(bodies))


@pytest.mark.long
def test_dead_letters_are_listed_with_their_errors(admin: Admin, shared_broker: Broker) -> None:
    bury(shared_broker, "DlqList", "DlqListGroup", [b"a", b"b"])
    (row,) = [row for row in items(admin("dlqList", "--json")) if row["group"] == "DlqListGroup"]
    assert row["count"] == 2
    found = items(admin("dlq", "list", "-g", "DlqListGroup", "--json"))
    assert [one["bodyText"] for one in found] == ["a", "b"]
    assert [one["lastError"] for one in found] == ["no place for a", "no place for b"]
    assert {one["originTopic"] for one in found} == {"DlqList"}
    table = admin("dlq", "list", "-g", "DlqListGroup", "-c", "1")
    assert found[0]["msgId"] in table and "no place for a" in table and "no place for b" not in table
    assert items(admin("dlq", "list", "-g", "DlqListGroup", "-e", "1", "--json")) == []
    admin("dlq", "list", "-g", "DlqNobody", code=ExitCode.NOT_FOUND)


def test_resent_dead_letters_reach_their_group_alone(admin: Admin, shared_broker: Broker) -> None:
    group, other = "DlqAgainGroup", "DlqOtherGroup"
    bury(shared_broker, "DlqAgain", group, [b"a", b"b", b"c"])
    letters = items(admin("dlqList", "-g", group, "--json"))
    got: dict[str, list[MessageExt]] = {group: [], other: []}

    def member(name: str) -> PushConsumer:
        def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
            got[name] += messages
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        consumer = PushConsumer(
            name,
            namesrv_addr=shared_broker.namesrv_addr,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        consumer.subscribe("DlqAgain")
        consumer.register_message_listener(consume)
        return consumer

    with member(group), member(other):
        wait_until(lambda: len(got[other]) == 3, 20, "the other group has the messages themselves")
        (sent,) = items(admin("dlqResend", "-g", group, "-i", letters[1]["msgId"], "--json"))
        assert sent["msgId"] == letters[1]["msgId"]
        wait_until(lambda: len(got[group]) == 1, 20, "the one that was named")
        assert "3 delivered to group" in admin("dlq", "resend", "-g", group, "--all")
        wait_until(lambda: len(got[group]) == 4, 20, "all")
    first = got[group][0]
    assert (first.body, first.topic, first.tags, first.reconsume_times) == (b"b", "DlqAgain", "T", 0)
    assert first.msg_id == letters[1]["msgId"] and SHMQ_LAST_ERROR not in first.properties
    assert sorted(bytes(message.body) for message in got[group][1:]) == [b"a", b"b", b"c"]
    assert len(got[other]) == 3
    assert len(items(admin("dlqList", "-g", group, "--json"))) == 3, "they stay until they are purged"
    admin("dlqResend", "-g", group, code=ExitCode.USAGE)
    admin("dlqResend", "-g", group, "-i", "x", "--all", code=ExitCode.USAGE)
    admin("dlqResend", "-g", group, "-i", "nothing", code=ExitCode.NOT_FOUND)


def test_purged_dead_letters_are_gone_and_new_ones_are_kept(admin: Admin, shared_broker: Broker) -> None:
    group = "DlqPurgeGroup"
    bury(shared_broker, "DlqPurge", group, [b"a", b"b"])
    admin("dlq", "purge", "-g", group, code=ExitCode.USAGE)  # the modern spelling asks, and nobody answers
    assert len(items(admin("dlqList", "-g", group, "--json"))) == 2
    assert "2 dead letters of group DlqPurgeGroup purged" in admin("dlq", "purge", "-g", group, "--yes")
    admin("dlqList", "-g", group, code=ExitCode.NOT_FOUND)

    def buried() -> bool:
        with suppress(BrokerError):  # the topic is being deleted
            bury(shared_broker, "DlqPurgeNext", group, [b"c"])
            return True
        return False

    wait_until(buried, 20, "the topic is made again")
    assert [one["bodyText"] for one in items(admin("dlqList", "-g", group, "--json"))] == ["c"]
    admin("dlqPurge", "-g", "DlqNobody", "--yes", code=ExitCode.NOT_FOUND)
