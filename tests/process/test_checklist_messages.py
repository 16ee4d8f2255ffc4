"""What may be sent: the rules of messages, topics, properties and batches, as the client applies them.

Each test names the line of the behaviour checklist it holds (docs/checklist.md). Brokers are scripted, so
that "nothing is sent" can be seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from shmq import Message, MessageSplitter, Producer
from shmq.base.errors import ShmqError
from shmq.client.batch import message_size
from shmq.model.message_id import unique_key
from shmq.model.properties import decode_properties
from shmq.model.sys_flag import COMPRESSED
from shmq.protocol.bodies.batch import iter_batch_elements
from shmq.protocol.codes import RequestCode, ResponseCode, response_code_of
from tests.helpers.stub_cluster import SENDS, StubBroker, StubNameServer, stub_cluster

MIB = 1 << 20
BODY_MAX = 4_194_304


@pytest.fixture
def cluster() -> Iterator[tuple[StubNameServer, StubBroker]]:
    """One broker that records what it is sent."""
    with stub_cluster("broker-a") as (namesrv, (broker,)):
        yield namesrv, broker


@pytest.fixture
def broker(cluster: tuple[StubNameServer, StubBroker]) -> StubBroker:
    """The broker of the cluster."""
    return cluster[1]


@pytest.fixture
def producer(cluster: tuple[StubNameServer, StubBroker]) -> Iterator[Producer]:
    """A started producer, with no compression, so that sizes are what they seem."""
    with Producer(
        "ChecklistProducer", namesrv_addr=cluster[0].address, compress_msg_body_over_howmuch=64 * MIB
    ) as running:
        yield running


def _refused(producer: Producer, message: Message | list[Message]) -> ShmqError:
    with pytest.raises(ShmqError) as caught:
        producer.send(message)
    return caught.value


def test_1_an_empty_body_is_refused_with_13_and_nothing_is_sent(
    producer: Producer, broker: StubBroker
) -> None:
    assert response_code_of(_refused(producer, Message("T", b""))) == ResponseCode.MESSAGE_ILLEGAL
    assert not broker.requests


def test_2_a_body_of_4_mib_is_sent_and_one_byte_more_is_refused_with_13(
    producer: Producer, broker: StubBroker
) -> None:
    producer.send(Message("T", bytes(BODY_MAX)))
    too_much = _refused(producer, Message("T", bytes(BODY_MAX + 1)))
    assert response_code_of(too_much) == ResponseCode.MESSAGE_ILLEGAL
    assert len(broker.sends) == 1


def test_3_a_topic_of_127_characters_is_sent_and_128_are_refused(
    cluster: tuple[StubNameServer, StubBroker], producer: Producer
) -> None:
    cluster[0].add("t" * 127, cluster[1])
    producer.send(Message("t" * 127, b"x"))
    _refused(producer, Message("t" * 128, b"x"))
    assert len(cluster[1].sends) == 1


@pytest.mark.parametrize("topic", ["with.dot", "with space"])
def test_4_an_illegal_topic_name_is_refused_with_the_legal_pattern(producer: Producer, topic: str) -> None:
    assert "[%|a-zA-Z0-9_-]" in str(_refused(producer, Message(topic, b"x")))


@pytest.mark.parametrize("topic", ["SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC"])
def test_6_a_client_does_not_send_to_a_system_topic(
    producer: Producer, broker: StubBroker, topic: str
) -> None:
    assert topic in str(_refused(producer, Message(topic, b"x")))
    assert not broker.requests


@pytest.mark.parametrize("name", ["TAGS", "DELAY", "KEYS", "UNIQ_KEY"])
def test_7_a_reserved_property_name_is_an_error_and_changes_nothing(name: str) -> None:
    message = Message("T", b"x", tags="TagA")
    before = dict(message.properties)
    with pytest.raises(ShmqError):
        message.put_user_property(name, "value")
    assert message.properties == before


@pytest.mark.parametrize("value", [None, "", "  "])
def test_8_a_property_without_a_value_is_an_error(value: str) -> None:
    message = Message("T", b"x")
    with pytest.raises(ShmqError):
        message.put_user_property("name", value)
    assert message.properties == {}


def test_11_unique_keys_of_one_millisecond_differ_and_have_32_hex_digits() -> None:
    keys = [unique_key() for _ in range(10_000)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


def test_12_a_batch_of_three_has_three_ids_and_the_first_offset(
    producer: Producer, broker: StubBroker
) -> None:
    messages = [Message("T", f"body {n}".encode()) for n in range(3)]
    result = producer.send(messages)
    assert result.msg_id.split(",") == [message.unique_key for message in messages]
    assert result.queue_offset == 0


def test_48_bodies_from_4096_bytes_on_are_sent_compressed(
    cluster: tuple[StubNameServer, StubBroker],
) -> None:
    namesrv, broker = cluster
    with Producer("ChecklistProducer", namesrv_addr=namesrv.address) as producer:
        producer.send(Message("T", b"a" * 4095))
        producer.send(Message("T", b"a" * 4096))
    plain, packed = broker.of_code(*SENDS)
    flags = [header.sys_flag for header in broker.sends]
    assert plain.body_bytes() == b"a" * 4095 and not flags[0] & COMPRESSED
    assert zlib.decompress(packed.body_bytes()) == b"a" * 4096 and flags[1] & COMPRESSED


def test_56_a_delayed_message_is_not_put_into_a_batch(cluster: tuple[StubNameServer, StubBroker]) -> None:
    namesrv, broker = cluster
    with Producer("ChecklistProducer", namesrv_addr=namesrv.address, auto_batch=True) as producer:
        future = producer.send_async(Message("T", b"later", delay_level=3))
        future.result(10)
    (command,) = broker.of_code(*SENDS)
    assert command.code != RequestCode.SEND_BATCH_MESSAGE
    (header,) = broker.sends
    assert decode_properties(header.properties or "")["DELAY"] == "3"


def test_65_a_batch_of_two_topics_is_refused(producer: Producer, broker: StubBroker) -> None:
    _refused(producer, [Message("T", b"x"), Message("U", b"x")])
    assert not broker.sends


def test_66_a_batch_with_mixed_wait_flags_is_refused(producer: Producer, broker: StubBroker) -> None:
    _refused(producer, [Message("T", b"x"), Message("T", b"x", wait_store_msg_ok=False)])
    assert not broker.sends


def test_67_a_batch_with_a_delayed_member_is_refused(producer: Producer, broker: StubBroker) -> None:
    _refused(producer, [Message("T", b"x"), Message("T", b"x", delay_level=3)])
    assert not broker.sends


def test_68_a_batch_for_a_retry_topic_is_refused_by_the_client(
    producer: Producer, broker: StubBroker
) -> None:
    _refused(producer, [Message("%RETRY%g", b"x"), Message("%RETRY%g", b"x")])
    assert not broker.sends


def test_69_a_batch_is_sent_up_to_exactly_4_mib_encoded(producer: Producer, broker: StubBroker) -> None:
    def batch(fill: int) -> list[Message]:
        return [Message("T", b"x" * 1000), Message("T", b"x" * fill)]

    producer.send(batch(1000))
    (command,) = broker.of_code(*SENDS)
    assert len(list(iter_batch_elements(command.body_bytes()))) == 2
    spare = BODY_MAX - len(command.body_bytes())
    producer.send(batch(1000 + spare))
    assert len(broker.of_code(*SENDS)[-1].body_bytes()) == BODY_MAX
    too_much = _refused(producer, batch(1000 + spare + 1))
    assert response_code_of(too_much) == ResponseCode.MESSAGE_ILLEGAL
    assert len(broker.sends) == 2


def test_70_the_splitter_yields_an_oversize_message_alone_and_goes_on() -> None:
    messages = [Message("T", b"x" * size) for size in (100, 100, 5_000, 100, 100)]
    parts = list(MessageSplitter(messages, 1_000))
    assert [len(part) for part in parts] == [2, 1, 2]
    assert message_size(parts[1][0]) > 1_000
    assert [message for part in parts for message in part] == messages


def test_5_a_group_name_of_120_characters_starts_and_121_are_refused(
    cluster: tuple[StubNameServer, StubBroker],
) -> None:
    with Producer("g" * 120, namesrv_addr=cluster[0].address):
        pass
    with pytest.raises(ShmqError):
        Producer("g" * 121, namesrv_addr=cluster[0].address).start()
