from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import posix_ipc
import pytest

from shmq.base.errors import StoreDamaged, Unavailable
from shmq.shm import control_page
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, LayoutMismatch, PageState, open_page_fd


def test_a_new_page_is_recovering_empty_and_bounded_by_the_write_position(page: ControlPage) -> None:
    assert page.state is PageState.RECOVERING
    assert page.page_id > 0
    assert page.same_boot
    assert page.words[at.STORE_IDENTITY] == 77
    page.words[at.WRITE_POSITION] = 4096
    assert page.visible_position() == 4096
    page.words[at.VISIBLE_WORD] = at.FLUSHED_POSITION
    assert page.visible_position() == 0


def test_whoever_attaches_sees_the_same_words(page: ControlPage, page_name: str) -> None:
    other = ControlPage.attach(page_name)
    other.words[at.MIN_OFFSET] = 123
    assert page.words[at.MIN_OFFSET] == 123
    assert other.page_id == page.page_id
    assert (other.queue_slots, other.offset_slots, other.directory_bytes) == (64, 32, 4096)
    other.close()


def test_a_read_only_page_cannot_be_written(page: ControlPage, page_name: str) -> None:
    reader = ControlPage.attach(page_name, readonly=True)
    with pytest.raises(TypeError):
        reader.words[at.MIN_OFFSET] = 1
    reader.close()


def test_a_granted_descriptor_is_enough_even_when_the_name_is_gone(page: ControlPage, page_name: str) -> None:
    fd = open_page_fd(page_name)
    ControlPage.unlink(page_name)
    reader = ControlPage.from_fd(fd)
    os.close(fd)
    page.words[at.POLICY_EPOCH] = 9
    assert reader.words[at.POLICY_EPOCH] == 9
    reader.close()


def test_a_granted_descriptor_gives_no_right_to_write(page: ControlPage, page_name: str) -> None:
    fd = open_page_fd(page_name)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    os.close(fd)


def test_making_a_page_twice_is_refused(page: ControlPage, page_name: str) -> None:
    with pytest.raises(Unavailable, match="exists already"):
        ControlPage.create(page_name, queue_slots=1, offset_slots=1, directory_bytes=8, store_identity=1)


def test_attaching_to_nothing_says_that_no_broker_runs(page_name: str) -> None:
    with pytest.raises(Unavailable, match="no broker runs"):
        ControlPage.attach(page_name)


def test_another_layout_version_is_told_apart_from_damage(page: ControlPage, page_name: str) -> None:
    page.words[at.LAYOUT_VERSION] += 1
    now = at.LAYOUT_VERSION_NOW
    with pytest.raises(LayoutMismatch, match=f"layout {now + 1}, we know {now}"):
        ControlPage.attach(page_name)
    page.words[at.MAGIC] = 0
    with pytest.raises(StoreDamaged, match="not a finished control page"):
        ControlPage.attach(page_name)


def test_a_short_object_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 100)
    with open(path, "rb") as file, pytest.raises(StoreDamaged, match="too few"):
        ControlPage.from_fd(file.fileno())


def test_a_page_whose_maker_died_before_it_had_memory_is_not_read(page_name: str) -> None:
    """To load from it when /dev/shm is full would be SIGBUS: a start that ends without a word."""
    shared = posix_ipc.SharedMemory(page_name, posix_ipc.O_CREX, size=4 << 20)
    shared.close_fd()
    with pytest.raises(StoreDamaged, match="not a finished control page: it has holes"):
        ControlPage.attach(page_name)
    shared.unlink()


def test_retiring_reaches_everybody(page: ControlPage, page_name: str) -> None:
    other = ControlPage.attach(page_name, readonly=True)
    page.retire()
    assert other.state is PageState.RETIRED
    other.close()


def test_a_page_of_another_boot_is_known(page: ControlPage) -> None:
    page.words[at.KERNEL_BOOT_ID] ^= 1
    assert not page.same_boot


def test_a_full_dev_shm_is_a_clear_error_and_leaves_nothing(
    page_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(control_page.os, "posix_fallocate", full)
    with pytest.raises(Unavailable, match=r"/dev/shm has no room.*--shm-size"):
        ControlPage.create(page_name, store_identity=1)
    with pytest.raises(Unavailable, match="no broker runs"):
        ControlPage.attach(page_name)


def test_using_a_closed_page_fails_instead_of_crashing(page: ControlPage) -> None:
    words = page.words
    page.close()
    page.close()
    with pytest.raises(ValueError, match="released"):
        words[at.STATE]
