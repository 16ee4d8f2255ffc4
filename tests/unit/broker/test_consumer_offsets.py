"""Consumer offsets on a real control page, and their file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.clock import ManualClock
from shmq.base.errors import SystemBusy
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_offsets import ConsumerOffsets, QueueProgress
from shmq.protocol import fastjson
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.offset_slots import OffsetSlots


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "consumerOffset.json"


@pytest.fixture
def offsets(page: ControlPage, path: Path) -> ConsumerOffsets:
    return ConsumerOffsets(ConfigFile(path), page, DirectoryView(page), ManualClock(now_ms=50))


def test_slots_are_made_once_and_grow_with_the_topic(page: ControlPage, offsets: ConsumerOffsets) -> None:
    offsets.ensure("g", "t", 2)
    offsets.ensure("g", "t", 2)
    offsets.ensure("g", "t", 5)
    worker = DirectoryView(page)
    slots = worker.offset_slots("g", "t")
    assert len(slots) == 5 and len(set(slots)) == 5
    assert offsets.progress("g", "t") == []


def test_what_workers_store_is_seen_and_exported(
    page: ControlPage, offsets: ConsumerOffsets, path: Path
) -> None:
    offsets.ensure("g", "t", 3)
    worker, slots = DirectoryView(page), OffsetSlots(page)
    slot = worker.offset_slot("g", "t", 1)
    assert slot is not None
    slots.commit(slot, 41)
    slots.set_pulled(slot, 44)
    assert offsets.committed("g", "t") == {1: 41}
    assert offsets.progress("g", "t") == [QueueProgress(1, 41, 44)]
    assert offsets.export()
    found = fastjson.loads(path.read_bytes())
    assert found["offsetTable"] == {"t@g": {1: 41}} and found["groupTopicMap"] == {"g": ["t"]}
    assert found["dataVersion"] == {"counter": 1, "stateVersion": 0, "timestamp": 50}
    assert b'"t@g":{1:41\n' in path.read_bytes()


def test_nothing_is_written_when_no_stored_offset_moved(
    page: ControlPage, offsets: ConsumerOffsets, path: Path
) -> None:
    offsets.ensure("g", "t", 1)
    assert not offsets.export() and not path.exists()
    offsets.commit("g", "t", {0: 5})
    assert offsets.export() and not offsets.export()
    slot = offsets.slots("g", "t")[0]
    assert slot is not None
    OffsetSlots(page).set_pulled(slot, 7)
    assert not offsets.export()
    offsets.commit("g", "t", {0: 6})
    assert offsets.export()


def test_the_version_goes_on_from_the_file(page: ControlPage, path: Path) -> None:
    path.write_text('{"dataVersion":{"counter":9,"stateVersion":0,"timestamp":1},"offsetTable":{}}')
    offsets = ConsumerOffsets(ConfigFile(path), page, DirectoryView(page))
    offsets.commit("g", "t", {0: 5})
    offsets.export()
    assert fastjson.loads(path.read_bytes())["dataVersion"]["counter"] == 10


@pytest.mark.parametrize("topic", ["t", None])
def test_cloning(offsets: ConsumerOffsets, topic: str | None) -> None:
    offsets.commit("a", "t", {0: 5, 2: 7})
    offsets.commit("a", "u", {0: 1})
    offsets.commit("b", "t", {0: 99})
    assert offsets.clone("a", "b", topic) == (["t"] if topic else ["t", "u"])
    assert offsets.committed("b", "t") == {0: 5, 2: 7}
    assert offsets.committed("b", "u") == ({} if topic else {0: 1})
    assert offsets.clone("nobody", "b", None) == []


def test_who_reads_what(offsets: ConsumerOffsets) -> None:
    offsets.commit("a", "t", {0: 5})
    offsets.commit("b", "t", {0: 5})
    offsets.commit("a", "u", {0: 5})
    offsets.ensure("c", "t", 1)
    assert offsets.groups_of("t") == ["a", "b"] and offsets.topics_of("a") == ["t", "u"]


def test_deleted_groups_and_topics_have_no_offsets(offsets: ConsumerOffsets, path: Path) -> None:
    for group, topic in (("a", "t"), ("a", "u"), ("b", "t")):
        offsets.commit(group, topic, {0: 5})
    offsets.export()
    offsets.drop_topic("t")
    assert list(offsets.pairs()) == [("a", "u")]
    offsets.drop_group("a")
    assert offsets.export()
    assert fastjson.loads(path.read_bytes())["offsetTable"] == {}


def test_a_full_page_says_so(offsets: ConsumerOffsets) -> None:
    with pytest.raises(SystemBusy, match="offset slots"):
        offsets.ensure("g", "t", 65)
