"""Parking and ringing searched whole: no wake-up is lost, and every rule is needed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.ring_protocol import Rules, lost_wakeups


def test_no_wake_up_is_lost() -> None:
    states, lost = lost_wakeups()
    assert states > 300 and not lost


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_without_any_one_rule_a_wake_up_is_lost(rule: str) -> None:
    _, lost = lost_wakeups(Rules(**{rule: False}))
    assert lost
