"""Sums of small files: what a crash leaves is right, what somebody else wrote is not."""

from __future__ import annotations

from pathlib import Path

from shmq.base.file_sums import FileState, announce, judge, sum_path
from shmq.base.files import write_durably


def test_a_crash_between_sum_and_content_leaves_a_right_file(tmp_path: Path) -> None:
    file, sums = tmp_path / "topics.json", tmp_path / "checksums"
    assert judge(sums, file) is FileState.UNKNOWN
    for content in (b"one", b"two", b"three"):
        announce(sums, file, content)
        assert judge(sums, file) is FileState.RIGHT
        write_durably(file, content)
        assert judge(sums, file) is FileState.RIGHT
    announce(sums, file, b"three")
    assert judge(sums, file) is FileState.RIGHT, "the same content again does not forget the one before"
    file.write_bytes(b"two")
    assert judge(sums, file) is FileState.RIGHT
    file.write_bytes(b"one")
    assert judge(sums, file) is FileState.CHANGED
    file.unlink()
    assert judge(sums, file) is FileState.MISSING


def test_a_damaged_sum_says_so_and_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "f"
    announce(tmp_path, file, b"x")
    file.write_bytes(b"x")
    sum_path(tmp_path, file).write_bytes(b"?" * 64)
    assert judge(tmp_path, file) is FileState.SUM_DAMAGED
    announce(tmp_path, file, b"y")
    file.write_bytes(b"y")
    assert judge(tmp_path, file) is FileState.RIGHT
    assert sum_path(tmp_path, file).stat().st_size == 64


def test_only_a_part_of_a_file_may_count(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    announce(tmp_path, file, b"12345")
    file.write_bytes(b"12345and the rest")
    assert judge(tmp_path, file, 5) is FileState.RIGHT
    assert judge(tmp_path, file) is FileState.CHANGED
