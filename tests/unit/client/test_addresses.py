"""Address forms, the search for a name server, and who may stand behind a Unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shmq.base.errors import InvalidParameter, NoPermission
from shmq.client import addresses
from shmq.client.addresses import Address, connect, is_local_host, name_server_addresses, parse_address
from shmq.client.errors import ClientError, ConnectFailed


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SHMQ_NAMESRV", "NAMESRV_ADDR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHMQ_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/shmq/namesrv.sock", Address("/run/shmq/namesrv.sock")),
        ("127.0.0.1:9876", Address("127.0.0.1", 9876)),
        (" broker.example:10911 ", Address("broker.example", 10911)),
        ("[::1]:9876", Address("::1", 9876)),
    ],
)
def test_address_forms_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", ":9876", "host:0", "host:65536", "host:port"])
def test_what_is_no_address_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(InvalidParameter, match="host:port or unix:/path"):
        parse_address(text)


def test_several_name_servers_are_separated_by_semicolons() -> None:
    assert name_server_addresses("a:1;b:2;") == [Address("a", 1), Address("b", 2)]


def test_addresses_set_in_code_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESRV_ADDR", "env:1")
    assert name_server_addresses("code:1") == [Address("code", 1)]
    assert name_server_addresses(None) == [Address("env", 1)]
    monkeypatch.setenv("SHMQ_NAMESRV", "own:1")
    assert name_server_addresses(None) == [Address("own", 1)]


def test_the_local_name_server_socket_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "namesrv.sock"))
        assert name_server_addresses(None) == [Address(str(tmp_path / "namesrv.sock"))]


def test_without_any_name_server_the_error_is_10004(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "DEFAULT_NAMESRV", "127.0.0.1:1")
    monkeypatch.setattr(addresses, "find_socket", lambda filename: None)
    with pytest.raises(ClientError, match="NAMESRV_ADDR") as caught:
        name_server_addresses(None)
    assert caught.value.code == 10004


def test_connecting_to_nobody_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match="Is the server running"):
        connect(Address(str(tmp_path / "nothing.sock")), 1.0)


def test_a_server_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        connect(Address(path), 1.0).close()
        monkeypatch.setattr(addresses, "peer_uid", lambda sock: os.getuid() + 4711)
        with pytest.raises(NoPermission, match="SHMQ_BROKER_USER"):
            connect(Address(path), 1.0)


def test_a_refusal_by_permissions_names_the_group_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.sock"

    class Refusing(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o660)
        monkeypatch.setattr(addresses.socket, "socket", Refusing)
        with pytest.raises(NoPermission, match=r"mode 0660.*must join the group.*usermod -aG"):
            connect(Address(str(path)), 1.0)


def test_only_own_addresses_are_local() -> None:
    assert is_local_host("127.0.0.1")
    assert not is_local_host("192.0.2.1")
    assert not is_local_host("host.invalid")
