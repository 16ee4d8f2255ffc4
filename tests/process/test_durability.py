"""`SendResult.durability`: the receipt names what was really achieved, by whatever way a message was sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shmq import Message, Producer, SendResult
from shmq.client.send_result import Durability, LocalDurability
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


def test_who_does_not_wait_for_the_disk_is_not_told_that_it_has_the_message(broker: Broker) -> None:
    with Producer("Receipts", namesrv_addr=broker.namesrv_addr) as producer:
        result = producer.send(Message("Receipts", b"in a hurry", wait_store_msg_ok=False))
    assert result.durability == IN_PAGE_CACHE
