"""tools/bench end to end, with turns far too short for a figure to mean anything: no timing is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).parents[2] / "tools" / "lib"


def bench(*arguments: str, peers: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=LIB,
        env={**os.environ, "SHMQ_BENCH_PEERS": str(peers)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.mark.long
def test_rows_of_two_classes_run_alternate_and_are_reported(tmp_path: Path) -> None:
    arguments = ["sync", "sync-flush", "--systems", "shmq", "bare", "redis"]
    done = bench(
        *arguments,
        "--rounds",
        "2",
        "--seconds",
        "0.2",
        "--json",
        "--out",
        str(tmp_path),
        peers=tmp_path / "none",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    rows = {row["workload"]: row for row in facts["rows"]}
    assert list(rows) == ["sync", "sync-flush"]
    order = [(turn["round"], turn["system"]) for turn in rows["sync"]["turns"]]
    assert order == [(0, "shmq"), (0, "bare"), (1, "bare"), (1, "shmq")]
    for row in rows.values():
        assert "run tools/bench-peers" in row["missing"]["redis"]
        assert all(turn["figures"]["rate"] > 0 and turn["figures"]["p50"] > 0 for turn in row["turns"])
    assert facts["settings"]["synced"]["shmq"]["flushDiskType"] == "SYNC_FLUSH"
    assert facts["settings"]["timed"]["shmq"]["flushDiskType"] == "ASYNC_FLUSH"
    for name in ("timed", "synced"):
        assert "<svg" in (tmp_path / f"{name}.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == facts["rows"]


@pytest.mark.long
def test_every_kind_of_load_and_most_probes_run_on_shmq(tmp_path: Path) -> None:
    rows = ["async", "batch", "pull", "consume", "latency", "start", "memory", "idle", "worker-death"]
    arguments = [*rows, "--systems", "shmq", "shmq-direct", "bare", "--rounds", "1", "--seconds", "0.2"]
    done = bench(*arguments, "--json", peers=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["rows"]
    assert [row["workload"] for row in found] == rows
    for row in found:
        assert row["missing"] == {} or set(row["missing"]) <= {"redis", "rocketmq"}, row["missing"]
        assert row["turns"] and all(row["metric"] in turn["figures"] for turn in row["turns"])


@pytest.mark.long
def test_two_commits_can_be_compared(tmp_path: Path) -> None:
    done = bench(
        *["batch", "--systems", "shmq", "--compare", "HEAD", "--rounds", "2", "--seconds", "0.2", "--json"],
        peers=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert {turn["system"] for turn in row["turns"]} == {"shmq", "shmq@HEAD"} and row["missing"] == {}
