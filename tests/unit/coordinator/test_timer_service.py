"""The timer service over a real store: what waits is delivered once, in time and never before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shmq.model.names import TIMER_TOPIC
from shmq.shm import page_layout as at
from shmq.store.damage_table import MARKED, MENDED, DamageTable
from shmq.store.scrub import Scrub
from shmq.store.timer_log import UNIT_BYTES
from tests.helpers.store import small_settings
from tests.helpers.timer_world import TimerWorld

DAY_MS = 86_400_000


def test_timers_are_delivered_in_the_order_they_are_due_and_never_before(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        due = {b"%d" % delay: now + delay for delay in (5, 4000, 1, 700, 701, 999, 1000, 2500, 60_000)}
        for body, moment in due.items():
            world.send(moment, body)
        world.run(61_000)
        assert {body: times[0] for body, times in world.delivered.items()} == due
        assert all(len(times) == 1 for times in world.delivered.values())


def test_what_comes_late_is_delivered_at_once(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        world.send(now + 50, b"first")
        world.run(60)
        for number in range(100):
            world.send(now + 40, b"late %d" % number)
        world.run(0)
        assert len(world.delivered) == 101
        assert world.cursors.taken == 101
        world.die()
        world.run(10)
        assert all(len(times) == 1 for times in world.delivered.values())


def test_years_are_rolled_through_the_wheel(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store", timer_roll_window_slot=5) as world:
        now = world.clock.now_ms()
        world.send(now + 41_234, b"far")
        world.send(now + 2_000 * DAY_MS, b"years")
        world.run(41_233)
        assert not world.delivered
        assert world.cursors.log_end > 5 * UNIT_BYTES
        world.run(1)
        assert world.delivered == {b"far": [now + 41_234]}
        world.clock.advance(2_000 * DAY_MS - 41_234 - 1)
        world.run(0)
        assert b"years" not in world.delivered
        world.run(1)
        assert world.delivered[b"years"] == [now + 2_000 * DAY_MS]


def test_a_cancelled_one_is_not_delivered(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store", timer_roll_window_slot=2) as world:
        now = world.clock.now_ms()
        for delay in (300, 1_700, 9_000):
            world.send(now + delay, b"c%d" % delay)
            world.send(now + delay, b"k%d" % delay)
        world.run(100)
        for delay in (300, 1_700, 9_000):
            world.cancel(now + delay, b"c%d" % delay)
        world.run(10)
        world.die()
        world.run(10_000)
        assert sorted(world.delivered) == [b"k1700", b"k300", b"k9000"]
        assert world.counts["timers_cancelled"] == 3


def test_a_clock_set_forward_makes_due_and_set_back_waits_again(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        start = world.clock.now_ms()
        world.send(start + 60_000, b"before")
        world.run(10)
        world.clock.set_wall(start + 3_600_000)
        world.run(10)
        assert list(world.delivered) == [b"before"]
        world.clock.set_wall(start)
        world.send(start + 30_000, b"after")
        world.send(start + 7_200_000, b"beyond")
        world.run(29_999)
        assert b"after" not in world.delivered
        world.die()
        world.run(1)
        assert world.delivered[b"after"] == [start + 30_000]
        world.send(start + 45_000, b"third")
        world.clock.set_wall(start + 3_600_000)
        world.run(10)
        assert b"third" in world.delivered
        world.clock.set_wall(start + 7_200_000)
        world.run(10)
        assert sorted(world.delivered) == [b"after", b"before", b"beyond", b"third"]
        assert all(len(times) == 1 for times in world.delivered.values())


def test_set_back_twice_nothing_is_early_and_nothing_lost(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        start = world.clock.now_ms()
        due: dict[bytes, int] = {}
        for jump in (0, 36_000, 18_000, 6_000):
            world.clock.set_wall(start + jump)
            for delay in (1_000, 9_000):
                due[b"%d %d" % (jump, delay)] = start + jump + delay
                world.send(start + jump + delay, b"%d %d" % (jump, delay))
            world.run(2_000)
            world.die()
        world.run(72_000)
        assert {body: len(times) for body, times in world.delivered.items()} == dict.fromkeys(due, 1)
        assert all(world.delivered[body][0] >= moment for body, moment in due.items())


@pytest.mark.parametrize("loss", ["wheel", "page"])
def test_the_wheel_is_made_again_from_the_log(tmp_path: Path, loss: str) -> None:
    with TimerWorld(tmp_path / "store", mapped_file_size_timer_log=1024) as world:
        now = world.clock.now_ms()
        for number in range(200):
            world.send(now + 10 + 50 * number, b"%d" % number)
        world.run(5_000)
        done = len(world.delivered)
        assert 0 < done < 200
        world.world.flush()
        world.run(2_000)
        world.run(0)
        world.world.flush()
        world.service.export()
        world.service.export()
        if loss == "wheel":
            world.lose_wheel()
        world.crash(keep_page=loss == "wheel")
        world.run(20_000)
        assert {body: len(times) for body, times in world.delivered.items()} == {
            b"%d" % n: 1 for n in range(200)
        }


def test_a_power_cut_delivers_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    """The cursors' file is old, or was never written: what is delivered is seen in the key index."""
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        for number in range(50):
            world.send(now + 100 * number, b"%d" % number)
        for pause in (1_230, 2_000, 10_000):
            world.run(pause)
            world.send(world.clock.now_ms() - 5, b"late %d" % pause)
            world.run(0)
            world.world.flush()
            world.crash(keep_page=False)
        world.run(100)
        expected = [*(b"%d" % n for n in range(50)), *(b"late %d" % n for n in (1_230, 2_000, 10_000))]
        assert sorted(world.delivered) == sorted(expected)
        assert all(len(times) == 1 for times in world.delivered.values())
        assert all(times[0] >= now + 100 * int(b) for b, times in world.delivered.items() if b.isdigit())


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 9))])
def test_deaths_jumps_and_cancels_at_random(tmp_path: Path, seed: int) -> None:
    """Each once, none before its moment by the clock of that time; the page is kept throughout."""
    chance = random.Random(seed)
    with TimerWorld(
        tmp_path / "store", timer_roll_window_slot=chance.choice([2, 30]), mapped_file_size_timer_log=2048
    ) as world:
        due: dict[bytes, int] = {}
        gone: set[bytes] = set()
        for number in range(250):
            body = b"%d" % number
            due[body] = world.clock.now_ms() + int(chance.expovariate(1 / 20_000))
            world.send(due[body], body)
            if chance.random() < 0.1 and due[body] > world.clock.now_ms() + 1000:
                world.cancel(due[body], body)
                gone.add(body)
            if chance.random() < 0.3:
                world.run(chance.randrange(2_000), step_ms=chance.choice([0, 7]))
            if chance.random() < 0.05:
                world.die()
            if chance.random() < 0.02:
                world.lose_wheel()
                world.die()
            if chance.random() < 0.02:
                world.clock.set_wall(world.clock.now_ms() + chance.randrange(-60_000, 60_000))
        world.run(400_000)
        assert {body: len(times) for body, times in world.delivered.items()} == {
            body: 1 for body in due if body not in gone
        }
        for body, times in world.delivered.items():
            assert times[0] >= due[body]


def test_the_kept_cursor_passes_what_is_over(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as world:
        now = world.clock.now_ms()
        for number in range(10):
            world.send(now + 100 * number + 100, b"%d" % number)
        world.run(550)
        world.run(1_000)
        world.run(1_000)
        assert world.world.page.words[at.TIMER_KEPT] == 10
        world.send(now + DAY_MS, b"tomorrow")
        world.run(2_000)
        assert world.world.page.words[at.TIMER_KEPT] == 10


@pytest.mark.parametrize("flushed", [True, False])
def test_one_that_was_damaged_while_it_waited_is_mended_or_left_out(tmp_path: Path, flushed: bool) -> None:
    """Its number is not in the message that is delivered; but what is damaged is asked about as a whole."""
    with TimerWorld(tmp_path / "store") as timers:
        world, now = timers.world, timers.clock.now_ms()
        places = [timers.send(now + 1_000, b"%d" % n).physical_offset for n in range(5)]
        timers.run(100)
        if flushed:
            world.flush()
        with open(world.layout.segment_path(0), "r+b") as segment:
            segment.seek(places[2] + 27)
            segment.write(b"\x03")
        timers.run(1_500, step_ms=100)
        assert set(timers.delivered) == {b"0", b"1"}, "the later ones wait until somebody has looked"
        settings = small_settings(scrub_bytes_per_second=0)
        Scrub(world.layout, world.page, settings, lambda name, n: None).step()
        timers.run(1_000, step_ms=100)
        expected = {b"%d" % n for n in range(5) if flushed or n != 2}
        assert set(timers.delivered) == expected and all(len(at) == 1 for at in timers.delivered.values())
        (row,) = DamageTable(world.layout).rows
        assert (row.position, row.state) == (places[2], MENDED if flushed else MARKED)
        if not flushed:
            assert (row.topic, row.queue_offset) == (TIMER_TOPIC, 2) and timers.counts["timers_dropped"] == 1
            world.flush()
            world.crash(keep_page=True)  # what is marked is replaced then


def test_a_damaged_one_is_mended_before_its_segment_goes(tmp_path: Path) -> None:
    with TimerWorld(tmp_path / "store") as timers:
        world, now = timers.world, timers.clock.now_ms()
        places = [timers.send(now + 60_000, b"%d" % n * 9).physical_offset for n in range(3)]
        timers.run(100)
        world.flush()
        with open(world.layout.segment_path(0), "r+b") as segment:
            segment.seek(places[1] + 90)
            segment.write(b"?")
        end = places[2] + 1
        assert not timers.changes.move_out(end)
        settings = small_settings(scrub_bytes_per_second=0)
        Scrub(world.layout, world.page, settings, lambda name, n: None).step()
        timers.changes.move_out(end)
        lowest = timers.changes.lowest_needed()
        assert lowest is not None and lowest >= end
        timers.run(61_000)
        assert {body: len(times) for body, times in timers.delivered.items()} == {
            b"%d" % n * 9: 1 for n in range(3)
        }
