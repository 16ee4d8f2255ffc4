"""Pulls from a real worker: found, filtered, held, woken, refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shmq.model.message_ext import MessageExt
from shmq.model.record import iter_records
from shmq.model.settings import FlushDiskType
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.offset import (
    GetEarliestMsgStoretimeHeader,
    GetMaxOffsetHeader,
    GetMinOffsetHeader,
    OffsetResponseHeader,
    QueryConsumerOffsetHeader,
    SearchOffsetHeader,
    TimestampResponseHeader,
    UpdateConsumerOffsetHeader,
)
from shmq.protocol.headers.pull import PullMessageResponseHeader
from shmq.protocol.headers.query import ViewMessageHeader
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.shm.counters import totals
from tests.helpers.waiting import wait_until
from tests.helpers.worker_rig import SMALL, Client, WorkerRig, pull_request, running_rig, send_request

SUSPEND = 2 | 4
COMMIT = 1 | 4


@pytest.fixture(scope="module")
def rig() -> Iterator[WorkerRig]:
    with running_rig(topics=27, workers=2) as running:
        running.coordinator.add_group("LIVE", {"T0": "TagA", "T1": "*"})
        running.coordinator.tell_group("LIVE")
        yield running


@pytest.fixture
def client(rig: WorkerRig) -> Iterator[Client]:
    with rig.client() as connected:
        yield connected


@pytest.fixture
def other(rig: WorkerRig) -> Iterator[Client]:
    """A second connection: on the other worker, as connections are spread."""
    with rig.client() as connected:
        yield connected


def put(client: Client, topic: str, count: int = 1, tag: str = "", size: int = 10, queue_id: int = 0) -> None:
    properties = f"TAGS\x01{tag}\x02UNIQ_KEY\x01U\x02" if tag else "UNIQ_KEY\x01U\x02"
    for n in range(count):
        body = (b"%d " % n).ljust(size, b".")
        answer = client.call(send_request(topic, body, properties=properties, queue_id=queue_id))
        assert answer.code == 0, answer.remark


def hold(client: Client, pull: Command) -> Command | None:
    """Send a pull: its answer, or None when the worker holds it, as what follows it was answered first."""
    following = Command.request(30, GetMaxOffsetHeader("T0", 0))
    client.send(pull)
    client.send(following)
    first = client.receive()
    if first.opaque == following.opaque:
        return None
    assert client.receive().opaque == following.opaque
    return first


def messages(answer: Command) -> list[MessageExt]:
    assert answer.code == ResponseCode.SUCCESS, (answer.code, answer.remark)
    return [MessageExt(record) for record in iter_records(answer.body_bytes())]


def offsets_of(answer: Command) -> tuple[int, int, int]:
    header = answer.read_header(PullMessageResponseHeader)
    assert header.suggest_which_broker_id == 0
    return header.next_begin_offset, header.min_offset, header.max_offset


def test_a_pull_returns_messages_in_order_and_where_to_go_on(client: Client) -> None:
    put(client, "T2", 40)
    first = client.call(pull_request("T2"))
    assert [m.queue_offset for m in messages(first)] == list(range(32))
    assert offsets_of(first) == (32, 0, 40)
    rest = client.call(pull_request("T2", 32))
    assert len(messages(rest)) == 8 and offsets_of(rest) == (40, 0, 40)


def test_a_pull_stays_within_256_kib_but_returns_at_least_one_message(client: Client) -> None:
    put(client, "T3", 12, size=32 << 10)
    put(client, "T3", 1, size=1 << 20)
    answer = client.call(pull_request("T3"))
    assert 200_000 < len(answer.body_bytes()) <= 256 << 10
    assert len(messages(client.call(pull_request("T3", 12)))) == 1


def test_shmqs_own_client_may_take_more_at_once(client: Client) -> None:
    put(client, "T4", 100)
    answer = client.call(pull_request("T4", count=1000, serialization=2, max_msg_bytes=1 << 20))
    assert len(messages(answer)) == 100


@pytest.mark.parametrize(
    ("topic", "offset", "code", "next_offset"),
    [("T5", 0, 19, 0), ("T5", 5, 21, 0), ("T6", 3, 19, 3), ("T6", 7, 21, 3)],
    ids=["empty queue from its start", "empty queue elsewhere", "at the end", "beyond the end"],
)
def test_pulls_without_messages_say_why(
    rig: WorkerRig, client: Client, topic: str, offset: int, code: int, next_offset: int
) -> None:
    if topic == "T6":  # by whichever case comes first
        put(client, topic, 3 - offsets_of(client.call(pull_request(topic)))[2])
    answer = client.call(pull_request(topic, offset))
    assert answer.code == code
    assert offsets_of(answer)[0] == next_offset


def test_only_wanted_tags_are_returned_and_the_offset_passes_the_others(client: Client) -> None:
    for tag in ("TagA", "TagB", "TagA", "", "TagC"):
        put(client, "T7", 1, tag)
    found = client.call(pull_request("T7", expression="TagA || TagC"))
    assert [m.tags for m in messages(found)] == ["TagA", "TagA", "TagC"]
    nothing = client.call(pull_request("T7", expression="TagX"))
    assert nothing.code == ResponseCode.PULL_RETRY_IMMEDIATELY
    assert offsets_of(nothing)[0] == 5


def test_the_live_subscription_decides_when_the_pull_brings_none(rig: WorkerRig, client: Client) -> None:
    put(client, "T0", 1, "TagB")
    put(client, "T0", 1, "TagA")
    answer = client.call(pull_request("T0", group="LIVE", sys_flag=0, expression=None))
    assert [m.tags for m in messages(answer)] == ["TagA"]


REFUSED = [
    ("queue id out of range", {"queue_id": 4}, 29),
    ("an expression without tags", {"expression": "||"}, 23),
    ("SQL that does not compile", {"expression": "a >", "expression_type": "SQL92"}, 23),
    ("an unknown kind of expression", {"expression": "a", "expression_type": "XPATH"}, 23),
    ("no live member", {"group": "DEAD", "sys_flag": 0}, 24),
    ("no subscription of that topic", {"group": "LIVE", "sys_flag": 0, "topic": "T9"}, 24),
    (
        "a newer subscription than known",
        {"group": "LIVE", "sys_flag": 0, "topic": "T1", "sub_version": 99},
        25,
    ),
    ("an unknown topic", {"topic": "Nowhere"}, 17),
]


@pytest.mark.parametrize(("changes", "code"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_pull_is_refused_with_its_code(client: Client, changes: dict[str, object], code: int) -> None:
    answer = client.call(pull_request(**changes))  # type: ignore[arg-type]
    assert answer.code == code and answer.remark


def test_an_unknown_group_without_auto_creation_is_26(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.auto_create = False
    try:
        assert client.call(pull_request(group="NOBODY")).code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
    finally:
        rig.coordinator.auto_create = True


def test_a_topic_without_read_permission_is_16(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.topics["T10"].perm = 2
    rig.coordinator.tell_topic(rig.coordinator.topics["T10"])
    assert client.call(pull_request("T10")).code == ResponseCode.NO_PERMISSION


def test_a_held_pull_is_answered_when_a_message_is_sent_through_another_worker(
    client: Client, other: Client
) -> None:
    assert not hold(client, pull_request("T11", sys_flag=SUSPEND, suspend_ms=15000))
    put(other, "T11", 1)
    began = time.monotonic()
    assert len(messages(client.receive())) == 1
    assert time.monotonic() - began < 0.5


def test_many_held_pulls_are_woken_one_by_one_without_loss(client: Client, other: Client) -> None:
    for n in range(300):
        client.send(pull_request("T12", n, sys_flag=SUSPEND, suspend_ms=15000))
        put(other, "T12", 1)
        assert [m.queue_offset for m in messages(client.receive())] == [n]


def test_a_held_pull_is_answered_19_when_its_time_is_over(client: Client) -> None:
    began = time.monotonic()
    answer = client.call(pull_request("T13", sys_flag=SUSPEND, suspend_ms=300))
    assert answer.code == ResponseCode.PULL_NOT_FOUND
    assert 0.25 <= time.monotonic() - began < 1.5
    assert offsets_of(answer)[0] == 0


def test_a_held_pull_for_one_tag_is_not_woken_by_another_and_its_offset_advances(
    client: Client, other: Client
) -> None:
    assert not hold(client, pull_request("T14", sys_flag=SUSPEND, suspend_ms=700, expression="TagA"))
    put(other, "T14", 3, "TagB")
    answer = client.receive()
    assert answer.code == ResponseCode.PULL_RETRY_IMMEDIATELY
    assert offsets_of(answer)[0] == 3
    assert not hold(client, pull_request("T14", 3, sys_flag=SUSPEND, suspend_ms=15000, expression="TagA"))
    put(other, "T14", 1, "TagB")
    put(other, "T14", 1, "TagA")
    assert [m.queue_offset for m in messages(client.receive())] == [4]


def test_held_pulls_of_a_closed_connection_are_forgotten(
    rig: WorkerRig, client: Client, other: Client
) -> None:
    def closed() -> int:
        return totals(rig.page)["connections_closed"]

    with rig.client() as leaving:
        for queue_id in range(4):
            waits = pull_request("T15", queue_id=queue_id, sys_flag=SUSPEND, suspend_ms=15000)
            assert not hold(leaving, waits)
        before = closed()
    wait_until(lambda: closed() > before, 10, "the worker has noticed")
    for queue_id in range(4):
        put(other, "T15", 1, queue_id=queue_id)
    assert len(messages(client.call(pull_request("T15")))) == 1


def test_a_held_pull_is_answered_when_its_topic_is_deleted(rig: WorkerRig, client: Client) -> None:
    assert not hold(client, pull_request("T16", sys_flag=SUSPEND, suspend_ms=15000))
    rig.coordinator.tell_topic(rig.coordinator.topics.pop("T16"), deleted=True)
    assert client.receive().code == ResponseCode.TOPIC_NOT_EXIST


@pytest.mark.long
@pytest.mark.parametrize("serialization", [0, 1, 2], ids=["json", "binary", "cbor"])
def test_a_pull_that_goes_on_is_answered_like_a_new_one(
    rig: WorkerRig, client: Client, other: Client, serialization: int
) -> None:
    """The same connection pulls again and again, beside connections that pull for the first time."""
    topic, offset = f"T{24 + serialization}", 0
    readable = rig.coordinator.topics[topic]

    def forbid() -> None:
        rig.coordinator.tell_topic(replace(readable, perm=2))

    def allow() -> None:
        rig.coordinator.tell_topic(readable)

    def nothing() -> None:
        pass

    def unwanted() -> None:
        put(other, topic, 1, "TagB")

    def wanted() -> None:
        put(other, topic, 1, "TagA")

    between = [nothing, nothing, unwanted, nothing, nothing, wanted, nothing, forbid, allow, nothing, nothing]
    meanwhile = [unwanted, nothing, wanted, nothing, nothing, forbid, nothing]
    codes = []
    for before, after in [(one, nothing) for one in between] + [(nothing, one) for one in meanwhile]:
        before()
        pull = pull_request(
            *(topic, offset),
            sys_flag=SUSPEND | COMMIT,
            commit_offset=offset,
            suspend_ms=200,
            expression="TagA",
            serialization=serialization,
        )
        with rig.client() as fresh:
            new, old = hold(fresh, pull), hold(client, pull)
            after()
            old, new = old or client.receive(), new or fresh.receive()
        assert (old.code, old.remark, old.body_bytes()) == (new.code, new.remark, new.body_bytes())
        codes.append(old.code)
        if old.code != ResponseCode.NO_PERMISSION:
            assert offsets_of(old) == offsets_of(new)
            offset = offsets_of(old)[0]
    allow()
    assert codes == [19, 19, 20, 19, 19, 0, 19, 16, 19, 19, 19, 20, 19, 0, 19, 19, 16, 16]
    stored = other.call(Command.request(14, QueryConsumerOffsetHeader("CG", topic, 0)))
    assert stored.read_header(OffsetResponseHeader).offset == offset == 4


def test_without_long_polling_an_idle_pull_is_answered_after_the_short_polling_time() -> None:
    settings = replace(SMALL, long_polling_enable=False, short_polling_time_mills=200)
    with running_rig(settings) as rig, rig.client() as client:
        began = time.monotonic()
        answer = client.call(pull_request(sys_flag=SUSPEND, suspend_ms=15000))
        assert answer.code == ResponseCode.PULL_NOT_FOUND
        assert 0.15 <= time.monotonic() - began < 1.5


def test_under_sync_flush_a_held_pull_is_answered_after_the_flush() -> None:
    settings = replace(SMALL, flush_disk_type=FlushDiskType.SYNC_FLUSH)
    with running_rig(settings, workers=2) as rig, rig.client() as consumer, rig.client() as producer:
        for n in range(50):
            consumer.send(pull_request("T0", n, sys_flag=SUSPEND, suspend_ms=15000))
            producer.send(send_request("T0"))
            assert [m.queue_offset for m in messages(consumer.receive())] == [n]
            assert producer.receive().code == 0


def test_a_pull_commits_the_offset_it_carries(rig: WorkerRig, client: Client, other: Client) -> None:
    put(client, "T17", 5)
    client.call(pull_request("T17", 3, sys_flag=COMMIT, commit_offset=3, group="PC"))
    answer = other.call(Command.request(14, QueryConsumerOffsetHeader("PC", "T17", 0)))
    assert answer.read_header(OffsetResponseHeader).offset == 3


def test_offsets_are_stored_and_found_on_every_worker(rig: WorkerRig, client: Client, other: Client) -> None:
    query = QueryConsumerOffsetHeader("OG", "T18", 2, set_zero_if_not_found=False)
    assert client.call(Command.request(14, query)).code == ResponseCode.QUERY_NOT_FOUND
    assert client.call(Command.request(15, UpdateConsumerOffsetHeader("OG", "T18", 2, 11))).code == 0
    for asked in (client, other):
        assert asked.call(Command.request(14, query)).read_header(OffsetResponseHeader).offset == 11
    assert client.call(Command.request(15, UpdateConsumerOffsetHeader("OG", "T18", 2, -1))).code == 0
    assert other.call(Command.request(14, query)).read_header(OffsetResponseHeader).offset == 11


def test_a_young_queue_counts_from_its_start_for_a_group_without_offset(client: Client) -> None:
    answer = client.call(Command.request(14, QueryConsumerOffsetHeader("NEWGROUP", "T18", 0)))
    assert answer.read_header(OffsetResponseHeader).offset == 0


def test_positions_of_a_queue(client: Client) -> None:
    put(client, "T19", 7)

    def ask(code: int, header: object) -> Command:
        return client.call(Command.request(code, header))

    assert ask(30, GetMaxOffsetHeader("T19", 0)).read_header(OffsetResponseHeader).offset == 7
    assert ask(31, GetMinOffsetHeader("T19", 0)).read_header(OffsetResponseHeader).offset == 0
    assert ask(29, SearchOffsetHeader("T19", 0, 0)).read_header(OffsetResponseHeader).offset == 0
    late = int(time.time() * 1000) + 60_000
    assert ask(29, SearchOffsetHeader("T19", 0, late)).read_header(OffsetResponseHeader).offset == 7
    stored = ask(32, GetEarliestMsgStoretimeHeader("T19", 0)).read_header(TimestampResponseHeader).timestamp
    assert abs(stored - time.time() * 1000) < 60_000
    assert (
        ask(32, GetEarliestMsgStoretimeHeader("T19", 1)).read_header(TimestampResponseHeader).timestamp == -1
    )
    assert ask(30, GetMaxOffsetHeader("T19", 9)).code == ResponseCode.INVALID_PARAMETER
    assert ask(30, GetMaxOffsetHeader("Nowhere", 0)).code == ResponseCode.TOPIC_NOT_EXIST


def test_a_message_is_found_by_its_physical_offset(client: Client) -> None:
    sent = client.call(send_request("T20", b"find me")).read_header(SendMessageResponseHeader)
    assert sent.physical_offset is not None
    found = client.call(Command.request(33, ViewMessageHeader(sent.physical_offset)))
    assert MessageExt(memoryview(found.body_bytes())).body == b"find me"
    missing = client.call(Command.request(33, ViewMessageHeader(sent.physical_offset + 1)))
    assert missing.code == ResponseCode.SYSTEM_ERROR and missing.remark
