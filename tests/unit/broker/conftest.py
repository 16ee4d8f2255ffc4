"""A small control page with a semaphore per test, gone afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from shmq.shm.append_lock import AppendLock, create_semaphore, unlink_semaphore
from shmq.shm.control_page import ControlPage, PageState


@pytest.fixture
def page() -> Iterator[ControlPage]:
    name = f"/shmq-test-{secrets.token_hex(6)}"
    made = ControlPage.create(name, queue_slots=64, offset_slots=64, directory_bytes=16384, store_identity=77)
    made.state = PageState.OK
    yield made
    made.close()
    ControlPage.unlink(name)


@pytest.fixture
def lock(page: ControlPage) -> Iterator[AppendLock]:
    name = create_semaphore(f"/shmq-test-{secrets.token_hex(6)}", page)
    made = AppendLock(page, 1, name, lambda: False)
    yield made
    made.close()
    unlink_semaphore(name)
