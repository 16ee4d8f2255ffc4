"""Listening sockets: bound safely, replaced when dead, accepted from in bounded steps."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.errors import ConfigFault, Unavailable
from shmq.net.listener import accept_some, bind_tcp, bind_unix
from shmq.net.peer import peer_of


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shmq-") as name:
        yield Path(name)


def test_a_unix_socket_has_its_mode_and_knows_its_peer(folder: Path) -> None:
    with bind_unix(folder / "a.sock", mode=0o640) as listening, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE((folder / "a.sock").stat().st_mode) == 0o640
        client.connect(str(folder / "a.sock"))
        (accepted,) = accept_some(listening)
        with accepted:
            peer = peer_of(accepted)
        assert (peer.pid, peer.uid, peer.text) == (os.getpid(), os.getuid(), f"unix:{os.getpid()}")


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    path = folder / "a.sock"
    bind_unix(path).close()
    with bind_unix(path), pytest.raises(Unavailable, match="listening"):
        bind_unix(path)


def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    (folder / "a.sock").write_text("mine")
    with pytest.raises(ConfigFault, match="not a socket"):
        bind_unix(folder / "a.sock")
    assert (folder / "a.sock").read_text() == "mine"


def test_a_path_the_kernel_cannot_take_is_refused_before_binding(folder: Path) -> None:
    with pytest.raises(ConfigFault, match="107"):
        bind_unix(folder / ("x" * 120))


def test_an_unknown_group_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(ConfigFault, match="nosuchgroup"):
        bind_unix(folder / "a.sock", group="nosuchgroup")
    assert not (folder / "a.sock").exists()


def test_a_taken_port_is_named() -> None:
    with bind_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Unavailable, match=str(port)):
            bind_tcp("127.0.0.1", port)


def test_accepting_stops_at_its_bound_and_goes_on_later() -> None:
    with bind_tcp("127.0.0.1", 0) as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(5)]
        first, rest = accept_some(listening, 3), accept_some(listening, 3)
        assert (len(first), len(rest), accept_some(listening)) == (3, 2, [])
        assert peer_of(first[0]).text == "{}:{}".format(*clients[0].getsockname())
        for closing in clients + first + rest:
            closing.close()
