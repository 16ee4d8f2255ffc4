"""Changes that are asked for together share one write of the file, and succeed or fail as if made alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shmq.base.errors import InvalidParameter, ServiceNotAvailable, SystemBusy
from shmq.broker import config_file
from shmq.broker.config_file import ConfigFile
from shmq.broker.groups import GroupRegistry
from shmq.broker.topics import TopicRegistry
from shmq.coordinator.turn_changes import TurnChanges
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.settings import BrokerSettings
from shmq.model.topic_config import TopicConfig
from shmq.protocol import fastjson


class Slots:
    """Queues of topics as numbers."""

    def __init__(self) -> None:
        self.queues: dict[str, int] = {}
        self.capacity = 5000

    def count(self, topic: str) -> int:
        return self.queues.get(topic, 0)

    def reserve(self, queues: int) -> None:
        if sum(self.queues.values()) + queues > self.capacity:
            raise SystemBusy("full")

    def create(self, topic: str, first_queue_id: int, starts: Sequence[int]) -> None:
        self.queues[topic] = first_queue_id + len(starts)

    def retire(self, topic: str) -> list[int]:
        return [0] * self.queues.pop(topic, 0)

    def remove_files(self, topic: str) -> None:
        assert topic not in self.queues


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were written, in order."""
    found: list[Path] = []
    real = config_file.write_durably

    def write(path: Path, data: bytes) -> None:
        found.append(path)
        real(path, data)

    monkeypatch.setattr(config_file, "write_durably", write)
    return found


def topics_in(folder: Path) -> tuple[TopicRegistry, Slots]:
    slots = Slots()
    registry = TopicRegistry(ConfigFile(folder / "topics.json"), slots, BrokerSettings())
    registry.start()
    return registry, slots


def together(changes: TurnChanges, *wanted: Any) -> list[Any]:
    """Ask for all of them in one turn of a loop; what each returned or raised."""

    async def ask() -> list[Any]:
        return await asyncio.gather(*map(changes.make, wanted), return_exceptions=True)

    return asyncio.run(ask())


def test_topics_of_one_turn_share_one_write(tmp_path: Path, writes: list[Path]) -> None:
    topics, slots = topics_in(tmp_path)
    writes.clear()
    before = topics.data_version.counter
    made = together(
        TurnChanges(topics), *(lambda n=n: topics.create_on_send(f"t{n}", "TBW102", 4, 0) for n in range(50))
    )
    assert [config.topic_name for config in made] == [f"t{n}" for n in range(50)]
    assert (len(writes), topics.data_version.counter) == (1, before + 1)
    assert all(slots.count(f"t{n}") == 4 for n in range(50))
    saved = fastjson.loads((tmp_path / "topics.json").read_bytes())["topicConfigTable"]
    assert {f"t{n}" for n in range(50)} <= saved.keys()


def test_a_topic_is_durable_before_it_has_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics, slots = topics_in(tmp_path)
    real = config_file.write_durably

    def write(path: Path, data: bytes) -> None:
        assert not slots.count("a") and not slots.count("b")
        real(path, data)

    monkeypatch.setattr(config_file, "write_durably", write)
    together(TurnChanges(topics), *(lambda n=n: topics.update(TopicConfig(n, 2, 2)) for n in "ab"))
    assert slots.count("a") == slots.count("b") == 2


def test_one_that_is_refused_fails_alone(tmp_path: Path, writes: list[Path]) -> None:
    topics, slots = topics_in(tmp_path)
    writes.clear()
    first, bad, same, large = together(
        TurnChanges(topics),
        lambda: topics.create_on_send("a", "TBW102", 4, 0),
        lambda: topics.update(TopicConfig("bad name", 1, 1)),
        lambda: topics.create_on_send("a", "TBW102", 4, 0),
        lambda: topics.update(TopicConfig("b", slots.capacity, 1)),
    )
    assert first.topic_name == "a" and same is None
    assert isinstance(bad, InvalidParameter) and isinstance(large, SystemBusy)
    assert topics.get("b") is None and len(writes) == 1
    assert together(TurnChanges(topics), lambda: topics.update(first)) == [None]
    assert len(writes) == 1, "no change, no write"


def test_queues_of_topics_that_wait_count_when_room_is_reserved(tmp_path: Path) -> None:
    topics, slots = topics_in(tmp_path)
    slots.capacity = sum(slots.queues.values()) + 10
    first, second = together(
        TurnChanges(topics),
        lambda: topics.update(TopicConfig("a", 6, 6)),
        lambda: topics.update(TopicConfig("b", 6, 6)),
    )
    assert first is not None and isinstance(second, SystemBusy)
    assert (slots.count("a"), topics.get("b")) == (6, None)


def test_a_full_disk_fails_all_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics, slots = topics_in(tmp_path)
    version = topics.data_version

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_file, "write_durably", refuse)
    wanted = [lambda n=n: topics.create_on_send(n, "TBW102", 4, 0) for n in "aab"]
    found = together(TurnChanges(topics), *wanted)
    assert all(isinstance(error, ServiceNotAvailable) for error in found)
    assert topics.get("a") is None and not slots.count("a") and topics.data_version == version
    monkeypatch.undo()
    made = together(TurnChanges(topics), *wanted)
    assert [None if config is None else config.topic_name for config in made] == ["a", None, "b"]


def test_groups_of_one_turn_share_one_write(tmp_path: Path, writes: list[Path]) -> None:
    groups = GroupRegistry(ConfigFile(tmp_path / "subscriptionGroup.json"), BrokerSettings())
    made = together(TurnChanges(groups), *(lambda n=n: groups.find_or_create(f"g{n}") for n in range(50)))
    assert all(was_made for _, was_made in made)
    assert (len(writes), groups.data_version.counter) == (1, 1)
    groups.update(SubscriptionGroupConfig("g7", retry_max_times=3))
    groups.delete("g8")
    again = GroupRegistry(ConfigFile(tmp_path / "subscriptionGroup.json"), BrokerSettings())
    assert again.must_get("g7").retry_max_times == 3
    assert again.get("g8") is None and again.get("g9") == SubscriptionGroupConfig("g9")


def test_changes_of_later_turns_have_writes_of_their_own(tmp_path: Path, writes: list[Path]) -> None:
    groups = GroupRegistry(ConfigFile(tmp_path / "subscriptionGroup.json"), BrokerSettings())
    changes = TurnChanges(groups)

    async def one_after_the_other() -> None:
        for n in range(3):
            await changes.make(lambda n=n: groups.find_or_create(f"g{n}"))

    asyncio.run(one_after_the_other())
    assert len(writes) == 3
