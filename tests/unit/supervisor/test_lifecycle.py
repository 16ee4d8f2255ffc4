"""Lifecycle: up in order, down in reverse, whatever fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmq.supervisor.lifecycle import Lifecycle, Step


def steps_into(log: list[str], *names: str, failing: str = "") -> list[Step]:
    def act(word: str) -> Callable[[], None]:
        def run() -> None:
            log.append(word)
            if word == failing:
                raise RuntimeError(word)

        return run

    return [Step(name, act(f"start {name}"), act(f"stop {name}")) for name in names]


def test_steps_stop_in_the_reverse_order_and_only_once() -> None:
    log: list[str] = []
    lifecycle = Lifecycle(steps_into(log, "a", "b"))
    lifecycle.start()
    lifecycle.stop()
    lifecycle.stop()
    assert log == ["start a", "start b", "stop b", "stop a"]


def test_a_failing_start_undoes_itself_and_what_was_before() -> None:
    log: list[str] = []
    lifecycle = Lifecycle(steps_into(log, "a", "b", "c", failing="start b"))
    with pytest.raises(RuntimeError, match="start b"):
        lifecycle.start()
    assert log == ["start a", "start b", "stop b", "stop a"]


def test_a_failing_stop_does_not_keep_the_others_from_stopping() -> None:
    log: list[str] = []
    lifecycle = Lifecycle(steps_into(log, "a", "b", failing="stop b"))
    lifecycle.start()
    lifecycle.stop()
    assert log[-2:] == ["stop b", "stop a"]
    assert lifecycle.failed_stops == ["b"]
