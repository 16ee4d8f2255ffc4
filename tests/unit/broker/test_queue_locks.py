"""Queue locks of orderly consumers."""

from __future__ import annotations

import pytest

from shmq.broker.queue_locks import LOCK_LIFE_MS, QueueLocks
from shmq.model.message_queue import MessageQueue

QUEUES = [MessageQueue("t", "b", n) for n in range(4)]
START = 1_000_000


@pytest.fixture
def locks() -> QueueLocks:
    found = QueueLocks()
    assert found.lock("g", "one", QUEUES[:2], START) == QUEUES[:2]
    return found


@pytest.mark.parametrize(
    ("client", "group", "after_ms", "granted"),
    [
        ("one", "g", 1, QUEUES),
        ("two", "g", 1, QUEUES[2:]),
        ("two", "g", LOCK_LIFE_MS, QUEUES[2:]),
        ("two", "g", LOCK_LIFE_MS + 1, QUEUES),
        ("two", "other", 1, QUEUES),
    ],
)
def test_who_gets_a_queue(
    locks: QueueLocks, client: str, group: str, after_ms: int, granted: list[MessageQueue]
) -> None:
    assert locks.lock(group, client, QUEUES, START + after_ms) == granted


def test_renewing_keeps_a_lock_alive(locks: QueueLocks) -> None:
    locks.lock("g", "one", QUEUES[:1], START + LOCK_LIFE_MS)
    assert locks.lock("g", "two", QUEUES[:2], START + LOCK_LIFE_MS + 1) == QUEUES[1:2]


def test_only_the_holder_unlocks(locks: QueueLocks) -> None:
    locks.unlock("g", "two", QUEUES)
    assert locks.lock("g", "two", QUEUES[:2], START) == []
    locks.unlock("g", "one", QUEUES[:1])
    assert locks.lock("g", "two", QUEUES[:2], START) == QUEUES[:1]


def test_expired_locks_are_forgotten(locks: QueueLocks) -> None:
    assert locks.expire(START + LOCK_LIFE_MS) == 0
    assert locks.expire(START + LOCK_LIFE_MS + 1) == 2
    assert len(locks) == 0


def test_a_new_table_takes_over_what_is_told(locks: QueueLocks) -> None:
    fresh = QueueLocks()
    fresh.restore("g", "one", locks.held("g", "one"))
    assert fresh.lock("g", "two", QUEUES, START + 1) == QUEUES[2:]
    assert fresh.lock("g", "two", QUEUES[:2], START + LOCK_LIFE_MS + 1) == QUEUES[:2]


def test_of_two_notes_about_a_queue_the_later_renewal_wins() -> None:
    locks = QueueLocks()
    locks.restore("g", "one", {QUEUES[0]: 5})
    locks.restore("g", "two", {QUEUES[0]: 9})
    locks.restore("g", "one", {QUEUES[0]: 7})
    assert locks.held("g", "two") == {QUEUES[0]: 9} and locks.held("g", "one") == {}


def test_withheld_locks_are_renewed_but_not_granted(locks: QueueLocks) -> None:
    locks.withhold(START + 100)
    assert locks.lock("g", "one", QUEUES, START + 50) == QUEUES[:2]
    assert locks.lock("g", "one", QUEUES, START + 100) == QUEUES


def test_a_deleted_group_holds_nothing(locks: QueueLocks) -> None:
    locks.drop_group("g")
    assert len(locks) == 0


def test_who_was_refused_is_told_when_the_queue_is_free(locks: QueueLocks) -> None:
    assert not locks.unlock("g", "one", QUEUES[:1])
    assert locks.lock("g", "two", QUEUES[1:2], START) == []
    assert not locks.unlock("g", "two", QUEUES[1:2]), "it is not theirs"
    assert locks.unlock("g", "one", QUEUES[1:2])
    assert locks.lock("g", "two", QUEUES[1:2], START) == QUEUES[1:2]
    assert not locks.unlock("g", "two", QUEUES[1:2]), "nobody waits any more"


def test_a_client_whose_process_has_ended_holds_nothing(locks: QueueLocks) -> None:
    locks.lock("g", "two", QUEUES[2:], START)
    locks.drop_client("g", "one")
    assert locks.held("g", "one") == {}
    assert locks.held("g", "two") == dict.fromkeys(QUEUES[2:], START)
    assert locks.lock("g", "two", QUEUES, START) == QUEUES


def test_166_a_lock_renewed_every_20_s_never_lapses(locks: QueueLocks) -> None:
    """Checklist 166: ten minutes, another client asking all the time."""
    for now in range(START, START + 600_000, 1000):
        if (now - START) % 20_000 == 0:
            assert locks.lock("g", "one", QUEUES[:2], now) == QUEUES[:2]
        assert locks.lock("g", "two", QUEUES[:2], now + 500) == []
