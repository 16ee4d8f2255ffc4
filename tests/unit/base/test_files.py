from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shmq.base import files
from shmq.base.errors import Bug, Unavailable
from shmq.base.files import SharedFileLock, StoreLock, write_durably


def test_write_durably_keeps_the_content_before_as_backup(tmp_path: Path) -> None:
    path = tmp_path / "topics.json"
    for content in (b"one", b"two", b"three"):
        write_durably(path, content)
    assert path.read_bytes() == b"three"
    assert (tmp_path / "topics.json.bak").read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["topics.json", "topics.json.bak"]


def test_write_durably_without_backup_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "delayOffset.json"
    write_durably(path, b"one", backup=False)
    write_durably(path, b"two", backup=False)
    assert os.listdir(tmp_path) == ["delayOffset.json"]


def test_a_failing_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "topics.json"
    write_durably(path, b"one")

    def refuse(fd: int) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="disk gone"):
        write_durably(path, b"two")
    assert path.read_bytes() == b"one"


def test_write_durably_works_where_links_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "no hard links here")

    path = tmp_path / "topics.json"
    write_durably(path, b"one")
    monkeypatch.setattr(files.os, "link", refuse)
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert (tmp_path / "topics.json.bak").read_bytes() == b"one"


def test_a_second_store_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "lock")
    lock.acquire()
    with pytest.raises(Unavailable, match=f"process {os.getpid()}"):
        StoreLock(tmp_path / "lock").acquire()
    lock.release()
    lock.release()
    again = StoreLock(tmp_path / "lock")
    again.acquire()
    again.release()
    assert (tmp_path / "lock").read_bytes() == b"lock"


def test_the_store_lock_excludes_an_engine_that_takes_a_posix_lock(tmp_path: Path) -> None:
    """An Apache broker locks byte 0 through Java's FileLock, which is fcntl(F_SETLK) of the process."""
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w+')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(Unavailable, match=f"process {other.pid}"):
            StoreLock(tmp_path / "lock").acquire()


def test_closing_another_descriptor_of_the_file_does_not_drop_the_store_lock(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "lock")
    lock.acquire()
    (tmp_path / "lock").read_bytes()
    with open(tmp_path / "lock", "r+b") as other, pytest.raises(BlockingIOError):
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    lock.release()


def test_shared_file_lock_lets_many_share_or_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "appenders.lock"
    one, two, three = SharedFileLock(path), SharedFileLock(path), SharedFileLock(path)
    assert one.shared(nonblocking=True)
    assert two.shared(nonblocking=True)
    assert not three.exclusive(nonblocking=True)
    one.unlock()
    two.release()
    assert three.exclusive(nonblocking=True)
    assert not one.shared(nonblocking=True)
    one.release()
    three.release()
    three.release()
    with pytest.raises(Bug):
        three.shared()
