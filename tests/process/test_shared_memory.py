"""/dev/shm without room, or with the broker's objects removed by others: said clearly, nothing lost, no loop.

The tests with a small /dev/shm need the right to mount one in a namespace of their own; skipped elsewhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.protocol.codes import ResponseCode
from shmq.store.check import check_store
from tests.helpers.supervised_broker import BrokerMaker, SupervisedBroker
from tests.helpers.waiting import wait_until

WORKER = "shmq: worker 0 broker-t"


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


class WithSmallMemory(SupervisedBroker):
    """A broker in a mount namespace of its own, whose /dev/shm has so many KiB."""

    def __init__(self, folder: Path, kib: int) -> None:
        super().__init__(folder)
        self._kib = kib

    def launch(self) -> subprocess.Popen[bytes]:
        script = f'mount -t tmpfs -o size={self._kib}k tmpfs /dev/shm && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable]
        self.process = subprocess.Popen(
            [*command, "-m", "shmq.supervisor.main", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        return self.process


@pytest.fixture
def may_mount() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.decode().strip()}")


def names_of(broker: SupervisedBroker) -> list[Path]:
    """What the broker has in /dev/shm."""
    name = page_name(broker.folder / "store").lstrip("/")
    return sorted(path for path in Path("/dev/shm").iterdir() if name in path.name)


def is_acknowledged(broker: SupervisedBroker, body: bytes) -> bool:
    try:
        with broker.connect() as client:
            return client.send("T", body).code == ResponseCode.SUCCESS
    except OSError:
        return False


def readable(broker: SupervisedBroker) -> list[bytes]:
    with broker.connect() as client:
        return client.bodies("T")


@pytest.mark.long
@pytest.mark.usefixtures("may_mount")
def test_a_start_without_room_for_the_page_says_so_and_touches_nothing(
    make: BrokerMaker, tmp_path: Path
) -> None:
    broker = make(tmp_path).start()
    assert is_acknowledged(broker, b"kept")
    assert broker.stop() == 0
    for _ in range(2):
        process = WithSmallMemory(tmp_path, kib=64).launch()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert b"/dev/shm has no room for the control page" in said and b"--shm-size" in said
        assert list(check_store(tmp_path / "store")) == []
    broker.start()
    assert readable(broker) == [b"kept"]


@pytest.mark.long
@pytest.mark.usefixtures("may_mount")
def test_memory_that_others_fill_while_it_runs_stops_nobody(tmp_path: Path) -> None:
    broker = WithSmallMemory(tmp_path, kib=16 << 10)
    broker.start()
    try:
        assert is_acknowledged(broker, b"1")
        inside = ["nsenter", f"--mount=/proc/{broker.pid}/ns/mnt"]
        subprocess.run(
            [*inside, "dd", "if=/dev/zero", "of=/dev/shm/full", "bs=64k"], check=False, capture_output=True
        )
        for worker in [pid for name, pid in broker.children().items() if "worker" in name]:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: is_acknowledged(broker, b"2"), 20, "new workers serve")
        assert readable(broker) == [b"1", b"2"]
        assert broker.stop() == 0
        assert list(check_store(tmp_path / "store")) == []
    finally:
        if broker.process is not None and broker.process.poll() is None:
            broker.kill()


@pytest.mark.long
@pytest.mark.parametrize(
    "what",
    [
        pytest.param("control page", marks=pytest.mark.long),
        pytest.param("semaphore", marks=pytest.mark.long),
        "all",
    ],
)
def test_objects_removed_by_others_cost_a_restart_and_nothing_else(
    make: BrokerMaker, tmp_path: Path, what: str
) -> None:
    broker = make(tmp_path).start()
    assert is_acknowledged(broker, b"1")
    for path in names_of(broker):
        if what == "all" or (what == "semaphore") == path.name.startswith("sem."):
            path.unlink()
    assert is_acknowledged(broker, b"2"), "whoever runs goes on"
    process = broker.process
    assert process is not None
    os.kill(broker.children()[WORKER], signal.SIGKILL)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"was removed from /dev/shm" in said and b"nothing is lost" in said
    assert list(check_store(tmp_path / "store")) == []
    broker.start()
    assert readable(broker) == [b"1", b"2"]
    assert is_acknowledged(broker, b"3")
    assert broker.stop() == 0
    assert names_of(broker) == []


@pytest.mark.long
@pytest.mark.parametrize("what", ["semaphore", "all"])
def test_objects_removed_after_all_died_are_made_anew(make: BrokerMaker, tmp_path: Path, what: str) -> None:
    broker = make(tmp_path).start()
    for n in range(50):
        assert is_acknowledged(broker, b"%d" % n)
    broker.kill_all()
    for path in names_of(broker):
        if what == "all" or path.name.startswith("sem."):
            path.unlink()
    broker.start()
    assert readable(broker) == [b"%d" % n for n in range(50)]
    assert is_acknowledged(broker, b"more")
    assert broker.stop() == 0
    assert list(check_store(tmp_path / "store")) == []


@pytest.mark.long
def test_a_store_in_use_is_refused_by_any_name_and_what_the_dead_left_is_cleared_away(
    make: BrokerMaker, tmp_path: Path
) -> None:
    broker = make(tmp_path / "one").start()
    assert is_acknowledged(broker, b"1")
    (tmp_path / "other").symlink_to(tmp_path / "one" / "store")
    mine = names_of(broker)
    for root in (tmp_path / "other", tmp_path / "one" / "store" / ".." / "store"):
        second = make(tmp_path / "two", storePathRootDir=str(root))
        process = second.launch()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1 and f"process {broker.pid}".encode() in said
    assert names_of(broker) == mine, "those of a live broker are left alone"
    assert is_acknowledged(broker, b"2")
    broker.kill_all()
    sockets = sorted((tmp_path / "one" / "run").iterdir())
    assert names_of(broker) == mine and sockets, "a dead one left them"
    broker.start()
    assert readable(broker) == [b"1", b"2"]
    assert broker.stop() == 0
    assert names_of(broker) == [] and not list((tmp_path / "one" / "run").glob("*.sock"))
