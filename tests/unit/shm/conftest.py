"""A small control page per test, gone afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from shmq.shm.control_page import ControlPage

QUEUE_SLOTS, OFFSET_SLOTS, DIRECTORY_BYTES = 64, 32, 4096


@pytest.fixture
def page_name() -> Iterator[str]:
    name = f"/shmq-test-{secrets.token_hex(6)}"
    yield name
    ControlPage.unlink(name)


@pytest.fixture
def page(page_name: str) -> Iterator[ControlPage]:
    made = ControlPage.create(
        page_name,
        queue_slots=QUEUE_SLOTS,
        offset_slots=OFFSET_SLOTS,
        directory_bytes=DIRECTORY_BYTES,
        store_identity=77,
    )
    yield made
    made.close()
