"""Fixtures of the interop tests; all are skipped, with one line, where the originals cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.embedded import Broker
from tests.helpers import java


@pytest.fixture(scope="session", autouse=True)
def originals() -> None:
    """Skip everything here when there is no JVM, no Maven, or no way to Maven Central."""
    if reason := java.unavailable_reason():
        pytest.skip(f"the originals cannot run here: {reason}")


@pytest.fixture(scope="session")
def java_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the JVMs of this run write their logs."""
    return tmp_path_factory.mktemp("java-home")


@pytest.fixture(scope="session")
def mqadmin(java_home: Path) -> Iterator[java.AdminShell]:
    """The original mqadmin, one JVM for all tests."""
    shell = java.AdminShell(java_home)
    yield shell
    shell.close()


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[java.ApacheBroker]:
    """An Apache name server and broker."""
    with java.apache_broker(tmp_path_factory.mktemp("apache"), clean=False) as broker:
        yield broker


@pytest.fixture(scope="session")
def shmq_broker() -> Iterator[Broker]:
    """A shmq broker with its TCP front open, shared by the tests that point the originals at it."""
    with Broker() as broker:
        yield broker
