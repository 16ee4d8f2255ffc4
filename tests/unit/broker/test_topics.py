"""Rules of the topic registry, with a dictionary in place of the control page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shmq.base.clock import ManualClock
from shmq.base.errors import (
    InvalidParameter,
    NoPermission,
    ServiceNotAvailable,
    SystemBusy,
    TopicNotExist,
)
from shmq.broker import config_file
from shmq.broker.config_file import ConfigFile
from shmq.broker.topics import TopicRegistry
from shmq.model.settings import BrokerSettings
from shmq.model.topic_config import TopicConfig
from shmq.protocol import fastjson

SETTINGS = BrokerSettings(broker_name="b", broker_cluster_name="C")


class Slots:
    """Queues of topics as a dictionary; maxima can be set by the test."""

    def __init__(self, capacity: int = 5000) -> None:
        self.queues: dict[str, list[int]] = {}
        self.ended: dict[str, list[int]] = {}
        self.capacity = capacity
        self.fail_next_retire = False

    def count(self, topic: str) -> int:
        return len(self.queues.get(topic, ()))

    def reserve(self, queues: int) -> None:
        if sum(map(len, self.queues.values())) + queues > self.capacity:
            raise SystemBusy("full")

    def create(self, topic: str, first_queue_id: int, starts: Sequence[int]) -> None:
        queues = self.queues.setdefault(topic, [])
        assert len(queues) == first_queue_id
        queues.extend(starts)

    def retire(self, topic: str) -> list[int]:
        if self.fail_next_retire:
            self.fail_next_retire = False
            raise OSError("crash in between")
        self.ended[topic] = self.queues.pop(topic, self.ended.get(topic, []))
        return self.ended[topic]

    def remove_files(self, topic: str) -> None:
        assert topic not in self.queues


def registry(folder: Path, slots: Slots, settings: BrokerSettings = SETTINGS) -> TopicRegistry:
    made = TopicRegistry(ConfigFile(folder / "topics.json"), slots, settings, ManualClock())
    made.start()
    return made


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def topics(tmp_path: Path, slots: Slots) -> TopicRegistry:
    return registry(tmp_path, slots)


SYSTEM = {
    "SELF_TEST_TOPIC": (1, 6),
    "TBW102": (8, 7),
    "BenchmarkTest": (1024, 6),
    "C": (16, 7),
    "b": (1, 7),
    "OFFSET_MOVED_EVENT": (1, 6),
    "SCHEDULE_TOPIC_XXXX": (18, 6),
    "C_REPLY_TOPIC": (1, 6),
    "rmq_sys_REVIVE_LOG_C": (8, 6),
    "rmq_sys_SYNC_BROKER_MEMBER_b": (1, 1),
    "RMQ_SYS_TRANS_HALF_TOPIC": (1, 6),
    "RMQ_SYS_TRANS_OP_HALF_TOPIC": (1, 6),
    "TRANS_CHECK_MAX_TIME_TOPIC": (1, 6),
    "rmq_sys_wheel_timer": (1, 6),
}


def test_a_start_registers_the_system_topics_with_their_queues(topics: TopicRegistry, slots: Slots) -> None:
    assert {c.topic_name: (c.write_queue_nums, c.perm) for c in topics} == SYSTEM
    assert {name: slots.count(name) for name in SYSTEM} == {name: n for name, (n, _) in SYSTEM.items()}


def test_without_auto_creation_the_template_is_not_registered(tmp_path: Path, slots: Slots) -> None:
    settings = BrokerSettings(auto_create_topic_enable=False)
    assert registry(tmp_path, slots, settings).get("TBW102") is None


@pytest.mark.parametrize(
    ("asked", "template_queues", "made"), [(4, 8, 4), (16, 8, 8), (1, 8, 1), (0, 8, 1), (-3, 8, 1)]
)
def test_a_send_creates_the_smaller_number_of_queues(
    tmp_path: Path, slots: Slots, asked: int, template_queues: int, made: int
) -> None:
    topics = registry(tmp_path, slots, BrokerSettings(default_topic_queue_nums=template_queues))
    config = topics.create_on_send("orders", "TBW102", asked, 0)
    assert config is not None and (config.read_queue_nums, config.write_queue_nums) == (made, made)
    assert config.perm == 6 and slots.count("orders") == made


def test_a_send_to_a_known_topic_creates_nothing(topics: TopicRegistry) -> None:
    topics.create_on_send("orders", "TBW102", 4, 0)
    version = topics.data_version
    assert topics.create_on_send("orders", "TBW102", 8, 0) is None
    assert topics.data_version == version


@pytest.mark.parametrize(
    ("topic", "template", "error"),
    [
        ("orders", "nosuch", TopicNotExist),
        ("orders", "plain", TopicNotExist),
        ("bad name", "TBW102", InvalidParameter),
        ("x" * 128, "TBW102", InvalidParameter),
        ("", "TBW102", InvalidParameter),
        ("rmq_sys_mine", "TBW102", NoPermission),
    ],
)
def test_a_send_may_not_create(
    topics: TopicRegistry, topic: str, template: str, error: type[Exception]
) -> None:
    topics.update(TopicConfig("plain", 4, 4, 6))
    with pytest.raises(error):
        topics.create_on_send(topic, template, 4, 0)
    assert topics.get(topic) is None


def test_a_send_creates_nothing_once_auto_creation_is_switched_off(topics: TopicRegistry) -> None:
    topics.set_auto_create(False)
    with pytest.raises(TopicNotExist):
        topics.create_on_send("orders", "TBW102", 4, 0)
    topics.update(TopicConfig("template", 2, 2, 7))
    assert topics.create_on_send("orders", "template", 4, 0) is not None


def test_a_retry_topic_is_created_even_without_auto_creation(topics: TopicRegistry) -> None:
    topics.set_auto_create(False)
    config = topics.create_on_send("%RETRY%g", "TBW102", 4, 0)
    assert config is not None and (config.read_queue_nums, config.perm) == (1, 6)
    assert topics.create_retry_topic("%RETRY%h", 0) is None


@pytest.mark.parametrize(
    "config",
    [
        TopicConfig("", 4, 4),
        TopicConfig("with space", 4, 4),
        TopicConfig("dot.ted", 4, 4),
        TopicConfig("TBW102", 4, 4),
        TopicConfig("b", 4, 4),
        TopicConfig("C", 4, 4),
        TopicConfig("rmq_sys_x", 4, 4),
        TopicConfig("t", 0, 4),
        TopicConfig("t", 4, -1),
        TopicConfig("t", 4, 70_000),
        TopicConfig("t", 4, 4, 8),
        TopicConfig("t", 4, 4, -1),
        TopicConfig("t", 4, 4, attributes={"nosuch": "x"}),
        TopicConfig("t", 4, 4, attributes={"message.type": "WRONG"}),
        TopicConfig("t", 4, 4, attributes={"queue.type": "BatchCQ"}),
    ],
)
def test_an_administrator_is_refused(topics: TopicRegistry, config: TopicConfig) -> None:
    before = topics.data_version
    with pytest.raises(InvalidParameter):
        topics.update(config)
    assert topics.data_version == before


def test_an_unchanged_update_is_no_change(topics: TopicRegistry) -> None:
    assert topics.update(TopicConfig("t", 4, 4)) is not None
    version = topics.data_version
    assert topics.update(TopicConfig("t", 4, 4)) is None
    assert topics.data_version == version


def test_more_queues_are_added_and_fewer_keep_theirs(topics: TopicRegistry, slots: Slots) -> None:
    topics.update(TopicConfig("t", 2, 2))
    topics.update(TopicConfig("t", 4, 6))
    assert slots.count("t") == 6
    topics.update(TopicConfig("t", 1, 1))
    assert slots.count("t") == 6 and topics.must_get("t").queue_nums == 1


def test_a_full_page_refuses_before_anything_is_written(tmp_path: Path) -> None:
    topics = registry(tmp_path, Slots(capacity=1100))
    with pytest.raises(SystemBusy):
        topics.update(TopicConfig("big", 500, 500))
    assert topics.get("big") is None and b"big" not in (tmp_path / "topics.json").read_bytes()


def test_attributes_are_added_and_removed(topics: TopicRegistry) -> None:
    topics.update(TopicConfig("t", 1, 1), "+message.type=FIFO,+reserve.time=3")
    topics.update(TopicConfig("t", 1, 1), "-reserve.time")
    assert topics.must_get("t").attributes == {"message.type": "FIFO"}
    with pytest.raises(InvalidParameter):
        topics.update(TopicConfig("t", 1, 1), "message.type=FIFO")


def test_every_change_moves_the_data_version_and_is_on_disk(topics: TopicRegistry, tmp_path: Path) -> None:
    before = topics.data_version
    topics.update(TopicConfig("t", 3, 3))
    found = fastjson.loads((tmp_path / "topics.json").read_bytes())
    assert found["dataVersion"]["counter"] == before.counter + 1
    assert found["topicConfigTable"]["t"]["writeQueueNums"] == 3


def test_a_deleted_topic_goes_on_from_its_maxima(topics: TopicRegistry, slots: Slots, tmp_path: Path) -> None:
    topics.update(TopicConfig("t", 3, 3))
    slots.queues["t"] = [10, 0, 7]
    assert topics.delete("t") and not topics.delete("t")
    assert topics.get("t") is None
    again = registry(tmp_path, slots)
    again.update(TopicConfig("t", 2, 2))
    assert slots.queues["t"] == [10, 0]
    again.update(TopicConfig("t", 4, 4))
    assert slots.queues["t"] == [10, 0, 7, 0]


def test_a_topic_deleted_twice_keeps_the_highest_maxima(topics: TopicRegistry, slots: Slots) -> None:
    topics.update(TopicConfig("t", 2, 2))
    slots.queues["t"] = [5, 9]
    topics.delete("t")
    topics.update(TopicConfig("t", 1, 1))
    slots.queues["t"] = [20]
    topics.delete("t")
    topics.update(TopicConfig("t", 2, 2))
    assert slots.queues["t"] == [20, 9]


def test_a_start_finishes_an_interrupted_deletion_and_spares_living_topics(
    topics: TopicRegistry, slots: Slots, tmp_path: Path
) -> None:
    for name in ("gone", "alive"):
        topics.update(TopicConfig(name, 1, 1))
        slots.queues[name] = [4]
    topics.delete("alive")
    topics.update(TopicConfig("alive", 1, 1))
    slots.fail_next_retire = True
    with pytest.raises(OSError, match="crash"):
        topics.delete("gone")
    again = registry(tmp_path, slots)
    assert "gone" not in slots.queues and slots.queues["alive"] == [4]
    assert again.get("gone") is None and again.get("alive") is not None
    again.update(TopicConfig("gone", 1, 1))
    assert slots.queues["gone"] == [4]


def test_a_deleted_topic_without_messages_leaves_no_trace(topics: TopicRegistry, tmp_path: Path) -> None:
    topics.update(TopicConfig("t", 3, 3))
    topics.delete("t")
    assert b"shmqDeletedTopics" not in (tmp_path / "topics.json").read_bytes()


@pytest.mark.parametrize("topic", ["TBW102", "rmq_sys_wheel_timer", "b", "C", " "])
def test_system_topics_cannot_be_deleted(topics: TopicRegistry, topic: str) -> None:
    with pytest.raises(InvalidParameter):
        topics.delete(topic)


def test_the_file_of_an_apache_broker_is_read_and_kept(tmp_path: Path, slots: Slots) -> None:
    (tmp_path / "topics.json").write_text(
        '{\n\t"dataVersion":{\n\t\t"counter":7,\n\t\t"stateVersion":0,\n\t\t"timestamp":5\n\t},\n'
        '\t"topicConfigTable":{\n\t\t"orders":{\n\t\t\t"attributes":{},\n\t\t\t"order":true,\n\t\t\t"perm":4,\n'
        '\t\t\t"readQueueNums":3,\n\t\t\t"topicFilterType":"SINGLE_TAG",\n\t\t\t"topicName":"orders",\n'
        '\t\t\t"topicSysFlag":1,\n\t\t\t"writeQueueNums":2\n\t\t}\n\t}\n}'
    )
    topics = registry(tmp_path, slots)
    orders = topics.must_get("orders")
    assert (orders.read_queue_nums, orders.write_queue_nums, orders.perm) == (3, 2, 4)
    assert orders.order and orders.topic_sys_flag == 1 and slots.count("orders") == 3
    assert topics.data_version.counter == 8
    assert json.loads((tmp_path / "topics.json").read_text())["topicConfigTable"]["orders"]["order"] is True


def test_a_full_disk_changes_nothing(
    topics: TopicRegistry, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.update(TopicConfig("kept", 2, 2))
    version = topics.data_version

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_file, "write_durably", refuse)
    with pytest.raises(ServiceNotAvailable, match="No space left"):
        topics.update(TopicConfig("new", 2, 2))
    with pytest.raises(ServiceNotAvailable):
        topics.delete("kept")
    assert topics.get("new") is None and slots.count("new") == 0
    assert topics.get("kept") is not None and slots.count("kept") == 2
    assert topics.data_version == version
    monkeypatch.undo()
    assert topics.update(TopicConfig("new", 2, 2)) is not None and slots.count("new") == 2
