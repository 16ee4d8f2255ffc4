"""Messages for any moment on a real broker: when, where and how often they are delivered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from shmq import AdminClient, ClientFault, Message, Producer, SendResult
from shmq.admin import main
from shmq.admin.exits import ExitCode
from shmq.base.errors import IllegalOperation, MessageIllegal, NoPermission, TopicNotExist
from shmq.base.runtime_dir import page_name
from shmq.client.errors import ClientError
from shmq.embedded import Broker
from shmq.model.names import TIMER_TOPIC
from shmq.model.timer import RecallHandle
from shmq.store.check import check_store
from shmq.store.names import StoreLayout
from tests.helpers.stepped_clock import StepClock
from tests.helpers.waiting import wait_until
from tests.helpers.whole_broker import coordinator_of, read_all

MS = timedelta(milliseconds=1)
SEGMENT = 256 << 10


def with_properties(topic: str, body: bytes, **properties: str) -> Message:
    message = Message(topic, body)
    message.properties.update(properties)
    return message


def arrived(broker: Broker, topic: str) -> dict[bytes, int]:
    """When what is in a topic was stored there, by body."""
    found = read_all(broker, topic)
    stored = {message.body: message.store_timestamp for message in found}
    assert len(stored) == len(found), sorted(message.body for message in found)
    return stored


def wait_for(broker: Broker, topic: str, count: int) -> dict[bytes, int]:
    wait_until(lambda: len(read_all(broker, topic)) >= count, 60, f"{count} messages are delivered")
    return arrived(broker, topic)


def test_each_waits_for_its_moment_and_no_longer(tmp_path: Path) -> None:
    """Checklist 80, 82 and 83, and what clients of RocketMQ set."""
    with Broker(brokerWorkers="1", messageDelayLevel="1s") as broker:
        with Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Timed", 2)
            queue = producer.fetch_publish_message_queues("Timed")[1]
            begin = time.time_ns() // 1_000_000
            due = {b"ms": 300, b"at": 700, b"seconds": 1000, b"moment": 1400}
            messages = [
                Message("Timed", b"ms", tags="TagA", delay=300 * MS),
                Message("Timed", b"at", deliver_at=datetime.fromtimestamp((begin + 700) / 1000, UTC)),
                with_properties("Timed", b"seconds", TIMER_DELAY_SEC="1"),
                with_properties("Timed", b"moment", TIMER_DELIVER_MS=str(begin + 1400)),
                Message("Timed", b"past", deliver_at=datetime(2020, 2, 2)),
                with_properties("Timed", b"level", DELAY="1", TIMER_DELAY_SEC="600"),
            ]
            results = {message.body: producer.send(message, queue=queue) for message in messages}
            assert [body for body, sent in results.items() if sent.recall_handle] == list(due)
            sent = time.time_ns() // 1_000_000
            stored = wait_for(broker, "Timed", 6)
        assert stored[b"past"] <= sent
        for body, delay in due.items():
            assert stored[body] >= begin + delay
        for message in read_all(broker, "Timed"):
            assert (message.topic, message.queue_id) == ("Timed", queue.queue_id)
        (tagged,) = [message for message in read_all(broker, "Timed") if message.body == b"ms"]
        assert tagged.tags == "TagA"
        assert list(check_store(Path(broker.store_root))) == []


@pytest.mark.long
def test_what_cannot_wait_is_refused(tmp_path: Path) -> None:
    """Checklist 81, with the maximum as it is configured."""
    with (
        Broker(brokerWorkers="1", timerMaxDelaySec="3600") as broker,
        Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        producer.create_topic("Refused", 1)
        with pytest.raises(MessageIllegal, match="timerMaxDelaySec"):
            producer.send(Message("Refused", b"1", delay=timedelta(seconds=3602)))
        with pytest.raises(MessageIllegal, match="TIMER_DELAY_MS"):
            producer.send(with_properties("Refused", b"1", TIMER_DELAY_MS="soon"))
        with pytest.raises(MessageIllegal, match="cancelled"):
            producer.send(with_properties("Refused", b"1", TIMER_DELIVER_MS="5", TIMER_DEL_UNIQKEY="T+U"))
        with pytest.raises(ClientFault, match="delay"):
            producer.send([Message("Refused", b"1", delay=MS), Message("Refused", b"2", delay=MS)])
        with pytest.raises(ClientFault):
            producer.send(Message(TIMER_TOPIC, b"direct"))
        assert producer.send(Message("Refused", b"1", delay=timedelta(seconds=3599))).recall_handle


@pytest.mark.long
def test_nothing_waits_and_nothing_is_taken_back_where_that_is_switched_off() -> None:
    """Checklist 86."""
    with (
        Broker(brokerWorkers="1", timerWheelEnable="false", recallMessageEnable="false") as broker,
        Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        producer.create_topic("Off", 1)
        with pytest.raises(ClientError, match="timerWheelEnable"):
            producer.send(Message("Off", b"1", delay=timedelta(seconds=1)))
        handle = RecallHandle("Off", "broker-a", time.time_ns() // 1_000_000 + 60_000, "KEY")
        with pytest.raises(NoPermission, match="recallMessageEnable"):
            producer.recall_message("Off", handle.encode())


@pytest.mark.long
@pytest.mark.parametrize("victim", ["coordinator", pytest.param("all", marks=pytest.mark.long)])
def test_kills_while_timers_become_due_deliver_each_once(tmp_path: Path, victim: str) -> None:
    """The cursor moves in the claim that delivers: it is in the log once, whoever dies."""
    count, span = 400, 2500 if victim == "coordinator" else 15_000
    broker = Broker(tmp_path / "store", brokerWorkers="1")
    broker.start()
    try:
        with Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Once", 4)
            sends = [
                producer.send_async(Message("Once", b"%d" % n, delay=(n * 37 % span) * MS))
                for n in range(count)
            ]
            for send in sends:
                send.result(20)

        def done() -> int:
            return len(read_all(broker, "Once"))

        for kill in range(3):
            before = done()
            if before < count:
                wait_until(lambda before=before: done() > before, 20, "some more are delivered")
            if victim == "coordinator":
                os.kill(coordinator_of(broker), signal.SIGKILL)
                continue
            for child in psutil.Process(broker.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor clears away, too
                    child.kill()
            broker.kill()
            if kill:  # the wheel is only an image of the log
                (tmp_path / "store/timerwheel").unlink(missing_ok=True)
            if kill == 2:  # as after power loss: the cursors are as old as their file
                for shared in Path("/dev/shm").glob(f"*{page_name(tmp_path / 'store').strip('/')}*"):
                    shared.unlink()
            broker.start()
        assert sorted(wait_for(broker, "Once", count)) == sorted(b"%d" % n for n in range(count))
    finally:
        broker.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "point",
    ["timer.due", *(pytest.param(name, marks=pytest.mark.long) for name in ("timer.taken", "timer.fired"))],
)
def test_a_death_in_each_window_delivers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv("SHMQ_FAULTS", f"{point}=kill")
    monkeypatch.setenv("SHMQ_FAULTS_DIR", str(tmp_path))
    with Broker(brokerWorkers="1") as broker:
        with Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Died", 1)
            for number in range(3):
                producer.send(Message("Died", b"%d" % number, delay=200 * MS))
            wait_until((tmp_path / point).exists, 20, "the coordinator dies")
            producer.send(Message("Died", b"last", delay=300 * MS))
        assert sorted(wait_for(broker, "Died", 4)) == [b"0", b"1", b"2", b"last"]


@pytest.mark.long
def test_a_clean_restart_goes_on_with_the_wheel_it_has(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "store", brokerWorkers="1")
    broker.start()
    with Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("Kept", 1)
        for number in range(20):
            producer.send(Message("Kept", b"%d" % number, delay=(10 if number < 10 else 3000) * MS))
        wait_for(broker, "Kept", 10)
    broker.stop()
    assert len((tmp_path / "store/config/timercheck").read_bytes()) == 4096
    broker.start()
    try:
        assert sorted(wait_for(broker, "Kept", 20)) == sorted(b"%d" % n for n in range(20))
    finally:
        broker.close()


@pytest.mark.long
def test_a_stepped_clock_delivers_each_once_and_none_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StepClock(tmp_path / "clock")
    monkeypatch.syspath_prepend(tmp_path / "clock")  # the broker's processes get this one's path
    with (
        Broker(brokerWorkers="1") as broker,
        Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        producer.create_topic("Stepped", 1)
        now = datetime.now(UTC)
        producer.send(Message("Stepped", b"hour", deliver_at=now + timedelta(hours=1)))
        clock.set(3602)
        wait_for(broker, "Stepped", 1)
        clock.set(0)
        producer.send(Message("Stepped", b"second", delay=1500 * MS))
        producer.send(Message("Stepped", b"two hours", deliver_at=now + timedelta(hours=2)))
        sent = time.monotonic()
        assert sorted(wait_for(broker, "Stepped", 2)) == [b"hour", b"second"]
        assert time.monotonic() - sent > 1.2
        clock.set(7202)
        assert sorted(wait_for(broker, "Stepped", 3)) == [b"hour", b"second", b"two hours"]


def later(producer: Producer, topic: str, body: bytes, seconds: float) -> SendResult:
    return producer.send(Message(topic, body, delay=timedelta(seconds=seconds)))


@pytest.mark.long
@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", pytest.param("SYNC_FLUSH", marks=pytest.mark.long)])
def test_a_message_is_taken_back_or_put_off(tmp_path: Path, flush: str) -> None:
    """Checklist 84, 85 and 87; beyond RocketMQ: again does no harm, and the answer is exact."""
    with (
        Broker(tmp_path / "store", brokerWorkers="2", flushDiskType=flush) as broker,
        Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        producer.create_topic("Recalled", 1)
        producer.create_topic("Other", 1)
        back, off, sooner, stays = (
            later(producer, "Recalled", body, seconds)
            for body, seconds in ((b"back", 1), (b"off", 1), (b"sooner", 600), (b"stays", 1))
        )
        assert back.recall_handle and off.recall_handle and sooner.recall_handle and stays.recall_handle
        assert producer.recall_message("Recalled", back.recall_handle) == back.msg_id
        assert producer.recall_message("Recalled", back.recall_handle) == back.msg_id
        new = producer.reschedule_message("Recalled", off.recall_handle, datetime.now() + 2500 * MS)
        assert producer.reschedule_message("Recalled", sooner.recall_handle, datetime(2020, 1, 1)) == ""
        with pytest.raises(IllegalOperation, match="newer handle"):
            producer.recall_message("Recalled", off.recall_handle)
        with pytest.raises(IllegalOperation, match="topic"):
            producer.recall_message("Other", stays.recall_handle)
        with pytest.raises(TopicNotExist):
            producer.recall_message("Nowhere", stays.recall_handle)
        with pytest.raises(IllegalOperation, match="handle"):
            producer.recall_message("Recalled", stays.recall_handle[8:])
        with pytest.raises(MessageIllegal, match="handle"):
            producer.recall_message("Recalled", "")
        os.kill(coordinator_of(broker), signal.SIGKILL)
        assert list(wait_for(broker, "Recalled", 2)) == [b"sooner", b"stays"]
        with pytest.raises(IllegalOperation, match="come"):
            producer.recall_message("Recalled", stays.recall_handle)
        assert list(wait_for(broker, "Recalled", 3)) == [b"sooner", b"stays", b"off"]
        with pytest.raises(IllegalOperation, match="come"):
            producer.recall_message("Recalled", new)


@pytest.mark.parametrize("fault", ["", "timer.moving", "timer.moved"])
@pytest.mark.long
def test_what_waits_outlives_the_segment_it_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """It is appended once more before its segment goes; one taken back is not."""
    if fault:
        monkeypatch.setenv("SHMQ_FAULTS", f"{fault}=kill@3")
        monkeypatch.setenv("SHMQ_FAULTS_DIR", str(tmp_path))
    root = tmp_path / "store"
    layout = StoreLayout(root, SEGMENT, 20 * 64)
    with (
        Broker(
            root,
            brokerWorkers="1",
            mappedFileSizeCommitLog=str(SEGMENT),
            deleteWhen=";".join(f"{hour:02d}" for hour in range(24)),
            cleanResourceInterval="100",
            deleteCommitLogFilesInterval="0",
        ) as broker,
        Producer("Timers", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        producer.create_topic("Outlives", 2)
        producer.create_topic("Filling", 1)
        bodies = [b"%d" % number for number in range(20)]
        wait_s = 25 if fault else 3
        handles = [
            later(producer, "Outlives", body, wait_s + 0.05 * int(body)).recall_handle for body in bodies
        ]
        producer.recall_message("Outlives", handles[7] or "")
        for _ in range(30):
            producer.send(Message("Filling", os.urandom(60_000)))
        for start in layout.segments()[:-3]:
            os.utime(layout.segment_path(start), (1, 1))
        wait_until(lambda: layout.segments()[0] > 0, 30, "the oldest segment is gone")
        if fault:
            wait_until((tmp_path / fault).exists, 20, "the coordinator died")
        expected = sorted(body for body in bodies if body != b"7")
        assert sorted(wait_for(broker, "Outlives", len(expected))) == expected


def test_operators_list_cancel_and_put_off(shared_broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    def admin(*words: str, code: ExitCode = ExitCode.OK) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main.run([*words, "--json", "-n", shared_broker.namesrv_addr]) == code
        output = capsys.readouterr().out
        found: list[dict[str, Any]] = json.loads(output)["items"] if code is ExitCode.OK else []
        return found

    with Producer("Operators", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("Operated", 1)
        sent = [later(producer, "Operated", b"%d" % number, 600) for number in range(4)]
        listed = admin("timerList", "-t", "Operated")
        with AdminClient(shared_broker.namesrv_addr) as client:
            figures = client.broker_runtime_info(f"127.0.0.1:{shared_broker.tcp_port}")
        assert int(figures["timerCongestNum"]) >= 4 and figures["timerReadBehind"] == "0"
        assert [row["msgId"] for row in listed] == [result.msg_id for result in sent]
        assert [row["recallHandle"] for row in listed] == [result.recall_handle for result in sent]
        (row,) = admin("timer", "list", "-i", sent[1].offset_msg_id)
        assert (row["msgId"], row["topic"], row["bodySize"]) == (sent[1].msg_id, "Operated", 1)
        admin("timerCancel", "-i", f"{sent[0].msg_id},{sent[1].msg_id}")
        admin("timer", "cancel", "-i", sent[0].msg_id, code=ExitCode.NOT_FOUND)
        admin("timerReschedule", "-i", sent[2].msg_id, "-s", "now")
        assert [row["msgId"] for row in admin("timerList", "-t", "Operated")] == [sent[3].msg_id]
        assert list(wait_for(shared_broker, "Operated", 1)) == [b"2"]
        assert main.run(["timer", "list", "-t", "Operated", "-n", shared_broker.namesrv_addr]) == ExitCode.OK
        assert sent[3].msg_id in capsys.readouterr().out
