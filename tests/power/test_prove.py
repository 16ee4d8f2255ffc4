"""`shmq-admin prove`: a user's store is copied, its copy's power cut, and the original left alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shmq import Message, Producer
from shmq.embedded import Broker
from shmq.model.settings import BrokerSettings
from shmq.prove.store_copy import copy_store, newest_segments
from shmq.store.check import check_store
from shmq.store.names import StoreLayout


@pytest.fixture
def users_store(tmp_path: Path) -> Path:
    """A stopped broker's store of several segments."""
    store = tmp_path / "users" / "store"
    with (
        Broker(store, mappedFileSizeCommitLog=256 << 10) as broker,
        Producer("user", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        for _ in range(20):
            producer.send([Message("Orders", b"order" * 200) for _ in range(40)])
    return store


def fingerprint(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def prove(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code and the one item of its JSON."""
    command = [sys.executable, "-m", "shmq.admin.main", "prove", *arguments, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=100
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["items"][0]


@pytest.mark.long
def test_prove_cuts_a_copy_and_leaves_the_store_alone(users_store: Path, tmp_path: Path) -> None:
    before = fingerprint(users_store)
    code, item = prove(
        *(str(users_store), "--set", "flushDiskType=SYNC_FLUSH", "--cuts", "3", "--seed", "11"),
        *("--folder", str(tmp_path)),
    )
    assert (code, item["holds"], item["failures"]) == (0, True, [])
    assert (item["cuts"], item["seed"], item["cutsDuringRecovery"]) == (3, 11, 1)
    assert item["acknowledged"] and item["seenByConsumers"] and item["cannotShow"]
    assert fingerprint(users_store) == before
    assert [path.name for path in tmp_path.iterdir()] == ["users"], "the copies are removed"


@pytest.mark.long
def test_prove_says_what_was_lost_and_keeps_it(tmp_path: Path) -> None:
    code, item = prove(
        *("--set", "flushDiskType=SYNC_FLUSH", "--cuts", "200", "--folder", str(tmp_path)),
        SHMQ_FAULTS="flush.acknowledge_early=on",
    )
    assert (code, item["holds"]) == (2, False)
    assert any(failure["lost"] or failure["seenInVain"] for failure in item["failures"])
    assert all(Path(failure["kept"]).is_dir() for failure in item["failures"])


def test_a_copy_has_the_newest_segments_that_hold_anything(users_store: Path, tmp_path: Path) -> None:
    whole = StoreLayout.of(users_store, BrokerSettings(mapped_file_size_commit_log=256 << 10))
    assert len(whole.segments()) > 3
    copied = copy_store(users_store, tmp_path / "copy", 2)
    assert copied.segments() == newest_segments(whole, 2)
    assert any(copied.segment_path(copied.segments()[0]).read_bytes())
    assert not list(check_store(tmp_path / "copy"))
