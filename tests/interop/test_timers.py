"""Messages for any moment from RocketMQ's own Java client."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.embedded import Broker
from shmq.model.properties import TIMER_OUT_MS
from tests.helpers import java
from tests.helpers.whole_broker import read_all

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(120)]


def test_a_java_client_delays_and_takes_back(java_home: Path) -> None:
    with Broker() as broker:
        lines = java.run_probe(
            "client-5.3.3",
            broker.namesrv_tcp_addr,
            "JavaTimers",
            "JavaTimersGroup",
            "60",
            home=java_home,
            limit_s=100,
            main="TimerProbe",
        )
        stored = read_all(broker, "JavaTimers")
    sent = {line["body"]: line for line in lines if line["event"] == "sent"}
    assert {line["status"] for line in sent.values()} == {"SEND_OK"}
    assert all(sent[body]["handle"] for body in ("ms", "seconds", "recalled"))  # a moment may have come
    (recalled,) = [line["msgId"] for line in lines if line["event"] == "recalled"]
    assert recalled == sent["recalled"]["msgId"]
    received = [line for line in lines if line["event"] == "message"]
    assert sorted(line["body"] for line in received) == ["moment", "ms", "seconds"]
    assert [line["code"] for line in lines if line["event"] == "refused"] == [604]
    for message in stored:
        assert message.store_timestamp >= int(message.properties.get(TIMER_OUT_MS, 0))
