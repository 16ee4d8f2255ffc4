"""`shmq-namesrv` alone: starts, serves both fronts, keeps KV over a restart, leaves nothing; with brokers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from shmq.protocol.codes import RequestCode
from tests.helpers.supervised_broker import BrokerMaker, RawClient, running_broker
from tests.helpers.waiting import wait_until


class NameServerProcess:
    """One `shmq-namesrv` with private folders."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "shmq.naming.main",
                f"runtimeDir={folder / 'run'}",
                f"logDir={folder / 'log'}",
                f"kvConfigPath={folder / 'kv.json'}",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ready(self) -> dict[str, str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().decode().split()
        assert words[:2] == ["shmq-namesrv", "ready"], self.process.communicate()
        return {key: unquote(value) for key, _, value in (word.partition("=") for word in words[2:])}

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=10)
        return self.process.returncode


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


def connect(address: str) -> RawClient:
    host, _, port = address.rpartition(":")
    return RawClient(socket.create_connection((host, int(port)), timeout=10))


def test_it_serves_both_fronts_keeps_kv_and_leaves_nothing(tmp_path: Path) -> None:
    entry = {"namespace": "n", "key": "k", "value": "v"}
    server = NameServerProcess(tmp_path, "listenPort=0")
    places = server.ready()
    with connect(places["tcp"]) as client:
        assert client.ask(RequestCode.PUT_KV_CONFIG, entry).code == 0
    assert server.stop() == 0
    assert list((tmp_path / "run").iterdir()) == []
    again = NameServerProcess(tmp_path, "listenPort=0")
    unix = socket.socket(socket.AF_UNIX)
    unix.connect(again.ready()["unix"])
    with RawClient(unix) as client:
        assert client.ask(RequestCode.GET_KV_CONFIG, entry).ext == {"value": "v"}
    assert again.stop() == 0


def test_shmq_shutdown_stops_it_by_its_port(tmp_path: Path) -> None:
    server = NameServerProcess(tmp_path, "listenPort=0")
    port = server.ready()["tcp"].rpartition(":")[2]
    shutdown = [sys.executable, "-m", "shmq.supervisor.shutdown", "namesrv", port]
    done = subprocess.run(shutdown, capture_output=True, text=True, check=False)
    assert (done.returncode, "has stopped" in done.stdout) == (0, True), done
    server.process.communicate(timeout=10)
    assert server.process.returncode == 0
    again = subprocess.run(shutdown, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert f"no namesrv {port} is running" in again.stderr


def test_a_port_held_by_another_process_is_an_error_naming_its_pid(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = NameServerProcess(tmp_path, f"listenPort={taken.getsockname()[1]}")
        _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 1
    assert f"process {os.getpid()}" in errors.decode()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.long
def test_a_broker_told_of_it_registers_there_and_starts_none_of_its_own(tmp_path: Path) -> None:
    server = NameServerProcess(tmp_path / "names", "listenPort=0")
    address = server.ready()["tcp"]
    try:
        with running_broker(tmp_path, "-n", address) as broker:
            assert broker.places["namesrv"] == address
            assert broker.places["namesrvUnix"] == ""
            with connect(address) as client:
                info = client.ask(RequestCode.GET_BROKER_CLUSTER_INFO).body_bytes()
                assert b"broker-t" in info
                assert broker.places["unix"].encode() in info
                assert broker.stop() == 0
                assert b"broker-t" not in client.ask(RequestCode.GET_BROKER_CLUSTER_INFO).body_bytes()
    finally:
        server.stop()


@pytest.mark.long
def test_a_broker_registers_again_after_its_name_server_came_back(tmp_path: Path) -> None:
    server = NameServerProcess(tmp_path / "names", "listenPort=0")
    address = server.ready()["tcp"]
    port = address.rpartition(":")[2]
    with running_broker(tmp_path, "-n", address) as broker:
        server.stop()
        server = NameServerProcess(tmp_path / "names", f"listenPort={port}")
        server.ready()
        try:

            def known() -> bool:
                with connect(address) as client:
                    return b"broker-t" in client.ask(RequestCode.GET_BROKER_CLUSTER_INFO).body_bytes()

            wait_until(known, 30, "registered again")
            assert broker.stop() == 0
        finally:
            server.stop()
