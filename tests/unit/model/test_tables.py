"""Routes, topic settings, group settings, units: the small tables of the model."""

import numpy as np

from shmq.model.consumer_group import ConsumeFromWhere, SubscriptionGroupConfig
from shmq.model.data_version import DataVersion
from shmq.model.message_queue import MessageQueue
from shmq.model.route import BrokerData, QueueData, TopicRoute
from shmq.model.topic_config import TopicConfig, perm_text
from shmq.model.unit import Unit, iter_units, pack_unit, unpack_unit
from shmq.model.unit_array import UNIT_DTYPE, pack_units


def test_a_unit_is_twenty_bytes_big_endian():
    raw = pack_unit(1024, 115, 2598919)
    assert raw == bytes.fromhex("0000000000000400 00000073 000000000027A807")
    assert unpack_unit(b"xx" + raw, 2) == Unit(1024, 115, 2598919)
    assert pack_unit(0, 1, -1838339340)[12:] == bytes.fromhex("FFFFFFFF926D2AF4")


def test_units_of_a_batch_lie_back_to_back():
    raw = pack_units(1000, [10, 20, 30], [1, -2, 3])
    assert list(iter_units(raw)) == [Unit(1000, 10, 1), Unit(1010, 20, -2), Unit(1030, 30, 3)]
    array = np.frombuffer(raw, UNIT_DTYPE)
    assert array["physical_offset"].tolist() == [1000, 1010, 1030]
    assert pack_units(0, [], []) == b""


def test_queues_sort_by_topic_broker_and_id_and_print_as_rocketmq_does():
    queues = [MessageQueue("t", "b", 2), MessageQueue("t", "a", 10), MessageQueue("s", "z", 0)]
    assert sorted(queues) == [queues[2], queues[1], queues[0]]
    assert str(queues[0]) == "MessageQueue [topic=t, brokerName=b, queueId=2]"


def route(**more):
    return TopicRoute(
        [QueueData("b", 2, 1, 6), QueueData("a", 1, 2, 6), QueueData("s", 1, 1, 6), QueueData("r", 1, 1, 4)],
        [
            BrokerData("c", "a", {0: "h:1"}),
            BrokerData("c", "b", {0: "h:2", 1: "h:3"}),
            BrokerData("c", "s", {1: "h:4"}),
            BrokerData("c", "r", {0: "h:5"}),
        ],
        **more,
    )


def test_write_queues_need_permission_and_a_master():
    assert [queue[1:] for queue in route().write_queues("t")] == [("a", 0), ("a", 1), ("b", 0)]


def test_read_queues_need_permission_only():
    expected = [("a", 0), ("b", 0), ("b", 1), ("r", 0), ("s", 0)]
    assert [queue[1:] for queue in route().read_queues("t")] == expected


def test_an_order_configuration_replaces_the_write_queues():
    ordered = route(order_topic_conf="a:2;dead:1")
    assert [queue[1:] for queue in ordered.write_queues("t")] == [("a", 0), ("a", 1), ("dead", 0)]


def test_a_route_finds_its_brokers():
    assert route().broker("b").master_addr == "h:2"
    assert route().broker("s").master_addr is None and route().broker("x") is None


def test_topic_settings_survive_json_and_take_rocketmqs_defaults():
    config = TopicConfig("t", 4, 8, 7, order=True, attributes={"a": "b"})
    assert TopicConfig.from_json(config.to_json()) == config
    assert TopicConfig.from_json({}, "t") == TopicConfig("t", 16, 16, 6)
    assert config.readable and config.writable and config.inherited and config.queue_nums == 8
    assert perm_text(6) == "RW-" and perm_text(1) == "--X"


def test_group_settings_survive_json_and_take_rocketmqs_defaults():
    config = SubscriptionGroupConfig("g", retry_max_times=3, consume_enable=False)
    assert SubscriptionGroupConfig.from_json(config.to_json()) == config
    assert SubscriptionGroupConfig.from_json({"retryQueueNums": None}, "g") == SubscriptionGroupConfig("g")
    assert list(config.to_json()) == sorted(config.to_json())


def test_deprecated_places_to_start_from_mean_the_end():
    assert ConsumeFromWhere("CONSUME_FROM_MIN_OFFSET") is ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
    assert ConsumeFromWhere(None) is ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET


def test_data_versions_count_changes():
    version = DataVersion().next(1000).next(2000)
    assert version == DataVersion(0, 2, 2000) and version > DataVersion(0, 1, 9999)
    assert DataVersion.from_json(version.to_json()) == version
    assert DataVersion.from_json(None) == DataVersion()
