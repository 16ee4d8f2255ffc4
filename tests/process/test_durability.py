"""`SendResult.durability`: the receipt names what was really achieved, by whatever way a message was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from shmq import Durability, Message, Producer, SendResult, SendStatus, aio
from shmq.base.errors import BrokerError
from shmq.client.send_result import LocalDurability
from shmq.embedded import Broker

ON_DISK = Durability(LocalDurability.FLUSHED, replicas=0, replicas_flushed=0)
IN_PAGE_CACHE = Durability(LocalDurability.PAGE_CACHE, replicas=0, replicas_flushed=0)


@pytest.fixture(scope="module", params=["SYNC_FLUSH", "ASYNC_FLUSH"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(flushDiskType=request.param) as running:
        yield running


@pytest.fixture
def achieved(request: pytest.FixtureRequest) -> Durability:
    return ON_DISK if request.node.callspec.params["broker"] == "SYNC_FLUSH" else IN_PAGE_CACHE


def results(producer: Producer) -> dict[str, SendResult]:
    """One result of each way to send."""
    queue = producer.send(Message("Receipts", b"makes the topic")).message_queue

    def some(count: int) -> list[Message]:
        return [Message("Receipts", b"%d" % n) for n in range(count)]

    def asynchronous(count: int) -> SendResult:
        return [producer.send_async(message, queue=queue) for message in some(count)][-1].result(10)

    return {
        "sync": producer.send(Message("Receipts", b"sync")),
        "async": asynchronous(3),
        "async in a batch": asynchronous(200),
        "batch of few": producer.send(some(3), queue=queue),
        "batch of many": producer.send(some(50), queue=queue),
    }


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_the_receipt_says_where_the_message_is(broker: Broker, achieved: Durability, tcp: bool) -> None:
    with Producer("Receipts", namesrv_addr=broker.namesrv_addr, use_unix_socket=not tcp) as producer:
        found = {way: result.durability for way, result in results(producer).items()}
    assert found == dict.fromkeys(found, achieved)


# ---- a message asks for another durability than the broker's mode has

ONE_COPY = Durability(LocalDurability.FLUSHED, replicas=1)
RECEIPTS = {
    # request: (status, whether the disk must have it; None: as the broker's mode says)
    None: (SendStatus.SEND_OK, None),
    Durability.MEMORY: (SendStatus.SEND_OK, False),
    Durability.PAGE_CACHE: (SendStatus.SEND_OK, False),
    Durability.FLUSHED: (SendStatus.SEND_OK, True),
    ONE_COPY: (SendStatus.SLAVE_NOT_AVAILABLE, True),
}


def messages(count: int) -> list[Message]:
    return [Message("Asked", b"%d" % n) for n in range(count)]


def sent_async(producer: Producer, wanted: Durability | None, count: int) -> SendResult:
    queue = producer.fetch_publish_message_queues("Asked")[0]
    return [producer.send_async(one, queue=queue, wait_for=wanted) for one in messages(count)][-1].result(10)


def sent_aio(producer: Producer, wanted: Durability | None) -> SendResult:
    async def send() -> SendResult:
        async with aio.Producer("AskedAio", namesrv_addr=producer.config.namesrv_addr) as asynchronous:
            return await asynchronous.send(messages(1)[0], wait_for=wanted)

    return asyncio.run(send())


WAYS: dict[str, Callable[[Producer, Durability | None], SendResult]] = {
    "sync": lambda producer, wanted: producer.send(messages(1)[0], wait_for=wanted),
    "async": lambda producer, wanted: sent_async(producer, wanted, 1),
    "async in batches": lambda producer, wanted: sent_async(producer, wanted, 100),
    "batch of few": lambda producer, wanted: producer.send(messages(3), wait_for=wanted),
    "batch of many": lambda producer, wanted: producer.send(messages(50), wait_for=wanted),
    "async batch": lambda producer, wanted: producer.send_async(messages(50), wait_for=wanted).result(10),
    "aio": sent_aio,
}


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("wanted", RECEIPTS, ids=str)
def test_a_message_gets_the_durability_it_asks_for_or_is_told(
    broker: Broker, achieved: Durability, wanted: Durability | None, tcp: bool
) -> None:
    status, on_disk = RECEIPTS[wanted]
    with Producer("Asked", namesrv_addr=broker.namesrv_addr, use_unix_socket=not tcp) as producer:
        producer.send(Message("Asked", b"makes the topic"))
        found = {way: send(producer, wanted) for way, send in WAYS.items()}
    assert {way: result.send_status for way, result in found.items()} == dict.fromkeys(found, status)
    local = {way: result.durability for way, result in found.items()}
    if on_disk is None:
        assert local == dict.fromkeys(found, achieved)
    elif on_disk:
        assert local == dict.fromkeys(found, ON_DISK), "no replica has it, and nobody says so"
    else:  # the flusher may have been quicker than the answer: then more was achieved than was asked for
        assert all(one in (IN_PAGE_CACHE, ON_DISK) for one in local.values())


def test_asking_for_what_there_is_not_is_refused(broker: Broker) -> None:
    with Producer("Asked", namesrv_addr=broker.namesrv_addr) as producer:
        message = Message("Asked", b"?")
        message.properties["SHMQ_WAIT_FOR"] = "ETERNITY"
        with pytest.raises(BrokerError, match="SHMQ_WAIT_FOR"):
            producer.send(message)
