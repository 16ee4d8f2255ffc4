"""systemd: the units are valid, the Unix front is taken over from it, readiness and watchdog are told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.supervised_broker import BrokerMaker, RawClient, SupervisedBroker
from tests.helpers.waiting import wait_until

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


def connect(path: Path) -> RawClient | None:
    """A client of a Unix socket; None while nobody listens there."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        return None
    return RawClient(client)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_the_units_pass_systemd_analyze_verify() -> None:
    units = [str(UNITS / name) for name in ("shmq.service", "shmq.socket")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if "shmq" in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr


def test_the_socket_unit_names_the_default_brokers_front() -> None:
    text = (UNITS / "shmq.socket").read_text()
    assert "ListenStream=/run/shmq/broker-a.sock" in text
    assert "SocketMode=0660" in text


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate on this machine"
)
def test_a_socket_activated_broker_serves_on_the_inherited_front_and_leaves_it(
    make: BrokerMaker, tmp_path: Path
) -> None:
    path = tmp_path / "front.sock"
    broker = make(tmp_path)
    activator = subprocess.Popen(
        [
            "systemd-socket-activate",
            "-l",
            str(path),
            sys.executable,
            "-m",
            "shmq.supervisor.main",
            *broker.arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=passed_through(),
    )
    try:
        client = wait_until(lambda: connect(path), 10, "systemd listens")
        assert client is not None
        with client:  # the connection itself starts the broker
            assert client.send("activated", b"x").code == 0
            assert client.max_offset("activated") == 1
        assert activator.stdout is not None
        assert f"unix={path} " in activator.stdout.readline().decode()
    finally:
        activator.send_signal(signal.SIGTERM)
        activator.communicate(timeout=10)
    assert path.is_socket(), "the front belongs to systemd and must outlive the broker"


def passed_through() -> dict[str, str]:
    """The environment, without what would make the activator talk to somebody else."""
    return {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "LISTEN_FDS")}


def test_readiness_watchdog_and_the_end_are_told_to_the_manager(make: BrokerMaker, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        broker: SupervisedBroker = make(tmp_path, environment=environment)
        broker.launch()
        lines = told(manager, "READY=1")
        assert f"MAINPID={broker.pid}" in lines
        for _ in range(3):
            assert told(manager, "WATCHDOG=1")
        assert broker.stop() == 0
        assert told(manager, "STOPPING=1")


def told(manager: socket.socket, wanted: str) -> list[str]:
    """The lines of the next message that holds `wanted`."""
    while True:
        lines = manager.recv(4096).decode().splitlines()
        if wanted in lines:
            return lines
