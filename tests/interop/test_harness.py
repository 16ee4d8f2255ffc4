"""The harness against the originals alone: if these fail, nothing here says anything about shmq."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import java

pytestmark = [pytest.mark.interop, pytest.mark.long]


@pytest.mark.parametrize("client", ["client-5.3.3", "client-4.9.7"])
def test_java_client_talks_to_the_apache_broker(
    client: str, apache: java.ApacheBroker, java_home: Path
) -> None:
    topic = "Harness" + client.replace(".", "_")
    lines = java.run_probe(
        client, "roundtrip", apache.namesrv_addr, topic, "G" + topic, "4", "30", home=java_home
    )
    assert sorted(line["body"] for line in lines if line["event"] == "message") == sorted(
        f"{mode} {number}" for mode in ("sync", "async", "oneway") for number in range(4)
    )


def test_mqadmin_talks_to_the_apache_broker(apache: java.ApacheBroker, mqadmin: java.AdminShell) -> None:
    assert apache.broker_addr in mqadmin.run("clusterList", "-n", apache.namesrv_addr)
