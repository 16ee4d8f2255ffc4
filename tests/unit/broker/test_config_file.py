"""Reading and replacing a config file with its backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.errors import StoreDamaged
from shmq.broker.config_file import ConfigFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "topics.json"


def write(path: Path, main: bytes | None, backup: bytes | None) -> None:
    path.parent.mkdir()
    for name, content in ((path.name, main), (path.name + ".bak", backup)):
        if content is not None:
            path.with_name(name).write_bytes(content)


def test_a_missing_file_is_an_empty_table(path: Path) -> None:
    assert ConfigFile(path).load() == {}


@pytest.mark.parametrize(
    ("main", "backup", "found"),
    [
        (b'{"a":1}', b'{"a":2}', {"a": 1}),
        (None, b'{"a":2}', {"a": 2}),
        (b"", b'{"a":2}', {"a": 2}),
        (b"\0\0\0\0", b'{"a":2}', {"a": 2}),
        (b'{"a":', b'{"a":2}', {"a": 2}),
        (b"[1]", b'{"a":2}', {"a": 2}),
        (b"", b"", {}),
        (b'{"t@g":{0:5,1:6}}', None, {"t@g": {0: 5, 1: 6}}),
    ],
)
def test_the_backup_stands_in_for_an_unreadable_file(
    path: Path, main: bytes | None, backup: bytes | None, found: object
) -> None:
    write(path, main, backup)
    assert ConfigFile(path).load() == found


@pytest.mark.parametrize(("main", "backup"), [(b"{", None), (b"{", b"}"), (b"7", b"")])
def test_content_that_nobody_can_read_is_never_taken_as_empty(
    path: Path, main: bytes, backup: bytes | None
) -> None:
    write(path, main, backup)
    with pytest.raises(StoreDamaged, match=r"topics\.json"):
        ConfigFile(path).load()


def test_the_old_content_becomes_the_backup(path: Path) -> None:
    file = ConfigFile(path)
    file.save({"a": 1})
    file.save({"a": 2})
    assert ConfigFile(path).load() == {"a": 2}
    path.unlink()
    assert ConfigFile(path).load() == {"a": 1}


def test_unchanged_content_is_not_written_again(path: Path) -> None:
    file = ConfigFile(path)
    file.save({"a": 1})
    inode = path.stat().st_ino
    file.save({"a": 1})
    assert path.stat().st_ino == inode
