"""Words, fences and bells between two real processes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from tests.helpers.waiting import wait_until
from tests.helpers.word_partner import PATTERNS, cross, older_records, seen_positions


@pytest.fixture
def page_name() -> Iterator[str]:
    name = f"/shmq-test-{secrets.token_hex(6)}"
    yield name
    ControlPage.unlink(name)


@pytest.fixture
def page(page_name: str) -> Iterator[ControlPage]:
    made = ControlPage.create(
        page_name, queue_slots=8, offset_slots=8, directory_bytes=4096, store_identity=1
    )
    yield made
    made.close()


def partner(
    page_name: str, *arguments: object, fds: tuple[int, ...] = (), stdout: int | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.word_partner", page_name, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        pass_fds=fds,
        stdout=stdout,
    )


def test_no_wake_up_is_lost_between_two_processes(page: ControlPage, page_name: str) -> None:
    count, bell = 30_000, Doorbell.create()
    with partner(page_name, "publish", count, bell.fileno(), fds=(bell.fileno(),)) as other:
        try:
            seen = list(seen_positions(page, 5, bell, count))
        finally:
            other.kill()
    assert seen == sorted(seen) and seen[-1] == count
    bell.close()


def test_a_word_is_never_seen_torn(page: ControlPage, page_name: str) -> None:
    known = set(PATTERNS)
    with partner(page_name, "patterns") as other:
        try:
            wait_until(lambda: page.words[at.WRITE_POSITION])
            seen = {page.words[at.WRITE_POSITION] for _ in range(400_000)}
        finally:
            page.retire()
    assert other.returncode == 0
    assert seen <= known
    assert len(seen) > 1, "the other process did not store meanwhile"


def test_bytes_are_there_before_their_number(page: ControlPage, page_name: str) -> None:
    count = 50_000
    with partner(page_name, "records", count) as other:
        try:
            assert older_records(page, count) == []
        finally:
            other.kill()


def test_of_two_that_store_and_then_load_one_sees_the_other(page: ControlPage, page_name: str) -> None:
    """What the fence of parking and ringing, of WANTING and quiesce, must give.

    A machine may happen to give it without: that every fence is needed is shown by the models.
    """
    rounds = 20_000
    with partner(page_name, "cross", rounds, True, stdout=subprocess.PIPE) as other:
        try:
            here = cross(page, 0, rounds, True)
            output, _ = other.communicate(timeout=60)
        finally:
            other.kill()
    there = [int(word) for word in output.split()]
    missed = [n for n, (a, b) in enumerate(zip(here, there, strict=True), 1) if a < n and b < n]
    assert missed == []
