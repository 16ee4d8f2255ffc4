"""A real coordinator: topics and groups made, changed, deleted and resolved; offsets; settings; crashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.topic_config import TopicConfig
from shmq.protocol import fastjson
from shmq.protocol.bodies.groups import decode_group_table, encode_group_config
from shmq.protocol.bodies.offsets import decode_consume_stats, decode_reset_offsets
from shmq.protocol.bodies.tables import decode_kv_table, decode_properties_text
from shmq.protocol.bodies.topics import (
    decode_topic_config,
    decode_topic_list,
    decode_topic_stats,
    decode_topic_table,
    encode_topic_config_list,
)
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization
from shmq.protocol.headers.admin import (
    CloneGroupOffsetHeader,
    CreateTopicHeader,
    DeleteGroupHeader,
    GetAllTopicConfigHeader,
    GetConsumeStatsHeader,
    GetTopicConfigHeader,
    GroupHeader,
    ResetOffsetHeader,
    TopicHeader,
    ViewBrokerStatsHeader,
)
from shmq.protocol.internal import (
    GroupState,
    InternalCode,
    OffsetSlotsHeader,
    ResetTakenHeader,
    ResolveGroupHeader,
    ResolveTopicHeader,
    StatsReport,
    TopicChangedHeader,
)
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.page_layout import POLICY_EPOCH
from shmq.shm.queue_table import QueueTable
from tests.helpers.coordinator_rig import SMALL, CoordinatorRig, FakeWorker, running_coordinator
from tests.helpers.waiting import wait_until


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[CoordinatorRig]:
    with running_coordinator(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorRig]:
    """One coordinator for all tests that only ask, or whose changes disturb no other."""
    with running_coordinator(tmp_path_factory.mktemp("shared")) as made:
        yield made


def create(worker: FakeWorker, topic: str, queues: int = 4, perm: int = 6) -> Command:
    header = CreateTopicHeader(topic, "TBW102", queues, queues, perm, attributes="", force=False)
    return worker.forward(1, RequestCode.UPDATE_AND_CREATE_TOPIC, header)


def delete(worker: FakeWorker, topic: str) -> Command:
    return worker.forward(1, RequestCode.DELETE_TOPIC_IN_BROKER, TopicHeader(topic))


def queue_count(rig: CoordinatorRig, topic: str) -> int:
    rig.directory.catch_up()
    return len(rig.directory.queues(topic))


def saved_topics(rig: CoordinatorRig) -> dict[str, object]:
    found: dict[str, object] = fastjson.loads((rig.layout.config / "topics.json").read_bytes())
    return found


def test_a_topic_is_durable_usable_and_known_to_all_workers_when_the_operator_hears(
    rig: CoordinatorRig,
) -> None:
    one, two = rig.worker(0), rig.worker(1)
    epoch = rig.page.words[POLICY_EPOCH]
    forward = one.start_forward(
        1,
        Command.request(
            RequestCode.UPDATE_AND_CREATE_TOPIC,
            CreateTopicHeader("orders", "TBW102", 3, 5, 6),
            serialization=Serialization.JSON,
        ),
    )
    told = two.take(InternalCode.TOPIC_CHANGED)
    assert told.read_header(TopicChangedHeader) == TopicChangedHeader("orders", False)
    assert TopicConfig.from_json(orjson.loads(told.body_bytes())).write_queue_nums == 5
    assert one.finish(forward).code == ResponseCode.SUCCESS
    assert queue_count(rig, "orders") == 5 and rig.page.words[POLICY_EPOCH] > epoch
    assert "orders" in saved_topics(rig)["topicConfigTable"]  # type: ignore[operator]


@pytest.mark.long
def test_an_operator_waits_for_a_worker_that_does_not_answer_one_second_at_most(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    two.silent = True
    assert create(one, "orders").code == ResponseCode.SUCCESS
    two.take(InternalCode.TOPIC_CHANGED)


@pytest.mark.parametrize(
    ("topic", "queues", "perm", "code"),
    [
        ("bad name", 4, 6, 29),
        ("TBW102", 4, 6, 29),
        ("rig", 4, 6, 29),
        ("t", 0, 6, 29),
        ("t", 4, 9, 29),
        ("t", 60_000, 6, 2),
        ("t", 4, 6, 0),
    ],
)
def test_answers_to_operators(shared: CoordinatorRig, topic: str, queues: int, perm: int, code: int) -> None:
    answer = create(shared.worker(), topic, queues, perm)
    assert answer.code == code
    assert code == 0 or answer.remark


@pytest.mark.long
def test_settings_of_topics_are_listed(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    body = encode_topic_config_list([TopicConfig("a", 1, 1), TopicConfig("b", 2, 2, 4)])
    assert worker.forward(1, RequestCode.UPDATE_AND_CREATE_TOPIC_LIST, body=body).code == 0
    table = decode_topic_table(worker.forward(1, RequestCode.GET_ALL_TOPIC_CONFIG).body)
    assert table.topics["b"].perm == 4 and table.data_version.counter == 2  # the start, and the two together
    page = GetAllTopicConfigHeader(topic_seq=1, max_topic_num=2)
    some = decode_topic_table(worker.forward(1, RequestCode.GET_ALL_TOPIC_CONFIG, page).body)
    assert list(some.topics) == sorted(table.topics)[1:3]
    one = worker.forward(1, RequestCode.GET_TOPIC_CONFIG, GetTopicConfigHeader("b", True))
    assert decode_topic_config(one.body).write_queue_nums == 2
    assert worker.forward(1, RequestCode.GET_TOPIC_CONFIG, GetTopicConfigHeader("no")).code == 17
    assert worker.forward(1, RequestCode.GET_TOPIC_STATS_INFO, TopicHeader("no")).code == 17
    stats = worker.forward(1, RequestCode.GET_TOPIC_STATS_INFO, TopicHeader("b"))
    assert len(decode_topic_stats(stats.body).offset_table) == 2
    listed = worker.forward(1, RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_BROKER)
    assert "TBW102" in decode_topic_list(listed.body)


def test_a_deleted_topic_is_gone_everywhere_and_goes_on_when_made_again(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    create(worker, "orders", 2)
    rig.directory.catch_up()
    table = QueueTable(rig.page)
    table.set_max(rig.directory.queues("orders")[0].slot, 77)
    folder = rig.layout.queue_folder("orders", 0)
    folder.mkdir(parents=True)
    worker.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader("g"))
    worker.call(InternalCode.OFFSET_SLOTS, OffsetSlotsHeader("g", "orders"))
    rig.directory.catch_up()
    slot = rig.directory.offset_slot("g", "orders", 0)
    assert slot is not None
    OffsetSlots(rig.page).commit(slot, 70)
    worker.asked.clear()
    assert delete(worker, "orders").code == 0
    assert worker.take(InternalCode.TOPIC_CHANGED).read_header(TopicChangedHeader).deleted
    assert queue_count(rig, "orders") == 0 and not folder.parent.exists()
    assert OffsetSlots(rig.page).committed(slot) == -1
    assert delete(worker, "orders").code == 0 and delete(worker, "TBW102").code == 29
    create(worker, "orders", 2)
    assert queue_count(rig, "orders") == 2
    assert [table.max(ref.slot) for ref in rig.directory.queues("orders")] == [77, 0]


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["delete.before_claim", "delete.retired", "delete.saved", "delete.unlinked"]
)
def test_a_deletion_cut_off_anywhere_is_finished_by_the_next_start(tmp_path: Path, point: str) -> None:
    rig = CoordinatorRig(tmp_path)
    try:
        rig.start(faults=f"{point}=kill")
        worker = rig.worker()
        create(worker, "orders", 12)
        create(worker, "other", 1)
        rig.directory.catch_up()
        for ref in rig.directory.queues("orders"):
            QueueTable(rig.page).set_max(ref.slot, 100 + ref.queue_id)
        folder = rig.layout.queue_folder("orders", 3)
        folder.mkdir(parents=True)
        with pytest.raises(ConnectionResetError):
            delete(worker, "orders")
        assert rig.process is not None and rig.process.wait(10) == -9
        rig.start()
        assert queue_count(rig, "orders") == 0 and queue_count(rig, "other") == 1
        assert not folder.parent.exists()
        assert saved_topics(rig)["shmqDeletedTopics"] == {"orders": [100 + n for n in range(12)]}
        create(rig.worker(1), "orders", 1)
        rig.directory.catch_up()
        assert QueueTable(rig.page).max(rig.directory.queues("orders")[0].slot) == 100
    finally:
        rig.close()


@pytest.mark.long
def test_a_creation_cut_off_is_finished_by_the_next_start(tmp_path: Path) -> None:
    rig = CoordinatorRig(tmp_path)
    try:
        rig.start(faults="topic.saved=kill")
        with pytest.raises(ConnectionResetError):
            create(rig.worker(), "orders", 3)
        assert rig.process is not None and rig.process.wait(10) == -9
        rig.start()
        assert queue_count(rig, "orders") == 3
        assert create(rig.worker(1), "orders", 3).code == 0
    finally:
        rig.close()


@pytest.mark.long
def test_a_worker_gets_a_topic_made_for_a_send(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    header = ResolveTopicHeader("orders", "TBW102", 4, 0, True)
    answer = one.call(InternalCode.RESOLVE_TOPIC, header)
    assert TopicConfig.from_json(orjson.loads(answer.body_bytes())).write_queue_nums == 4
    assert queue_count(rig, "orders") == 4
    two.take(InternalCode.TOPIC_CHANGED)
    again = ResolveTopicHeader("orders", "TBW102", 8, 0, True)
    answer = two.call(InternalCode.RESOLVE_TOPIC, again)
    assert TopicConfig.from_json(orjson.loads(answer.body_bytes())).write_queue_nums == 4


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (ResolveTopicHeader("no", "TBW102", 4, 0, False), 17),
        (ResolveTopicHeader("no", "nosuch", 4, 0, True), 17),
        (ResolveTopicHeader("bad name", "TBW102", 4, 0, True), 29),
        (ResolveTopicHeader("no", "BenchmarkTest", 4, 0, True), 17),
    ],
)
def test_a_worker_is_told_why_there_is_no_topic(
    shared: CoordinatorRig, header: ResolveTopicHeader, code: int
) -> None:
    answer = shared.worker().call(InternalCode.RESOLVE_TOPIC, header)
    assert answer.code == code and answer.remark


@pytest.mark.long
def test_groups_are_resolved_changed_and_deleted(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    state = GroupState.decode(one.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader("g")).body_bytes())
    assert state.config["groupName"] == "g" and state.members == 0
    two.take(InternalCode.GROUP_CHANGED)
    body = encode_group_config(SubscriptionGroupConfig("g", consume_enable=False))
    assert one.forward(1, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, body=body).code == 0
    told = GroupState.decode(two.take(InternalCode.GROUP_CHANGED).body_bytes())
    assert told.config["consumeEnable"] is False
    found = one.forward(1, RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG, GroupHeader("g"))
    assert orjson.loads(found.body_bytes())["consumeEnable"] is False
    table = decode_group_table(one.forward(1, RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG).body)
    assert "g" in table.groups
    assert one.forward(1, RequestCode.DELETE_SUBSCRIPTIONGROUP, DeleteGroupHeader("g")).code == 0
    assert not two.take(InternalCode.GROUP_CHANGED).body_bytes()
    table = decode_group_table(one.forward(1, RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG).body)
    assert "g" not in table.groups


@pytest.mark.long
def test_registries_survive_a_crash_and_a_fresh_worker_gets_them(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    create(worker, "orders", 3)
    worker.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader("g"))
    rig.kill()
    rig.start()
    fresh = rig.worker(1, hello=False)
    snapshot = fresh.hello()
    assert snapshot.topics["orders"]["readQueueNums"] == 3 and "g" in snapshot.groups
    assert queue_count(rig, "orders") == 3


def stored(rig: CoordinatorRig, worker: FakeWorker, group: str, offsets: dict[int, int]) -> None:
    """What a group has committed in topic `orders` of four queues with 100 messages each."""
    create(worker, "orders", 4)
    rig.directory.catch_up()
    for ref in rig.directory.queues("orders"):
        QueueTable(rig.page).set_max(ref.slot, 100)
    worker.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader(group))
    assert worker.call(InternalCode.OFFSET_SLOTS, OffsetSlotsHeader(group, "orders")).code == 0
    rig.directory.catch_up()
    for queue_id, offset in offsets.items():
        slot = rig.directory.offset_slot(group, "orders", queue_id)
        assert slot is not None
        OffsetSlots(rig.page).commit(slot, offset)


@pytest.mark.long
def test_commits_reach_the_file_while_running_and_at_the_end(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    stored(rig, worker, "g", {0: 5, 3: 7})
    path = rig.layout.config / "consumerOffset.json"

    def exported() -> object:
        return fastjson.loads(path.read_bytes())["offsetTable"] if path.exists() else None

    rig.settings = replace(rig.settings)
    assert rig.stop() == 0
    assert exported() == {"orders@g": {0: 5, 3: 7}}
    rig.start()
    slot = rig.directory.offset_slot("g", "orders", 0)
    assert slot is not None
    OffsetSlots(rig.page).commit(slot, 9)
    wait_until(lambda: exported() == {"orders@g": {0: 9, 3: 7}}, 15)


def test_offset_slots_need_topic_and_group(shared: CoordinatorRig) -> None:
    worker = shared.worker()
    assert worker.call(InternalCode.OFFSET_SLOTS, OffsetSlotsHeader("nogroup", "no")).code == 17
    create(worker, "orders")
    assert worker.call(InternalCode.OFFSET_SLOTS, OffsetSlotsHeader("nogroup", "orders")).code == 26


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (ResetOffsetHeader("g", "orders", -1, True), {0: 0, 1: 0, 2: 0, 3: 0}),
        (ResetOffsetHeader("g", "orders", 0, False, 0, 0), {0: 0}),
        (ResetOffsetHeader("g", "orders", 0, True, 9, -1), 17),
        (ResetOffsetHeader("g", "orders", 0, True, 0, 101), 29),
        (ResetOffsetHeader("g", "no", 0, True), 17),
        (ResetOffsetHeader("no", "orders", 0, True), 26),
    ],
)
def test_resetting(shared: CoordinatorRig, header: ResetOffsetHeader, expected: dict[int, int] | int) -> None:
    worker = shared.worker()
    create(worker, "orders", 4)
    worker.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader("g"))
    answer = worker.forward(1, RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, header)
    if isinstance(expected, int):
        assert answer.code == expected and answer.remark
        return
    found = {queue.queue_id: offset for queue, offset in decode_reset_offsets(answer.body).items()}
    assert found == expected


def test_a_reset_is_stored_told_to_workers_and_forgotten_once_taken(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    create(worker, "orders", 2)
    worker.call(InternalCode.RESOLVE_GROUP, ResolveGroupHeader("g"))
    worker.asked.clear()
    header = ResetOffsetHeader("g", "orders", -1, True)
    assert worker.forward(1, RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, header).code == 0
    state = GroupState.decode(worker.take(InternalCode.GROUP_CHANGED).body_bytes())
    assert state.resets == {"orders": {0: 0, 1: 0}}
    rig.directory.catch_up()
    slot = rig.directory.offset_slot("g", "orders", 1)
    assert slot is not None and OffsetSlots(rig.page).committed(slot) == 0
    worker.tell(InternalCode.RESET_TAKEN, ResetTakenHeader("g", "orders", 1, 0))
    state = GroupState.decode(worker.take(InternalCode.GROUP_CHANGED).body_bytes())
    assert state.resets == {"orders": {0: 0}}


@pytest.mark.long
def test_offsets_are_cloned_and_shown(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    stored(rig, worker, "g", {0: 5, 1: 9})
    assert worker.forward(1, RequestCode.CLONE_GROUP_OFFSET, CloneGroupOffsetHeader("g", "h")).code == 0
    for group in ("g", "h"):
        answer = worker.forward(1, RequestCode.GET_CONSUME_STATS, GetConsumeStatsHeader(group))
        rows = {queue.queue_id: row for queue, row in decode_consume_stats(answer.body).offset_table.items()}
        assert {queue_id: row.consumer_offset for queue_id, row in rows.items()} == {0: 5, 1: 9, 2: 0, 3: 0}
    answer = worker.forward(1, RequestCode.GET_CONSUME_STATS, GetConsumeStatsHeader("nosuch"))
    assert answer.code == 0 and decode_consume_stats(answer.body).offset_table == {}


@pytest.mark.long
def test_what_workers_counted_is_shown(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    report = StatsReport(puts={"orders": (10, 1000)}, gets={("orders", "g"): (4, 400)}, found=1)
    worker.tell(InternalCode.STATS, None, report.encode())
    found = decode_kv_table(worker.forward(1, RequestCode.GET_BROKER_RUNTIME_INFO).body)
    assert found["msgPutTotalTodayNow"] == "10" and found["msgGetTotalTodayNow"] == "4"
    assert found["brokerActive"] == "true" and found["commitLogMaxOffset"] == "0"
    item = worker.forward(
        1, RequestCode.VIEW_BROKER_STATS_DATA, ViewBrokerStatsHeader("GROUP_GET_NUMS", "orders@g")
    )
    assert orjson.loads(item.body_bytes())["statsMinute"]["sum"] == 4
    miss = worker.forward(1, RequestCode.VIEW_BROKER_STATS_DATA, ViewBrokerStatsHeader("X", "y"))
    assert miss.code == 1


@pytest.mark.long
def test_only_settings_of_the_allow_list_are_changed_from_afar(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    change = RequestCode.UPDATE_BROKER_CONFIG
    assert worker.forward(1, change, body=b"autoCreateTopicEnable=false\n").code == 0
    worker.take(InternalCode.SETTING_CHANGED)
    answer = worker.call(InternalCode.RESOLVE_TOPIC, ResolveTopicHeader("no", "TBW102", 4, 0, True))
    assert answer.code == 17
    assert worker.forward(1, change, body=b"storePathRootDir=/tmp/x\n").code == 16
    assert worker.forward(1, change, body=b"rubbish").code == 29
    found = worker.forward(1, RequestCode.GET_BROKER_CONFIG)
    assert decode_properties_text(found.body)["autoCreateTopicEnable"] == "false"
    assert found.ext_value("version")


@pytest.mark.long
def test_unknown_requests_are_answered_and_rubbish_ends_one_link_only(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    assert one.forward(1, 9999).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
    one.tell(30199)
    with pytest.raises(ConnectionResetError):
        while True:
            one.pump(5)
    assert create(two, "orders").code == 0
    stranger = rig.worker(2, hello=False)
    stranger.tell(InternalCode.STATS, None, StatsReport().encode())
    with pytest.raises(ConnectionResetError):
        stranger.pump(5)


@pytest.mark.long
def test_the_end_of_the_supervisor_is_the_end_of_the_coordinator(tmp_path: Path) -> None:
    rig = CoordinatorRig(tmp_path, replace(SMALL, namesrv_addr=""))
    try:
        rig.start()
        rig.lose_supervisor()
        assert rig.process is not None and rig.process.wait(5) == 79
    finally:
        rig.close()
