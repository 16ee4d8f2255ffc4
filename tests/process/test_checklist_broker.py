"""What client and broker do together: creation of topics, refusals by the broker, ids, keys, long polling.

Each test names the line of the behaviour checklist it holds (docs/checklist.md).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
)
from shmq.base.errors import BrokerError
from shmq.client.addresses import parse_address
from shmq.client.channel import Channel
from shmq.embedded import Broker
from shmq.model.compression import decompress
from shmq.model.message_queue import MessageQueue
from shmq.model.sys_flag import COMPRESSED, COMPRESSION_LZ4, COMPRESSION_MASK, COMPRESSION_ZSTD
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import SendMessageV2Header
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One broker; every test has topics of its own."""
    with Broker(defaultTopicQueueNums=8) as running:
        yield running


@pytest.fixture
def producer(broker: Broker) -> Iterator[Producer]:
    """A producer with every default."""
    with Producer("ChecklistProducer", namesrv_addr=broker.namesrv_addr) as running:
        yield running


@pytest.fixture
def puller(broker: Broker) -> Iterator[PullConsumer]:
    """A pull consumer."""
    with PullConsumer("ChecklistPuller", namesrv_addr=broker.namesrv_addr) as running:
        yield running


@pytest.fixture
def admin(broker: Broker) -> Iterator[AdminClient]:
    """An admin client."""
    with AdminClient(broker.namesrv_addr) as running:
        yield running


def _forced(broker: Broker, topic: str, body: bytes = b"x", **fields: object) -> Command:
    """The broker's answer to a send that no client of ours would make."""
    code = fields.pop("code", RequestCode.SEND_MESSAGE_V2)
    header = SendMessageV2Header("ChecklistProducer", topic, "TBW102", 4, 0, 0, 1, 0, **fields)
    channel = Channel(parse_address(f"unix:{broker.unix_socket}"), 5)
    try:
        return channel.call(Command.request(code, header, body), 5)
    finally:
        channel.close()


@pytest.mark.parametrize("topic", ["SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC"])
def test_6_the_broker_refuses_system_topics_with_16(broker: Broker, topic: str) -> None:
    assert _forced(broker, topic).code == ResponseCode.NO_PERMISSION


def test_9_properties_above_32767_bytes_are_refused_with_13(broker: Broker) -> None:
    properties = "name\x01" + "v" * 32_762 + "\x02"
    assert len(properties) == 32_768
    answer = _forced(broker, "ChecklistProperties", properties=properties)
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL
    assert "32767" in (answer.remark or "").replace(",", "")


def test_10_a_message_is_found_by_each_of_its_keys(producer: Producer, admin: AdminClient) -> None:
    sent = producer.send(Message("ChecklistKeys", b"keyed", keys="k1 k2"))
    for key in ("k1", "k2"):
        found = wait_until(lambda key=key: admin.query_message("ChecklistKeys", key), limit_s=3)
        assert [message.msg_id for message in found] == [sent.msg_id]


def test_13_exactly_the_message_of_an_offset_id_is_returned(producer: Producer, admin: AdminClient) -> None:
    sent = [producer.send(Message("ChecklistIds", f"body {n}".encode())) for n in range(5)]
    for number, result in enumerate(sent):
        message = admin.view_message(result.offset_msg_id)
        assert (message.msg_id, bytes(message.body)) == (result.msg_id, f"body {number}".encode())


def test_19_a_first_send_makes_a_topic_of_four_queues(producer: Producer, admin: AdminClient) -> None:
    producer.send(Message("ChecklistAuto", b"x"))
    (queues,) = admin.topic_route("ChecklistAuto").queue_datas
    assert (queues.read_queue_nums, queues.write_queue_nums, queues.perm) == (4, 4, 6)


def test_20_the_brokers_default_of_eight_queues_limits_the_clients_sixteen(
    broker: Broker, admin: AdminClient
) -> None:
    with Producer(
        "ChecklistProducer", namesrv_addr=broker.namesrv_addr, default_topic_queue_nums=16
    ) as producer:
        producer.send(Message("ChecklistSixteen", b"x"))
    (queues,) = admin.topic_route("ChecklistSixteen").queue_datas
    assert (queues.read_queue_nums, queues.write_queue_nums) == (8, 8)


def test_21_a_template_without_inherit_permission_makes_no_topic(broker: Broker) -> None:
    header = SendMessageV2Header("ChecklistProducer", "ChecklistNoInherit", "BenchmarkTest", 4, 0, 0, 1, 0)
    channel = Channel(parse_address(f"unix:{broker.unix_socket}"), 5)
    try:
        answer = channel.call(Command.request(RequestCode.SEND_MESSAGE_V2, header, b"x"), 5)
    finally:
        channel.close()
    assert answer.code == ResponseCode.TOPIC_NOT_EXIST


def test_22_four_hundred_messages_of_one_thread_fill_four_queues_evenly(
    broker: Broker, producer: Producer, admin: AdminClient
) -> None:
    admin.create_topic(broker.tcp_addr, TopicConfig("ChecklistEven", 4, 4))
    counts = Counter(producer.send(Message("ChecklistEven", b"x")).message_queue.queue_id for _ in range(400))
    assert counts == {0: 100, 1: 100, 2: 100, 3: 100}


def test_48_a_compressed_body_is_stored_compressed_and_delivered_whole(
    producer: Producer, puller: PullConsumer
) -> None:
    sent = [producer.send(Message("ChecklistZip", b"a" * size)) for size in (4095, 4096)]
    found = [puller.pull(s.message_queue, "*", s.queue_offset, 1).messages[0] for s in sent]
    assert [bytes(message.body) for message in found] == [b"a" * 4095, b"a" * 4096]
    assert [bool(message.sys_flag & COMPRESSED) for message in found] == [False, True]
    assert len(found[1].stored_body) < 4096 == len(found[0].stored_body) + 1


@pytest.mark.parametrize(
    ("compress_type", "module", "flag"),
    [("LZ4", "lz4.frame", COMPRESSION_LZ4), ("ZSTD", "zstandard", COMPRESSION_ZSTD)],
    ids=["LZ4", "ZSTD"],
)
def test_49_the_flag_names_who_compressed_and_the_body_is_whole(
    broker: Broker, puller: PullConsumer, compress_type: str, module: str, flag: int
) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed (pip install 'shmq[compression]')")
    body = b"told again and again, " * 400
    settings = {"namesrv_addr": broker.namesrv_addr, "compress_type": compress_type}
    with Producer("ChecklistProducer", **settings) as producer:
        queue = producer.send(Message(f"Checklist{compress_type}", b"plain")).message_queue
        producer.send(Message(queue.topic, body), queue=queue)
        producer.send_async(Message(queue.topic, body), queue=queue).result(10)
    plain, *packed = puller.pull(queue, "*", 0, 10).messages
    assert not plain.sys_flag & COMPRESSED
    for message in packed:
        assert message.sys_flag & (COMPRESSED | COMPRESSION_MASK) == COMPRESSED | flag
        assert bytes(message.body) == body and len(message.stored_body) < len(body) // 10
        assert decompress(message.stored_body, flag) == body
    assert len(packed) == 2


def test_55_async_sends_travel_in_batches_and_each_has_its_own_place(
    broker: Broker, puller: PullConsumer
) -> None:
    queue = MessageQueue("ChecklistBatches", broker.broker_name, 0)
    with Producer("ChecklistProducer", namesrv_addr=broker.namesrv_addr, batch_max_delay_ms=10) as producer:
        producer.send(Message(queue.topic, b"makes the topic"), queue=queue)
        before = _requests(broker)
        futures = [
            producer.send_async(Message(queue.topic, f"body {n}".encode()), queue=queue) for n in range(100)
        ]
        results = [future.result(10) for future in futures]
        assert _requests(broker) - before < 100
    assert len({result.msg_id for result in results}) == 100
    assert [result.queue_offset for result in results] == list(range(1, 101))
    for number in (0, 57, 99):
        (message,) = puller.pull(queue, "*", results[number].queue_offset, 1).messages
        assert (message.msg_id, bytes(message.body)) == (
            results[number].msg_id,
            f"body {number}".encode(),
        )


def _requests(broker: Broker) -> int:
    """How many claims the broker has published: at least one per batch, at most one per send."""
    from shmq.base.runtime_dir import page_name
    from shmq.shm.control_page import ControlPage
    from shmq.shm.worker_slots import SlotTable

    page = ControlPage.attach(page_name(broker.store_root), readonly=True)
    try:
        return sum(slot.claim_seq for slot in SlotTable(page).taken())
    finally:
        page.close()


def test_61_one_queue_keeps_the_order_of_several_producers(broker: Broker, puller: PullConsumer) -> None:
    queue = MessageQueue("ChecklistOrder", broker.broker_name, 0)
    with (
        Producer("ChecklistProducerA", namesrv_addr=broker.namesrv_addr) as first,
        Producer("ChecklistProducerB", namesrv_addr=broker.namesrv_addr) as second,
    ):
        for number in range(20):
            (first, second)[number % 2].send(Message(queue.topic, str(number).encode()), queue=queue)
    found = puller.pull(queue, "*", 0, 32).messages
    assert [int(bytes(message.body)) for message in found] == list(range(20))


def test_64_equal_arguments_of_the_hash_selector_go_to_one_queue(producer: Producer) -> None:
    from shmq import select_by_hash

    queues = {
        producer.send(
            Message("ChecklistHash", b"x"), selector=select_by_hash, argument="order-7"
        ).message_queue
        for _ in range(8)
    }
    assert len(queues) == 1


def test_68_the_broker_refuses_a_batch_for_a_retry_topic(broker: Broker) -> None:
    body = encode_batch_elements([BatchElement(b"one", b""), BatchElement(b"two", b"")])
    answer = _forced(broker, "%RETRY%g", body, batch=True, code=RequestCode.SEND_BATCH_MESSAGE)
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL


DELAYS = ["DELAY\x013\x02", "TIMER_DELAY_SEC\x0130\x02"]


@pytest.mark.parametrize("delay", DELAYS, ids=["level", "timer"])
@pytest.mark.parametrize("of_all", [True, False])
def test_67_the_broker_refuses_a_batch_that_is_delayed_whole_or_in_part(
    broker: Broker, delay: str, of_all: bool
) -> None:
    elements = [BatchElement(b"one", b""), BatchElement(b"two", b"" if of_all else delay.encode())]
    answer = _forced(
        broker,
        "ChecklistDelayedBatch",
        encode_batch_elements(elements),
        batch=True,
        code=RequestCode.SEND_BATCH_MESSAGE,
        properties=delay if of_all else "",
    )
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL and "batch" in (answer.remark or "")


def test_71_a_batch_of_three_arrives_as_three_messages(producer: Producer, puller: PullConsumer) -> None:
    result = producer.send(
        [Message("ChecklistThree", f"body {n}".encode(), tags=f"Tag{n}", keys=f"key{n}") for n in range(3)]
    )
    found = puller.pull(result.message_queue, "*", result.queue_offset, 8).messages
    assert [(message.tags, message.keys, message.queue_offset) for message in found] == [
        (f"Tag{n}", f"key{n}", result.queue_offset + n) for n in range(3)
    ]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])
def test_211_an_idle_push_consumer_gets_a_message_within_50_ms(
    broker: Broker, producer: Producer, direct: bool
) -> None:
    topic = f"ChecklistWake{'Direct' if direct else 'Socket'}"
    producer.send(Message(topic, b"makes the topic"))
    latencies: list[float] = []
    arrived = threading.Event()

    def listen(messages: list[MessageExt], context: object) -> ConsumeConcurrentlyStatus:
        for message in messages:
            if bytes(message.body) != b"makes the topic":
                latencies.append(time.monotonic() - float(bytes(message.body)))
        arrived.set()
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        f"ChecklistWake{direct}",
        namesrv_addr=broker.namesrv_addr,
        direct_pull=direct,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(topic, "*")
    consumer.register_message_listener(listen)
    with consumer:
        assert arrived.wait(10)
        for number in range(5):
            producer.send(Message(topic, str(time.monotonic()).encode()))
            wait_until(lambda number=number: len(latencies) == number + 1)
    # The fastest of five: on a loaded test machine a scheduler may hold any single one up.
    assert min(latencies) < 0.05


@pytest.mark.long
def test_212_an_idle_pull_is_answered_after_15_to_20_seconds(
    puller: PullConsumer, producer: Producer
) -> None:
    sent = producer.send(Message("ChecklistIdle", b"x"))
    started = time.monotonic()
    result = puller.pull_block_if_not_found(sent.message_queue, "*", sent.queue_offset + 1, 32)
    assert result.status is PullStatus.NO_NEW_MSG
    took_s = time.monotonic() - started
    print(f"answered after {took_s:.1f} s")
    assert 14.5 <= took_s < 29, "not early, and before the client gives up; 16.5 on a machine that is idle"


def test_217_a_pull_of_32_messages_of_32_kib_brings_at_most_256_kib(
    broker: Broker, admin: AdminClient
) -> None:
    admin.create_topic(broker.tcp_addr, TopicConfig("ChecklistBig", 1, 1))
    queue = MessageQueue("ChecklistBig", broker.broker_name, 0)
    with (
        Producer(
            "ChecklistProducer", namesrv_addr=broker.namesrv_addr, compress_msg_body_over_howmuch=1 << 30
        ) as producer,
        PullConsumer(
            "ChecklistPuller",
            namesrv_addr=broker.namesrv_addr,
            direct_pull=False,
            pull_batch_size_in_bytes=256 << 10,
        ) as puller,
    ):
        for _ in range(32):
            producer.send(Message(queue.topic, bytes(32 << 10)), queue=queue)
        found = puller.pull(queue, "*", 0, 32).messages
        assert 1 <= len(found) <= 8
        producer.send(Message(queue.topic, bytes(1 << 20)), queue=queue)
        (large,) = puller.pull(queue, "*", 32, 32).messages
        assert len(large.body) == 1 << 20


def test_a_queue_id_out_of_range_is_29_and_a_topic_without_write_permission_16(
    broker: Broker, admin: AdminClient, producer: Producer
) -> None:
    admin.create_topic(broker.tcp_addr, TopicConfig("ChecklistReadOnly", 4, 4, 4))
    assert _forced(broker, "ChecklistReadOnly").code == ResponseCode.NO_PERMISSION
    admin.create_topic(broker.tcp_addr, TopicConfig("ChecklistEight", 8, 8))
    with pytest.raises(BrokerError) as caught:
        producer.send(
            Message("ChecklistEight", b"x"), queue=MessageQueue("ChecklistEight", broker.broker_name, 8)
        )
    assert caught.value.code == ResponseCode.INVALID_PARAMETER
