"""Processes of a broker die at any moment: it goes on, nothing acknowledged is lost, nobody is left."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import totals
from shmq.supervisor.children import KILLED_PAUSE_MAX_MS, KILLS_FREE
from tests.helpers.supervised_broker import (
    BrokerMaker,
    RawClient,
    SupervisedBroker,
    descendants,
    process_title,
    running_broker,
    shared_objects,
)
from tests.helpers.waiting import wait_until

WORKER = "shmq: worker 0 broker-t"
COORDINATOR = "shmq: coordinator broker-t"


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


def send_until_acknowledged(broker: SupervisedBroker, topic: str, body: bytes, limit_s: float = 15) -> None:
    """Send as a patient client does: connect and send again until there is an acknowledgement."""

    def sent() -> bool:
        try:
            with broker.connect() as client:
                client.sock.settimeout(5)
                return client.send(topic, body).code == 0
        except OSError:
            return False

    wait_until(sent, limit_s, f"{body!r} acknowledged")


def max_offset(broker: SupervisedBroker, topic: str) -> int:
    """The queue's end, asked as patiently."""
    answers: list[int] = []

    def asked() -> bool:
        try:
            with broker.connect() as client:
                answers.append(client.max_offset(topic))
                return True
        except OSError:
            return False

    wait_until(asked, 15, "max offset answered")
    return answers[-1]


def fired(folder: Path) -> Callable[[], bool]:
    """True once an armed fault point fired."""
    return lambda: bool(list((folder / "faults").iterdir()))


def lose_page(broker: SupervisedBroker) -> None:
    """Remove what the broker's store has in shared memory."""
    name = page_name(Path(broker.places["store"])).lstrip("/")
    for one in shared_objects():
        if name in one:
            (Path("/dev/shm") / one).unlink()


def with_fault(make: BrokerMaker, folder: Path, fault: str, **settings: str) -> SupervisedBroker:
    """A broker in which one process dies or stops at a fault point, once."""
    (folder / "faults").mkdir(parents=True)
    environment = {"SHMQ_FAULTS": fault, "SHMQ_FAULTS_DIR": str(folder / "faults")}
    return make(folder, environment=environment, **settings)


def test_a_killed_worker_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        send_until_acknowledged(broker, "t", b"before")
        first = broker.children()[WORKER]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: broker.children().get(WORKER, first) != first, 10, "another worker 0")
        send_until_acknowledged(broker, "t", b"after")
        assert max_offset(broker, "t") == 2
        assert "killed by SIGKILL" in broker.log_text()
        assert broker.stop() == 0


def test_a_killed_coordinator_is_started_again_and_new_topics_work_after_it(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        send_until_acknowledged(broker, "known", b"1")
        first = broker.children()[COORDINATOR]
        os.kill(first, signal.SIGKILL)
        send_until_acknowledged(broker, "known", b"2")
        wait_until(lambda: broker.children().get(COORDINATOR, first) != first, 10, "another coordinator")
        send_until_acknowledged(broker, "new", b"1")
        assert (max_offset(broker, "known"), max_offset(broker, "new")) == (2, 1)
        assert broker.stop() == 0


@pytest.mark.parametrize(
    "point",
    [
        "claim.units_written",
        *(
            pytest.param(point, marks=pytest.mark.long)
            for point in (
                "append.semaphore_taken",
                "journal.maxima_stored",
                "append.holding",
                "journal.prepared",
                "journal.committed",
                "append.before_release",
                "append.released",
            )
        ),
    ],
)
def test_a_worker_dying_inside_an_append_is_repaired_and_the_others_go_on(
    make: BrokerMaker, tmp_path: Path, point: str
) -> None:
    broker = with_fault(make, tmp_path, f"{point}=kill@3").start()
    try:
        acknowledged = 0
        for n in range(8):
            send_until_acknowledged(broker, "t", b"%d" % n)
            acknowledged += 1
        wait_until(fired(tmp_path), 5, "the fault fired")
        assert "shared_state_repaired" in broker.log_text()
        # A claim committed before the death counts although nobody was told: the client sent it again.
        assert max_offset(broker, "t") in (acknowledged, acknowledged + 1)
        assert broker.stop() == 0
        broker.environment.pop("SHMQ_FAULTS")
        broker.start()
        assert max_offset(broker, "t") in (acknowledged, acknowledged + 1)
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_a_stopped_holder_is_found_and_killed_within_seconds(make: BrokerMaker, tmp_path: Path) -> None:
    broker = with_fault(make, tmp_path, "append.acquired=stop@2", brokerWorkers="2").start()
    try:
        send_until_acknowledged(broker, "t", b"0")
        began = time.monotonic()
        for n in range(4):
            send_until_acknowledged(broker, "t", b"%d" % n, limit_s=20)
        assert fired(tmp_path)()
        assert time.monotonic() - began < 12
        log = broker.log_text()
        assert "appender_stuck" in log and "holder_killed" in log
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_a_worker_stopped_while_it_publishes_its_flush_is_killed_and_others_are_answered(
    make: BrokerMaker, tmp_path: Path
) -> None:
    stops = "turn_flush.locked=stop@2"
    broker = with_fault(make, tmp_path, stops, brokerWorkers="2", flushDiskType="SYNC_FLUSH").start()
    try:
        for n in range(20):
            send_until_acknowledged(broker, "t", b"%d" % n, limit_s=20)
        assert fired(tmp_path)()
        assert "flush_lock_stuck" in broker.log_text()
    finally:
        assert broker.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "point",
    [
        "repair.units_zeroed",
        *(
            pytest.param(point, marks=pytest.mark.long)
            for point in ("repair.quiesced", "repair.semaphore_drained")
        ),
    ],
)
def test_a_supervisor_dying_inside_a_repair_is_repaired_by_its_successor(
    make: BrokerMaker, tmp_path: Path, point: str
) -> None:
    (tmp_path / "faults").mkdir()
    environment = {
        "SHMQ_FAULTS": f"claim.half_filled=kill@3,{point}=kill",
        "SHMQ_FAULTS_DIR": str(tmp_path / "faults"),
    }
    broker = make(tmp_path, environment=environment).start()
    children = list(broker.children().values())
    assert broker.process is not None
    acknowledged = 0
    with broker.connect() as client:
        try:
            for n in range(5):
                acknowledged += client.send("t", b"%d" % n).code == 0
        except OSError:
            pass
    broker.process.wait(10)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10, "children left")
    broker.start()
    try:
        assert max_offset(broker, "t") == acknowledged
        send_until_acknowledged(broker, "t", b"more")
        assert max_offset(broker, "t") == acknowledged + 1
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_children_of_a_killed_supervisor_leave_and_the_restart_continues(
    make: BrokerMaker, tmp_path: Path
) -> None:
    broker = make(tmp_path).start()
    for n in range(20):
        send_until_acknowledged(broker, "t", b"%d" % n)
    below = descendants(broker.pid)
    broker.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), 10, "everybody left")
    assert (Path(broker.places["store"]) / "abort").exists()
    broker.start()
    try:
        assert "mode=RecoveryMode.FAST" in broker.log_text()
        assert max_offset(broker, "t") == 20
        send_until_acknowledged(broker, "t", b"more")
        assert max_offset(broker, "t") == 21
    finally:
        assert broker.stop() == 0
    name = page_name(Path(broker.places["store"])).lstrip("/")
    assert not [one for one in shared_objects() if name in one]


def test_all_die_at_once_inside_a_claim_and_the_next_start_goes_on_with_the_page(
    make: BrokerMaker, tmp_path: Path
) -> None:
    broker = with_fault(make, tmp_path, "claim.unit_written=stop@9", brokerWorkers="1").start()
    with broker.connect() as client:
        acknowledged = [b"%d" % n for n in range(8)]
        assert all(client.send("t", body).code == 0 for body in acknowledged)
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send("t", b"never")
    wait_until(fired(tmp_path), 5, "the worker stands in the claim")
    broker.kill_all()
    broker.environment.pop("SHMQ_FAULTS")
    broker.start()
    log = broker.log_text()
    assert "shared_state_repaired journal=PREPARED" in log
    assert "mode=RecoveryMode.FAST" in log
    with broker.connect() as client:
        assert client.bodies("t") == acknowledged
        assert client.send("t", b"more").code == 0
    assert broker.stop() == 0


@pytest.mark.long
def test_a_stopped_worker_that_no_page_names_can_append_nothing_when_it_wakes(
    make: BrokerMaker, tmp_path: Path
) -> None:
    """Nobody knows whom to kill: the start gives up and says who is there. Awake, the worker leaves."""
    fault = "claim.half_filled=stop@4,child.outlives_parent=on"
    broker = with_fault(make, tmp_path, fault, brokerWorkers="1").start()
    with broker.connect() as client:
        assert all(client.send("t", b"%d" % n).code == 0 for n in range(3))
        stopped = broker.children()[WORKER]
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send("t", b"3")
    wait_until(fired(tmp_path), 5, "the worker stands in the claim")
    broker.kill_supervisor()
    wait_until(lambda: not broker.children() or list(broker.children().values()) == [stopped], 10)
    lose_page(broker)
    refused = broker.launch()
    _, errors = refused.communicate(timeout=30)
    assert refused.returncode != 0 and f"pid {stopped}" in errors.decode()
    os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{stopped}").exists(), 10, "it left by itself")
    broker.environment.pop("SHMQ_FAULTS")
    broker.start()
    assert max_offset(broker, "t") in (3, 4)
    assert broker.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "outlives",
    ["", pytest.param("claim.half_filled=stop@2,child.outlives_parent=on", marks=pytest.mark.long)],
)
def test_a_stopped_child_of_a_killed_supervisor_is_killed_by_the_next(
    make: BrokerMaker, tmp_path: Path, outlives: str
) -> None:
    """By the parent-death signal; and where that should fail, because the old page names it."""
    broker = with_fault(make, tmp_path, outlives, brokerWorkers="1").start()
    stopped = broker.children()[WORKER]
    with broker.connect() as client:
        assert client.send("t", b"1").code == 0
        if outlives:
            client.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.send("t", b"2")
        else:
            os.kill(stopped, signal.SIGSTOP)
    broker.kill_supervisor()
    broker.environment.pop("SHMQ_FAULTS")
    broker.start()
    try:
        assert ("leftover_killed" in broker.log_text()) >= bool(outlives)
        wait_until(lambda: not Path(f"/proc/{stopped}").exists(), 5, "the stopped one is gone")
        assert max_offset(broker, "t") == 1
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_a_recovery_that_outlives_its_supervisor_is_waited_for(make: BrokerMaker, tmp_path: Path) -> None:
    """It writes to the store: while it is there nobody else may, and the start says who it is."""
    broker = with_fault(make, tmp_path, "recovery.began=stop,child.outlives_parent=on")
    armed = broker.environment.pop("SHMQ_FAULTS")
    broker.start()
    with broker.connect() as client:
        assert client.send("t", b"1").code == 0
    broker.kill_all()
    broker.environment["SHMQ_FAULTS"] = armed
    broker.launch()
    wait_until(fired(tmp_path), 20, "recovery stands still")
    (recovery,) = [pid for pid in descendants(broker.pid) if "recovery" in process_title(pid)]
    broker.kill_supervisor()
    broker.environment.pop("SHMQ_FAULTS")
    refused = broker.launch()
    _, errors = refused.communicate(timeout=40)
    assert refused.returncode != 0 and f"pid {recovery}" in errors.decode()
    os.kill(recovery, signal.SIGKILL)
    broker.start()
    with broker.connect() as client:
        assert client.bodies("t") == [b"1"]
    assert broker.stop() == 0


@pytest.mark.long
def test_a_page_lost_with_the_processes_is_made_again_from_the_log(make: BrokerMaker, tmp_path: Path) -> None:
    broker = make(tmp_path).start()
    for n in range(20):
        send_until_acknowledged(broker, "t", b"%d" % n)
    broker.kill()
    lose_page(broker)
    broker.start()
    try:
        assert "mode=RecoveryMode.FULL" in broker.log_text()
        assert max_offset(broker, "t") == 20
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_a_child_that_cannot_boot_is_not_started_in_a_circle(make: BrokerMaker, tmp_path: Path) -> None:
    broker = make(tmp_path, environment={"SHMQ_FAULTS": "child.before_go=exit"})
    process = broker.launch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "before it served" in errors.decode()
    name = page_name(tmp_path / "store").lstrip("/")
    assert not [one for one in shared_objects() if name in one]


@pytest.mark.long
def test_a_worker_that_is_killed_again_and_again_is_never_given_up(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        page = ControlPage.attach(page_name(Path(broker.places["store"])), readonly=True)
        with broker.connect(tcp=True) as client:
            assert client.send("T", b"before").code == 0
        for n in range(KILLS_FREE + 3):
            wait_until(lambda: WORKER in broker.children(), 10, "it is started again")
            os.kill(broker.children()[WORKER], signal.SIGKILL)
            wait_until(lambda n=n: broker.log_text().count("child_died") > n, 10, "its death is seen")
        waits = [int(ms) for ms in re.findall(r"child_died .*again_in_ms=(\d+)", broker.log_text())]
        assert len(waits) == KILLS_FREE + 3 and max(waits) <= KILLED_PAUSE_MAX_MS
        assert totals(page)["starts_delayed"] == sum(wait > 0 for wait in waits)
        page.close()
        assert b"before" in broker.connect().bodies("T"), "the other one serves"
        assert broker.stop() == 0


@pytest.mark.long
def test_a_fork_server_that_is_killed_while_it_starts_children_costs_only_time(tmp_path: Path) -> None:
    """Also while it still imports, and before it has told the child's pid."""

    def fork_servers() -> list[int]:
        titles = {pid: process_title(pid) for pid in descendants(broker.pid)}
        return [pid for pid, title in titles.items() if "fork server" in title or "forkserver" in title]

    with running_broker(tmp_path) as broker:
        killed: set[int] = set()
        while len(killed) < 8:
            wait_until(lambda: set(fork_servers()) - killed, 20, "there is another one")
            for pid in set(fork_servers()) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        wait_until(lambda: len(broker.children()) == 3, 20, "all children are started again")
        send_until_acknowledged(broker, "T", b"after")
        assert "child_not_started" in broker.log_text(), "it died in the middle of a start"
        assert broker.stop() == 0


def test_connections_of_the_other_worker_survive_a_death(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        clients = [broker.connect() for _ in range(16)]
        for client in clients:
            client.ask(34, {}, b"{}")  # any answer shows which worker took it over
        os.kill(broker.children()[WORKER], signal.SIGKILL)
        wait_until(lambda: "child_died" in broker.log_text(), 5)
        alive = sum(answers(client) for client in clients)
        assert 6 <= alive <= 10
        for client in clients:
            client.sock.close()
        assert broker.stop() == 0


def answers(client: RawClient) -> bool:
    """Whether a connection still works."""
    try:
        client.ask(34, {}, b"{}")
    except OSError:
        return False
    return True


@pytest.mark.long
def test_a_killed_fork_server_takes_its_children_along_and_all_are_started_again(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        send_until_acknowledged(broker, "t", b"1")
        before = broker.children()
        server = next(pid for pid in descendants(broker.pid) if process_title(pid) == "shmq: fork server")
        os.kill(server, signal.SIGKILL)
        wait_until(
            lambda: len(after := broker.children()) == 3 and not set(after.values()) & set(before.values()),
            15,
            "three other children",
        )
        send_until_acknowledged(broker, "t", b"2")
        assert max_offset(broker, "t") == 2
        assert broker.stop() == 0


@pytest.mark.long
def test_an_error_inside_a_repair_ends_the_supervisor_and_the_next_start_repairs(
    make: BrokerMaker, tmp_path: Path
) -> None:
    (tmp_path / "faults").mkdir()
    environment = {
        "SHMQ_FAULTS": "claim.half_filled=kill@3,repair.log_zeroed=raise",
        "SHMQ_FAULTS_DIR": str(tmp_path / "faults"),
    }
    broker = make(tmp_path, environment=environment).start()
    acknowledged = 0
    with broker.connect() as client:
        try:
            for n in range(5):
                acknowledged += client.send("t", b"%d" % n).code == 0
        except OSError:
            pass
    assert broker.process is not None
    _, errors = broker.process.communicate(timeout=10)
    assert broker.process.returncode == 1
    assert "the next start repairs" in errors.decode()
    assert (Path(broker.places["store"]) / "abort").exists()
    broker.start()
    try:
        assert max_offset(broker, "t") == acknowledged
    finally:
        assert broker.stop() == 0
