"""Disks that fail: a real broker on a file system that answers with errors when the test asks for them.

Needs root and /dev/fuse (`tests/helpers/fault_disk.py`); skipped, saying so, elsewhere.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.model.settings import FlushDiskType
from shmq.protocol.bodies.tables import decode_kv_table
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.page_layout import FLUSHED_POSITION, INDEXED_POSITION, SEGMENT_ERROR, WRITE_POSITION
from shmq.store import segment_allocator
from shmq.store.check import check_store
from shmq.store.checkpoint import Checkpoint
from tests.helpers.fault_disk import MountedFaultDisk
from tests.helpers.store import OpenStore, small_settings
from tests.helpers.supervised_broker import BrokerMaker, SupervisedBroker
from tests.helpers.waiting import wait_until

SYNC = {"flushDiskType": "SYNC_FLUSH", "zeroAheadBytes": "0", "flushCommitLogThoroughInterval": "200"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MountedFaultDisk]:
    """A disk that does what is asked of it, so far."""
    made = MountedFaultDisk(tmp_path)
    try:
        made.mount()
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    yield made
    made.unmount()


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


def broker_on(disk: MountedFaultDisk, make: BrokerMaker, folder: Path, **settings: str) -> SupervisedBroker:
    return make(folder, storePathRootDir=str(disk.path / "store"), **settings)


def word(disk: MountedFaultDisk, index: int) -> int:
    page = ControlPage.attach(page_name(disk.path / "store"), readonly=True)
    try:
        return int(page.words[index])
    finally:
        page.close()


def state_of(disk: MountedFaultDisk) -> PageState:
    page = ControlPage.attach(page_name(disk.path / "store"), readonly=True)
    try:
        return page.state
    finally:
        page.close()


def readable(broker: SupervisedBroker, topic: str = "T") -> list[bytes]:
    with broker.connect() as client:
        return client.bodies(topic)


def check_stopped(broker: SupervisedBroker, disk: MountedFaultDisk) -> None:
    assert broker.stop() == 0
    assert list(check_store(disk.path / "store")) == []


@pytest.mark.long
def test_a_failed_fdatasync_ends_acknowledging_and_a_start_mends_the_disk(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path, **SYNC).start()
    good = [b"good %d" % n for n in range(10)]
    with broker.connect() as client:
        for body in good:
            assert client.send("T", body).code == ResponseCode.SUCCESS
        disk.fail(("write", "commitlog/", errno.EIO))
        began = time.monotonic()
        answer = client.send("T", b"kept in memory, not by the disk")
        assert answer.code == ResponseCode.FLUSH_DISK_TIMEOUT
        assert time.monotonic() - began < 4, "told at once, not after syncFlushTimeout"
        assert state_of(disk) is PageState.FLUSH_FAILED
        disk.fail()  # it works again; but the kernel has forgotten that a page is missing there
        refused = client.send("T", b"never taken")
        assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE
        assert "fdatasync" in str(refused.remark) and "Restart" in str(refused.remark)
        assert client.bodies("T") == good
        told = decode_kv_table(client.ask(RequestCode.GET_BROKER_RUNTIME_INFO).body_bytes())
        assert told["storeState"] == "FLUSH_FAILED"
    assert broker.stop() == 1
    broker.start()
    with broker.connect() as client:
        assert client.send("T", b"again").code == ResponseCode.SUCCESS
    check_stopped(broker, disk)
    disk.unmount()  # what only the page cache had is gone
    disk.mount()
    broker.start()
    assert readable(broker) == [*good, b"kept in memory, not by the disk", b"again"]


@pytest.mark.long
def test_a_failed_write_that_zeroing_is_told_of_is_told_to_the_flusher_too(
    disk: MountedFaultDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once to each descriptor: were theirs the same, a lost record would be promised."""

    def sync_fails(fd: int, first: int, end: int) -> None:
        disk.fail(("write", "commitlog/", errno.EIO))
        os.fdatasync(fd)

    settings = small_settings(
        flush_disk_type=FlushDiskType.SYNC_FLUSH,
        mapped_file_size_commit_log=8 << 20,
        zero_ahead_bytes=1 << 20,
    )
    with OpenStore(disk.path / "store", settings) as store:
        store.send("T")
        assert store.flusher.flush()
        store.send("T", bytes(100_000))
        flushed = store.page.words[FLUSHED_POSITION]
        monkeypatch.setattr(segment_allocator, "sync_range", sync_fails)
        store.allocator.step()
        assert store.page.words[SEGMENT_ERROR] == errno.EIO
        disk.fail()
        assert not store.flusher.flush()
        assert store.page.state is PageState.FLUSH_FAILED
        assert store.page.words[FLUSHED_POSITION] == flushed


@pytest.mark.long
def test_while_the_disk_cannot_be_written_a_start_serves_readers_only(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path, flushCommitLogThoroughInterval="200").start()
    with broker.connect() as client:
        for n in range(10):
            assert client.send("T", b"%d" % n).code == ResponseCode.SUCCESS
        wait_until(lambda: word(disk, FLUSHED_POSITION) == word(disk, WRITE_POSITION), 10, "all is flushed")
        disk.fail(("write", "commitlog/", errno.EIO))
        assert client.send("T", b"10").code == ResponseCode.SUCCESS, "promised: the page cache"
        wait_until(lambda: state_of(disk) is PageState.FLUSH_FAILED, 15, "the flush has failed")
        assert client.bodies("T") == [b"%d" % n for n in range(11)]
    assert broker.stop() == 1
    for _ in range(2):
        broker.start()
        assert state_of(disk) is PageState.READ_ONLY
        assert "store_read_only" in broker.log_text()
        assert readable(broker) == [b"%d" % n for n in range(10)], "what the disk has"
        with broker.connect() as client:
            refused = client.send("T", b"never taken")
            assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE
            assert "cannot be written" in str(refused.remark)
        broker.kill_all()
    disk.fail()
    broker.start()
    assert readable(broker) == [b"%d" % n for n in range(11)]
    check_stopped(broker, disk)


REFUSALS = {
    "segment": (("allocate", "next-segment", errno.ENOSPC), "No space left"),
    "segment cannot be made": (("create", "next-segment", errno.EIO), "Input/output error"),
    "segment cannot be named": (("create", "commitlog/", errno.EIO), "Input/output error"),
    "queue window": (("allocate", "consumequeue/", errno.ENOSPC), "No space left"),
    "queue file": (("create", "consumequeue/", errno.EIO), "Input/output error"),
    "queue file cannot be opened": (("open", "consumequeue/", errno.EIO), "Input/output error"),
}


@pytest.mark.long
@pytest.mark.parametrize("place", REFUSALS)
def test_what_the_disk_refuses_is_refused_with_its_reason_until_it_works_again(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path, place: str
) -> None:
    rule, reason = REFUSALS[place]
    settings = {"mappedFileSizeCommitLog": str(256 << 10), "mappedFileSizeConsumeQueue": str(20 * 64)}
    broker = broker_on(disk, make, tmp_path, **settings).start()
    before = set(broker.children().values())
    with broker.connect() as client:
        bodies = [b"first"]
        assert client.send("T", bodies[0]).code == ResponseCode.SUCCESS
        disk.fail(rule)
        for n in range(400):
            answer = client.send("T", body := b"%04d" % n + bytes(2000))
            if answer.code:
                break
            bodies.append(body)
        assert answer.code == ResponseCode.SERVICE_NOT_AVAILABLE and reason in str(answer.remark)
        assert client.bodies("T") == bodies
        disk.fail()
        wait_until(lambda: client.send("T", b"last").code == ResponseCode.SUCCESS, 10, "it goes on by itself")
        assert client.bodies("T") == [*bodies, b"last"]
    assert set(broker.children().values()) == before, "nobody died of it"
    check_stopped(broker, disk)


@pytest.mark.long
def test_tables_that_cannot_be_written_refuse_changes_and_nothing_else(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path).start()
    with broker.connect() as client:
        assert client.send("Known", b"1").code == ResponseCode.SUCCESS
        for rule in (("create", "config/", errno.ENOSPC), ("sync", "config/", errno.EIO)):
            disk.fail(rule)
            topic = {"topic": "New", "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1}
            fields = {
                **topic,
                "perm": 6,
                "topicFilterType": "SINGLE_TAG",
                "topicSysFlag": 0,
                "order": "false",
            }
            refused = client.ask(RequestCode.UPDATE_AND_CREATE_TOPIC, fields)
            assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE, refused
            assert os.strerror(rule[2]) in str(refused.remark)
            assert client.send("Known", b"2").code == ResponseCode.SUCCESS
            disk.fail()
        assert client.ask(RequestCode.UPDATE_AND_CREATE_TOPIC, fields).code == ResponseCode.SUCCESS
        assert client.bodies("Known") == [b"1", b"2", b"2"]
    check_stopped(broker, disk)


@pytest.mark.long
def test_index_checkpoint_and_checksums_wait_for_the_disk_and_nobody_else_does(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    settings = {"flushCommitLogThoroughInterval": "200", "maxIndexNum": "400", "maxHashSlotNum": "101"}
    broker = broker_on(disk, make, tmp_path, **settings).start()
    with broker.connect() as client:
        disk.fail(
            ("allocate", "/index", errno.ENOSPC),
            ("create", "/index", errno.ENOSPC),
            ("create", "next-index", errno.ENOSPC),
            ("create", "checksums/0", errno.ENOSPC),
            ("write", "checksums/0", errno.ENOSPC),
            ("write", "store/checkpoint", errno.ENOSPC),
        )
        for n in range(100):
            assert client.send("T", b"%d" % n).code == ResponseCode.SUCCESS
        wait_until(lambda: "checkpoint_not_written" in broker.log_text(), 10, "it says so")
        disk.fail()
        wait_until(lambda: word(disk, INDEXED_POSITION) == word(disk, WRITE_POSITION), 15, "indexed")
        path = disk.path / "store" / "checkpoint"
        assert client.send("T", b"100").code == ResponseCode.SUCCESS
        wait_until(
            lambda: Checkpoint.load(path).confirm_offset == word(disk, WRITE_POSITION), 15, "a checkpoint"
        )
        assert client.bodies("T") == [b"%d" % n for n in range(101)]
    check_stopped(broker, disk)


@pytest.mark.long
def test_a_failed_sync_of_the_queues_ends_checkpoints_and_a_start_has_everything(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path, flushCommitLogThoroughInterval="200").start()
    disk.fail(("write", "consumequeue/", errno.EIO))
    with broker.connect() as client:
        for n in range(100):
            assert client.send("T", b"%d" % n).code == ResponseCode.SUCCESS
        wait_until(lambda: "checkpoint_failed" in broker.log_text(), 10, "it says so")
    disk.fail()
    broker.kill_all()
    disk.unmount()  # with what was not synced; the page of the same boot speaks of more
    disk.mount()
    broker.start()
    assert readable(broker) == [b"%d" % n for n in range(100)]
    check_stopped(broker, disk)


@pytest.mark.long
def test_a_disk_without_any_room_at_the_start_is_named(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path).start()
    with broker.connect() as client:
        assert client.send("T", b"here").code == ResponseCode.SUCCESS
    check_stopped(broker, disk)
    disk.fail(("create", "store/", errno.ENOSPC))
    process = broker.launch()
    _, said = process.communicate(timeout=30)
    assert process.returncode not in (0, None) and b"No space left on device" in said
    disk.fail()
    broker.start()
    assert readable(broker) == [b"here"]


@pytest.mark.long
def test_a_log_file_that_cannot_be_written_disturbs_nobody(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = broker_on(disk, make, tmp_path, logDir=str(disk.path / "log")).start()
    before = set(broker.children().values())
    disk.fail(("write", "/log/", errno.ENOSPC), ("create", "/log/", errno.ENOSPC))
    with broker.connect() as client:
        for n in range(20):
            assert client.send(f"T{n}", b"x").code == ResponseCode.SUCCESS
    os.kill(broker.children()["shmq: worker 0 broker-t"], signal.SIGKILL)
    wait_until(
        lambda: len(broker.children()) == 3 and set(broker.children().values()) != before, 15, "a new one"
    )

    def serves() -> bool:
        try:
            with broker.connect() as client:
                return client.send("T0", b"y").code == ResponseCode.SUCCESS
        except OSError:
            return False

    wait_until(serves, 15, "it serves")
    disk.fail()
    check_stopped(broker, disk)
    assert "stopping" in (disk.path / "log" / "broker.log").read_text()
