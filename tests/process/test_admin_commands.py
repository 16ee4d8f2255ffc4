"""shmq-admin against a real broker: what it prints, in both forms, and how it ends."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from shmq.admin import main
from shmq.admin.exits import ExitCode
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

TOPIC = "AdminTopic"
GROUP = "AdminGroup"

Admin = Callable[..., str]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One broker for all tests here: they only add topics and messages of their own."""
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def sent(broker: Broker) -> list[SendResult]:
    """Three messages, and a pull group that has consumed two of the queue's three."""
    with Producer("AdminProducer", namesrv_addr=broker.namesrv_addr) as producer:
        first = producer.send(Message(TOPIC, b"body 0", tags="TagA", keys="key-0 shared"))
        others = [
            producer.send(
                Message(TOPIC, f"body {n}".encode(), tags="TagB", keys=f"key-{n} shared"),
                queue=first.message_queue,
            )
            for n in (1, 2)
        ]
        wait_until(lambda: producer.query_message(TOPIC, "key-2"), limit_s=20, what="the last key is found")
    with PullConsumer(GROUP, namesrv_addr=broker.namesrv_addr) as consumer:
        consumer.update_consume_offset(first.message_queue, 2)
    return [first, *others]


@pytest.fixture
def admin(
    broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Admin:
    """Runs a command line against the broker and returns what it printed; fails on another exit code."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # takes the bodies that queries write

    def run(*args: str, code: ExitCode = ExitCode.OK) -> str:
        capsys.readouterr()
        assert main.run([*args, "-n", broker.namesrv_addr]) == code, capsys.readouterr()
        return capsys.readouterr().out

    return run


def _items(output: str) -> list[dict[str, Any]]:
    document = json.loads(output)
    assert document["apiVersion"] == 1
    assert document["errors"] == []
    return document["items"]


def _rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()[1:] if line]


def test_cluster_list_shows_the_broker(admin: Admin, broker: Broker) -> None:
    (row,) = _rows(admin("clusterList"))
    assert row[0] == "DefaultCluster"
    assert row[3] == f"127.0.0.1:{broker.tcp_port}"
    assert re.fullmatch(r"\d+\.\d\d\(\d+,\d+ms\)", row[5])
    assert row[-1] == "true"
    (item,) = _items(admin("clusterList", "--json"))
    assert item["brokerId"] == 0


@pytest.mark.long
def test_cluster_list_totals_count_what_was_sent(admin: Admin, sent: list[SendResult]) -> None:
    def counted() -> bool:
        (item,) = _items(admin("clusterList", "-m", "--json"))
        return bool(item["inTotalToday"] >= len(sent) and item["inTotalYesterday"] == 0)

    wait_until(counted, limit_s=5)


def test_topic_list_names_topics_and_with_c_their_groups(admin: Admin, sent: list[SendResult]) -> None:
    assert TOPIC in admin("topicList").splitlines()
    rows = _rows(admin("topicList", "-c"))
    assert ["DefaultCluster", TOPIC, GROUP] in rows


def test_topic_route_is_json_or_a_table(admin: Admin, sent: list[SendResult]) -> None:
    route = json.loads(admin("topicRoute", "-t", TOPIC))
    assert route["queueDatas"][0]["writeQueueNums"] == 4
    assert route["brokerDatas"][0]["brokerAddrs"]["0"].startswith("127.0.0.1:")
    assert route["brokerDatas"][0]["unixSocket"].endswith(".sock")
    table = admin("topicRoute", "-t", TOPIC, "-l")
    assert table.splitlines()[-1].split() == ["Total:", "4", "4"]


def test_topic_status_shows_every_queue(admin: Admin, sent: list[SendResult]) -> None:
    items = _items(admin("topicStatus", "-t", TOPIC, "--json"))
    maxima = {item["queueId"]: item["maxOffset"] for item in items}
    assert len(maxima) == 4
    assert maxima[sent[0].message_queue.queue_id] == 3
    assert sum(maxima.values()) == 3
    assert "#Last Updated" in admin("topic", "stats", "-t", TOPIC)


def test_update_topic_makes_changes_and_resets_what_is_left_out(admin: Admin, broker: Broker) -> None:
    address = f"127.0.0.1:{broker.tcp_port}"
    output = admin("updateTopic", "-b", address, "-t", "MadeByAdmin", "-r", "3", "-w", "2", "-p", "4")
    assert output.splitlines()[0] == f"create topic to {address} success."
    assert "perm=R--" in output
    (queues,) = json.loads(admin("topicRoute", "-t", "MadeByAdmin"))["queueDatas"]
    assert (queues["readQueueNums"], queues["writeQueueNums"], queues["perm"]) == (3, 2, 4)
    admin("updateTopic", "-c", "DefaultCluster", "-t", "MadeByAdmin")
    (queues,) = json.loads(admin("topicRoute", "-t", "MadeByAdmin"))["queueDatas"]
    assert (queues["readQueueNums"], queues["writeQueueNums"], queues["perm"]) == (8, 8, 6)


def test_a_bad_topic_name_or_permission_is_refused(admin: Admin) -> None:
    admin("updateTopic", "-c", "DefaultCluster", "-t", "bad name", code=ExitCode.BAD_DATA)
    admin("updateTopic", "-c", "DefaultCluster", "-t", "T", "-p", "5", code=ExitCode.USAGE)
    admin("updateTopic", "-c", "NoCluster", "-t", "T", code=ExitCode.NOT_FOUND)


def test_delete_topic_removes_it_everywhere(admin: Admin) -> None:
    admin("updateTopic", "-c", "DefaultCluster", "-t", "ToDelete")
    assert "success" in admin("deleteTopic", "-c", "DefaultCluster", "-t", "ToDelete")
    admin("topicRoute", "-t", "ToDelete", code=ExitCode.NOT_FOUND)
    assert "ToDelete" not in admin("topicList").splitlines()


def test_the_modern_delete_needs_yes_without_a_terminal(admin: Admin) -> None:
    admin("updateTopic", "-c", "DefaultCluster", "-t", "Guarded")
    admin("topic", "delete", "-c", "DefaultCluster", "-t", "Guarded", code=ExitCode.USAGE)
    assert "Guarded" in admin("topicList").splitlines()
    admin("topic", "delete", "-c", "DefaultCluster", "-t", "Guarded", "--yes")
    assert "Guarded" not in admin("topicList").splitlines()


def test_cleaning_is_asked_of_one_broker_or_all(admin: Admin, broker: Broker) -> None:
    assert admin("cleanExpiredCQ").strip() == "success"
    assert admin("broker", "clean-cq", "-b", broker.tcp_addr).strip() == "success"
    assert admin("cleanUnusedTopic", "-c", "DefaultCluster").strip() == "success"
    admin("broker", "clean-topics", code=ExitCode.USAGE)
    assert admin("broker", "clean-topics", "--yes").strip() == "success"
    admin("deleteExpiredCommitLog", code=ExitCode.USAGE)
    assert admin("deleteExpiredCommitLog", "-b", broker.tcp_addr).strip() == "success"


def test_consumer_progress_of_a_group_shows_its_lag(admin: Admin, sent: list[SendResult]) -> None:
    items = _items(admin("consumerProgress", "-g", GROUP, "--json"))
    mine = next(item for item in items if item["queueId"] == sent[0].message_queue.queue_id)
    assert (mine["brokerOffset"], mine["consumerOffset"], mine["diff"]) == (3, 2, 1)
    assert "Consume Diff Total: 1" in admin("consumerProgress", "-g", GROUP)


def test_consumer_progress_lists_groups(admin: Admin, sent: list[SendResult]) -> None:
    assert admin("consumerProgress").startswith("#Group")
    assert GROUP in {item["group"] for item in _items(admin("group", "progress", "--json"))}


def test_consumer_progress_of_an_unknown_group_fails(admin: Admin) -> None:
    admin("consumerProgress", "-g", "NobodyKnowsIt", code=ExitCode.UNAVAILABLE)


def test_a_message_is_sent_and_read_back(admin: Admin, sent: list[SendResult]) -> None:
    name = sent[0].message_queue.broker_name
    arguments = ("-t", TOPIC, "-p", "grüße", "-k", "from-admin", "-c", "TagC", "-b", name, "-i", "3")
    (item,) = _items(admin("sendMessage", *arguments, "--json"))
    assert (item["brokerName"], item["queueId"], item["sendResult"]) == (name, 3, "SEND_OK")
    output = admin("consumeMessage", "-t", TOPIC, "-b", name, "-i", "3", "-o", str(item["queueOffset"]))
    assert item["msgId"] in output
    assert "BODY: grüße" in output


def test_send_message_wants_the_broker_of_a_queue(admin: Admin) -> None:
    admin("sendMessage", "-t", TOPIC, "-p", "x", "-i", "0", code=ExitCode.USAGE)
    admin("sendMessage", "-t", TOPIC, "-p", "x", "-b", "nowhere", code=ExitCode.NOT_FOUND)


def test_consume_message_prints_all_queues_up_to_a_count(admin: Admin, sent: list[SendResult]) -> None:
    output = admin("consumeMessage", "-t", TOPIC, "--json")
    items = [json.loads(line) for line in output.splitlines()]
    assert {"body 0", "body 1", "body 2"} <= {item.get("bodyText") for item in items}
    assert len(admin("consumeMessage", "-t", TOPIC, "-c", "2", "--json").splitlines()) == 2


def test_a_message_is_found_by_either_id(admin: Admin, sent: list[SendResult]) -> None:
    by_offset_id = _items(admin("queryMsgById", "-i", sent[1].offset_msg_id, "--json"))
    by_unique_id = _items(admin("queryMsgById", "-i", sent[1].msg_id, "-t", TOPIC, "--json"))
    assert by_offset_id[0]["bodyText"] == by_unique_id[0]["bodyText"] == "body 1"
    assert by_offset_id[0]["properties"]["UNIQ_KEY"] == sent[1].msg_id


def test_message_details_have_mqadmins_labels(admin: Admin, sent: list[SendResult]) -> None:
    output = admin("queryMsgById", "-i", sent[0].offset_msg_id, "-t", TOPIC, "-f", "UTF-8")
    labels = [line.partition(":")[0] for line in output.splitlines() if re.match(r"[A-Z][A-Za-z ]+:", line)]
    assert labels[:5] == ["OffsetID", "Topic", "Tags", "Keys", "Queue ID"]
    assert labels[-2:] == ["Message Body Path", "Message Body"]
    assert re.search(r"Message Body: +body 0", output)
    assert f"consumerGroup={GROUP}, trackType=" in output


def test_a_push_consumer_takes_a_message_directly(
    admin: Admin, broker: Broker, sent: list[SendResult]
) -> None:
    """Its listener runs once each, on a thread that may itself talk to the broker; nothing is pulled."""
    taken: list[bytes] = []

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> Any:
        (message,) = messages
        assert context.message_queue.topic == message.topic == TOPIC
        taken.append(message.body)
        if message.body == b"body 0":
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS if consumer.max_offset(queue) else None
        if message.body == b"body 1":
            return None
        raise LookupError("no such order")

    queue = sent[0].message_queue
    admin("updateTopic", "-c", "DefaultCluster", "-t", "NothingInIt")
    consumer = PushConsumer("DirectGroup", namesrv_addr=broker.namesrv_addr)
    consumer.subscribe("NothingInIt")
    consumer.register_message_listener(consume)
    with consumer:
        wait_until(lambda: bool(consumer.assigned_queues), limit_s=20)
        target = ("-g", "DirectGroup", "-d", consumer.client_id)
        output = admin("queryMsgById", "-i", sent[0].offset_msg_id, *target)
        assert re.fullmatch(
            r"ConsumeMessageDirectlyResult \[order=false, autoCommit=true, consumeResult=CR_SUCCESS, "
            r"remark=null, spentTimeMills=\d+\]\n",
            output,
        )
        both = f"{sent[1].offset_msg_id},{sent[2].msg_id}"
        items = _items(admin("queryMsgById", "-i", both, "-t", TOPIC, *target, "--json"))
        assert [item["consumeResult"] for item in items] == ["CR_RETURN_NULL", "CR_THROW_EXCEPTION"]
        assert items[1]["remark"] == "LookupError: no such order"
        assert taken == [b"body 0", b"body 1", b"body 2"]
    admin("queryMsgById", "-i", sent[0].offset_msg_id, *target, code=ExitCode.FAILED)
    admin("queryMsgById", "-i", sent[0].offset_msg_id, "-g", "DirectGroup", code=ExitCode.USAGE)


def test_a_message_is_sent_again(admin: Admin, sent: list[SendResult]) -> None:
    (item,) = _items(admin("queryMsgById", "-i", sent[1].offset_msg_id, "-s", "true", "-u", "unit", "--json"))
    assert (item["originalMsgId"], item["sendResult"]) == (sent[1].msg_id, "SEND_OK")
    (copy,) = _items(admin("queryMsgById", "-i", item["offsetMsgId"], "--json"))
    assert (copy["bodyText"], copy["tags"], copy["keys"]) == ("body 1", "TagB", "key-1 shared")
    assert copy["properties"]["UNIQ_KEY"] == item["msgId"] != sent[1].msg_id


def test_a_traced_send_is_told_in_the_trace_topic(admin: Admin) -> None:
    arguments = ("-t", "Traced", "-p", "four", "-k", "k1", "-c", "TagT")
    (item,) = _items(admin("sendMessage", *arguments, "-m", "true", "--json"))
    lines = admin("consumeMessage", "-t", "RMQ_SYS_TRACE_TOPIC", "--json").splitlines()
    (trace,) = [found for found in map(json.loads, lines) if item["msgId"] in found["keys"]]
    record, end = trace["bodyText"].split("\x02")
    fields = record.split("\x01")
    assert (end, len(fields)) == ("", 14)
    assert fields[0] == "Pub"
    assert fields[2:8] == ["DefaultRegion", "TOOLS_PRODUCER", "Traced", item["msgId"], "TagT", "k1"]
    assert (fields[9], fields[11:]) == ("4", ["0", item["offsetMsgId"], "true"])
    admin("sendMessage", *arguments, "-m", "maybe", code=ExitCode.BAD_DATA)


def test_an_unknown_id_is_not_found(admin: Admin) -> None:
    admin("queryMsgById", "-i", "0" * 32, "-t", TOPIC, code=ExitCode.NOT_FOUND)


def test_messages_are_found_by_key(admin: Admin, sent: list[SendResult]) -> None:
    def found(key: str) -> list[str]:
        items = _items(admin("queryMsgByKey", "-t", TOPIC, "-k", key, "--json"))
        return sorted(item["bodyText"] for item in items)

    # another test may have sent one of them again
    wait_until(lambda: set(found("shared")) == {"body 0", "body 1", "body 2"}, limit_s=5)
    assert found("key-2") == ["body 2"]
    assert admin("queryMsgByKey", "-t", TOPIC, "-k", "key-2").splitlines()[1].startswith(sent[2].msg_id)


def test_a_message_is_found_by_its_queue_offset(admin: Admin, sent: list[SendResult]) -> None:
    queue = sent[0].message_queue
    place = ("-t", TOPIC, "-b", queue.broker_name, "-i", str(queue.queue_id), "-o")
    (item,) = _items(admin("queryMsgByOffset", *place, "1", "--json"))
    assert item["bodyText"] == "body 1"
    assert admin("queryMsgByOffset", *place, "999") == ""


def test_broker_status_prints_sorted_keys(admin: Admin, broker: Broker, sent: list[SendResult]) -> None:
    lines = admin("brokerStatus", "-b", f"127.0.0.1:{broker.tcp_port}").splitlines()
    keys = [line.partition(":")[0].strip() for line in lines]
    assert keys == sorted(keys)
    assert {"putTps", "getTransferredTps", "commitLogMaxOffset", "brokerVersionDesc"} <= set(keys)
    (item,) = _items(admin("broker", "status", "--json"))
    assert int(item["table"]["commitLogMaxOffset"]) > 0


def test_ps_shows_every_process_and_the_positions(
    admin: Admin, broker: Broker, sent: list[SendResult]
) -> None:
    document = json.loads(admin("ps", "--json"))
    roles = [item["role"] for item in document["items"] if item["broker"] == broker.broker_name]
    assert {"supervisor", "fork server", "coordinator", "worker 0", "worker 1"} <= set(roles)
    positions = [store["positions"] for store in document["stores"] if "positions" in store]
    assert any(position["writePosition"] > 0 for position in positions)
    assert "#Role" in admin("ps")


@pytest.mark.long
def test_ps_shows_what_was_counted(admin: Admin, broker: Broker, sent: list[SendResult]) -> None:
    def counted() -> dict[str, int]:
        stores = json.loads(admin("ps", "--json"))["stores"]
        mine = page_name(broker.store_root).removeprefix("/")
        return next(store["counters"] for store in stores if store["page"] == mine)

    # Workers add their counts to the page about once a second.
    made = wait_until(lambda: (now := counted())["frames_out"] and now["flushes"] and now, 10)
    assert made["sends"] >= len(sent)
    assert {"frames_in", "bytes_in", "bytes_out", "flush_bytes", "segments_made", "index_keys"} <= {
        name for name, count in made.items() if count
    }
    assert "messages appended" in admin("ps", "--counters")


def test_store_check_finds_a_running_store_whole(
    admin: Admin, broker: Broker, sent: list[SendResult]
) -> None:
    (item,) = _items(admin("storeCheck", str(broker.store_root), "--json"))
    assert item["findings"] == []
    assert item["controlPage"] is True


def test_store_check_refuses_what_is_no_store(admin: Admin, tmp_path: Path) -> None:
    admin("storeCheck", str(tmp_path), code=ExitCode.NOT_FOUND)


def test_an_unknown_topic_is_not_found(admin: Admin) -> None:
    for command in ("topicRoute", "topicStatus"):
        admin(command, "-t", "NoSuchTopic", code=ExitCode.NOT_FOUND)
