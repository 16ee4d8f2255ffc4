"""Pytest fixtures: a private broker for each test that asks for one.

In a conftest.py: `pytest_plugins = ["shmq.testing"]` or `from shmq.testing import broker`. Then:

    def test_it_works(broker):
        with Producer("group", namesrv_addr=broker.namesrv_addr) as producer:
            ...

`broker` is new for every test; `shared_broker` is one for the whole session, for tests that use topics and
groups of their own; `make_broker(brokerWorkers=4)` starts one with settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from shmq.embedded import Broker

BrokerMaker = Callable[..., Broker]


@pytest.fixture
def make_broker() -> Iterator[BrokerMaker]:
    """Return a function that starts brokers with given settings; all are stopped and removed after the
    test."""
    made: list[Broker] = []

    def make(**settings: object) -> Broker:
        running = Broker(None, **settings)
        made.append(running)
        return running.start()

    yield make
    for running in reversed(made):
        running.close()


@pytest.fixture
def broker(make_broker: BrokerMaker) -> Broker:
    """Return a private broker with default settings, for this test alone."""
    return make_broker()


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    """Return one broker for the whole session: use topics and groups of your own."""
    with Broker() as running:
        yield running
