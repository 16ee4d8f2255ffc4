"""Rules for all tests: what runs by default, what is grouped, no broker of the developer's in sight."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure: no test is judged by its time."""
settings.register_profile("default run", _ANY_PACE, max_examples=40)
settings.register_profile("long run", _ANY_PACE, max_examples=200)

FOREIGN_SETTINGS = (
    "NAMESRV_ADDR",
    "SHMQ_NAMESRV",
    "SHMQ_FAULTS",
    "SHMQ_RECORD",
    "SHMQ_RUNTIME_DIR",
    "ROCKETMQ_HOME",
    "NOTIFY_SOCKET",
)
"""Variables that would point a test at something of the machine it runs on."""

for _name in FOREIGN_SETTINGS:
    os.environ.pop(_name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("long run" if config.getoption("--long") else "default run")


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests alone: the collector need not walk them at every full pass."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip long tests unless asked for; keep the JVM tests in one process, so that they share their JVMs."""
    for item in items:
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with --long"))
        if "interop" in item.keywords:
            item.add_marker(pytest.mark.xdist_group("interop"))
