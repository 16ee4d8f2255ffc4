"""Retention with real brokers: disks that fill up, readers that hold deleted files, deaths in every window.

Tests on a small disk need the right to mount (root, or a container that allows it); skipped elsewhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmq import (
    Message,
    MessageQueue,
    Producer,
    PullConsumer,
    PullStatus,
)
from shmq.base.errors import BrokerError
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.model.message_ext import decode_messages
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.headers.pull import PULL_SUBSCRIPTION
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import totals
from shmq.shm.page_layout import DISK_FULL, MIN_OFFSET, WRITE_POSITION
from shmq.store.check import check_store
from shmq.store.disk_use import HeldFiles
from shmq.store.names import StoreLayout, file_starts
from tests.helpers.supervised_broker import BrokerMaker, RawClient, SupervisedBroker
from tests.helpers.waiting import wait_until

MIB = 1 << 20
SEGMENT = 256 << 10
FAST = {
    "cleanResourceInterval": "100",
    "deleteCommitLogFilesInterval": "0",
    "deleteConsumeQueueFilesInterval": "0",
    "flushCommitLogThoroughInterval": "200",
}
SMALL = {
    **FAST,
    "mappedFileSizeCommitLog": str(SEGMENT),
    "mappedFileSizeConsumeQueue": str(20 * 64),
    "maxIndexNum": "400",
    "maxHashSlotNum": "101",
}
TIGHT = {
    **FAST,
    "mappedFileSizeCommitLog": 2 * MIB,
    "diskMaxUsedSpaceRatio": 75,
    "diskSpaceCleanForciblyRatio": 85,
    "diskSpaceWarningLevelRatio": 90,
    "cleanFileForciblyEnable": True,
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 72 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    yield folder
    # A failed test's clients may still have maps of it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


# ---- expiry


def fill(broker: SupervisedBroker, topic: str = "T", count: int = 1200) -> None:
    """About 2 MiB of messages with keys, in two queues."""
    with broker.connect() as client:
        for n in range(count):
            answer = client.send(topic, body_of(n), n % 2)
            assert answer.code == 0, answer


def body_of(n: int) -> bytes:
    return b"%08d" % n + bytes(1500)


def expire(broker: SupervisedBroker, keep: int = 3) -> int:
    """Make all segments but the newest ones look old; return where the log begins when they are gone."""
    layout = StoreLayout(broker.folder / "store", SEGMENT, 20 * 64)
    starts = layout.segments()
    for start in starts[:-keep]:
        os.utime(layout.segment_path(start), (1, 1))
    return starts[-keep]


def position(broker: SupervisedBroker, word: int) -> int:
    """A word of the broker's page."""
    page = ControlPage.attach(page_name(broker.folder / "store"), readonly=True)
    try:
        return int(page.words[word])
    finally:
        page.close()


def min_offset(client: RawClient, topic: str, queue_id: int) -> int:
    answer = client.ask(RequestCode.GET_MIN_OFFSET, {"topic": topic, "queueId": queue_id})
    assert answer.code == 0 and answer.ext is not None
    return int(answer.ext["offset"])


def pull(client: RawClient, topic: str, queue_id: int, offset: int) -> tuple[int, int, list[bytes]]:
    """(code, next offset, bodies) of one pull."""
    fields = {
        "consumerGroup": "TOOLS_CONSUMER",
        "topic": topic,
        "queueId": queue_id,
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
    assert answer.ext is not None
    messages = decode_messages(answer.body_bytes()) if answer.code == 0 else []
    return answer.code, int(answer.ext["nextBeginOffset"]), [bytes(m.body) for m in messages]


def read_from(client: RawClient, topic: str, queue_id: int, offset: int, end: int) -> list[bytes]:
    found: list[bytes] = []
    while offset < end:
        code, offset, bodies = pull(client, topic, queue_id, offset)
        assert code == ResponseCode.SUCCESS
        found += bodies
    return found


def patiently(broker: SupervisedBroker, ask: Callable[[RawClient], object]) -> None:
    """Ask until the coordinator, which may be starting again, answers."""

    def answered() -> bool:
        try:
            with broker.connect() as client:
                ask(client)
                return True
        except (OSError, AssertionError):
            return False

    wait_until(answered, 20, "an answer")


def delete_expired(client: RawClient) -> None:
    assert client.ask(RequestCode.DELETE_EXPIRED_COMMITLOG).code == 0


def check(broker: SupervisedBroker) -> None:
    page = ControlPage.attach(page_name(broker.folder / "store"), readonly=True)
    try:
        assert list(check_store(broker.folder / "store", page)) == []
    finally:
        page.close()


def check_what_is_left(broker: SupervisedBroker, count: int = 1200) -> None:
    """Each queue holds its newest messages, whole and in order, and is asked for older ones in vain."""
    with broker.connect() as client:
        for queue_id in range(2):
            high = client.max_offset("T", queue_id)
            low = min_offset(client, "T", queue_id)
            assert high == count // 2 and 0 < low < high
            expected = [body_of(2 * n + queue_id) for n in range(low, high)]
            assert read_from(client, "T", queue_id, low, high) == expected
            assert pull(client, "T", queue_id, low - 1) == (ResponseCode.PULL_OFFSET_MOVED, low, [])


@pytest.mark.long
def test_expired_segments_go_on_request_and_the_rest_stays(make: BrokerMaker, tmp_path: Path) -> None:
    broker = make(tmp_path, **SMALL, deleteWhen=quiet_hour()).start()
    fill(broker)
    first = expire(broker)
    with broker.connect() as client:
        delete_expired(client)
    wait_until(lambda: position(broker, MIN_OFFSET) == first, 10, "the log begins later")
    layout = StoreLayout(broker.folder / "store", SEGMENT, 20 * 64)
    wait_until(lambda: layout.segments()[0] == first, 10, "segments are gone")
    wait_until(lambda: file_starts(layout.queue_folder("T", 0))[0] > 0, 10, "queue files are gone")
    wait_until(lambda: file_starts(layout.checksums)[0] >= first, 10, "their checksums are gone")
    check_what_is_left(broker)
    check(broker)
    assert broker.stop() == 0
    assert list(check_store(broker.folder / "store")) == []
    broker.start()
    check_what_is_left(broker)


def quiet_hour() -> str:
    """An hour that is not now."""
    return f"{(time.localtime().tm_hour + 12) % 24:02d}"


@pytest.mark.long
def test_in_the_hour_of_delete_when_only_what_is_old_enough_goes(make: BrokerMaker, tmp_path: Path) -> None:
    every_hour = ";".join(f"{hour:02d}" for hour in range(24))
    broker = make(tmp_path, **SMALL, deleteWhen=every_hour).start()
    fill(broker)
    assert position(broker, MIN_OFFSET) == 0
    first = expire(broker, keep=5)
    layout = StoreLayout(broker.folder / "store", SEGMENT, 20 * 64)
    wait_until(lambda: layout.segments()[0] == first, 10, "segments are gone")
    check_what_is_left(broker)


@pytest.mark.long
@pytest.mark.parametrize(
    "fault",
    [
        "retention.min_stored=kill",
        pytest.param("retention.unlinked=kill", marks=pytest.mark.long),
        pytest.param("retention.queue_min_stored=kill", marks=pytest.mark.long),
        pytest.param("retention.minima_stored=kill@2", marks=pytest.mark.long),
        pytest.param("retention.folder_synced=kill", marks=pytest.mark.long),
        pytest.param("retention.queue_file_unlinked=kill", marks=pytest.mark.long),
        pytest.param("retention.index_file_unlinked=kill", marks=pytest.mark.long),
    ],
)
def test_a_coordinator_that_dies_while_deleting_is_followed_by_one_that_finishes(
    make: BrokerMaker, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "faults").mkdir()
    environment = {"SHMQ_FAULTS": fault, "SHMQ_FAULTS_DIR": str(tmp_path / "faults")}
    broker = make(tmp_path, environment=environment, **SMALL, deleteWhen=quiet_hour()).start()
    with Producer("keys", namesrv_addr=f"unix:{broker.places['namesrvUnix']}") as producer:
        for n in range(900 if "index" in fault else 1):
            producer.send(Message("Keyed", b"k", keys=f"k{n}"))
    fill(broker)
    if "index" in fault:
        index = broker.folder / "store" / "index"
        wait_until(lambda: len(list(index.glob("2*"))) >= 3, 10, "two index files are full")
    first = expire(broker)
    patiently(broker, delete_expired)
    wait_until(lambda: any((tmp_path / "faults").iterdir()), 10, f"a death at {fault}")

    def finished() -> bool:
        patiently(broker, delete_expired)
        layout = StoreLayout(broker.folder / "store", SEGMENT, 20 * 64)
        return position(broker, MIN_OFFSET) >= first and layout.segments()[0] >= first

    wait_until(finished, 20, "the next one has finished")
    check(broker)
    check_what_is_left(broker)
    assert broker.stop() == 0
    assert list(check_store(broker.folder / "store")) == []


# ---- pressure


def send_until_stored(producer: Producer, message: Message, queue: MessageQueue | None) -> MessageQueue:
    """Send as a patient producer does; only a full disk is waited for."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return producer.send(message, queue=queue).message_queue
        except BrokerError as error:
            assert error.code == ResponseCode.SERVICE_NOT_AVAILABLE, error
            assert "full" in str(error) or "No space left" in str(error)
            assert time.monotonic() < deadline, error
            time.sleep(0.05)


@pytest.mark.long
def test_a_small_disk_takes_messages_for_ever_and_keeps_the_newest(small_disk: Path) -> None:
    bodies = [n.to_bytes(4, "big") * 12_500 for n in range(3000)]
    with Broker(small_disk / "store", **TIGHT) as broker:
        settings = {"compress_msg_body_over_howmuch": MIB, "retry_times_when_send_failed": 0}
        with (
            Producer("Full", namesrv_addr=broker.namesrv_addr, **settings) as producer,
            PullConsumer("Full", namesrv_addr=broker.namesrv_addr) as consumer,
            PullConsumer("Socket", namesrv_addr=broker.namesrv_addr, direct_pull=False) as by_socket,
        ):
            queue = None
            for n, body in enumerate(bodies):
                queue = send_until_stored(producer, Message("Full", body), queue)
                if n < 64:  # it has maps of what will be deleted
                    consumer.pull(queue, "*", n, 32)
            assert queue is not None

            def nothing_goes() -> bool:
                before = consumer.min_offset(queue)
                time.sleep(1.0)  # many looks at the disk
                return consumer.min_offset(queue) == before

            wait_until(nothing_goes, 30, "there is room enough again")
            low, high = consumer.min_offset(queue), consumer.max_offset(queue)
            assert high == 3000 and 0 < low < 3000 - 500
            for reader in (consumer, by_socket):
                moved = reader.pull(queue, "*", 10, 32)
                assert (moved.status, moved.next_begin_offset) == (PullStatus.OFFSET_ILLEGAL, low)
                offset = low
                while offset < high:
                    found = reader.pull(queue, "*", offset, 32)
                    assert [bytes(m.body) for m in found.messages] == bodies[offset : found.next_begin_offset]
                    offset = found.next_begin_offset
            page = ControlPage.attach(page_name(broker.store_root), readonly=True)
            assert list(check_store(broker.store_root, page)) == []
            assert totals(page)["segments_deleted"] > 30
            page.close()


HOLDER = """
import mmap, sys
maps = []
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.mark.long
def test_a_reader_that_holds_old_files_does_not_cost_the_whole_log(small_disk: Path) -> None:
    body = bytes(50_000)
    log = small_disk.parent / "log"
    with Broker(small_disk / "store", **TIGHT, logDir=log) as broker:
        settings = {"compress_msg_body_over_howmuch": MIB, "retry_times_when_send_failed": 0}
        layout = StoreLayout(broker.store_root, 2 * MIB, 20 * 4096)
        with Producer("Held", namesrv_addr=broker.namesrv_addr, **settings) as producer:
            queue = producer.send(Message("Held", body)).message_queue
            for _ in range(600):
                producer.send(Message("Held", body), queue=queue)
            held = [str(layout.segment_path(start)) for start in layout.segments()[:10]]
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLDER, *held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            try:
                assert holder.stdout is not None and holder.stdout.readline() == b"holding\n"
                refused = _send_until_refused(producer, queue, body)
                assert "full" in refused or "No space left" in refused
                page = ControlPage.attach(page_name(broker.store_root), readonly=True)
                wait_until(lambda: page.words[DISK_FULL] > 90, 10, "the disk counts as full")
                _rounds(broker)
                kept = page.words[WRITE_POSITION] - page.words[MIN_OFFSET]
                assert kept > 36 * MIB, "the ten that are held would be enough"
                page.close()
                lines = lambda: (log / "broker.log").read_text().splitlines()  # noqa: E731
                told = lambda: any("deleted_files_held" in x and str(holder.pid) in x for x in lines())  # noqa: E731
                wait_until(told, 20, "the log names who holds the deleted files")
            finally:
                holder.communicate()
            wait_until(lambda: _is_stored(producer, queue, body), 20, "there is room again")


def _send_until_refused(producer: Producer, queue: MessageQueue, body: bytes) -> str:
    for _ in range(5000):
        try:
            producer.send(Message("Held", body), queue=queue)
        except BrokerError as error:
            assert error.code == ResponseCode.SERVICE_NOT_AVAILABLE
            return str(error)
    raise AssertionError("never refused")


def _is_stored(producer: Producer, queue: MessageQueue, body: bytes) -> bool:
    try:
        producer.send(Message("Held", body), queue=queue)
    except BrokerError:
        return False
    return True


def _rounds(broker: Broker) -> None:
    """Let several rounds of retention pass: the log's files do not change any more."""
    layout = StoreLayout(broker.store_root, 2 * MIB, 20 * 4096)
    seen: list[list[int]] = []

    def stands_still() -> bool:
        seen.append(layout.segments())
        return len(seen) > 40 and seen[-1] == seen[-30]

    wait_until(stands_still, 30, "retention is content")


READER = """
import sys
from shmq import MessageQueue, PullConsumer
consumer = PullConsumer("direct", namesrv_addr=sys.argv[1])
consumer.start()
queue, offset = MessageQueue("T", "broker-t", 0), 0
while offset < 600:
    found = consumer.pull(queue, "*", offset, 32)
    offset = found.next_begin_offset
del found
print("read", flush=True)
sys.stdin.readline()
"""


@pytest.mark.long
@pytest.mark.parametrize("stopped", [False, True])
def test_a_direct_reader_lets_go_by_itself_or_loses_its_grant(
    make: BrokerMaker, tmp_path: Path, stopped: bool
) -> None:
    intervals = {"destroyMapedFileIntervalForcibly": "1000", "redeleteHangedFileInterval": "500"}
    broker = make(tmp_path, **SMALL, **intervals, deleteWhen=quiet_hour()).start()
    fill(broker)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, f"unix:{broker.places['namesrvUnix']}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    held = HeldFiles(tmp_path / "store")

    def holders() -> set[int]:
        list(held.look())
        return {pid for found in held.found for pid in found.pids}

    try:
        assert reader.stdout is not None and reader.stdout.readline() == b"read\n"
        if stopped:
            reader.send_signal(signal.SIGSTOP)
        first = expire(broker)
        patiently(broker, delete_expired)
        layout = StoreLayout(broker.folder / "store", SEGMENT, 20 * 64)
        wait_until(lambda: layout.segments()[0] == first, 15, "segments are gone")
        if stopped:
            assert reader.pid in holders()
            wait_until(lambda: "grants_ended readers=1" in broker.log_text(), 15, "its grant ends")
            assert f"{reader.pid} (" in broker.log_text()
            reader.send_signal(signal.SIGCONT)
        wait_until(lambda: not holders(), 20, "nobody holds a deleted file")
        assert reader.poll() is None
    finally:
        reader.communicate(b"\n")
    check_what_is_left(broker)
