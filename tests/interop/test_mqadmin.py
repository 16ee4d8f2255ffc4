"""The original mqadmin against shmq: its output must be what its users know."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PushConsumer,
    SendResult,
)
from shmq.embedded import Broker
from tests.helpers import java
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(120)]

TOPIC = "AdminInterop"
GROUP = "AdminInteropGroup"


@pytest.fixture(scope="module")
def receipt(shmq_broker: Broker) -> SendResult:
    """A message in the store, and a group that has consumed its queue."""
    with Producer("AdminInteropProducer", namesrv_addr=shmq_broker.namesrv_addr) as producer:
        result = producer.send(Message(TOPIC, b"hello mqadmin", tags="TagA", keys="order-1"))
    with PullConsumer(GROUP, namesrv_addr=shmq_broker.namesrv_addr) as consumer:
        pulled = consumer.pull(result.message_queue, "*", 0, 8)
        consumer.update_consume_offset(result.message_queue, pulled.next_begin_offset)
    return result


@pytest.fixture(scope="module", autouse=True)
def body_files() -> Iterator[None]:
    """Remove the body file that queryMsgById always writes, unless the folder was there before."""
    folder = Path("/tmp/rocketmq")
    had = folder.exists()
    yield
    if not had:
        shutil.rmtree(folder, ignore_errors=True)


def _run(mqadmin: java.AdminShell, broker: Broker, *command: str) -> str:
    output = mqadmin.run(command[0], "-n", broker.namesrv_tcp_addr, *command[1:])
    assert "Exception" not in output, output
    return output


def test_cluster_list_shows_the_broker(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    output = _run(mqadmin, shmq_broker, "clusterList")
    row = output.splitlines()[1].split()
    assert row[0] == "DefaultCluster"
    assert row[1] == receipt.message_queue.broker_name
    assert row[3].startswith("127.0.0.1:")
    assert row[4].startswith("V5_")
    assert row[-1] == "true"


def test_topic_list_names_the_topic(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    assert TOPIC in _run(mqadmin, shmq_broker, "topicList").splitlines()


def test_topic_route_shows_the_queues(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    output = _run(mqadmin, shmq_broker, "topicRoute", "-t", TOPIC)
    assert re.search(r'"brokerName":\s*"' + receipt.message_queue.broker_name, output)
    assert re.search(r'"writeQueueNums":\s*4', output)


def test_update_topic_makes_a_topic(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    address = shmq_broker.tcp_addr
    output = _run(mqadmin, shmq_broker, "updateTopic", "-b", address, "-t", "MadeByMqadmin", "-r", "3")
    assert f"create topic to {address} success." in output
    output = _run(mqadmin, shmq_broker, "topicRoute", "-t", "MadeByMqadmin")
    assert re.search(r'"readQueueNums":\s*3', output)


def test_topic_status_shows_offsets(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    rows = [line.split() for line in _run(mqadmin, shmq_broker, "topicStatus", "-t", TOPIC).splitlines()]
    maxima = {int(row[1]): int(row[3]) for row in rows if len(row) >= 4 and row[1].isdigit()}
    assert len(maxima) == 4
    assert maxima[receipt.message_queue.queue_id] == receipt.queue_offset + 1


def test_consumer_progress_shows_the_groups_offsets(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    output = _run(mqadmin, shmq_broker, "consumerProgress", "-g", GROUP)
    assert "Consume Diff Total: 0" in output
    row = next(
        line.split()
        for line in output.splitlines()
        if line.startswith(TOPIC) and line.split()[2] == str(receipt.message_queue.queue_id)
    )
    assert row[3] == row[4] == "1"


def test_a_message_is_found_by_its_offset_id(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    output = _run(mqadmin, shmq_broker, "queryMsgById", "-t", TOPIC, "-i", receipt.offset_msg_id)
    facts = dict(line.split(":", 1) for line in output.splitlines() if re.match(r"[A-Z][A-Za-z ]+:", line))
    assert facts["OffsetID"].strip() == receipt.offset_msg_id
    assert facts["Topic"].strip() == TOPIC
    assert facts["Tags"].strip() == "[TagA]"
    assert facts["Keys"].strip() == "[order-1]"
    assert f"UNIQ_KEY={receipt.msg_id}" in facts["Properties"]


def test_our_push_consumer_takes_a_message_from_mqadmin(
    mqadmin: java.AdminShell, shmq_broker: Broker, receipt: SendResult
) -> None:
    """mqadmin asks what the consumer is doing (307), then gives it the message (309)."""
    taken: list[bytes] = []

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        taken.extend(message.body for message in messages)
        return ConsumeConcurrentlyStatus.RECONSUME_LATER

    _run(mqadmin, shmq_broker, "updateTopic", "-b", shmq_broker.tcp_addr, "-t", "NothingInIt")
    consumer = PushConsumer("TakesDirectly", namesrv_addr=shmq_broker.namesrv_addr)
    consumer.subscribe("NothingInIt")
    consumer.register_message_listener(consume)
    with consumer:
        wait_until(lambda: bool(consumer.assigned_queues), limit_s=20)
        client = ("-g", "TakesDirectly", "-d", consumer.client_id)
        output = _run(mqadmin, shmq_broker, "queryMsgById", "-t", TOPIC, "-i", receipt.offset_msg_id, *client)
        status = _run(
            mqadmin, shmq_broker, "consumerStatus", "-g", "TakesDirectly", "-i", consumer.client_id, "-s"
        )
    assert "NothingInIt" in status and "PROP_CONSUME_TYPE" in status
    assert re.search(r"^MainThread TID: \d+$", status, re.MULTILINE), "the stacks of all threads"
    assert taken == [b"hello mqadmin"]
    assert re.search(
        r"ConsumeMessageDirectlyResult \[.*consumeResult=CR_LATER, remark=null, spentTimeMills=\d", output
    )
