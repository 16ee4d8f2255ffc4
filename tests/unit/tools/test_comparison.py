"""A comparison without servers: the load is the test's own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import run_plan
from bench.comparison import Comparison
from bench.durability import Durability
from bench.goals import Goal
from bench.load.job import LoadFailed, Outcome
from bench.loads import LOADS, Seat
from bench.selection import Plan
from bench.servers.server import Missing
from bench.systems import System
from bench.workload import Workload

SYSTEMS = {
    "a": System("a", "", None, "bare"),
    "b": System("b", "", None, "bare"),
    "other-class": System("other-class", "", None, "bare", classes=(Durability.SYNCED,)),
    "not-there": System("not-there", "", None, "bare", lacking=lambda: "run tools/bench-peers"),
    "other-kind": System("other-kind", "", None, "bare", kinds=frozenset({"pull"})),
}
WORKLOAD = Workload("w", "a workload", "send", tuple(SYSTEMS), goals=(Goal("a", "rate", ">=", 2, "b"),))
Load = Callable[[Seat, int], Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], tuple]:
    """Run WORKLOAD with a load that hears how often its system was called; the row and the order of calls."""

    def run(load: Load) -> tuple:
        calls: list[str] = []

        def counted(
            seat: Seat, workload: Workload, seconds: float, started: Callable[[], object] = lambda: None
        ) -> Outcome:
            calls.append(seat.system)
            started()
            return load(seat, calls.count(seat.system))

        monkeypatch.setitem(LOADS, "send", counted)
        with Comparison(Durability.TIMED, SYSTEMS, rounds=3, seconds=0.01) as comparison:
            return comparison.run(WORKLOAD), calls

    return run


def messages(count: int) -> Outcome:
    return Outcome(count, 256 * count, 0.5)


def test_each_system_warms_up_once_then_takes_a_turn_a_round(run: Callable) -> None:
    row, calls = run(lambda seat, call: messages(30 if seat.system == "a" else 10))
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [turn.figures["rate"] for turn in row.turns if turn.system == "a"] == [60, 60, 60]
    assert all(turn.figures["foreign_cpu"] >= 0 for turn in row.turns)
    assert row.verdicts == [("a rate >= 2 x b rate", "reached: 3 (3 .. 3, 3 rounds)")]


def test_what_cannot_take_part_is_named_and_what_has_no_business_here_is_not(run: Callable) -> None:
    row, _ = run(lambda seat, call: messages(1))
    assert row.missing == {"other-class": "has no class timed", "not-there": "run tools/bench-peers"}


def test_a_system_that_fails_in_a_round_drops_out_and_keeps_its_rounds(run: Callable) -> None:
    def load(seat: Seat, call: int) -> Outcome:
        if seat.system == "b" and call == 3:
            raise LoadFailed("it broke")
        return messages(10)

    row, calls = run(load)
    assert row.missing["b"] == "round 2: it broke"
    assert calls.count("b") == 3 and calls.count("a") == 4
    assert [turn.round for turn in row.turns if turn.system == "b"] == [0]
    assert [turn.round for turn in row.turns if turn.system == "a"] == [0, 1, 2]


def test_a_system_that_does_not_start_is_named_and_has_no_turn(run: Callable) -> None:
    def load(seat: Seat, call: int) -> Outcome:
        if seat.system == "a":
            raise Missing("no such program")
        return messages(10)

    row, calls = run(load)
    assert row.missing["a"] == "no such program" and calls.count("a") == 1
    assert row.verdicts[0][1] == "not judged: no figure of a"


def test_a_defect_of_the_bench_itself_is_not_taken_for_a_missing_system(run: Callable) -> None:
    def load(seat: Seat, call: int) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(load)


def test_a_defect_costs_its_row_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(
        seat: Seat, workload: Workload, seconds: float, started: Callable[[], object] = lambda: None
    ) -> Outcome:
        if workload.name == "bad":
            raise ZeroDivisionError("no divisor")
        started()
        return messages(10)

    monkeypatch.setitem(LOADS, "send", load)
    rows = (replace(WORKLOAD, name="bad", classes=(Durability.TIMED,)), replace(WORKLOAD, name="good"))
    plan = Plan(rows, SYSTEMS, None, rounds=1, seconds=0.01)
    results = run_plan(plan, Console(file=io.StringIO()), tmp_path)
    bad, good = results.rows
    assert bad.missing == {"all": "the bench itself failed: ZeroDivisionError: no divisor"} and not bad.turns
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert good.systems == ["a", "b"]
    assert [row["workload"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]] == [
        "bad",
        "good",
    ]
