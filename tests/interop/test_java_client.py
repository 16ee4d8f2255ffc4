"""Apache RocketMQ's own Java clients, unmodified, against shmq's TCP front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shmq.embedded import Broker
from tests.helpers import java

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

COUNT = 8
MODES = ("sync", "async", "oneway")
CLIENTS = ["client-5.3.3", pytest.param("client-4.9.7", marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=CLIENTS)
def lines(request: pytest.FixtureRequest, shmq_broker: Broker, java_home: Path) -> list[dict[str, Any]]:
    """What one JVM told: it sends to a topic nobody has made, then consumes it in a new group."""
    topic = "Java" + request.param.replace(".", "_")
    return java.run_probe(
        request.param,
        "roundtrip",
        shmq_broker.namesrv_tcp_addr,
        topic,
        f"G{topic}",
        str(COUNT),
        "40",
        home=java_home,
        limit_s=120,
    )


def test_sync_and_async_sends_to_an_auto_created_topic_are_acknowledged(lines: list[dict[str, Any]]) -> None:
    sent = [line for line in lines if line["event"] == "sent"]
    assert [line["status"] for line in sent] == ["SEND_OK"] * (2 * COUNT)
    assert not [line for line in lines if line["event"] == "error"]


def test_a_clustering_push_consumer_gets_every_message_once(lines: list[dict[str, Any]]) -> None:
    received = [line for line in lines if line["event"] == "message"]
    wanted = sorted(f"{mode} {number}" for mode in MODES for number in range(COUNT))
    assert sorted(line["body"] for line in received) == wanted


def test_tags_keys_and_user_properties_come_through(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        if line["event"] == "message":
            mode, number = line["body"].split()
            assert line["mode"] == mode
            assert line["keys"] == f"{mode}-{number}"
            assert line["tags"] == ("TagA" if mode == "sync" else "TagB")


def test_receipts_name_the_place_where_the_message_is_found(lines: list[dict[str, Any]]) -> None:
    receipts = {line["msgId"]: (line["queueId"], line["queueOffset"]) for line in lines if "status" in line}
    places = {line["msgId"]: (line["queueId"], line["queueOffset"]) for line in lines if "body" in line}
    assert receipts.items() <= places.items()


def test_an_auto_created_topic_has_four_queues(lines: list[dict[str, Any]]) -> None:
    assert {line["queueId"] for line in lines if "queueId" in line} == {0, 1, 2, 3}
