"""The key index: RocketMQ's bytes, rolling, lookups, deaths between its stores."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from shmq.base.clock import ManualClock
from shmq.base.faults import FaultReached
from shmq.model.properties import decode_properties
from shmq.model.record import encode_record
from shmq.model.subscription import java_hash
from shmq.model.sys_flag import TRANSACTION_ROLLBACK
from shmq.shm.page_layout import INDEXED_POSITION, LAST_STORE_TIME, WRITE_POSITION
from shmq.store import index_builder, index_keys
from shmq.store.append_request import AppendRequest
from shmq.store.checkpoint import Checkpoint
from shmq.store.index_builder import IndexBuilder
from shmq.store.index_file import (
    IndexFile,
    full_index_files,
    index_file_bytes,
    index_names,
    key_hash,
    name_for,
)
from shmq.store.index_keys import hash_rows, keys_of
from shmq.store.log_scan import scan
from shmq.store.record_text import tags_codes
from tests.helpers.store import OpenStore, request, small_settings

ALWAYS = 2**60


def test_hashes_are_rocketmqs() -> None:
    assert key_hash("TopicTest", "KEY0") == 1656969517
    assert key_hash("TopicTest", "KEY0") % 5_000_000 == 1969517
    keys = ["KEY0", "a", "中文", "\U0001f600", "x" * 300, "polygenelubricants", "K\xe9"]
    prefix = np.array([java_hash("TopicTest#") & 0xFFFFFFFF], np.uint32)
    for key in keys:
        text = np.frombuffer(key.encode(), np.uint8).reshape(1, -1)
        assert hash_rows(text, prefix).tolist() == [key_hash("TopicTest", key)]
    text = np.frombuffer(b"polygenelubricants", np.uint8).reshape(1, -1)
    assert hash_rows(text, np.zeros(1, np.uint32)).tolist() == [0]


def test_a_files_bytes(store: OpenStore) -> None:
    base = 5_000_000_000_000
    store.page.words[LAST_STORE_TIME] = base
    first = store.send("T", KEYS="a b", UNIQ_KEY="U1")
    store.page.words[LAST_STORE_TIME] = base + 5_400
    second = store.send("T", KEYS="a")
    store.send("T")
    store.index_all()
    (name,) = index_names(store.root / "index")
    data = (store.root / "index" / name).read_bytes()
    slots, items = store.settings.max_hash_slot_num, store.settings.max_index_num
    assert len(data) == 40 + 4 * slots + 20 * items == index_file_bytes(slots, items)
    hashes = [key_hash("T", key) for key in ("U1", "a", "b", "a")]
    taken = len({h % slots for h in hashes})
    assert struct.unpack_from(">qqqqii", data) == (base, base + 5_400, 0, second.physical_offset, taken, 5)
    table = struct.unpack_from(f">{slots}i", data, 40)
    assert table[hashes[3] % slots] == 4
    rows = [struct.unpack_from(">iqii", data, 40 + 4 * slots + 20 * n) for n in range(1, 5)]
    assert [row[0] for row in rows] == hashes
    assert [row[1] for row in rows] == [0, 0, 0, second.physical_offset]
    assert [row[2] for row in rows] == [0, 0, 0, 5]
    assert rows[3][3] == 2
    assert first.physical_offset == 0
    assert store.store.lookup_key("T", "a", 5, 0, ALWAYS) == [second.physical_offset, 0]
    assert store.store.lookup_key("T", "a", 1, 0, ALWAYS) == [second.physical_offset]
    assert store.store.lookup_key("T", "a", 5, 0, base + 100) == [0]
    assert store.store.lookup_key("T", "a", 5, base + 5_300, ALWAYS) == [second.physical_offset]
    assert store.store.lookup_key("Other", "a", 5, 0, ALWAYS) == []


def test_full_files_roll_and_all_keys_are_found(store: OpenStore) -> None:
    where = {
        n: store.send(f"T{n % 2}", KEYS=f"k{n} all", UNIQ_KEY=f"U{n}").physical_offset for n in range(500)
    }
    store.index_all()
    names = index_names(store.root / "index")
    assert len(names) >= 4 and names == sorted(names)
    assert [path.name for path, _ in full_index_files(store.root / "index")] == names[:-1]
    for n in range(0, 500, 7):
        for key in (f"k{n}", f"U{n}"):
            assert store.store.lookup_key(f"T{n % 2}", key, 5, 0, ALWAYS) == [where[n]]
    assert len(store.store.lookup_key("T0", "all", 64, 0, ALWAYS)) == 64
    assert store.page.words[INDEXED_POSITION] == where[499] + (where[499] - where[498])


@pytest.mark.parametrize("window", ["index.items_written", "index.slots_written", "index.header_written"])
def test_a_death_between_its_stores_loses_no_key(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    for n in range(60):
        store.send("T", KEYS=f"k{n % 20}", UNIQ_KEY=f"U{n}")
    store.index_all()
    for n in range(60, 90):
        store.send("T", KEYS=f"k{n % 20}", UNIQ_KEY=f"U{n}")

    def die(name: str) -> None:
        if name == window:
            raise FaultReached(name)

    monkeypatch.setattr(index_builder.faults, "reach", die)
    with pytest.raises(FaultReached):
        store.index.step(0)
    monkeypatch.undo()
    for n in range(60):
        assert len(store.store.lookup_key("T", f"U{n}", 5, 0, ALWAYS)) == 1, "readers lose nothing meanwhile"
    store.index = IndexBuilder(store.layout, store.settings, store.page)
    store.index_all()
    for n in range(90):
        assert store.store.lookup_key("T", f"U{n}", 5, 0, ALWAYS)
    for n in range(20):
        assert len(store.store.lookup_key("T", f"k{n}", 64, 0, ALWAYS)) == len(range(n, 90, 20))


def test_a_death_between_two_files_enters_nothing_twice(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(450):
        store.send("T", UNIQ_KEY=f"U{n}")

    def die(name: str) -> None:
        if name == "index.file_made" and len(index_names(store.root / "index")) == 2:
            raise FaultReached(name)

    monkeypatch.setattr(index_builder.faults, "reach", die)
    with pytest.raises(FaultReached):
        store.index_all()
    monkeypatch.undo()
    store.index = IndexBuilder(store.layout, store.settings, store.page)
    store.index_all()
    names = index_names(store.root / "index")
    slots, items = store.settings.max_hash_slot_num, store.settings.max_index_num
    files = [IndexFile(store.root / "index" / name, slots, items, writable=False) for name in names]
    assert sum(file.header().index_count - 1 for file in files) == 450
    for n in range(450):
        assert len(store.store.lookup_key("T", f"U{n}", 5, 0, ALWAYS)) == 1


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_restart_it_goes_on(store: OpenStore, clean: bool) -> None:
    for n in range(250):
        store.send("T", UNIQ_KEY=f"U{n}")
    store.index_all()
    store.flush()
    if clean:
        store.reopen()
        assert store.index.lag == 0
    else:
        store.crash()
        assert store.index.lag > 0, "the newest file may be torn, and goes"
    for n in range(250, 300):
        store.send("T", UNIQ_KEY=f"U{n}")
    store.index_all()
    for n in range(300):
        assert len(store.store.lookup_key("T", f"U{n}", 5, 0, ALWAYS)) == 1


def test_a_piece_of_few_records_makes_the_next_one_wait_longer(store: OpenStore) -> None:
    assert store.index.step(0) == index_builder.IDLE_MS
    store.send("T", UNIQ_KEY="one")
    assert store.index.step(0) == index_builder.SPARSE_MS
    for n in range(index_builder.SPARSE_RECORDS):
        store.send("T", UNIQ_KEY=f"U{n}")
    assert store.index.step(0) == index_builder.BUSY_MS


def test_a_piece_that_left_something_is_followed_at_once(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_builder, "STEP_RECORDS", 2)
    for n in range(3):
        store.send("T", UNIQ_KEY=f"U{n}")
    assert store.index.step(0) == 0
    assert store.index.step(0) == index_builder.SPARSE_MS


def test_rolled_back_records_have_no_keys(store: OpenStore) -> None:
    store.append(request(store.queue("T"), [b"y"], KEYS="k2"))
    segment = store.store.log.segment(0)
    found = scan(segment.map, 0, store.page.words[WRITE_POSITION], 0)
    assert len(keys_of(segment.map, found)[0]) == 1
    found.sys_flags[0] |= TRANSACTION_ROLLBACK
    assert len(keys_of(segment.map, found)[0]) == 0


def test_names_are_local_time_to_the_millisecond(tmp_path: Path) -> None:
    assert len(name_for(1_700_000_000_007)) == 17
    assert name_for(1_700_000_000_007).endswith("007")
    with OpenStore(tmp_path / "s", small_settings(max_index_num=20)) as store:
        store.index = IndexBuilder(store.layout, store.settings, store.page, ManualClock())
        for n in range(60):
            store.send("T", UNIQ_KEY=f"U{n}")
        store.index_all()
        assert len(set(index_names(store.root / "index"))) == 4, "a clock that stands still gives new names"


def test_without_the_index_the_position_just_follows(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s", small_settings(message_index_enable=False)) as store:
        store.send("T", KEYS="k")
        store.index.step(0)
        assert store.index.lag == 0
        assert index_names(store.root / "index") == []


PROPERTIES = [
    "UNIQ_KEY\x01{u}\x02",
    "TAGS\x01A\x02UNIQ_KEY\x01{u}\x02",
    "TAGS\x01A\x02UNIQ_KEY\x01{u}\x02KEYS\x01{k}\x02",
    "UNIQ_KEY\x01{u}\x02KEYS\x01{k} {k}b\x02",
    "UNIQ_KEY\x01{u}\x02KEYS\x01{k}\x02WAIT\x01true\x02",
    "KEYS\x01{k}\x02UNIQ_KEY\x01{u}\x02",
    "UNIQ_KEY\x01short\x02KEYS\x01{k}\x02",
    "TAGS\x01{long}\x02UNIQ_KEY\x01{u}\x02KEYS\x01{long}\x02",
    "UNIQ_KEY\x01{u}\x02KEYS\x01é{k}\x02",
    "UNIQ_KEY\x01{u}\x02KEYS\x01 \x02",
    "UNIQ_KEY\x01{u}\x02KEYS\x01{k}",
    "xUNIQ_KEY\x01{u}\x02OTHER\x01KEYS\x02",
    "UNIQ_KEY\x01{u}",
    "",
    "UNIQ_KEY\x01first\x02KEYS\x01x\x02UNIQ_KEY\x01{u}\x02KEYS\x01{k}  {k}c \x02",
    "UNIQ_KEY\x01{u}\x02UNIQ_KEY\x01\x02KEYS\x01{k}\x01KEYS\x01{k}\x02",
    "XKEYS\x01{k}\x02KEYS\x02KEYSX\x01{k}\x02AKEY\x01KEYS\x01{k}\x02",
    "A\x01 UNIQ_KEY\x01{k} \x02KEYS\x01 {k} \x02UNIQ_KEY",
    "\x01KEYS",
    "KEYS\x01{k}",
]


def test_arrays_and_single_records_find_the_same_keys(store: OpenStore) -> None:
    expected: list[tuple[int, int]] = []
    for n in range(150):
        unique, key, topic = f"{n * 7919:032X}", f"k{n}", f"T{n % 3}"
        text = PROPERTIES[n % len(PROPERTIES)].format(u=unique, k=key, long="x" * (20 + n % 90))
        record = encode_record(
            topic=topic.encode(), body=b"", properties=text.encode(), queue_id=0, born_timestamp=1
        )
        (outcome,) = store.append(AppendRequest(store.queue(topic), record, [len(record)], [0]))
        properties = decode_properties(text)
        code = java_hash(properties["TAGS"]) if "TAGS" in properties else 0
        assert tags_codes_of(store, outcome.physical_offset) == code
        names = [properties["UNIQ_KEY"]] if "UNIQ_KEY" in properties else []
        names += [piece for piece in properties.get("KEYS", "").split(" ") if piece]
        expected += [(outcome.physical_offset, key_hash(topic, name)) for name in names]
        fix_unit(store, topic, outcome.queue_offset, code)
    segment = store.store.log.segment(0)
    found = scan(segment.map, 0, store.page.words[WRITE_POSITION], 0, check_text=False)
    rows, hashes = keys_of(segment.map, found)
    assert list(zip(found.physical_offsets[rows].tolist(), hashes.tolist(), strict=True)) == expected


def tags_codes_of(store: OpenStore, physical_offset: int) -> int:
    segment = store.store.log.segment(0)
    found = scan(segment.map, physical_offset, store.page.words[WRITE_POSITION], 0, records_max=1)
    return int(tags_codes(segment.map, found.property_starts, found.ends)[0])


def fix_unit(store: OpenStore, topic: str, queue_offset: int, code: int) -> None:
    """The requests above carry no tags code: put it into the unit, for the check at the end."""
    file = store.store.queues.file(store.queue(topic), queue_offset)
    at = queue_offset * 20 - file.start + 12
    file.map[at : at + 8] = struct.pack(">q", code)


@pytest.mark.parametrize(
    ("properties", "of_one_shape"),
    [
        ([f"TAGS\x01A\x02UNIQ_KEY\x01U{n}\x02KEYS\x01order-{n}\x02" for n in range(8)], True),
        ([f"UNIQ_KEY\x01U{n}\x02" for n in range(8)], True),
        ([f"KEYS\x01k{n}" for n in range(8)], True),
        (["TAGS\x01A\x02"] * 8, True),
        ([f"KEYS\x01k{n}\x02KEYS\x01l{n}\x02" for n in range(8)], True),
        ([f"MY_KEYS\x01k{n}\x02NUNIQ_KEY\x01u\x02" for n in range(8)], True),
        (["KEYS\x01\xe9" if n % 2 else "KEYS\x01ee" for n in range(8)], True),
        ([f"KEYS\x01k{n} {n}\x02" for n in range(8)], False),
        ([f"KEYS\x01k{' ' if n == 3 else '-'}{n}\x02" for n in range(8)], False),
        ([f"{'KEYS' if n == 3 else 'OHNO'}\x01k{n}\x02" for n in range(8)], False),
        ([f"KEYS\x01{'a' if n == 3 else chr(2)}{n}\x02" for n in range(8)], False),
        ([f"KEYS\x01k\x01{n}\x02" for n in range(8)], False),
        ([f"KEYS\x01{n}\x02" for n in range(8, 12)], False),
    ],
)
def test_properties_of_one_shape_are_read_as_a_table(
    store: OpenStore, properties: list[str], of_one_shape: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[tuple[int, int]] = []
    for n, text in enumerate(properties):
        record = encode_record(topic=b"T", body=b"x", properties=text.encode(), queue_id=0, born_timestamp=1)
        (outcome,) = store.append(AppendRequest(store.queue("T"), record, [len(record)], [0]))
        held = decode_properties(text)
        fix_unit(store, "T", outcome.queue_offset, java_hash(held["TAGS"]) if "TAGS" in held else 0)
        names = [held["UNIQ_KEY"]] if "UNIQ_KEY" in held else []
        names += [piece for piece in held.get("KEYS", "").split(" ") if piece]
        expected += [(n, key_hash("T", name)) for name in names]
    segment = store.store.log.segment(0)
    found = scan(segment.map, 0, store.page.words[WRITE_POSITION], 0, check_text=False)
    tables = []
    as_table = index_keys._of_table
    monkeypatch.setattr(index_keys, "_of_table", lambda *facts: tables.append(as_table(*facts)) or tables[-1])
    rows, hashes = keys_of(segment.map, found)
    assert list(zip(rows.tolist(), hashes.tolist(), strict=True)) == expected
    assert (tables[0] is not None) is of_one_shape


def test_full_files_are_synced_before_a_checkpoint_counts_them(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder never waits for the disk; the checkpoint speaks of what was synced."""
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    for n in range(500):
        store.send("T", UNIQ_KEY=f"U{n}")
    store.index_all()
    *full, newest = index_names(store.root / "index")
    assert full and not [path for path in synced if "/index" in path]
    store.flush()
    assert {Path(path).name for path in synced if "/index/" in path} == set(full)
    assert (
        Checkpoint.load(store.layout.checkpoint).index_timestamp
        == full_index_files(store.layout.index)[-1][1]
    )
    synced.clear()
    store.send("T", UNIQ_KEY="U500")
    store.index_all()
    store.flush()
    assert not [path for path in synced if "/index/" in path], "once is enough"
    store.index.close()
    assert newest in {Path(path).name for path in synced}


def test_after_a_crash_the_newest_file_goes_even_if_its_keys_are_as_old_as_the_checkpoint(
    store: OpenStore,
) -> None:
    """A batch has one store time: its keys may end in the next file, which nobody has synced."""
    store.append(request(store.queue("T"), [b"x"] * 450, UNIQ_KEY="U"))
    store.index_all()
    store.flush()
    full, newest = index_names(store.root / "index")
    store.crash()
    assert index_names(store.root / "index") == [full]
    store.index_all()
    assert len(store.store.lookup_key("T", "U", 64, 0, ALWAYS)) == 64
    assert newest not in index_names(store.root / "index")
