"""Waiting messages on request: found by id, listed, taken back, put off, moved out of old segments."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from shmq.base.errors import IllegalOperation, QueryNotFound
from shmq.model.message_id import offset_message_id
from shmq.shm.page_layout import WRITE_POSITION
from tests.helpers.timer_world import TOPIC, TimerWorld

DAY_MS = 86_400_000


def ids(world: TimerWorld, topic: str = "") -> list[bytes]:
    """The bodies of all that wait, page by page."""
    found: list[bytes] = []
    first = 0
    while first >= 0:
        page, first = world.changes.waiting(first, 3, topic)
        found += [bytes(message.body) for message in page]
    return found


@pytest.mark.parametrize("indexed", [False, True])
def test_what_waits_is_found_listed_and_taken_back(tmp_path: Path, indexed: bool) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        outcomes = {b"m%d" % n: world.send(now + 1000 * (n + 1), b"m%d" % n) for n in range(8)}
        world.run(2_500)
        if indexed:
            world.world.flush()
            world.world.index_all()
        assert ids(world) == [b"m%d" % n for n in range(2, 8)]
        assert ids(world, "other") == []
        found = world.changes.find("m5")
        assert (found.topic, found.due_ms, bytes(found.body)) == (TOPIC, now + 6000, b"m5")
        by_offset = offset_message_id(found.fields.store_host, outcomes[b"m5"].physical_offset)
        assert world.changes.find(by_offset).unique_key == "m5"
        with pytest.raises(QueryNotFound):
            world.changes.find("m1")
        world.changes.cancel(TOPIC, "m5", now + 6000)
        world.changes.cancel(TOPIC, "m5", now + 6000)
        with pytest.raises(QueryNotFound):
            world.changes.find("m5")
        for key, due in (("m1", 2000), ("m6", 6000), ("none", 6000)):
            with pytest.raises(IllegalOperation, match="does not wait"):
                world.changes.cancel(TOPIC, key, now + due)
        assert ids(world) == [b"m2", b"m3", b"m4", b"m6", b"m7"]
        world.die()
        world.run(20_000)
        assert sorted(world.delivered) == [b"m%d" % n for n in range(8) if n != 5]


def test_one_put_off_back_and_forth_is_delivered_once(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        world.send(now + 1000, b"m")
        world.run(10)
        moments = [now + 1000, now + 5000, now + 1000, now + 700, now + 9000]
        for old, new in itertools.pairwise(moments):
            world.changes.reschedule(TOPIC, "m", old, new)
            if new == now + 700:
                world.die()
            world.run(10)
        with pytest.raises(IllegalOperation, match="newer handle"):
            world.changes.cancel(TOPIC, "m", now + 5000)
        world.run(20_000)
        assert world.delivered == {b"m": [now + 9000]}


def test_a_moment_that_has_come_delivers_at_once(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        world.send(now + DAY_MS, b"m")
        world.run(10)
        world.changes.reschedule(TOPIC, "m", now + DAY_MS, now - 5)
        world.die()
        world.run(10)
        assert list(world.delivered) == [b"m"]
        world.clock.advance(2 * DAY_MS)
        world.run(10)
        assert len(world.delivered[b"m"]) == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 6))])
def test_what_waits_in_old_segments_is_appended_once_more(tmp_path: Path, seed: int) -> None:
    """With deaths between; the old segment may go then, and each is delivered once."""
    chance = random.Random(seed)
    with TimerWorld(tmp_path / "store", timer_roll_window_slot=3) as world:
        now = world.clock.now_ms()
        due = {b"%d" % n: now + chance.randrange(1, 60_000) for n in range(120)}
        for body, moment in due.items():
            world.send(moment, body)
        world.run(chance.randrange(20_000))
        cancelled = [body for body in due if due[body] > world.clock.now_ms() + 10_000][:5]
        for body in cancelled:
            world.changes.cancel(TOPIC, body.decode(), due[body])
        for _ in range(3):
            end = world.world.page.words[WRITE_POSITION]
            while not world.changes.move_out(end):
                world.step()
                if chance.random() < 0.3:
                    world.die()
                    world.step()
            lowest = world.changes.lowest_needed()
            assert lowest is None or lowest >= end
            world.run(chance.randrange(5_000))
        world.lose_wheel()
        world.die()
        world.run(120_000)
        assert {body: len(times) for body, times in world.delivered.items()} == {
            body: 1 for body in due if body not in cancelled
        }
        assert all(times[0] >= due[body] for body, times in world.delivered.items())
