"""Power cuts at chosen moments: in named windows of a write, and at every sync of a recovery."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from shmq.prove.experiment import PREFIX, Experiment, Verdict
from shmq.prove.ledger import judge
from shmq.prove.recovering import recover, recover_partly
from shmq.store.power_cut import cut_power
from tests.helpers.waiting import wait_until
from tests.power.test_power_cuts import SMALL, told

SYNC = {**SMALL, "flushDiskType": "SYNC_FLUSH"}
SYNCS_MAX = 100
"""A recovery of so small a store has fewer."""

WINDOWS = [
    # point, passing: early enough to be reached, late enough that there is something to lose
    ("flush.before_sync", 20),
    ("turn_flush.before_sync", 10),
    ("turn_flush.synced", 10),
    ("turn_flush.published", 10),
    ("claim.half_filled", 20),
    ("claim.bytes_written", 20),
    ("claim.units_written", 20),
    ("journal.entries_written", 20),
    ("journal.prepared", 20),
    ("journal.committed", 20),
    ("journal.position_stored", 20),
    ("journal.maxima_stored", 20),
    ("journal.emptied", 20),
    ("topic.saved", 3),
    ("delete.before_claim", 1),
    ("delete.retired", 1),
    ("delete.unlinked", 1),
    ("index.items_written", 5),
    ("index.header_written", 5),
]


@pytest.mark.long
@pytest.mark.parametrize(("point", "nth"), WINDOWS, ids=[point for point, _ in WINDOWS])
def test_a_cut_in_a_window_of_a_write(tmp_path: Path, point: str, nth: int) -> None:
    """One process of the broker stands in the window; all others are stopped as soon as that is seen."""
    reached = tmp_path / "reached"
    reached.mkdir()
    faults = {"SHMQ_FAULTS": f"{point}=stop@{nth}", "SHMQ_FAULTS_DIR": str(reached)}
    with (
        Experiment(tmp_path / "x", SYNC, seed=point, environment=faults) as experiment,
        experiment.new_load() as load,
    ):
        verdict = Verdict()
        load.go()
        wait_until((reached / point).exists, 30, f"a process in the window {point}")
        experiment.cut([str(n) for n in range(6)], load, verdict)
        assert not verdict.failures, told(verdict)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_second_cut_at_every_sync_of_a_recovery(tmp_path: Path, seed: int) -> None:
    with Experiment(tmp_path, SYNC, seed=seed) as experiment, experiment.new_load() as load:
        load.go()
        wait_until(lambda: len(load.ledger.acked) > 150 and load.ledger.seen)
        experiment.freeze()
        ledger = load.ledger.now()
        experiment.build("first")
        experiment.broker.kill()
        first = experiment.target("first")
        finished, count = False, 0
        while not finished:
            for done in (False, True):
                name = f"{count}-{done}"
                store, record, again = (tmp_path / part / name for part in ("half", "record2", "again"))
                shutil.copytree(first, store)
                again.parent.mkdir(exist_ok=True)
                finished = experiment.elsewhere(
                    recover_partly, store, record, experiment.arguments, count, done
                )
                cut_power(record, again, random.Random(f"{seed}/{name}").random().hex())
                judgement = judge(ledger, experiment.elsewhere(recover, again, experiment.arguments, PREFIX))
                assert judgement.holds, (name, judgement, again)
            count += 1
            assert count < SYNCS_MAX
        assert count > 3, "recovery synced next to nothing"
