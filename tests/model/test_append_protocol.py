"""Lock, journal and repair searched whole: every interleaving, every death, every stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from tests.model.append_protocol import Rules, State, Violation, check, check_end, start_state, steps
from tests.model.append_search import essence, search

RULES = [field.name for field in fields(Rules)]
SUFFICIENT_ALONE = {"fence_after_wanting"}
"""Rules that another one covers: repair's wait for the store buffers also makes a late WANTING visible."""

SMALL_WORLDS = [(2, 1, 0, 0), (1, 1, 1, 0), (2, 0, 0, 1)]
"""Appenders, their deaths, the supervisor's deaths, stops: the worlds in which each broken rule shows."""


def as_it_is(s: State) -> State:
    """Every state stands for itself alone."""
    return s


@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths", "stops", "states"),
    [(2, 1, 0, 0, 1_000), (2, 0, 1, 0, 800), (2, 0, 0, 1, 1_000), (2, 1, 1, 0, 4_000)],
)
def test_no_death_breaks_a_promise(
    appenders: int, appender_deaths: int, sup_deaths: int, stops: int, states: int
) -> None:
    assert len(search(appenders, appender_deaths, sup_deaths, stops=stops)) > states


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("appenders", "appender_deaths", "sup_deaths", "stops", "states"),
    [
        (2, 1, 1, 1, 15_000),
        (2, 2, 1, 0, 7_000),
        (2, 1, 2, 0, 7_000),
        (3, 2, 0, 0, 17_000),
        (3, 2, 1, 0, 53_000),
        (3, 2, 2, 0, 90_000),
        (3, 1, 1, 1, 100_000),
    ],
)
def test_no_row_of_deaths_breaks_a_promise(
    appenders: int, appender_deaths: int, sup_deaths: int, stops: int, states: int
) -> None:
    assert len(search(appenders, appender_deaths, sup_deaths, stops=stops)) > states


@pytest.mark.parametrize("form", [essence, as_it_is])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in SUFFICIENT_ALONE])
def test_without_any_one_rule_a_promise_is_broken(rule: str, form: Callable[[State], State]) -> None:
    broken = Rules(**{rule: False})
    with pytest.raises(Violation):
        for appenders, deaths, sup_deaths, stops in SMALL_WORLDS:
            search(appenders, deaths, sup_deaths, broken, stops, form=form)


def test_the_wait_for_store_buffers_covers_a_missing_fence() -> None:
    search(2, 1, 0, Rules(fence_after_wanting=False))


@pytest.mark.parametrize("world", SMALL_WORLDS)
def test_the_essences_of_all_states_are_searched(world: tuple[int, int, int, int]) -> None:
    _compare_essences(*world)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [(2, 0, 1, 0), (1, 1, 1, 1), (2, 1, 1, 0), (3, 1, 0, 0)])
def test_the_essences_of_all_states_of_larger_worlds_are_searched(world: tuple[int, int, int, int]) -> None:
    _compare_essences(*world)


def _compare_essences(appenders: int, appender_deaths: int, sup_deaths: int, stops: int) -> None:
    every = search(appenders, appender_deaths, sup_deaths, stops=stops, form=as_it_is)
    essences = search(appenders, appender_deaths, sup_deaths, stops=stops)
    assert len(every) > len(essences)
    assert {essence(s) for s in every} == set(essences)


@pytest.mark.parametrize("world", SMALL_WORLDS)
def test_an_essence_has_the_same_future(world: tuple[int, int, int, int]) -> None:
    _compare_futures(world, Rules())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", RULES)
def test_an_essence_has_the_same_future_in_a_broken_world(rule: str) -> None:
    for world in (*SMALL_WORLDS, (2, 0, 1, 0)):
        _compare_futures(world, Rules(**{rule: False}))


def _compare_futures(world: tuple[int, int, int, int], rules: Rules) -> None:
    """Every state up to a violation, and beside it its essence."""
    todo = [start_state(*world)]
    found = set(todo)
    while todo:
        s = todo.pop()
        following = _following(s, rules)
        assert _essences(following) == _essences(_following(essence(s), rules)), s
        new = (following or set()) - found
        todo += new
        found |= new
    assert len(found) > 500


def _following(s: State, rules: Rules) -> set[State] | None:
    """The next states. None: s must not be."""
    try:
        check(s)
        following = set(steps(s, rules))
        if not following:
            check_end(s)
    except Violation:
        return None
    return following


def _essences(states: set[State] | None) -> set[State] | None:
    return None if states is None else {essence(s) for s in states}
