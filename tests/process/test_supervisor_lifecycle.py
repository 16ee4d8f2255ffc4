"""A broker starts, serves, stops, leaves nothing behind; what keeps it from starting is one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.protocol.codes import RequestCode
from shmq.shm.control_page import ControlPage
from tests.helpers.supervised_broker import (
    BrokerMaker,
    SupervisedBroker,
    descendants,
    process_title,
    running_broker,
    shared_objects,
)
from tests.helpers.waiting import wait_until


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Short enough for socket paths whatever pytest names its folders."""
    return tmp_path


@pytest.fixture
def broker(folder: Path) -> Iterator[SupervisedBroker]:
    with running_broker(folder) as started:
        yield started


def names_of(store: Path) -> set[str]:
    """What this store has in /dev/shm."""
    name = page_name(store).lstrip("/")
    return {one for one in shared_objects() if name in one}


def test_it_serves_on_every_front_and_stops_within_five_seconds_leaving_nothing(
    make: BrokerMaker, folder: Path
) -> None:
    broker = make(folder).start()
    store = Path(broker.places["store"])
    with broker.connect() as unix, broker.connect(tcp=True) as tcp:
        assert unix.send("first", b"over unix").code == 0
        assert tcp.send("first", b"over tcp").code == 0
        assert tcp.max_offset("first") == 2
    host, _, port = broker.places["fast"].rpartition(":")
    assert int(port) == int(broker.places["tcp"].rpartition(":")[2]) - 2
    socket.create_connection((host, int(port))).close()
    with broker.name_server() as names:
        assert names.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "first"}).code == 0
    assert (store / "abort").exists()
    everybody = [broker.pid, *descendants(broker.pid)]
    assert names_of(store)
    began = time.monotonic()
    assert broker.stop() == 0
    assert time.monotonic() - began < 5
    assert not (store / "abort").exists()
    assert list((folder / "run").iterdir()) == []
    assert not names_of(store)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everybody), 2, "all processes gone")


@pytest.mark.long
def test_process_titles_say_who_is_who(broker: SupervisedBroker) -> None:
    assert process_title(broker.pid) == "shmq: supervisor broker-t"
    assert set(broker.children()) == {
        "shmq: coordinator broker-t",
        "shmq: worker 0 broker-t",
        "shmq: worker 1 broker-t",
    }


def test_a_clean_restart_continues(make: BrokerMaker, folder: Path) -> None:
    broker = make(folder).start()
    with broker.connect() as client:
        for n in range(10):
            assert client.send("kept", b"%d" % n).code == 0
    assert broker.stop() == 0
    broker.start()
    try:
        with broker.connect() as client:
            assert client.max_offset("kept") == 10
            assert client.send("kept", b"more").code == 0
            assert client.max_offset("kept") == 11
        assert "mode=RecoveryMode.CLEAN" in broker.log_text()
    finally:
        assert broker.stop() == 0


@pytest.mark.long
def test_sync_flush_has_everything_on_disk_when_it_answers_and_stops_cleanly(folder: Path) -> None:
    with running_broker(folder, flushDiskType="SYNC_FLUSH") as broker:
        with broker.connect() as client:
            for n in range(5):
                assert client.send("safe", b"%d" % n).code == 0
        page = ControlPage.attach(page_name(Path(broker.places["store"])), readonly=True)
        from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION

        assert page.words[FLUSHED_POSITION] == page.words[WRITE_POSITION] > 0
        page.close()
        assert broker.stop() == 0


@pytest.mark.long
def test_two_brokers_of_one_host_have_their_own_names_stores_and_share_a_name_server(folder: Path) -> None:
    with running_broker(folder / "a", brokerName="broker-1", runtimeDir=str(folder / "run")) as one:
        port = one.places["namesrv"].rpartition(":")[2]
        with running_broker(
            folder / "b", brokerName="broker-2", runtimeDir=str(folder / "run"), namesrvPort=port
        ) as two:
            assert two.places["namesrv"] == one.places["namesrv"]
            assert two.places["namesrvUnix"] == ""
            for broker in (one, two):
                with broker.connect() as client:
                    assert client.send("shared", b"x").code == 0
            with one.name_server() as names:

                def both_registered() -> bool:
                    answer = names.ask(RequestCode.GET_BROKER_CLUSTER_INFO)
                    return b"broker-1" in answer.body_bytes() and b"broker-2" in answer.body_bytes()

                wait_until(both_registered, 10, "both brokers registered")
            assert one.stop() == 0
            wait_until(lambda: "name_server_taken_over" in two.log_text(), 15, "the other takes over")
            with two.name_server() as names:
                wait_until(
                    lambda: b"broker-2" in names.ask(RequestCode.GET_BROKER_CLUSTER_INFO).body_bytes(),
                    60,
                    "registered again",
                )
            assert (folder / "run" / "namesrv.sock").is_socket()


@pytest.mark.long
def test_brokers_that_start_together_agree_on_one_name_server(make: BrokerMaker, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"runtimeDir": str(folder / "run"), "namesrvPort": port}
    brokers = [make(folder / name, brokerName=name, **shared) for name in ("b1", "b2", "b3")]
    for broker in brokers:
        broker.launch()
    for broker in brokers:
        broker.wait_ready()
    assert {broker.places["namesrv"] for broker in brokers} == {f"127.0.0.1:{port}"}
    assert len([broker for broker in brokers if broker.places["namesrvUnix"]]) == 1
    for broker in brokers:
        assert broker.stop() == 0
    assert list((folder / "run").iterdir()) == []


@pytest.mark.long
def test_a_store_of_another_engine_is_opened_only_when_it_is_adopted(make: BrokerMaker, folder: Path) -> None:
    broker = make(folder).start()
    with broker.connect() as client:
        assert client.send("theirs", b"x").code == 0
    assert broker.stop() == 0
    (folder / "store" / "shmq" / "identity.json").unlink()
    shutil.rmtree(folder / "store" / "checksums")  # another engine makes none
    refused = make(folder)
    _, errors = refused.launch().communicate(timeout=20)
    assert refused.process is not None and refused.process.returncode == 78
    assert "--adopt" in errors.decode()
    adopted = make(folder, "--adopt").start()
    with adopted.connect() as client:
        assert client.max_offset("theirs") == 1
    assert adopted.stop() == 0


@pytest.mark.long
def test_sockets_are_closed_to_others_and_the_internal_one_to_the_group(broker: SupervisedBroker) -> None:
    run = broker.folder / "run"
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir() if path.is_socket()}
    assert modes == {
        "broker-t.sock": 0o660,
        "broker-t.grant.sock": 0o660,
        "broker-t.internal.sock": 0o600,
        "namesrv.sock": 0o660,
    }


@pytest.mark.long
def test_a_loopback_address_at_a_remote_name_server_is_one_warning_line(folder: Path) -> None:
    with running_broker(folder, "-n", "192.0.2.1:9876") as broker:
        assert broker.log_text().count("loopback_address_registered") == 1
        assert broker.places["namesrv"] == "192.0.2.1:9876"
        with broker.connect() as client:
            assert client.send("t", b"x").code == 0
        assert broker.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("key", ["listenPort", "namesrvPort"])
def test_a_port_held_by_another_process_is_an_error_naming_its_pid(
    make: BrokerMaker, folder: Path, key: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        broker = make(folder, **{key: port})
        process = broker.launch()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"process {os.getpid()}" in errors.decode()
    assert key in errors.decode() and port in errors.decode()
    assert list((folder / "run").iterdir()) == []
    assert not names_of(folder / "store")


def test_a_store_in_use_is_refused_naming_the_holder_and_left_alone(
    make: BrokerMaker, broker: SupervisedBroker
) -> None:
    second = make(broker.folder, brokerName="other")
    process = second.launch()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"process {broker.pid}" in errors.decode()
    with broker.connect() as client:
        assert client.send("still", b"alive").code == 0


@pytest.mark.long
def test_a_broker_name_in_use_is_refused(make: BrokerMaker, broker: SupervisedBroker, tmp_path: Path) -> None:
    second = make(tmp_path / "second", runtimeDir=broker.settings["runtimeDir"])
    process = second.launch()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "broker-t.sock" in errors.decode()
    with broker.connect() as client:
        assert client.send("still", b"alive").code == 0


@pytest.mark.long
def test_a_dead_socket_file_is_replaced(folder: Path) -> None:
    (folder / "run").mkdir()
    for name in ("broker-t.sock", "namesrv.sock", "broker-t.grant.sock", "broker-t.internal.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "run" / name))
    with running_broker(folder) as broker, broker.connect() as client:
        assert client.send("t", b"x").code == 0


def test_wrong_settings_end_with_status_78_and_one_line(make: BrokerMaker, folder: Path) -> None:
    broker = make(folder, brokerRole="SLAVE")
    process = broker.launch()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 78
    assert errors.decode().count("\n") == 1
    assert "brokerRole=SLAVE" in errors.decode()
    assert not (folder / "store").exists()


@pytest.mark.long
def test_a_second_stop_signal_does_not_wait_for_a_stopped_worker(make: BrokerMaker, folder: Path) -> None:
    broker = make(folder).start()
    worker = broker.children()["shmq: worker 1 broker-t"]
    os.kill(worker, signal.SIGSTOP)
    assert broker.process is not None
    broker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "signal name=SIGTERM" in broker.log_text(), 5)
    began = time.monotonic()
    broker.process.send_signal(signal.SIGTERM)
    assert broker.stop() == 0
    assert time.monotonic() - began < 2
    assert not names_of(Path(broker.places["store"]))


@pytest.mark.long
def test_a_worker_that_does_not_leave_is_killed_and_the_stop_stays_within_five_seconds(
    make: BrokerMaker, folder: Path
) -> None:
    broker = make(folder).start()
    os.kill(broker.children()["shmq: worker 0 broker-t"], signal.SIGSTOP)
    began = time.monotonic()
    assert broker.stop() == 0
    assert time.monotonic() - began < 5
    assert "child_killed" in broker.log_text()
    assert not (Path(broker.places["store"]) / "abort").exists()


@pytest.mark.long
def test_it_works_where_the_host_name_does_not_resolve(make: BrokerMaker, folder: Path) -> None:
    unshare = subprocess.run(
        ["unshare", "--uts", "--map-root-user", "hostname", "no-such-host.invalid"],
        capture_output=True,
        check=False,
    )
    if unshare.returncode:
        pytest.skip(f"no name space of our own: {unshare.stderr.decode().strip()}")
    broker = make(folder)
    process = subprocess.Popen(
        [
            "unshare",
            "--uts",
            "--map-root-user",
            "sh",
            "-c",
            'hostname no-such-host.invalid && exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "shmq.supervisor.main",
            *broker.arguments,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"shmq-broker ready ")
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.long
def test_unknown_keys_are_one_warning_line_each(make: BrokerMaker, folder: Path) -> None:
    broker = make(folder, noSuchKey="1")
    process = broker.launch()
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"shmq-broker ready ")
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert errors.decode().splitlines() == [
        "shmq-broker: warning: argument: noSuchKey is unknown and ignored"
    ]


@pytest.mark.long
def test_shmq_shutdown_stops_the_named_broker(make: BrokerMaker, folder: Path) -> None:
    name = f"broker-{os.getpid()}"
    broker = make(folder, brokerName=name).start()
    shutdown = [sys.executable, "-m", "shmq.supervisor.shutdown", "broker"]
    missing = subprocess.run([*shutdown, "nobody"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "no broker nobody" in missing.stderr
    done = subprocess.run([*shutdown, name], capture_output=True, text=True, check=False)
    assert (done.returncode, "has stopped" in done.stdout) == (0, True), done
    assert broker.stop() == 0
