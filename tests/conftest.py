"""Rules for all tests: what runs by default, what is grouped, no broker of the developer's in sight."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shmq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shmq")  # a busy machine is no failure: no test is judged by its time

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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip long tests unless asked for; keep the JVM tests in one process, so that they share their JVMs."""
    for item in items:
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with --long"))
        if "interop" in item.keywords:
            item.add_marker(pytest.mark.xdist_group("interop"))
