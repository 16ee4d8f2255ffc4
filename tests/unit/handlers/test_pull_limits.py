"""How much one pull may bring: RocketMQ's limits for messages in memory and on disk.

Holds lines 217 and 218 of the behaviour checklist (docs/checklist.md) for RocketMQ's clients.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shmq.handlers import pull
from shmq.model.broker_settings import BrokerSettings
from shmq.protocol.command import Command, Serialization
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.shm.queue_table import QueueRef

QUEUE = QueueRef("T", 0, 0, 2)


def _limits(*, on_disk: bool, count: int = 32, serialization: int = Serialization.JSON) -> tuple[int, int]:
    context = SimpleNamespace(
        settings=BrokerSettings(), memory=SimpleNamespace(is_on_disk=lambda queue, offset: on_disk)
    )
    header = PullMessageHeader("g", "T", 0, 0, count, 0, 0, 0, 0)
    command = Command(11, serialization=serialization)
    return pull._bounds(context, command, header, QUEUE, 0)


@pytest.mark.parametrize(
    ("on_disk", "count", "expected"),
    [
        pytest.param(False, 32, (32, 256 << 10), id="217-memory"),
        pytest.param(False, 1000, (32, 256 << 10), id="217-memory-asked-for-more"),
        pytest.param(True, 32, (8, 64 << 10), id="218-disk"),
        pytest.param(True, 4, (4, 64 << 10), id="218-disk-asked-for-less"),
    ],
)
def test_a_pull_is_limited_by_where_the_messages_are(
    on_disk: bool, count: int, expected: tuple[int, int]
) -> None:
    assert _limits(on_disk=on_disk, count=count) == expected
