"""Parts of a log that the disk cannot give any more: nobody dies of it again and again, nothing else is lost.

Needs root and /dev/fuse (`tests/helpers/fault_disk.py`); skipped, saying so, elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq import MessageQueue, PullConsumer, PullStatus
from shmq.base.runtime_dir import page_name
from shmq.model.message_ext import decode_messages
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.headers.pull import PULL_SUBSCRIPTION
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import totals
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from tests.helpers.fault_disk import MountedFaultDisk
from tests.helpers.supervised_broker import BrokerMaker, SupervisedBroker
from tests.helpers.waiting import wait_until

SEGMENT = 256 << 10
SETTINGS = {
    "mappedFileSizeCommitLog": str(SEGMENT),
    "scrubBytesPerSecond": "0",
    "flushCommitLogThoroughInterval": "200",
}
COUNT = 600
BODY = 2000
"""About 1.3 MB: five segments, eight messages in 16 KiB."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MountedFaultDisk]:
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


def body_of(n: int) -> bytes:
    return b"%06d" % n + bytes(BODY)


def filled(disk: MountedFaultDisk, make: BrokerMaker, folder: Path) -> SupervisedBroker:
    broker = make(folder, storePathRootDir=str(disk.path / "store"), **SETTINGS).start()
    with broker.connect() as client:
        for n in range(COUNT):
            assert client.send("T", body_of(n)).code == ResponseCode.SUCCESS
    return broker


def without_cache(disk: MountedFaultDisk, broker: SupervisedBroker) -> None:
    """Stop and start the broker, with nothing of its files in memory."""
    assert broker.stop() == 0
    disk.unmount()
    disk.mount()


def pull_all(broker: SupervisedBroker) -> list[int]:
    """The numbers of all messages that a patient consumer gets, by sockets."""
    found: list[int] = []
    offset = 0

    def at_the_end() -> bool:
        nonlocal offset
        try:
            with broker.connect() as client:
                while offset < COUNT:
                    fields = {
                        "consumerGroup": "TOOLS_CONSUMER",
                        "topic": "T",
                        "queueId": 0,
                        "queueOffset": offset,
                        "maxMsgNums": 32,
                        "sysFlag": PULL_SUBSCRIPTION,
                        "commitOffset": 0,
                        "suspendTimeoutMillis": 0,
                        "subVersion": 0,
                        "subscription": "*",
                        "expressionType": "TAG",
                    }
                    answer = client.ask(RequestCode.PULL_MESSAGE, fields)
                    assert answer.code in (ResponseCode.SUCCESS, ResponseCode.PULL_RETRY_IMMEDIATELY), answer
                    assert answer.ext is not None
                    offset = int(answer.ext["nextBeginOffset"])
                    if answer.code == ResponseCode.SUCCESS:
                        messages = decode_messages(answer.body_bytes())
                        found.extend(int(bytes(message.body)[:6]) for message in messages)
        except OSError:
            return False
        return True

    wait_until(at_the_end, 30, "all is read")
    return found


def deaths(disk: MountedFaultDisk) -> int:
    page = ControlPage.attach(page_name(disk.path / "store"), readonly=True)
    try:
        return totals(page)["deaths_by_sigbus"]
    finally:
        page.close()


def flushed(disk: MountedFaultDisk) -> bool:
    page = ControlPage.attach(page_name(disk.path / "store"), readonly=True)
    try:
        return bool(page.words[FLUSHED_POSITION] == page.words[WRITE_POSITION])
    finally:
        page.close()


def lost_in(page_at: int, data: bytes) -> set[int]:
    """The numbers of the messages that have a byte in the page at that place of the first segment."""
    lost = set()
    for n in range(COUNT):
        begin = data.find(b"%06d" % n + bytes(100))
        if begin >= 0 and begin - 88 < page_at + 4096 and begin + BODY + 200 > page_at:
            lost.add(n)
    return lost


@pytest.mark.long
def test_a_bad_sector_costs_the_messages_in_it_and_nobody_dies(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = filled(disk, make, tmp_path)
    data = (disk.path / "store" / "commitlog" / ("0" * 20)).read_bytes()
    without_cache(disk, broker)
    broker.start()
    disk.fail(("sector", f"commitlog/{'0' * 20}#40960", errno.EIO))
    before = set(broker.children().values())
    may_miss = lost_in(40960, data)
    assert 2 <= len(may_miss) <= 5
    expected = set(range(COUNT)) - may_miss
    found = pull_all(broker)
    assert found == sorted(set(found)) and set(found) >= expected and len(found) < COUNT
    with PullConsumer("direct", namesrv_addr=f"unix:{broker.places['namesrvUnix']}") as consumer:
        queue = MessageQueue("T", "broker-t", 0)
        offset, direct = 0, []
        while offset < COUNT:
            got = consumer.pull(queue, "*", offset, 32)
            assert got.status in (PullStatus.FOUND, PullStatus.NO_MATCHED_MSG), got
            direct += [int(bytes(message.body)[:6]) for message in got.messages]
            offset = got.next_begin_offset
    assert direct == found
    assert set(broker.children().values()) == before and deaths(disk) == 0
    assert "page_unreadable" in broker.log_text()
    disk.fail()
    assert broker.stop() == 0


@pytest.mark.long
def test_a_segment_cut_under_the_broker_is_no_restart_loop(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = filled(disk, make, tmp_path)
    path = disk.path / "store" / "commitlog" / ("0" * 20)
    data = path.read_bytes()
    newest = sorted(path.parent.iterdir())[-3]
    os.truncate(path, 40960)
    os.truncate(newest, 4096)  # where nobody expects it: new bytes are read without a question
    found = pull_all(broker)
    assert found == sorted(set(found))
    whole = {n for n in range(COUNT) if 0 <= data.find(b"%06d" % n + bytes(100)) < 40960 - BODY - 200}
    assert len(whole) > 10 and whole <= set(found), "in front of the cut"
    assert set(range(COUNT // 4, COUNT // 2)) <= set(found), "in between"
    assert COUNT - 1 in found, "behind"
    assert deaths(disk) <= 4, "each process at most once, and the coordinator"
    assert pull_all(broker) == found
    died = deaths(disk)
    assert pull_all(broker) == found and deaths(disk) == died


@pytest.mark.long
def test_a_start_over_a_bad_sector_reads_with_care(
    disk: MountedFaultDisk, make: BrokerMaker, tmp_path: Path
) -> None:
    broker = filled(disk, make, tmp_path)
    data = (disk.path / "store" / "commitlog" / ("0" * 20)).read_bytes()
    wait_until(lambda: flushed(disk), 15, "all is on the disk")
    broker.kill_all()
    (disk.path / "store" / "checkpoint").unlink(missing_ok=True)
    disk.unmount()
    disk.mount()
    disk.fail(("sector", f"commitlog/{'0' * 20}#40960", errno.EIO))
    broker.start()
    assert "recovery_met_a_bad_sector" in broker.log_text()
    found = pull_all(broker)
    assert set(found) >= set(range(COUNT)) - lost_in(40960, data)
    assert found == sorted(set(found))
    with broker.connect() as client:
        assert client.send("T", b"goes on").code == ResponseCode.SUCCESS
        assert client.max_offset("T") == COUNT + 1


@pytest.mark.long
@pytest.mark.parametrize("cut", ["segment", "queue"])
def test_a_file_cut_where_the_next_message_goes_is_refused_by_name_and_no_restart_loop(
    make: BrokerMaker, tmp_path: Path, cut: str
) -> None:
    small = {"mappedFileSizeCommitLog": str(SEGMENT), "mappedFileSizeConsumeQueue": str(20 * 64)}
    broker = make(tmp_path, **small).start()
    with broker.connect() as client:
        for n in range(100):
            assert client.send("T", body_of(n)[:500]).code == ResponseCode.SUCCESS
        assert client.send("Other", b"1").code == ResponseCode.SUCCESS
    folder = tmp_path / "store" / ("commitlog" if cut == "segment" else "consumequeue/T/0")
    path = sorted(folder.iterdir())[0 if cut == "segment" else -1]
    os.truncate(path, 8192 if cut == "segment" else 0)
    said: list[str] = []

    def is_refused_by_name() -> bool:
        """Twice by each worker: none of them dies of it any more."""
        try:
            with broker.connect() as client:
                answer = client.send("T", b"after")
        except OSError:
            said.clear()
            return False
        said.append(str(answer.remark))
        return len(said) >= 6

    wait_until(is_refused_by_name, 30, "all refuse")
    assert all(path.name in text and "was cut" in text for text in said)
    page = ControlPage.attach(page_name(tmp_path / "store"), readonly=True)
    assert totals(page)["deaths_by_sigbus"] <= 2
    page.close()
    if cut == "queue":
        with broker.connect() as client:
            assert client.send("Other", b"2").code == ResponseCode.SUCCESS, "other queues go on"
        assert broker.stop() == 0
        broker.start()
        with broker.connect() as client:
            assert client.bodies("T") == [body_of(n)[:500] for n in range(100)], "made anew from the log"
            assert client.send("T", b"goes on").code == ResponseCode.SUCCESS
