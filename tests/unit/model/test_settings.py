"""Settings: RocketMQ's names, defaults, spellings and ranges; what is wrong is named with its place."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path

import pytest

from shmq.base.errors import ConfigFault
from shmq.model.foreign_keys import IGNORED, REFUSED
from shmq.model.setting import fold, rules, value_text
from shmq.model.settings import (
    BrokerRole,
    BrokerSettings,
    FlushDiskType,
    NamesrvSettings,
    as_properties,
    changed,
    describe,
    load_settings,
    store_root,
)
from shmq.model.settings_file import parse_properties

CONF = Path(__file__).parents[3] / "conf"


def broker(*arguments: str) -> BrokerSettings:
    return load_settings(BrokerSettings, None, arguments).settings


@pytest.mark.parametrize(
    ("attribute", "default"),
    [
        ("broker_cluster_name", "DefaultCluster"),
        ("broker_role", BrokerRole.ASYNC_MASTER),
        ("flush_disk_type", FlushDiskType.ASYNC_FLUSH),
        ("listen_port", 10911),
        ("ha_listen_port", 10912),
        ("mapped_file_size_commit_log", 1_073_741_824),
        ("mapped_file_size_consume_queue", 6_000_000),
        ("max_hash_slot_num", 5_000_000),
        ("max_index_num", 20_000_000),
        ("max_message_size", 4_194_304),
        ("file_reserved_time", 72),
        ("delete_when", "04"),
        ("disk_max_used_space_ratio", 75),
        ("flush_interval_commit_log", 500),
        ("flush_commit_log_least_pages", 4),
        ("flush_commit_log_thorough_interval", 10_000),
        ("sync_flush_timeout", 5000),
        ("default_topic_queue_nums", 8),
        ("auto_create_topic_enable", True),
        ("auto_create_subscription_group", True),
        ("transaction_time_out", 6000),
        ("transaction_check_max", 15),
        ("register_name_server_period", 30_000),
        ("flush_consumer_offset_interval", 5000),
        ("access_message_in_memory_max_ratio", 40),
        ("bind_address", "127.0.0.1"),
        ("namesrv_port", 9876),
    ],
)
def test_defaults_are_those_of_rocketmq_and_of_the_design(attribute: str, default: object) -> None:
    assert getattr(broker(), attribute) == default


@pytest.mark.parametrize(
    ("spelling", "attribute", "text", "value"),
    [
        ("mapedFileSizeCommitLog", "mapped_file_size_commit_log", "1073741824", 1 << 30),
        ("mappedFileSizeCommitLog", "mapped_file_size_commit_log", "1073741824", 1 << 30),
        ("mapedFileSizeConsumeQueue", "mapped_file_size_consume_queue", "300000", 300_000),
        ("transactionMsgTimeout", "transaction_time_out", "7000", 7000),
        ("transactionTimeOut", "transaction_time_out", "7000", 7000),
        ("redelateHangedFileInterval", "redelete_hanged_file_interval", "5", 5),
        ("redeleteHangedFileInterval", "redelete_hanged_file_interval", "5", 5),
        ("destroyMapedFileIntervalForcibly", "destroy_maped_file_interval_forcibly", "5", 5),
        ("destroyMappedFileIntervalForcibly", "destroy_maped_file_interval_forcibly", "5", 5),
        ("brokerIP1", "broker_ip1", "10.0.0.1", "10.0.0.1"),
        ("checkCRCOnRecover", "check_crc_on_recover", "false", False),
        ("flushDiskType", "flush_disk_type", "SYNC_FLUSH", FlushDiskType.SYNC_FLUSH),
        ("deleteWhen", "delete_when", "04;16", "04;16"),
        ("autoCreateTopicEnable", "auto_create_topic_enable", "FALSE", False),
    ],
)
def test_every_known_spelling_of_a_key_is_accepted(
    spelling: str, attribute: str, text: str, value: object
) -> None:
    loaded = load_settings(BrokerSettings, None, [f"{spelling}={text}"])
    assert getattr(loaded.settings, attribute) == value
    assert loaded.warnings == []
    assert loaded.origins[attribute] == "argument"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("listenPort=99999", ["listenPort", "99999", "0..65535"]),
        ("listenPort=2", ["listenPort", "2", "3..65535"]),
        ("listenPort=abc", ["listenPort", "abc", "0..65535"]),
        ("flushDiskType=SOMETIMES", ["flushDiskType", "ASYNC_FLUSH or SYNC_FLUSH"]),
        ("autoCreateTopicEnable=yes", ["autoCreateTopicEnable", "true or false"]),
        ("maxMessageSize=0", ["maxMessageSize", "1..15728640 bytes"]),
        ("brokerName=a b", ["brokerName", "letters"]),
        ("brokerName=", ["brokerName", "letters"]),
        ("brokerName=../x", ["brokerName", "letters"]),
        ("deleteWhen=25", ["deleteWhen", "00..23"]),
        ("brokerWorkers=30", ["brokerWorkers", "0..29"]),
        ("messageDelayLevel=1x", ["messageDelayLevel", "s, m, h or d"]),
        ("brokerRole=SLAVE", ["brokerRole=SLAVE", "replication", "ASYNC_MASTER"]),
        ("brokerId=1", ["brokerId=1", "allowed is 0"]),
        ("aclEnable=true", ["aclEnable", "access control"]),
        ("enableDLegerCommitLog=true", ["enableDLegerCommitLog", "DLedger"]),
        ("listenPort", ["listenPort", "key=value"]),
    ],
)
def test_a_wrong_value_is_refused_naming_key_value_and_range(argument: str, words: list[str]) -> None:
    with pytest.raises(ConfigFault) as caught:
        broker(argument)
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_value_in_a_file_is_named_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "broker.conf"
    file.write_text("# comment\nbrokerName=a\n\nlistenPort = 70000\n")
    with pytest.raises(ConfigFault, match=rf"{file}:4: listenPort=70000"):
        load_settings(BrokerSettings, file)


def test_arguments_win_over_the_file_and_origins_say_so(tmp_path: Path) -> None:
    file = tmp_path / "broker.conf"
    file.write_text("brokerName=a\nlistenPort=20000\n")
    loaded = load_settings(BrokerSettings, file, ["listenPort=30000"])
    assert (loaded.settings.broker_name, loaded.settings.listen_port) == ("a", 30000)
    assert loaded.origins["broker_name"] == f"{file}:1"
    assert loaded.origins["listen_port"] == "argument"
    assert loaded.origins["file_reserved_time"] == "default"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("nobodyKnowsMe=1", "unknown"),
        ("transientStorePoolEnable=true", "page cache"),
        ("storePathCommitLog=/data/commitlog", "standard places"),
        ("sendMessageThreadPoolNums=128", "brokerWorkers"),
        ("enableConsumeQueueExt=true", "not built yet"),
        ("aclEnable=false", "not needed"),
    ],
)
def test_unknown_and_unsupported_keys_give_one_warning_each(argument: str, words: str) -> None:
    warnings = load_settings(BrokerSettings, None, [argument]).warnings
    assert len(warnings) == 1
    assert words in warnings[0]
    assert argument.partition("=")[0] in warnings[0]


def test_no_key_is_both_ours_and_foreign() -> None:
    ours = {fold(rule.key) for table in (BrokerSettings, NamesrvSettings) for rule in rules(table).values()}
    foreign = {fold(key) for key in (*IGNORED, *REFUSED)}
    assert not ours & foreign


def test_a_sample_file_of_rocketmq_loads_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "broker-a.properties"
    file.write_text(
        "brokerClusterName=rocketmq-cluster\r\nbrokerName=broker-a\r\nbrokerId=0\r\n"
        "namesrvAddr=10.0.0.1:9876;10.0.0.2:9876\r\ndefaultTopicQueueNums=4\r\nautoCreateTopicEnable=true\r\n"
        "autoCreateSubscriptionGroup=true\r\nlistenPort=10911\r\ndeleteWhen=04\r\nfileReservedTime=120\r\n"
        "mapedFileSizeCommitLog=1073741824\r\nmapedFileSizeConsumeQueue=300000\r\n"
        "#destroyMapedFileIntervalForcibly=120000\r\ndiskMaxUsedSpaceRatio=88\r\n"
        "storePathRootDir=/tmp/x\r\nstorePathCommitLog=/tmp/x/commitlog\r\nmaxMessageSize=65536\r\n"
        "brokerRole=ASYNC_MASTER\r\nflushDiskType=ASYNC_FLUSH\r\nsendMessageThreadPoolNums=128\r\n"
    )
    loaded = load_settings(BrokerSettings, file)
    assert loaded.settings.namesrv_addr == "10.0.0.1:9876;10.0.0.2:9876"
    assert loaded.settings.file_reserved_time == 120
    assert [warning.split(": ")[1].split()[0] for warning in loaded.warnings] == [
        "storePathCommitLog",
        "sendMessageThreadPoolNums",
    ]


def test_consume_queue_size_is_rounded_up_to_whole_units() -> None:
    assert broker("mappedFileSizeConsumeQueue=101").mapped_file_size_consume_queue == 120


def test_workers_default_to_the_cores_but_at_least_two() -> None:
    assert broker().broker_workers == max(2, min(29, len(os.sched_getaffinity(0))))
    assert broker("brokerWorkers=1").broker_workers == 1


def test_default_body_limit_shrinks_with_small_segments_but_a_chosen_one_is_an_error() -> None:
    small = broker("mappedFileSizeCommitLog=1048576")
    assert 0 < small.max_message_size < 1 << 20
    with pytest.raises(ConfigFault, match="mappedFileSizeCommitLog"):
        broker("mappedFileSizeCommitLog=1048576", "maxMessageSize=1048576")


def test_settings_survive_pickling_and_cannot_be_changed() -> None:
    settings = broker("brokerName=x")
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.broker_name = "y"  # type: ignore[misc]


def test_default_store_root_is_the_users_data_folder_and_the_broker_name() -> None:
    assert store_root(broker("brokerName=x")) == Path.home() / ".local/share/shmq/x"
    assert store_root(broker("storePathRootDir=/data/s")) == Path("/data/s")


def test_print_shows_every_setting_with_value_and_origin_and_important_ones_only() -> None:
    loaded = load_settings(BrokerSettings, None, ["listenPort=20000"])
    everything, important = list(describe(loaded)), list(describe(loaded, important_only=True))
    assert len(everything) == len(rules(BrokerSettings)) > len(important) > 5
    assert any(line.startswith("listenPort=20000 ") and "argument" in line for line in important)


def test_changed_settings_are_checked_like_loaded_ones() -> None:
    fresh, warnings = changed(broker(), {"fileReservedTime": "48", "what": "1"})
    assert fresh.file_reserved_time == 48
    assert len(warnings) == 1
    with pytest.raises(ConfigFault, match="fileReservedTime"):
        changed(fresh, {"fileReservedTime": "-1"})


@pytest.mark.parametrize(
    ("table", "name"), [(BrokerSettings, "broker.conf"), (NamesrvSettings, "namesrv.conf")]
)
def test_the_commented_files_in_conf_show_every_key_with_its_default(table: type, name: str) -> None:
    shown = {
        entry.key: entry.value
        for entry in parse_properties(
            "\n".join(
                line.removeprefix("#")
                for line in (CONF / name).read_text().splitlines()
                if not line.startswith("# ")
            )
        )
    }
    defaults = {declared.name: declared.default for declared in dataclasses.fields(table)}
    assert shown == {rule.key: value_text(defaults[attribute]) for attribute, rule in rules(table).items()}


def test_as_properties_gives_every_key_as_text() -> None:
    properties = as_properties(broker())
    assert properties["flushDiskType"] == "ASYNC_FLUSH"
    assert properties["brokerIP1"] == ""
    assert properties["autoCreateTopicEnable"] == "true"
