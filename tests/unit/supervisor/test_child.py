"""A child's first steps: it appends only after "go", under the shared lock, while its supervisor lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shmq.base.errors import ConfigFault, StoreDamaged
from shmq.base.files import SharedFileLock
from shmq.model.settings import BrokerSettings
from shmq.shm.boot import ChildBoot, ChildExit, ChildRole
from shmq.supervisor import child


class Pipes(NamedTuple):
    """Both ends of the go pipe and of the supervisor pipe."""

    go_read: int
    go_write: int
    life_read: int
    life_write: int


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes(*os.pipe(), *os.pipe())
    yield made
    for fd in made:
        try:
            os.close(fd)
        except OSError:
            continue


def boot_in(folder: Path, pipes: Pipes) -> ChildBoot:
    return ChildBoot(
        role=ChildRole.WORKER,
        slot=2,
        index=0,
        settings=BrokerSettings(),
        store_root=folder,
        page_name="/none",
        semaphore_name="/none",
        bell_fds=(),
        supervisor_fd=pipes.life_read,
        status_fd=-1,
        runtime_dir=folder,
    )


def test_after_go_it_holds_the_appenders_lock_with_others(tmp_path: Path, pipes: Pipes) -> None:
    os.write(pipes.go_write, child.GO)
    lock = child.wait_for_go(boot_in(tmp_path, pipes), pipes.go_read)
    other = SharedFileLock(tmp_path / child.APPENDERS_LOCK)
    assert not other.exclusive(nonblocking=True)
    assert other.shared(nonblocking=True)
    other.release()
    lock.release()


def test_without_go_it_leaves(tmp_path: Path, pipes: Pipes) -> None:
    os.close(pipes.go_write)
    with pytest.raises(SystemExit) as left:
        child.wait_for_go(boot_in(tmp_path, pipes), pipes.go_read)
    assert left.value.code == ChildExit.ORPHANED


def test_while_somebody_repairs_it_leaves(tmp_path: Path, pipes: Pipes) -> None:
    repairer = SharedFileLock(tmp_path / child.APPENDERS_LOCK)
    assert repairer.exclusive(nonblocking=True)
    os.write(pipes.go_write, child.GO)
    with pytest.raises(SystemExit) as left:
        child.wait_for_go(boot_in(tmp_path, pipes), pipes.go_read)
    assert left.value.code == ChildExit.ORPHANED
    repairer.release()


def test_when_the_supervisor_is_gone_it_leaves(tmp_path: Path, pipes: Pipes) -> None:
    os.write(pipes.go_write, child.GO)
    os.close(pipes.life_write)
    assert child.supervisor_is_gone(pipes.life_read)
    with pytest.raises(SystemExit) as left:
        child.wait_for_go(boot_in(tmp_path, pipes), pipes.go_read)
    assert left.value.code == ChildExit.ORPHANED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, ChildExit.DONE),
        (ConfigFault("wrong"), ChildExit.CANNOT_BOOT),
        (StoreDamaged("broken"), ChildExit.CANNOT_BOOT),
        (RuntimeError("defect"), ChildExit.CRASHED),
    ],
)
def test_the_exit_code_says_whether_starting_again_makes_sense(
    tmp_path: Path, pipes: Pipes, error: Exception | None, code: ChildExit
) -> None:
    def role(_: ChildBoot) -> None:
        if error is not None:
            raise error

    lock = SharedFileLock(tmp_path / child.APPENDERS_LOCK)
    assert child._run(role, boot_in(tmp_path, pipes), lock) == code


def test_a_boot_is_renumbered_to_where_its_descriptors_arrived(tmp_path: Path, pipes: Pipes) -> None:
    boot = ChildBoot(
        role=ChildRole.WORKER,
        slot=2,
        index=0,
        settings=BrokerSettings(),
        store_root=tmp_path,
        page_name="/none",
        semaphore_name="/none",
        bell_fds=(10, 11),
        supervisor_fd=12,
        status_fd=13,
        runtime_dir=tmp_path,
        listener_fds=(14, 15),
        handoff_fds=(16, 17),
        handoff_in_fd=18,
    )
    assert set(boot.descriptors()) == set(range(10, 19))
    moved = boot.renumbered({number: number + 100 for number in range(10, 19)})
    assert set(moved.descriptors()) == set(range(110, 119))
    assert (moved.grant_fd, moved.internal_fd) == (-1, -1)
    assert moved.title == "shmq: worker 0 broker-a"
