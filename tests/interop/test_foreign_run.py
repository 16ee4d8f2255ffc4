"""kill -9 of everything, a run of Apache RocketMQ on the same folder, then shmq again: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq import Message, MessageQueue, Producer
from shmq.store.check import check_store
from tests.helpers import java
from tests.helpers.supervised_broker import BrokerMaker
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(240)]

TOPIC = "Between"
POINT = "journal.prepared"
SIZES = {
    "mappedFileSizeCommitLog": str(16 << 20),
    "mappedFileSizeConsumeQueue": str(20 * 4096),
    "maxIndexNum": "4096",
    "maxHashSlotNum": "1024",
}


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_apache_runs_between_a_death_in_a_claim_and_the_next_start(
    make: BrokerMaker, tmp_path: Path, clean: bool
) -> None:
    """The page's journal would undo a claim where Apache's records are now: the page must not be believed."""
    marks = tmp_path / "faults"
    marks.mkdir()
    broker = make(
        tmp_path,
        environment={"SHMQ_FAULTS": f"{POINT}=stop@21", "SHMQ_FAULTS_DIR": str(marks)},
        brokerWorkers="1",
        **SIZES,
    ).start()
    with broker.connect() as client:
        ours = [b"ours %d" % n for n in range(20)]
        for body in ours:
            assert client.send(TOPIC, body).code == 0
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send(TOPIC, b"never acknowledged" * 300)
    wait_until((marks / POINT).exists, 5, "the worker stands in the claim")
    broker.kill_all()

    theirs = [b"theirs %d" % n for n in range(50)]
    with (
        java.apache_broker(tmp_path, clean=clean) as apache,
        Producer("Between", namesrv_addr=apache.namesrv_addr) as producer,
    ):
        for body in theirs:
            producer.send(Message(TOPIC, body), queue=MessageQueue(TOPIC, "apache-a", 0))

    broker.environment["SHMQ_FAULTS"] = ""
    broker.start()
    assert "written_by_another_engine" in broker.log_text()
    with broker.connect() as client:
        assert client.bodies(TOPIC) == ours + theirs
        assert client.send(TOPIC, b"after").code == 0
        assert client.bodies(TOPIC) == [*ours, *theirs, b"after"]
    assert broker.stop() == 0
    assert list(check_store(Path(broker.places["store"]))) == []
