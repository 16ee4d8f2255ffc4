"""What may be a batch, the splitter, and the two wire forms of a prepared batch."""

from __future__ import annotations

import pytest

from shmq.base.errors import ClientFault, MessageIllegal
from shmq.client.batch import MessageSplitter, check_batch, message_size
from shmq.client.outgoing import Outgoing, check_sendable, ordered
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_commands import SendCommands
from shmq.model.batch_check import check_batch as broker_check
from shmq.model.message import Message
from shmq.model.message_ext import decode_messages
from shmq.model.sys_flag import COMPRESSED
from shmq.protocol.bodies.batch import iter_batch_elements
from shmq.protocol.codes import RequestCode
from shmq.protocol.headers.log_batch import SendLogBatchHeader

CONFIG = ProducerConfig()


def messages(count: int, **settings: object) -> list[Message]:
    return [Message("T", b"body %d" % n, **settings) for n in range(count)]  # type: ignore[arg-type]


def test_rules_of_a_batch() -> None:
    check_batch(messages(3))
    with pytest.raises(ClientFault, match="empty batch"):
        check_batch([])
    with pytest.raises(ClientFault, match="one topic"):
        check_batch([Message("T", b"x"), Message("U", b"x")])
    with pytest.raises(ClientFault, match="wait_store_msg_ok"):
        check_batch([Message("T", b"x"), Message("T", b"x", wait_store_msg_ok=False)])
    with pytest.raises(ClientFault, match="delayed"):
        check_batch([Message("T", b"x"), Message("T", b"x", delay_level=3)])
    with pytest.raises(ClientFault, match="retry topic"):
        check_batch([Message("%RETRY%g", b"x")])


def test_the_splitter_packs_greedily_in_order() -> None:
    made = messages(10)
    size = message_size(made[0])
    assert size == len("T") + len(b"body 0") + 20
    lists = list(MessageSplitter(made, limit_bytes=3 * size))
    assert [len(part) for part in lists] == [3, 3, 3, 1]
    assert [message for part in lists for message in part] == made


def test_one_oversize_message_comes_alone_and_the_rest_goes_on() -> None:
    made = [Message("T", b"a"), Message("T", b"x" * 500), Message("T", b"b"), Message("T", b"c")]
    assert [len(part) for part in MessageSplitter(made, limit_bytes=100)] == [1, 1, 2]


@pytest.mark.parametrize("count", [1, 3, 15, 16, 40])
@pytest.mark.parametrize("tags", [None, "TagA"])
def test_log_ready_records_pass_the_brokers_check_and_read_back(count: int, tags: str | None) -> None:
    made = messages(count, tags=tags)
    for number, message in enumerate(made):
        message.flag = number
        message.put_user_property("n", str(number))
    batch = OutgoingBatch(made, CONFIG, may_compress=True)
    records, sizes = batch.records(2)
    checked = broker_check(records, sizes, b"T", 2, 1 << 20)
    assert not checked.needs_slow_path
    read = decode_messages(records)
    assert [bytes(m.body) for m in read] == [m.body for m in made]
    assert [m.msg_id for m in read] == batch.keys == [m.unique_key for m in made]
    assert len(set(batch.keys)) == count
    assert [(m.tags, m.flag, m.properties["n"]) for m in read] == [(tags, n, str(n)) for n in range(count)]


def test_alike_messages_take_the_fast_form_and_still_have_their_own_keys() -> None:
    batch = OutgoingBatch(messages(20, tags="TagA"), CONFIG, may_compress=True)
    read = decode_messages(batch.records(0)[0])
    assert [m.msg_id for m in read] == batch.keys and {m.tags for m in read} == {"TagA"}


def test_a_retried_batch_keeps_its_keys() -> None:
    made = messages(20)
    first = OutgoingBatch(made, CONFIG, may_compress=True)
    again = OutgoingBatch(made, CONFIG, may_compress=True)
    assert again.keys == first.keys
    assert decode_messages(first.records(1)[0])[3].msg_id == decode_messages(again.records(0)[0])[3].msg_id


def test_large_bodies_are_compressed_in_records_but_never_in_rocketmqs_batch() -> None:
    made = [Message("T", b"z" * 5000), Message("T", b"small")]
    read = decode_messages(OutgoingBatch(made, CONFIG, may_compress=True).records(0)[0])
    assert read[0].sys_flag & COMPRESSED and read[0].body == b"z" * 5000 and len(read[0].stored_body) < 200
    assert not read[1].sys_flag
    elements = list(iter_batch_elements(OutgoingBatch(made, CONFIG, may_compress=False).elements()))
    assert [bytes(element.body) for element in elements] == [b"z" * 5000, b"small"]


def test_a_batch_over_the_limit_is_refused_before_it_is_sent() -> None:
    commands = SendCommands("g", ProducerConfig(max_message_size=10_000))
    batch = OutgoingBatch([Message("T", b"x" * 4000) for _ in range(3)], CONFIG, may_compress=False)
    with pytest.raises(MessageIllegal, match="MessageSplitter"):
        commands.batch(batch, 0)
    with pytest.raises(MessageIllegal, match="MessageSplitter"):
        commands.log_batch(batch, 0)


def test_requests_name_what_brokers_need() -> None:
    commands = SendCommands("g", CONFIG)
    batch = OutgoingBatch(messages(3), CONFIG, may_compress=False)
    command, sizes = commands.log_batch(batch, 1)
    assert command.code == RequestCode.SEND_LOG_BATCH
    header = command.header
    assert isinstance(header, SendLogBatchHeader)
    assert (header.producer_group, header.topic, header.queue_id, header.count) == ("g", "T", 1, 3)
    assert header.size_list() == sizes and header.default_topic == "TBW102"
    assert commands.batch(batch, 1).code == RequestCode.SEND_BATCH_MESSAGE


def test_a_single_message_is_checked_keyed_and_compressed_once() -> None:
    message = Message("T", b"y" * 4096)
    outgoing = Outgoing(message, CONFIG)
    assert outgoing.sys_flag & COMPRESSED and len(outgoing.body) < 200 and message.body == b"y" * 4096
    assert Outgoing(message, CONFIG).unique_key == outgoing.unique_key == message.unique_key
    plain = Outgoing(Message("T", b"y" * 4095), CONFIG)
    assert not plain.sys_flag and plain.body == b"y" * 4095
    with pytest.raises(ClientFault, match="compress_type"):
        Outgoing(Message("T", b"y" * 4096), ProducerConfig(compress_type="RAR"))


def test_what_no_broker_would_take_is_refused_at_once() -> None:
    with pytest.raises(MessageIllegal, match="empty"):
        check_sendable(Message("T", b""), 100)
    with pytest.raises(MessageIllegal, match="at most 100"):
        check_sendable(Message("T", b"x" * 101), 100)
    with pytest.raises(MessageIllegal, match="encode text first"):
        check_sendable(Message("T", "text"), 100)  # type: ignore[arg-type]


def test_tags_then_the_key_lead_the_properties_of_a_record() -> None:
    assert list(ordered({"u": "1", "UNIQ_KEY": "K", "TAGS": "t"})) == ["TAGS", "UNIQ_KEY", "u"]
    assert list(ordered({"u": "1", "UNIQ_KEY": "K"})) == ["UNIQ_KEY", "u"]
