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


def test_cancellations_of_far_timers_are_in_the_wheel_and_not_in_memory(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        for number in range(40):
            world.send(now + 600_000 + 50 * number, b"far%d" % number)
            world.send(now + 3_000 + 50 * number, b"near%d" % number)
        world.run(10)
        for number in range(0, 40, 2):
            world.changes.cancel(TOPIC, f"far{number}", now + 600_000 + 50 * number)
            world.changes.cancel(TOPIC, f"near{number}", now + 3_000 + 50 * number)
        world.run(2_500)
        assert len(world.service._waiting._cancels) <= 20
        world.run(10_000)
        assert not world.service._waiting._cancels
        assert sorted(world.delivered) == sorted(b"near%d" % n for n in range(1, 40, 2))
        world.run(700_000)
        assert sorted(world.delivered) == sorted(
            b"%s%d" % (kind, n) for kind in (b"near", b"far") for n in range(1, 40, 2)
        )
        assert all(len(times) == 1 for times in world.delivered.values())


@pytest.mark.parametrize("put_off", [False, True])
def test_a_send_that_was_tried_again_is_taken_back_whole(tmp_path: Path, put_off: bool) -> None:
    """With a delay its two copies have the same key and different moments; the producer knows the second."""
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        for due in (now + 3000, now + 3007):
            world.send(due, b"m")
        world.send(now + 3000, b"other")
        world.run(10)
        if put_off:
            world.changes.reschedule(TOPIC, "m", now + 3007, now + 9000)
            with pytest.raises(IllegalOperation, match="newer handle"):
                world.changes.cancel(TOPIC, "m", now + 3000)
        else:
            world.changes.cancel(TOPIC, "m", now + 3007)
            world.changes.cancel(TOPIC, "m", now + 3000)
        world.die()
        world.run(20_000)
        assert world.delivered == {b"other": [now + 3000]} | ({b"m": [now + 9000]} if put_off else {})


def test_without_a_key_index_nothing_is_said_of_what_cannot_be_found(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store", message_index_enable=False) as world:
        now = world.clock.now_ms()
        world.send(now + 3000, b"m")
        world.run(10)
        for change in (
            lambda: world.changes.cancel(TOPIC, "m", now + 3000),
            lambda: world.changes.reschedule(TOPIC, "m", now + 3000, now + 4000),
            lambda: world.changes.find("m"),
        ):
            with pytest.raises(IllegalOperation, match="messageIndexEnable"):
                change()
        assert ids(world) == [b"m"]
        world.run(20_000)
        assert list(world.delivered) == [b"m"]


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
