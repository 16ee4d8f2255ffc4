"""The service manager's protocols, against a socket of our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.systemd import ServiceManager, inherited_sockets


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(2)
        yield listening


def test_readiness_and_watchdog_are_told_to_the_manager(manager_socket: socket.socket) -> None:
    environment = {
        "NOTIFY_SOCKET": manager_socket.getsockname(),
        "WATCHDOG_USEC": "10000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    manager = ServiceManager(environment)
    assert manager.watchdog_interval_ms == 5000
    assert environment == {}
    manager.ready("serving")
    assert manager_socket.recv(1000).startswith(b"READY=1\nSTATUS=serving\nMAINPID=")
    manager.alive()
    assert manager_socket.recv(1000) == b"WATCHDOG=1"
    manager.stopping()
    assert manager_socket.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "x"}],
)
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    assert manager.watchdog_interval_ms is None
    manager.ready("x")
    manager.alive()


def test_the_watchdog_of_another_process_is_not_ours(manager_socket: socket.socket) -> None:
    manager = ServiceManager(
        {"NOTIFY_SOCKET": manager_socket.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    )
    assert manager.watchdog_interval_ms is None


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    assert inherited_sockets({}) == []
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
