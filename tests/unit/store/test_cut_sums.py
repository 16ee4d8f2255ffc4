"""Power cuts while a file is written for the first time: its sum is right, or there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shmq.base import syncs
from shmq.base.file_sums import FileState, announce, judge
from shmq.base.files import write_durably
from shmq.prove.recovering import EXIT_CUT, DyingRecorder
from shmq.store.power_cut import cut_power
from shmq.store.write_recorder import begin

CONTENTS = (b"one", b"the second")
SYNCS_MAX = 20
SEEDS = 20


def write(store: Path) -> None:
    for content in CONTENTS:
        announce(store / "checksums", store / "config.json", content)
        write_durably(store / "config.json", content)


@pytest.mark.parametrize("done", [False, True], ids=["before the disk", "after the disk"])
def test_no_cut_leaves_a_sum_that_says_nothing(tmp_path: Path, done: bool) -> None:
    states = set()
    for count in range(SYNCS_MAX):
        folder = tmp_path / str(count)
        store, record = folder / "store", folder / "record"
        store.mkdir(parents=True)
        begin(record, store)
        if not (pid := os.fork()):
            syncs.intercept(DyingRecorder(record, count, done))
            write(store)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if ended == 0:
            break
        assert ended == EXIT_CUT
        for seed in range(SEEDS):
            cut = folder / f"cut-{seed}"
            cut_power(record, cut, seed)
            states.add(judge(cut / "checksums", cut / "config.json"))
    assert ended == 0 and count > 6
    assert states == {FileState.UNKNOWN, FileState.RIGHT}
