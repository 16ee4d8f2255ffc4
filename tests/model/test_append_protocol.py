"""Lock, journal and repair searched whole: every interleaving, every death, every stop."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.append_protocol import Rules, Violation, search

SUFFICIENT_ALONE = {"fence_after_wanting"}
"""Rules that another one covers: repair's wait for the store buffers also makes a late WANTING visible."""


@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths", "stops", "states"),
    [(2, 1, 0, 0, 3_000), (2, 0, 1, 0, 3_000), (2, 0, 0, 1, 1_000), (2, 1, 1, 0, 50_000)],
)
def test_no_death_breaks_a_promise(
    appenders: int, appender_deaths: int, sup_deaths: int, stops: int, states: int
) -> None:
    assert search(appenders, appender_deaths, sup_deaths, stops=stops) > states


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths", "stops"),
    [(2, 1, 1, 1), (2, 2, 1, 0), (2, 1, 2, 0), (3, 2, 0, 0)],
)
def test_no_row_of_deaths_breaks_a_promise(
    appenders: int, appender_deaths: int, sup_deaths: int, stops: int
) -> None:
    assert search(appenders, appender_deaths, sup_deaths, stops=stops) > 100_000


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_three_appenders_two_deaths_and_the_supervisors() -> None:
    assert search(3, 2, 1, reduced=True) > 500_000


@pytest.mark.parametrize("reduced", [False, True], ids=["all orders", "reduced"])
@pytest.mark.parametrize(
    "rule", [field.name for field in fields(Rules) if field.name not in SUFFICIENT_ALONE]
)
def test_without_any_one_rule_a_promise_is_broken(rule: str, reduced: bool) -> None:
    broken = Rules(**{rule: False})
    with pytest.raises(Violation):
        for appenders, deaths, sup_deaths, stops in ((2, 1, 0, 0), (1, 1, 1, 0), (2, 0, 0, 1)):
            search(appenders, deaths, sup_deaths, broken, stops, reduced=reduced)


def test_the_wait_for_store_buffers_covers_a_missing_fence() -> None:
    search(2, 1, 0, Rules(fence_after_wanting=False))
