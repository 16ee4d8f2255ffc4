from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shmq.base import runtime_dir
from shmq.base.errors import ConfigFault
from shmq.base.runtime_dir import (
    broker_socket,
    find_socket,
    grant_socket,
    internal_socket,
    make_runtime_dir,
    namesrv_socket,
    page_name,
    runtime_dirs,
)


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without /run/shmq, without settings, whose /tmp is `tmp_path`."""
    monkeypatch.delenv("SHMQ_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(runtime_dir, "SYSTEM_DIR", tmp_path / "run-shmq")
    monkeypatch.setattr(runtime_dir.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_folders_are_searched_in_the_documented_order(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, user = nothing_set / "named", nothing_set / "user"
    private = make_runtime_dir()
    for folder in (named, user / "shmq", runtime_dir.SYSTEM_DIR):
        folder.mkdir(parents=True)
    monkeypatch.setenv("SHMQ_RUNTIME_DIR", str(named))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user))
    assert runtime_dirs() == [named, runtime_dir.SYSTEM_DIR, user / "shmq", private]


def test_a_missing_folder_is_left_out_of_the_search(nothing_set: Path) -> None:
    assert runtime_dirs() == []


def test_a_setting_wins_and_is_made(nothing_set: Path) -> None:
    assert make_runtime_dir(str(nothing_set / "a" / "b")) == nothing_set / "a" / "b"
    assert (nothing_set / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_a_config_fault(nothing_set: Path) -> None:
    (nothing_set / "file").write_text("")
    with pytest.raises(ConfigFault, match="cannot be made"):
        make_runtime_dir(str(nothing_set / "file" / "sub"))


def test_the_last_resort_is_private(nothing_set: Path) -> None:
    folder = make_runtime_dir()
    assert folder.name == f"shmq-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(ConfigFault, match="open to others"):
        make_runtime_dir()
    assert runtime_dirs() == []


def test_the_users_runtime_folder_comes_before_tmp(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(nothing_set))
    assert make_runtime_dir() == nothing_set / "shmq"


def test_socket_names_follow_from_the_broker_name() -> None:
    folder = Path("/run/shmq")
    assert [broker_socket(folder, "b"), grant_socket(folder, "b"), internal_socket(folder, "b")] == [
        folder / "b.sock",
        folder / "b.grant.sock",
        folder / "b.internal.sock",
    ]
    assert namesrv_socket(folder) == folder / "namesrv.sock"


def test_a_path_longer_than_the_kernel_takes_fails_and_says_what_to_do() -> None:
    fits = "b" * (107 - len("/run/.sock"))
    assert len(str(broker_socket(Path("/run"), fits))) == 107
    with pytest.raises(ConfigFault, match="108 bytes, at most 107"):
        broker_socket(Path("/run"), fits + "b")


def test_find_socket_returns_the_first_real_socket(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, named = make_runtime_dir(), make_runtime_dir(str(nothing_set / "n"))
    monkeypatch.setenv("SHMQ_RUNTIME_DIR", str(named))
    (named / "namesrv.sock").write_text("a file, not a socket")
    monkeypatch.chdir(private)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("namesrv.sock")
        assert find_socket("namesrv.sock") == private / "namesrv.sock"
    assert find_socket("other.sock") is None


def test_page_name_is_the_folders_identity_not_its_path(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "alias").symlink_to(store)
    (tmp_path / "other").mkdir()
    assert page_name(store) == page_name(tmp_path / "alias") != page_name(tmp_path / "other")
    assert page_name(store).startswith("/shmq-")
