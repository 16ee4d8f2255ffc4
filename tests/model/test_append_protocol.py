"""Lock, journal and repair searched whole: every interleaving, every death."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.append_protocol import Rules, Violation, search

SUFFICIENT_ALONE = {"fence_after_wanting"}
"""Rules that another one covers: repair's wait for the store buffers also makes a late WANTING visible."""


@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths", "states"),
    [(2, 1, 0, 6_000), (2, 0, 1, 6_000), (2, 1, 1, 90_000)],
)
def test_no_death_breaks_a_promise(
    appenders: int, appender_deaths: int, sup_deaths: int, states: int
) -> None:
    assert search(appenders, appender_deaths, sup_deaths) > states


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths"), [(2, 2, 1), (2, 1, 2), (3, 1, 0), (3, 2, 0)]
)
def test_no_row_of_deaths_breaks_a_promise(appenders: int, appender_deaths: int, sup_deaths: int) -> None:
    assert search(appenders, appender_deaths, sup_deaths) > 100_000


@pytest.mark.parametrize(
    "rule", [field.name for field in fields(Rules) if field.name not in SUFFICIENT_ALONE]
)
def test_without_any_one_rule_a_promise_is_broken(rule: str) -> None:
    with pytest.raises(Violation):
        for deaths in ((2, 1, 0), (1, 1, 1)):
            search(*deaths, rules=Rules(**{rule: False}))


def test_the_wait_for_store_buffers_covers_a_missing_fence() -> None:
    search(2, 1, 0, Rules(fence_after_wanting=False))
