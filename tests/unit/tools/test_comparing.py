"""Alternation, ratios within rounds, goals: how a bench comes from turns to a verdict."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.alternation import turns
from bench.durability import Durability
from bench.goals import Goal
from bench.report.figures import advantage, disturbance
from bench.result import Row, Turn, spread
from bench.workload import Workload

SYSTEMS = ("shmq", "redis", "bare")


def row(metric: str = "rate", **rounds: list[float]) -> Row:
    """A row with one figure per system and round."""
    found = Row(Workload("w", "a workload", "send", SYSTEMS, metric), Durability.TIMED)
    for system, values in rounds.items():
        found.turns += [Turn(system, number, {metric: value}) for number, value in enumerate(values)]
    return found


@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_every_round_has_one_turn_of_every_system(rounds: int) -> None:
    order = list(turns(SYSTEMS, rounds))
    assert Counter(order) == {(number, system): 1 for number in range(rounds) for system in SYSTEMS}
    assert [number for number, _ in order] == sorted(number for number, _ in order), "round by round"


def test_rounds_begin_with_another_system_in_turn() -> None:
    order = list(turns(SYSTEMS, 4))
    assert [order[3 * number][1] for number in range(4)] == ["shmq", "redis", "bare", "shmq"]


def test_no_system_no_turn() -> None:
    assert list(turns([], 3)) == []


def test_a_ratio_is_taken_within_rounds() -> None:
    """The machine was twice as slow in the second round: the ratio does not see it."""
    ratio = row(shmq=[300, 150, 330], redis=[100, 50, 100]).ratio("shmq", "redis", "rate")
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (3, 3, 3.3, 3)


def test_a_round_that_one_of_the_two_lacks_is_left_out_of_the_ratio() -> None:
    found = row(shmq=[300, 150, 330], redis=[100])
    ratio = found.ratio("shmq", "redis", "rate")
    assert ratio is not None and ratio.rounds == 1
    assert found.ratio("shmq", "nats", "rate") is None
    assert row(shmq=[1], redis=[0]).ratio("shmq", "redis", "rate") is None


@pytest.mark.parametrize(
    ("goal", "word"),
    [
        (Goal("shmq", "rate", ">=", 3, "redis"), "reached"),
        (Goal("shmq", "rate", ">=", 3.1, "redis"), "NOT reached"),
        (Goal("shmq", "rate", ">=", 200, unit="/s"), "reached"),
        (Goal("shmq", "rate", ">=", 2, "nats"), "not judged: no figure of nats"),
        (Goal("nats", "rate", ">=", 2, "shmq"), "not judged: no figure of nats"),
        (Goal("nats", "rate", ">=", 2), "not judged: no figure of nats"),
    ],
)
def test_a_goal_is_judged_by_the_median_of_its_ratios(goal: Goal, word: str) -> None:
    found = row(shmq=[300, 150, 330], redis=[100, 50, 100])
    assert goal.verdict(found).startswith(word), goal.verdict(found)


def test_a_verdict_names_ratio_spread_and_rounds() -> None:
    found = row(shmq=[300, 150, 330], redis=[100, 50, 100])
    assert Goal("shmq", "rate", ">=", 3, "redis").verdict(found) == "reached: 3 (3 .. 3.3, 3 rounds)"


def test_the_advantage_is_above_one_when_shmq_is_better_whatever_the_figure() -> None:
    assert advantage(row(shmq=[300], redis=[100]), "redis").startswith("3 ")
    assert advantage(row("p50", shmq=[100], redis=[300]), "redis").startswith("3 ")
    assert advantage(row("seconds", shmq=[3], redis=[1]), "redis").startswith("0.333 ")
    assert advantage(row(shmq=[300]), "shmq") == ""


def test_a_busy_machine_is_reported() -> None:
    found = row(shmq=[300])
    assert disturbance(found) == ""
    found.turns[0].figures["foreign_cpu"] = 0.5
    assert "other programs used up to 0.50 cores" in disturbance(found)


def test_spread_is_the_range_in_parts_of_the_median() -> None:
    assert spread([90, 100, 110]) == pytest.approx(0.2)
    assert spread([5]) == 0
