"""Files that are torn, empty, missing or garbage when a store starts: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.base import faults
from shmq.base.errors import ConfigFault, StoreDamaged
from shmq.base.faults import FaultReached
from shmq.broker.config_file import ConfigFile
from shmq.store.check import check_store
from shmq.store.config_tables import load_topics
from shmq.store.index_file import index_names
from shmq.store.names import StoreLayout
from shmq.store.repair import alone, repair_store
from tests.helpers.store import OpenStore, request
from tests.unit.store.reading import read_all

COUNT = 200


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def newest_index(layout: StoreLayout) -> Path:
    return layout.index / index_names(layout.index)[-1]


def queue_file(layout: StoreLayout, number: int = -1) -> Path:
    return sorted(layout.queue_folder("T", 0).iterdir())[number]


def last_blank(layout: StoreLayout) -> None:
    """Zero a segment's BLANK, as when its page never reached the disk."""
    data = layout.segment_path(0).read_bytes()
    at = data.rindex(b"\xcb\xd4\x31\x94") - 4
    layout.segment_path(0).write_bytes(data[:at] + bytes(len(data) - at))


def half_queue(layout: StoreLayout) -> None:
    """Every other page of a queue's file is lost."""
    path = queue_file(layout)
    raw = bytearray(path.read_bytes())
    raw[200:400] = bytes(200)
    path.write_bytes(raw)


def next_segment(layout: StoreLayout) -> Path:
    last = layout.segments()[-1] + layout.segment_bytes
    return layout.segment_path(last)


KINDS: dict[str, Callable[[StoreLayout], object]] = {
    "index garbage": lambda layout: garbage(newest_index(layout)),
    "index empty": lambda layout: newest_index(layout).write_bytes(b""),
    "index of another size": lambda layout: newest_index(layout).write_bytes(b"x" * 1000),
    "oldest index missing": lambda layout: (layout.index / index_names(layout.index)[0]).unlink(),
    "newest index missing": lambda layout: newest_index(layout).unlink(),
    "index folder missing": lambda layout: shutil.rmtree(layout.index),
    "blank missing": last_blank,
    "empty segment behind the last": lambda layout: next_segment(layout).touch(),
    "queue half written": half_queue,
    "queue file garbage": lambda layout: garbage(queue_file(layout)),
    "queue file empty": lambda layout: queue_file(layout).write_bytes(b""),
    "queue file of another size": lambda layout: queue_file(layout).write_bytes(b"x" * 30),
    "queue's first file missing": lambda layout: queue_file(layout, 0).unlink(),
    "queue's middle file missing": lambda layout: queue_file(layout, 1).unlink(),
    "queue's last file missing": lambda layout: queue_file(layout).unlink(),
    "queue missing": lambda layout: shutil.rmtree(layout.queue_folder("T", 1)),
    "all queues missing": lambda layout: shutil.rmtree(layout.consume_queue),
    "checkpoint garbage": lambda layout: garbage(layout.checkpoint),
    "checkpoint empty": lambda layout: layout.checkpoint.write_bytes(b""),
    "checkpoint missing": lambda layout: layout.checkpoint.unlink(),
    "identity garbage": lambda layout: garbage(layout.identity),
    "side file garbage": lambda layout: garbage(layout.checksum_path(0)),
    "side file empty": lambda layout: layout.checksum_path(0).write_bytes(b""),
    "side files missing": lambda layout: shutil.rmtree(layout.checksums),
}


NOT_LOOKED_AT = ("blank missing", "side file garbage")
"""What a start behind a clean end leaves to the check and the scrub: it does not read the log."""

CASES: list[object] = [(kind, "power lost") for kind in KINDS]
CASES += [(kind, "all killed") for kind in KINDS if "missing" in kind and kind.startswith("queue")]
CASES += [
    (kind, "cleanly")
    if kind.startswith(("index", "checkpoint")) or "file missing" in kind
    else pytest.param(kind, "cleanly", marks=pytest.mark.long)
    for kind in KINDS
    if kind not in NOT_LOOKED_AT
]


@pytest.mark.parametrize(("kind", "ending"), CASES)
def test_a_start_makes_do_with_it(tmp_path: Path, kind: str, ending: str) -> None:
    with OpenStore(tmp_path / "store") as store:
        for n in range(COUNT):
            bodies = [random.Random(n).randbytes(n % 300) for _ in range(2)]
            store.append(request(store.queue("T", n % 2), bodies, TAGS="A", KEYS=f"k{n} also{n}"))
            if n == COUNT // 2:
                store.flush()
        store.index_all()
        store.flusher.flush()
        store.checksums.complete(store.page.words[40])
        expected = read_all(store)
        if ending == "cleanly":
            store.close_cleanly()
        else:
            store.stop_threads()
            store._let_go()
            if ending == "power lost":
                store.remove_page()
        KINDS[kind](store.layout)
        # A clean end is not believed when its marks differ: that is another engine's doing, or damage.
        store._open(adopt=True)
        assert store.report.why and store.report.bytes_cut == 0
        assert read_all(store) == expected
        store.index_all()
        assert len(store.store.lookup_key("T", f"also{COUNT - 1}", 10, 0, 2**60)) == 2
        store.flush()
        assert list(check_store(store.root, store.page)) == []


@pytest.mark.parametrize("point", ["index.gap_dropped", "index.gap_forgotten"])
@pytest.mark.parametrize("ending", ["cleanly", "all killed", "power lost"])
def test_a_start_that_dies_while_it_drops_index_files_is_followed_by_one_that_builds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, point: str
) -> None:
    with OpenStore(tmp_path / "store") as store:
        for n in range(600):
            store.send("T", KEYS=f"k{n} also{n}")
        store.index_all()
        store.flush()
        if ending == "cleanly":
            store.close_cleanly()
        else:
            store._let_go()
            if ending == "power lost":
                store.remove_page()
        assert len(index_names(store.layout.index)) > 2
        (store.layout.index / index_names(store.layout.index)[0]).unlink()

        def die(name: str) -> None:
            if name == point:
                raise FaultReached(name)

        with monkeypatch.context() as patched:
            patched.setattr(faults, "reach", die)
            with pytest.raises(FaultReached):
                store._open()
        store._open()
        store.index_all()
        found = sum(len(store.store.lookup_key("T", f"also{n}", 10, 0, 2**60)) for n in range(600))
        assert found == 600
        assert list(check_store(store.root, store.page)) == []


# ---- segments


def log_cut(layout: StoreLayout) -> None:
    os.truncate(layout.segment_path(layout.segments()[1]), 30_000)


def log_emptied(layout: StoreLayout) -> None:
    os.truncate(layout.segment_path(layout.segments()[1]), 0)


def log_torn(layout: StoreLayout) -> None:
    layout.segment_path(layout.segments()[1]).unlink()


def log_newest(layout: StoreLayout) -> None:
    layout.segment_path(layout.segments()[-1]).unlink()


def log_all(layout: StoreLayout) -> None:
    shutil.rmtree(layout.commit_log)


REFUSED = {
    log_cut: "bytes instead of 65536: it was cut",
    log_emptied: "has 0 bytes instead of 65536",
    log_torn: "the segment before 131072 is missing",
    log_newest: "its newest segments are missing",
    log_all: "is its disk mounted",
}


@pytest.mark.parametrize("ending", ["cleanly", "all killed", "power lost"])
@pytest.mark.parametrize("harm", REFUSED, ids=lambda harm: harm.__name__)
def test_a_start_without_a_flushed_segment_is_refused_and_changes_nothing(
    tmp_path: Path, harm: Callable[[StoreLayout], None], ending: str
) -> None:
    """Its messages were acknowledged, and their offsets must not be given to others."""
    with OpenStore(tmp_path / "store") as store:
        for n in range(600):
            store.send("T", random.Random(n).randbytes(600), n % 2)
        store.flush()
        expected = read_all(store)
        if ending == "cleanly":
            store.close_cleanly()
        else:
            store._let_go()
            if ending == "power lost":
                store.remove_page()
        whole = {path: path.read_bytes() for path in store.layout.commit_log.iterdir()}
        harm(store.layout)
        queues = {path: path.read_bytes() for path in store.layout.consume_queue.glob("*/*/*")}
        for _ in range(2):
            with pytest.raises(StoreDamaged, match=REFUSED[harm]):
                store._open()
        assert {path: path.read_bytes() for path in queues} == queues
        store.layout.commit_log.mkdir(exist_ok=True)
        for path, raw in whole.items():
            path.write_bytes(raw)
        store._open()
        assert read_all(store) == expected and list(check_store(store.root, store.page)) == []


@pytest.mark.parametrize("ending", ["cleanly", "power lost"])
def test_the_only_segment_is_known_to_be_cut(tmp_path: Path, ending: str) -> None:
    """No other one tells how long it was; and `storeRepair` has no settings."""
    with OpenStore(tmp_path / "store") as store:
        for n in range(20):
            store.send("T", b"%03d" % n * 100)
        store.flush()
        expected = read_all(store)
        if ending == "cleanly":
            store.close_cleanly()
        else:
            store._let_go()
            store.remove_page()
        (only,) = store.layout.segments()
        os.truncate(store.layout.segment_path(only), 5_000)
        with pytest.raises(StoreDamaged, match="5000 bytes instead of 65536: it was cut"):
            store._open()
        with alone(store.root):
            repair_store(store.root)
        store._open()
        left = read_all(store)["T", 0]
        assert left == expected["T", 0][: len(left)] and 5 < len(left) < 20
        assert store.send("T").queue_offset == 20, "the numbers of what is lost are not given to others"
        assert list(check_store(store.root, store.page)) == []


@pytest.mark.parametrize("ending", ["cleanly", "all killed"])
def test_a_lost_begin_of_the_log_is_told_and_the_rest_served(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenStore(tmp_path / "store") as store:
        for n in range(600):
            store.send("T", b"%03d" % n * 200)
        store.flush()
        if ending == "cleanly":
            store.close_cleanly()
        else:
            store._let_go()
        store.layout.segment_path(0).unlink()
        store._open()
        assert "log_begins_later begins_at=65536 began_at=0" in caplog.text
        (queue,) = store.directory.queues("T")
        low = store.store.min(queue)
        assert read_all(store) == {("T", 0): [b"%03d" % n * 200 for n in range(low, 600)]} and low
        assert list(check_store(store.root, store.page)) == []
        assert store.reopen().mode.value == "clean", "it is told once"
        assert caplog.text.count("log_begins_later") == 1


# ---- tables


def test_a_table_that_is_gone_is_told_and_its_backup_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenStore(tmp_path / "store") as store:
        for n in range(9):
            store.send("T", queue_id=n % 3)
        store.send("%RETRY%G")
        layout = store.layout
        table = ConfigFile(layout.config / "topics.json", layout.checksums)
        for count in (3, 4):
            table.save({"topicConfigTable": {"T": {"readQueueNums": count, "writeQueueNums": count}}})
        store.close_cleanly()
        table.path.unlink()
        store._open()
        assert "file_missing" in caplog.text and "instead=topics.json.bak" in caplog.text
        assert load_topics(layout).queue_counts == {"T": 3}, "as it was before"
        store.close_cleanly()
        table.path.with_name("topics.json.bak").unlink()
        store._open()
        assert load_topics(layout).queue_counts == {"T": 3, "%RETRY%G": 1}, "by their ConsumeQueues"
        assert "topics_found_again" in caplog.text
        assert list(check_store(store.root, store.page)) == []


def test_a_lost_note_of_a_clean_stop_is_no_other_engines_doing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So nobody has to say `--adopt`. When the checkpoint is another one, too, somebody else was at work."""
    with OpenStore(tmp_path / "store") as store:
        for n in range(100):
            store.send("T", b"%d" % n * 9, n % 3)
        expected = read_all(store)
        store.close_cleanly()
        store.layout.identity.unlink()
        store._open()
        assert store.report.mode.value == "full" and "file_missing" in caplog.text
        assert read_all(store) == expected and list(check_store(store.root, store.page)) == []
        store.close_cleanly()
        store.layout.identity.unlink()
        with store.layout.checkpoint.open("r+b") as checkpoint:
            checkpoint.write(bytes(7) + b"\x01")
        with pytest.raises(ConfigFault, match="--adopt"):
            store._open()
        store._open(adopt=True)
        assert read_all(store) == expected
