"""Every store test gets a store of its own, and ends with the store check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.store.check import check_store
from tests.helpers.store import OpenStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store") as opened:
        yield opened
        assert list(check_store(opened.root, opened.page)) == []
