"""storeRepair: what is damaged on a stopped store is whole again, and everything else as it was."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.base.errors import StoreDamaged, Unavailable
from shmq.base.files import StoreLock
from shmq.broker.config_file import ConfigFile
from shmq.store.check import check_store
from shmq.store.damage_table import MENDED, REPLACED, DamageTable
from shmq.store.index_file import index_names
from shmq.store.names import StoreLayout
from shmq.store.repair import ACTIONS, action_for, alone, repair_store
from tests.helpers.store import OpenStore, request

COUNT = 120


@pytest.fixture
def stopped(tmp_path: Path) -> OpenStore:
    """A store with tables and two index files, stopped cleanly."""
    store = OpenStore(tmp_path / "store")
    for n in range(COUNT):
        some = [random.Random(n).randbytes(200 + n * 7) for _ in range(3)]
        store.append(request(store.queue("T", n % 2), some, TAGS="A", KEYS=f"k{n} also{n}"))
    store.index_all()
    ConfigFile(store.layout.config / "groups.json", store.layout.checksums).save({"a": 1})
    ConfigFile(store.layout.config / "groups.json", store.layout.checksums).save({"a": 2})
    store.close_cleanly()
    return store


def poke(path: Path, at: int, data: bytes) -> None:
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, data, at)
    os.close(fd)


def log_byte(layout: StoreLayout) -> None:
    poke(layout.segment_path(0), 5000, b"?")


def log_bytes(layout: StoreLayout) -> None:
    poke(layout.segment_path(0), 5000, b"????????????")


def blank(layout: StoreLayout) -> None:
    data = layout.segment_path(0).read_bytes()
    poke(layout.segment_path(0), data.rindex(b"\xcb\xd4\x31\x94"), b"?")


def unit(layout: StoreLayout) -> None:
    poke(layout.queue_file_path("T", 0, 0), 20 * 7 + 3, b"\x77")


def units_gone(layout: StoreLayout) -> None:
    shutil.rmtree(layout.queue_folder("T", 1))


def queue_head_gone(layout: StoreLayout) -> None:
    layout.queue_file_path("T", 0, 0).unlink()


def queue_cut(layout: StoreLayout) -> None:
    os.truncate(layout.queue_file_path("T", 0, 0), 333)


def segment_cut(layout: StoreLayout) -> None:
    os.truncate(layout.segment_path(layout.segments()[2]), 20_000)


def segment_gone(layout: StoreLayout) -> None:
    layout.segment_path(layout.segments()[2]).unlink()


def newest_segments_gone(layout: StoreLayout) -> None:
    for start in layout.segments()[-3:]:
        layout.segment_path(start).unlink()


def queue_middle_gone(layout: StoreLayout) -> None:
    layout.queue_file_path("T", 0, layout.queue_file_bytes).unlink()


def side_file(layout: StoreLayout) -> None:
    poke(layout.checksum_path(0), 47, b"?")


def side_file_cut(layout: StoreLayout) -> None:
    last = [start for start in layout.segments() if layout.checksum_path(start).exists()][-1]
    os.truncate(layout.checksum_path(last), 33)


def index(layout: StoreLayout) -> None:
    poke(layout.index / index_names(layout.index)[0], 500, b"?")


def newest_index(layout: StoreLayout) -> None:
    poke(layout.index / index_names(layout.index)[-1], 500, b"?")


def checkpoint(layout: StoreLayout) -> None:
    poke(layout.checkpoint, 38, b"?")


def identity(layout: StoreLayout) -> None:
    poke(layout.identity, 30, b"?")


def table(layout: StoreLayout) -> None:
    poke(layout.config / "groups.json", 0, b"?")


def table_cut(layout: StoreLayout) -> None:
    os.truncate(layout.config / "groups.json", 3)


def table_edited(layout: StoreLayout) -> None:
    (layout.config / "groups.json").write_text('{"a": 9}')


def table_sum(layout: StoreLayout) -> None:
    poke(layout.checksums / "groups.json.sum", 3, b"?")


DAMAGE = [
    *(log_byte, log_bytes, blank, unit, units_gone, side_file, side_file_cut, index, newest_index),
    *(queue_head_gone, queue_middle_gone, queue_cut, segment_cut, segment_gone, newest_segments_gone),
    *(checkpoint, identity, table, table_cut, table_edited, table_sum),
]
LOST = (segment_cut, segment_gone, newest_segments_gone)
ONCE = (index, newest_index, queue_head_gone, queue_middle_gone, *LOST)
ANY_TIME = [damage for damage in DAMAGE if damage not in ONCE]
"""What can be done again and again, with others: a damaged index is gone until the next start, a segment's
messages for ever, and in a file that is gone nothing else can be damaged.
"""


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_kind_of_damage_is_mended(stopped: OpenStore, damage: Callable[[StoreLayout], None]) -> None:
    layout = stopped.layout
    before = {path: path.read_bytes() for path in sorted(layout.root.rglob("*")) if path.is_file()}
    damage(layout)
    findings = list(check_store(layout.root))
    assert findings and all(finding.rule in ACTIONS for finding in findings)
    assert all("nothing" not in action_for(finding) for finding in findings)
    with alone(layout.root):
        repair_store(layout.root)
    assert list(check_store(layout.root)) == []
    changed = [path.name for path, raw in before.items() if path.exists() and path.read_bytes() != raw]
    gone = [path.name for path in before if not path.exists()]
    if damage in (log_byte, blank, unit, units_gone, side_file, side_file_cut, checkpoint, identity, table):
        assert [name for name in changed if name != "lock"] == [] and gone == []
    if damage in LOST:
        rows = DamageTable(layout).rows
        assert len(rows) > 10 and {row.state for row in rows} == {REPLACED}
        lost = [(row.queue_id, row.queue_offset) for row in rows if row.topic == "T"]
        assert len(set(lost)) == len(lost)
        fillers = [row.position + row.size for row in rows if row.topic != "T"]
        assert all(end % layout.segment_bytes == 0 for end in fillers), "a segment's end is nobody's"
    elif damage is log_bytes:
        assert [row.state for row in DamageTable(layout).rows] == [REPLACED]
    elif damage in (log_byte, blank):
        assert [row.state for row in DamageTable(layout).rows] == [MENDED]
    stopped._open()
    with stopped:
        stopped.index_all()
        found = stopped.store.lookup_key("T", f"also{COUNT - 1}", 10, 0, 2**60)
        assert len(found) == 3, "keys are found again"
        assert len(stopped.store.lookup_key("T", "also3", 10, 0, 2**60)) == 3
        assert list(check_store(layout.root, stopped.page)) == []


def test_a_log_that_is_lost_whole_is_given_up(stopped: OpenStore) -> None:
    shutil.rmtree(stopped.layout.commit_log)
    with pytest.raises(StoreDamaged, match="is its disk mounted"):
        stopped._open()
    (finding,) = check_store(stopped.root)
    assert "put aside" in action_for(finding)
    with alone(stopped.root):
        repair_store(stopped.root)
    assert list(check_store(stopped.root)) == []
    (aside,) = stopped.layout.quarantine.glob("log-lost-*")
    assert {path.name for path in aside.iterdir()} >= {"consumequeue", "index", "checkpoint", "identity.json"}
    stopped._open()
    with stopped:
        assert stopped.send("T", b"the first").queue_offset == 0
        assert (stopped.layout.config / "groups.json").exists()
        assert list(check_store(stopped.root, stopped.page)) == []


def test_a_table_that_can_be_read_is_left_as_it_is(stopped: OpenStore) -> None:
    table_edited(stopped.layout)
    with alone(stopped.root):
        repair_store(stopped.root)
    assert (stopped.layout.config / "groups.json").read_text() == '{"a": 9}'
    table_cut(stopped.layout)
    with alone(stopped.root):
        repair_store(stopped.root)
    assert b'"a":1' in (stopped.layout.config / "groups.json").read_bytes().replace(b" ", b"")
    assert any(path.name.startswith("groups.json") for path in stopped.layout.quarantine.iterdir())


def test_nothing_is_repaired_beside_a_broker(stopped: OpenStore) -> None:
    lock = StoreLock(stopped.layout.lock)
    lock.acquire()
    with pytest.raises(Unavailable, match="in use"), alone(stopped.root):
        raise AssertionError("both have it")
    lock.release()


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.long)])
def test_random_damage_of_all_kinds_at_once_is_mended(stopped: OpenStore, count: int) -> None:
    chance = random.Random(count)
    for _ in range(count):
        for damage in chance.sample(ANY_TIME, 4):
            damage(stopped.layout)
        with alone(stopped.root):
            repair_store(stopped.root)
        assert list(check_store(stopped.root)) == []


def admin(*arguments: str) -> tuple[int, str, str]:
    """Run shmq-admin; return its exit code and what it said."""
    command = [sys.executable, "-m", "shmq.admin.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_the_command_shows_first_and_repairs_only_when_told(stopped: OpenStore) -> None:
    root = str(stopped.root)
    assert admin("storeRepair", root)[0] == 0, "nothing to do"
    log_bytes(stopped.layout)
    code, out, said = admin("storeRepair", root)
    assert code == 2 and "nothing was changed" in out and ACTIONS["record"] in said
    assert not stopped.layout.quarantine.exists()
    code, out, _ = admin("store", "repair", root, "--yes", "--json")
    (item,) = json.loads(out)["items"]
    assert code == 0 and item["repaired"] and item["planned"] and not item["left"]
    code, out, _ = admin("storeScrub", root)
    assert code == 0 and "replaced" in out and "0 passes" in out
    lock = StoreLock(stopped.layout.lock)
    lock.acquire()
    assert admin("storeRepair", root)[0] == 69
    lock.release()
