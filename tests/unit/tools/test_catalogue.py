"""The catalogue fits together: names, systems, kinds, goals; and the command line selects from it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bench import options, selection
from bench.catalogue import TARGETS
from bench.durability import Durability
from bench.loads import LOADS
from bench.matrix import FULL
from bench.probes import PROBES
from bench.report.figures import FIGURES
from bench.systems import PEERS, SERVERS, SYSTEMS
from bench.workload import Workload

EVERY = TARGETS + FULL


def plan(*arguments: str) -> selection.Plan:
    with ExitStack() as stack:
        return selection.plan(options.parse(list(arguments)), stack)


def test_names_are_unique() -> None:
    assert len({workload.name for workload in EVERY}) == len(EVERY)


@pytest.mark.parametrize("workload", EVERY, ids=lambda workload: workload.name)
def test_a_workload_names_only_what_exists(workload: Workload) -> None:
    assert workload.kind in LOADS or workload.kind in PROBES
    assert workload.metric in FIGURES
    assert set(workload.systems) <= set(SYSTEMS)
    for goal in workload.goals:
        assert goal.system in workload.systems
        assert goal.against is None or goal.against in workload.systems


def test_every_system_has_its_server() -> None:
    assert {system.server for system in SYSTEMS.values()} - {None} == set(SERVERS)
    assert set(PEERS) <= set(SYSTEMS)


def test_all_stays_under_half_an_hour() -> None:
    assert plan("all").estimate_s() < 30 * 60


def test_a_workload_is_measured_in_its_own_classes_or_in_those_asked_for() -> None:
    found = plan("sync", "sync-flush")
    assert [row.name for row in found.of_class(Durability.TIMED)] == ["sync"]
    assert [row.name for row in found.of_class(Durability.SYNCED)] == ["sync-flush"]
    found = plan("sync", "--durability", "page-cache")
    assert [row.name for row in found.of_class(Durability.PAGE_CACHE)] == ["sync"]
    assert found.of_class(Durability.TIMED) == []


def test_peers_take_part_only_when_asked_for_and_where_they_can() -> None:
    assert not set(PEERS) & set(plan("all").systems)
    found = plan("sync", "start", "filter-tag-1", "--peer", "sqlite")
    assert "sqlite" in found.systems
    assert ["sqlite" in row.systems for row in found.workloads] == [True, False, False]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["sync", "--systems", "nonsense"], ["--compare", "no-such-ref"]]
)
def test_a_name_that_does_not_exist_ends_the_program_with_a_word(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        plan(*arguments)
    assert "no" in str(refused.value)


def test_comparing_two_commits_takes_only_shmq_twice() -> None:
    with ExitStack() as stack:
        found = selection.plan(options.parse(["sync", "--compare", "HEAD"]), stack)
        (workload,) = found.workloads
        assert set(workload.systems[:2]) == {"shmq", "shmq@HEAD"}
        assert "redis" not in found.systems and "bare" not in found.systems
        source = found.systems["shmq@HEAD"].source
        assert source is not None and (source / "shmq" / "__init__.py").is_file()
    assert not source.exists(), "the other tree is gone afterwards"
