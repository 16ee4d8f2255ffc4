"""How a claim's bytes reach a segment: into its map, or by a write where each message waits for its sync."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.model.record import BLANK_MAGIC
from shmq.store import commit_log
from shmq.store.commit_log import write_blank, write_bytes
from shmq.store.mapped_file import MappedFile

SIZE = 8192


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "segment"
    file.write_bytes(bytes(SIZE))
    return file


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that were written to a file."""
    positions: list[int] = []
    real: Callable[..., int] = os.pwrite

    def pwrite(fd: int, data: bytes, position: int) -> int:
        positions.append(position)
        return real(fd, data, position)

    monkeypatch.setattr(commit_log.os, "pwrite", pwrite)
    return positions


@pytest.mark.parametrize("keeps_file", [False, True], ids=["map", "write"])
def test_maps_and_file_show_the_same(path: Path, written: list[int], keeps_file: bool) -> None:
    other = MappedFile(path, 0, SIZE, writable=False)
    segment = MappedFile(path, 0, SIZE, writable=True, keeps_file=keeps_file)
    data = os.urandom(5000)
    write_bytes(segment, 100, bytearray(data))
    write_blank(segment, 5100)
    assert written == ([100, 5100] if keeps_file else [])
    for seen in (segment.view, other.view, path.read_bytes()):
        assert seen[100:5100] == data
        assert int.from_bytes(seen[5100:5104], "big") == SIZE - 5100
        assert int.from_bytes(seen[5104:5108], "big", signed=True) == BLANK_MAGIC
        assert not any(seen[:100]) and not any(seen[5108:])


def test_what_a_write_refuses_or_does_in_part_the_map_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync that follows says what is wrong with the disk; under the lock nothing may fail."""
    segment = MappedFile(path, 0, SIZE, writable=True, keeps_file=True)

    def refuse(fd: int, data: bytes, position: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(commit_log.os, "pwrite", refuse)
    write_bytes(segment, 0, b"refused")
    monkeypatch.setattr(commit_log.os, "pwrite", lambda fd, data, position: len(data) - 1)
    write_bytes(segment, 4096, b"in part")
    assert path.read_bytes()[:7] == b"refused" and path.read_bytes()[4096:4103] == b"in part"


def test_the_file_is_closed_with_its_last_user(path: Path) -> None:
    segment = MappedFile(path, 0, SIZE, writable=True, keeps_file=True)
    assert segment.file is not None
    fd = segment.file.fileno()
    assert os.fstat(fd).st_size == SIZE
    del segment
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
