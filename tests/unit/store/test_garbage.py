"""Files that are torn, empty, missing or garbage when a store starts: nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.store.check import check_store
from shmq.store.index_file import index_names
from shmq.store.names import StoreLayout
from tests.helpers.store import OpenStore, request
from tests.unit.store.reading import read_all

COUNT = 200


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def newest_index(layout: StoreLayout) -> Path:
    return layout.index / index_names(layout.index)[-1]


def queue_file(layout: StoreLayout) -> Path:
    return sorted(layout.queue_folder("T", 0).iterdir())[-1]


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
    "index folder missing": lambda layout: shutil.rmtree(layout.index),
    "blank missing": last_blank,
    "empty segment behind the last": lambda layout: next_segment(layout).touch(),
    "queue half written": half_queue,
    "queue file garbage": lambda layout: garbage(queue_file(layout)),
    "queue file empty": lambda layout: queue_file(layout).write_bytes(b""),
    "queue file of another size": lambda layout: queue_file(layout).write_bytes(b"x" * 30),
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

CASES: list[object] = [(kind, "killed") for kind in KINDS]
CASES += [
    (kind, "cleanly")
    if kind.startswith(("index", "checkpoint"))
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
