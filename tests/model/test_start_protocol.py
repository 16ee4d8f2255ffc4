"""Starts, searched whole: every moment at which a supervisor dies or a child stops."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.start_protocol import Rules, Violation, search


@pytest.mark.parametrize(("supervisors", "stops"), [(2, 1), (3, 1), (3, 2)])
def test_nobody_appends_for_a_dead_supervisor(supervisors: int, stops: int) -> None:
    assert search(supervisors, stops) > 100


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_without_any_one_rule_a_promise_is_broken(rule: str) -> None:
    with pytest.raises(Violation):
        search(3, 1, Rules(**{rule: False}))
