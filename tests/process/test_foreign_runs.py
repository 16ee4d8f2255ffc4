"""Between two runs somebody else wrote the store, or put an older one in its place: the next start notices.

The folder stays the same, so the control page that a killed broker left behind has the right name, and its
journal may tell of a claim that is not in these files: nothing of it may be believed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.protocol.codes import RequestCode
from shmq.store.check import check_store
from tests.helpers.supervised_broker import BrokerMaker, RawClient, SupervisedBroker
from tests.helpers.waiting import wait_until

TOPIC = "t"
CLAIM_STOPS = "journal.prepared"
"""A process that stands here holds the lock, and its claim is to be undone by whoever repairs the page."""


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


def start(make: BrokerMaker, folder: Path, *, stop_at: int = 0) -> SupervisedBroker:
    """A broker on `folder`; with `stop_at` its worker stops inside the so many-th claim, for good."""
    faults = {"SHMQ_FAULTS": f"{CLAIM_STOPS}=stop@{stop_at}", "SHMQ_FAULTS_DIR": str(folder / "faults")}
    (folder / "faults").mkdir(parents=True, exist_ok=True)
    return make(folder, environment=faults if stop_at else {}, brokerWorkers="1").start()


def send(client: RawClient, first: int, count: int) -> list[bytes]:
    """Send so many messages to one queue; all are acknowledged."""
    bodies = [b"message %d" % n for n in range(first, first + count)]
    for body in bodies:
        assert client.send(TOPIC, body).code == 0
    return bodies


def die_in_a_claim(make: BrokerMaker, folder: Path, acknowledged: int) -> list[bytes]:
    """Run a broker until its worker stands inside the claim after so many, then kill -9 everything."""
    broker = start(make, folder, stop_at=acknowledged + 1)
    with broker.connect() as client:
        bodies = send(client, 0, acknowledged)
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send(TOPIC, b"never acknowledged" * 200)
    wait_until((folder / "faults" / CLAIM_STOPS).exists, 5, "the worker stands in the claim")
    broker.kill_all()
    return bodies


def copy(source: Path, target: Path) -> None:
    """Put the content of a store into a folder that stays the same one, as a restore does."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def check(broker: SupervisedBroker, expected: list[bytes]) -> None:
    """Exactly these messages are there, more can be sent, and the stopped store is sound."""
    with broker.connect() as client:
        assert client.max_offset(TOPIC) == len(expected)
        assert client.bodies(TOPIC) == expected
        send(client, len(expected), 10)
        assert client.max_offset(TOPIC) == len(expected) + 10
    assert broker.stop() == 0
    assert list(check_store(Path(broker.places["store"]))) == []


@pytest.mark.long
@pytest.mark.parametrize("ended", ["cleanly", pytest.param("killed", marks=pytest.mark.long)])
def test_a_run_elsewhere_is_not_undone_by_the_old_pages_journal(
    make: BrokerMaker, tmp_path: Path, ended: str
) -> None:
    """Its records lie where the dead worker's claim was: a repair by the old page would zero them."""
    bodies = die_in_a_claim(make, tmp_path / "here", 20)
    copy(tmp_path / "here" / "store", tmp_path / "there" / "store")
    other = start(make, tmp_path / "there")
    with other.connect() as client:
        bodies += send(client, len(bodies), 15)
    if ended == "cleanly":
        assert other.stop() == 0
    else:
        other.kill_all()
    copy(tmp_path / "there" / "store", tmp_path / "here" / "store")
    broker = start(make, tmp_path / "here")
    assert "kept_page_not_of_these_files" in broker.log_text()
    check(broker, bodies)


@pytest.mark.long
def test_an_older_backup_of_the_same_run_is_recovered_without_the_page(
    make: BrokerMaker, tmp_path: Path
) -> None:
    """Marks and page id are the page's own: only inodes and change times tell that these are other files."""
    broker = start(make, tmp_path)
    with broker.connect() as client:
        bodies = send(client, 0, 20)
        subprocess.run(["cp", "-a", str(tmp_path / "store"), str(tmp_path / "backup")], check=True)
        send(client, 20, 20)
        fields = {"consumerGroup": "g", "topic": TOPIC, "queueId": 0}
        assert client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, {**fields, "commitOffset": 40}).code == 0
    broker.kill_all()
    copy(tmp_path / "backup", tmp_path / "store")
    broker = start(make, tmp_path)
    assert "mode=RecoveryMode.FULL" in broker.log_text()
    with broker.connect() as client:
        answer = client.ask(RequestCode.QUERY_CONSUMER_OFFSET, fields)
        assert answer.code != 0 or (answer.ext or {})["offset"] == "0", "an offset of the run that is gone"
    check(broker, bodies)


@pytest.mark.long
def test_files_written_over_in_place_are_noticed(make: BrokerMaker, tmp_path: Path) -> None:
    """The inodes stay; the change times do not."""
    bodies = die_in_a_claim(make, tmp_path / "here", 20)
    copy(tmp_path / "here" / "store", tmp_path / "there" / "store")
    other = start(make, tmp_path / "there")
    with other.connect() as client:
        bodies += send(client, len(bodies), 15)
    other.kill_all()
    subprocess.run(["cp", "-a", f"{tmp_path}/there/store/.", f"{tmp_path}/here/store"], check=True)
    check(start(make, tmp_path / "here"), bodies)


@pytest.mark.long
def test_a_segment_put_back_alone_is_noticed(make: BrokerMaker, tmp_path: Path) -> None:
    """As a copy that only writes what differs does: the marks are untouched."""
    broker = start(make, tmp_path)
    with broker.connect() as client:
        bodies = send(client, 0, 20)
    broker.kill_all()
    (segment,) = sorted((tmp_path / "store" / "commitlog").iterdir())[:1]
    shutil.copy2(segment, tmp_path / "segment")
    (tmp_path / "segment").replace(segment)
    broker = start(make, tmp_path)
    assert "mode=RecoveryMode.FULL" in broker.log_text()
    check(broker, bodies)
