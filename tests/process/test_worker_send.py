"""Sends to a real worker: what is stored, what is answered, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from shmq.model.message_ext import MessageExt
from shmq.model.message_id import parse_offset_message_id
from shmq.model.record import iter_records
from shmq.model.settings import BrokerRole, FlushDiskType
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.pull import PullMessageResponseHeader
from shmq.protocol.headers.send import SendMessageResponseHeader
from tests.helpers.worker_rig import SMALL, Client, WorkerRig, pull_request, running_rig, send_request

JSON, ROCKETMQ, CBOR = 0, 1, 2


@pytest.fixture(scope="module")
def rig() -> Iterator[WorkerRig]:
    with running_rig(topics=12) as running:
        yield running


@pytest.fixture
def client(rig: WorkerRig) -> Iterator[Client]:
    with rig.client() as connected:
        yield connected


def sent(answer: Command) -> SendMessageResponseHeader:
    assert answer.code == ResponseCode.SUCCESS, answer.remark
    return answer.read_header(SendMessageResponseHeader)


def stored(client: Client, topic: str, queue_offset: int, queue_id: int = 0) -> list[MessageExt]:
    answer = client.call(pull_request(topic, queue_offset, queue_id=queue_id))
    assert answer.code == ResponseCode.SUCCESS, answer.remark
    return [MessageExt(record) for record in iter_records(answer.body_bytes())]


@pytest.mark.parametrize("serialization", [JSON, ROCKETMQ, CBOR])
@pytest.mark.parametrize("code", [10, 310])
def test_a_message_is_stored_as_it_was_sent(client: Client, serialization: int, code: int) -> None:
    request = send_request(
        "T0", b"body of mine", flag=7, properties="KEYS\x01k1 k2\x02TAGS\x01A\x02UNIQ_KEY\x01U1\x02"
    )
    request.code, request.serialization = code, serialization
    header = sent(client.call(request))
    (message,) = stored(client, "T0", header.queue_offset)
    assert (message.body, message.flag, message.topic) == (b"body of mine", 7, "T0")
    assert (message.queue_id, message.queue_offset) == (0, header.queue_offset)
    assert message.properties["KEYS"] == "k1 k2"
    assert message.properties["UNIQ_KEY"] == "U1"
    assert message.properties["CLUSTER"] == "DefaultCluster"
    assert message.properties["MSG_REGION"] == "DefaultRegion"
    assert message.properties["TRACE_ON"] == "true"
    assert message.tags == "A"
    assert message.body_crc_ok()


def test_the_answer_to_a_rocketmq_client_names_the_offset_message_id_and_the_unique_key(
    rig: WorkerRig, client: Client
) -> None:
    answer = client.call(send_request(serialization=JSON, properties="UNIQ_KEY\x01MYKEY\x02"))
    header = sent(answer)
    host, physical_offset = parse_offset_message_id(header.msg_id)
    assert host == bytes([127, 0, 0, 1]) + rig.tcp_port.to_bytes(4, "big")
    (message,) = stored(client, "T0", header.queue_offset)
    assert message.physical_offset == physical_offset
    assert header.transaction_id == "MYKEY"
    assert (
        answer.ext is not None
        and answer.ext["MSG_REGION"] == "DefaultRegion"
        and answer.ext["TRACE_ON"] == "true"
    )


def test_a_missing_unique_key_is_made_by_the_broker(client: Client) -> None:
    header = sent(client.call(send_request(properties="", serialization=JSON)))
    (message,) = stored(client, "T0", header.queue_offset)
    assert len(message.properties["UNIQ_KEY"]) == 32
    assert header.transaction_id == message.properties["UNIQ_KEY"]


def test_a_message_sent_again_does_not_carry_the_first_brokers_properties_twice(client: Client) -> None:
    again = "UNIQ_KEY\x01U\x02CLUSTER\x01other\x02MSG_REGION\x01X\x02POP_CK\x01ck\x02"
    header = sent(client.call(send_request(properties=again)))
    (message,) = stored(client, "T0", header.queue_offset)
    assert message.properties["CLUSTER"] == "DefaultCluster"
    assert "POP_CK" not in message.properties


def test_queue_offsets_follow_each_other_and_other_queues_have_their_own(client: Client) -> None:
    first = [sent(client.call(send_request("T1"))).queue_offset for _ in range(3)]
    assert first == [0, 1, 2]
    assert sent(client.call(send_request("T1", queue_id=1))).queue_offset == 0


def test_a_negative_queue_id_takes_the_queues_in_turn(client: Client) -> None:
    chosen = [sent(client.call(send_request("T2", queue_id=-1))).queue_id for _ in range(8)]
    assert sorted(chosen) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_many_sends_in_one_write_are_answered_in_order(client: Client) -> None:
    requests = [send_request("T3", b"%d" % n) for n in range(300)]
    for request in requests:
        client.send(request)
    answers = [client.receive() for _ in requests]
    assert [a.opaque for a in answers] == [r.opaque for r in requests]
    assert [sent(a).queue_offset for a in answers] == list(range(300))


def test_a_oneway_send_is_stored_and_not_answered(client: Client) -> None:
    oneway = send_request("T4", b"silent")
    oneway.flag = 2
    client.send(oneway)
    assert sent(client.call(send_request("T4", b"loud"))).queue_offset == 1
    assert [m.body for m in stored(client, "T4", 0)] == [b"silent", b"loud"]


REFUSED = [
    ("an empty body", {"body": b""}, 13, "empty"),
    ("a body over maxMessageSize", {"body": bytes(4194305)}, 13, "4194304"),
    ("properties over 32,767 bytes", {"properties": "k\x01" + "v" * 32766 + "\x02"}, 13, "32767"),
    ("a NUL in the properties", {"properties": "k\x01a\0b\x02"}, 13, "NUL"),
    ("a topic with a dot", {"topic": "a.b"}, 29, "illegal"),
    ("a topic with a blank", {"topic": "a b"}, 29, "illegal"),
    ("an empty topic", {"topic": ""}, 29, "blank"),
    ("a topic of 128 characters", {"topic": "t" * 128}, 29, "127"),
    ("the schedule topic", {"topic": "SCHEDULE_TOPIC_XXXX"}, 16, "belongs to the broker"),
    ("the half message topic", {"topic": "RMQ_SYS_TRANS_HALF_TOPIC"}, 16, "belongs to the broker"),
    ("a system topic", {"topic": "rmq_sys_wheel_timer"}, 16, "belongs to the broker"),
    ("a queue id out of range", {"queue_id": 4}, 29, "0..3"),
    ("a half message of no group", {"properties": "TRAN_MSG\x01true\x02"}, 13, "PGROUP"),
]


@pytest.mark.parametrize("serialization", [JSON, CBOR])
@pytest.mark.parametrize(("changes", "code", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_send_is_refused_with_the_code_and_a_sentence(
    client: Client, changes: dict[str, object], code: int, words: str, serialization: int
) -> None:
    answer = client.call(send_request(serialization=serialization, **changes))  # type: ignore[arg-type]
    assert answer.code == code
    assert words in (answer.remark or "")
    sent(client.call(send_request()))


def test_the_largest_body_is_accepted(client: Client) -> None:
    header = sent(client.call(send_request("T5", bytes(4194304))))
    assert len(stored(client, "T5", header.queue_offset)[0].body) == 4194304


def test_a_topic_of_127_characters_is_accepted(rig: WorkerRig, client: Client) -> None:
    sent(client.call(send_request("t" * 127)))


def test_an_unknown_topic_is_resolved_once_for_all_who_wait(rig: WorkerRig, client: Client) -> None:
    requests = [send_request("Fresh", b"%d" % n) for n in range(50)]
    for request in requests:
        client.send(request)
    assert sorted(sent(client.receive()).queue_offset for _ in requests) == list(range(50))


def test_an_unknown_topic_without_auto_creation_is_17(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.auto_create = False
    try:
        answer = client.call(send_request("Nowhere"))
    finally:
        rig.coordinator.auto_create = True
    assert answer.code == ResponseCode.TOPIC_NOT_EXIST


def test_a_topic_without_write_permission_is_16(rig: WorkerRig, client: Client) -> None:
    config = rig.coordinator.topics["T6"]
    config.perm = 4
    rig.coordinator.tell_topic(config)
    answer = client.call(send_request("T6"))
    assert answer.code == ResponseCode.NO_PERMISSION and "write permission" in (answer.remark or "")


def batch_request(topic: str, elements: list[BatchElement], **changes: object) -> Command:
    return send_request(topic, encode_batch_elements(elements), code=320, batch=True, **changes)  # type: ignore[arg-type]


def test_a_rocketmq_batch_is_stored_as_single_messages_with_consecutive_offsets(client: Client) -> None:
    elements = [
        BatchElement(b"m%d" % n, b"UNIQ_KEY\x01U%d\x02TAGS\x01G%d\x02KEYS\x01k%d" % (n, n, n))
        for n in range(3)
    ]
    header = sent(client.call(batch_request("T7", elements, serialization=JSON)))
    messages = stored(client, "T7", header.queue_offset)
    assert [m.body for m in messages] == [b"m0", b"m1", b"m2"]
    assert [m.tags for m in messages] == ["G0", "G1", "G2"]
    assert [m.keys for m in messages] == ["k0", "k1", "k2"]
    assert [m.queue_offset for m in messages] == [0, 1, 2]
    assert header.msg_id == ",".join(m.offset_msg_id for m in messages)


@pytest.mark.parametrize("damage", ["cut", "size", "body_length", "properties_length"])
def test_a_batch_whose_lengths_do_not_fit_is_13(client: Client, damage: str) -> None:
    body = bytearray(encode_batch_elements([BatchElement(b"hello", b"k\x01v\x02")]))
    if damage == "cut":
        del body[-1]
    else:
        position = {"size": 0, "body_length": 16, "properties_length": 25}[damage]
        body[position] ^= 0x10
    assert client.call(send_request("T7", bytes(body), code=320)).code == ResponseCode.MESSAGE_ILLEGAL


def test_a_batch_to_a_retry_topic_is_refused(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.add_topic("%RETRY%g", 1)
    rig.coordinator.add_group("g")
    answer = client.call(batch_request("%RETRY%g", [BatchElement(b"x", b"")]))
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL


def test_sync_flush_answers_when_the_disk_has_it_and_not_waiting_answers_at_once() -> None:
    with running_rig(replace(SMALL, flush_disk_type=FlushDiskType.SYNC_FLUSH)) as rig, rig.client() as client:
        first = sent(client.call(send_request()))
        assert (
            rig.page.words[40] >= first.physical_offset + 100 if first.physical_offset is not None else False
        )
        sent(client.call(send_request(properties="WAIT\x01false\x02")))
        for _ in range(20):
            client.send(send_request())
        for _ in range(20):
            sent(client.receive())


@pytest.mark.long
def test_sync_flush_without_a_flusher_answers_flush_disk_timeout_and_keeps_the_message() -> None:
    settings = replace(SMALL, flush_disk_type=FlushDiskType.SYNC_FLUSH, sync_flush_timeout=200)
    with running_rig(settings) as rig, rig.client() as client:
        rig.flusher.stop()
        answer = client.call(send_request(serialization=JSON))
        assert answer.code == ResponseCode.FLUSH_DISK_TIMEOUT
        assert answer.read_header(SendMessageResponseHeader).queue_offset == 0
        assert sent(client.call(send_request(properties="WAIT\x01false\x02"))).queue_offset == 1
        invisible = client.call(pull_request())
        assert invisible.code == ResponseCode.PULL_NOT_FOUND
        assert invisible.read_header(PullMessageResponseHeader).max_offset == 0


def test_sync_master_without_a_slave_is_never_a_plain_success() -> None:
    with running_rig(replace(SMALL, broker_role=BrokerRole.SYNC_MASTER)) as rig, rig.client() as client:
        answer = client.call(send_request())
        assert answer.code == ResponseCode.SLAVE_NOT_AVAILABLE
        assert answer.read_header(SendMessageResponseHeader).queue_offset == 0
        assert sent(client.call(send_request(properties="WAIT\x01false\x02"))).queue_offset == 1
