"""What a producer does with answers it does not want: retries, time limits, avoidance, oneway, shutdown.

Each test names the line of the behaviour checklist it holds (docs/checklist.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from shmq import Message, Producer, SendStatus
from shmq.base.errors import BrokerError, ShmqError
from shmq.model.properties import decode_properties
from shmq.protocol.codes import RequestCode, ResponseCode
from tests.helpers.stub_cluster import (
    SENDS,
    StubBroker,
    StubNameServer,
    cuts,
    ignores,
    refuses,
    stub_cluster,
)
from tests.helpers.waiting import wait_until

Two = tuple[StubNameServer, StubBroker, StubBroker]
One = tuple[StubNameServer, StubBroker]


@pytest.fixture
def one() -> Iterator[One]:
    """A cluster of one broker."""
    with stub_cluster("broker-a") as (namesrv, (broker,)):
        yield namesrv, broker


@pytest.fixture
def two() -> Iterator[Two]:
    """A cluster of two brokers."""
    with stub_cluster("broker-a", "broker-b") as (namesrv, (first, second)):
        yield namesrv, first, second


def _producer(namesrv: StubNameServer, **settings: object) -> Producer:
    return Producer("ChecklistProducer", namesrv_addr=namesrv.address, **settings)


def _message(text: str = "body") -> Message:
    return Message("T", text.encode())


def test_23_eighty_messages_over_two_brokers_put_ten_into_each_queue(two: Two) -> None:
    namesrv, first, second = two
    with _producer(namesrv) as producer:
        for _ in range(80):
            producer.send(_message())
    counts: dict[tuple[str, int], int] = {}
    for broker in (first, second):
        for header in broker.sends:
            counts[broker.name, header.queue_id] = counts.get((broker.name, header.queue_id), 0) + 1
    assert list(counts.values()) == [10] * 8


def test_24_a_broker_that_joins_later_receives_sends_without_a_restart(two: Two) -> None:
    namesrv, first, second = two
    namesrv.add("T", first)
    with _producer(namesrv, poll_name_server_interval_ms=100) as producer:
        producer.send(_message())
        namesrv.add("T", first, second)

        def reached() -> bool:
            producer.send(_message())
            return bool(second.sends)

        wait_until(reached, limit_s=10)


def test_34_a_busy_broker_is_tried_up_to_three_times_and_the_second_try_goes_elsewhere(two: Two) -> None:
    namesrv, first, second = two
    first.script = second.script = [refuses(ResponseCode.SYSTEM_BUSY)] * 3
    with _producer(namesrv) as producer, pytest.raises(ShmqError):
        producer.send(_message())
    order = sorted(
        (command.opaque, broker.name) for broker in (first, second) for command in broker.of_code(*SENDS)
    )
    assert len(order) == 3
    assert order[0][1] != order[1][1]


def test_35_without_retries_one_attempt_is_made_and_code_2_is_raised(one: One) -> None:
    namesrv, broker = one
    broker.script = [refuses(ResponseCode.SYSTEM_BUSY)]
    with (
        _producer(namesrv, retry_times_when_send_failed=0) as producer,
        pytest.raises(BrokerError) as caught,
    ):
        producer.send(_message())
    assert caught.value.code == ResponseCode.SYSTEM_BUSY
    assert len(broker.sends) == 1


def test_36_an_illegal_message_is_not_retried(one: One) -> None:
    namesrv, broker = one
    broker.script = [refuses(ResponseCode.MESSAGE_ILLEGAL)]
    with _producer(namesrv) as producer, pytest.raises(BrokerError) as caught:
        producer.send(_message())
    assert caught.value.code == ResponseCode.MESSAGE_ILLEGAL
    assert len(broker.sends) == 1


@pytest.mark.long
def test_37_all_attempts_together_end_within_the_timeout(two: Two) -> None:
    namesrv, first, second = two
    for broker in (first, second):
        broker.delay_s = 0.5
        broker.script = [refuses(ResponseCode.SYSTEM_BUSY)] * 9
    with _producer(namesrv, retry_times_when_send_failed=9) as producer:
        started = time.monotonic()
        with pytest.raises(ShmqError):
            producer.send(_message(), timeout_ms=1000)
    assert time.monotonic() - started < 1.5


def test_38_a_flush_timeout_is_returned_after_one_attempt(two: Two) -> None:
    namesrv, first, second = two
    for broker in (first, second):
        broker.script = [lambda c, b=broker: b.stored(c, ResponseCode.FLUSH_DISK_TIMEOUT)]
    with _producer(namesrv) as producer:
        result = producer.send(_message())
    assert result.send_status is SendStatus.FLUSH_DISK_TIMEOUT
    assert len(first.sends) + len(second.sends) == 1


def test_39_a_flush_timeout_is_tried_on_another_broker_when_asked_for(two: Two) -> None:
    namesrv, first, second = two
    statuses = [ResponseCode.FLUSH_DISK_TIMEOUT]

    def once(broker: StubBroker) -> None:
        broker.script = [lambda c: broker.stored(c, statuses.pop() if statuses else ResponseCode.SUCCESS)]

    once(first)
    once(second)
    with _producer(namesrv, retry_another_broker_when_not_store_ok=True) as producer:
        result = producer.send(_message())
    assert result.send_status is SendStatus.SEND_OK
    assert len(first.sends) == len(second.sends) == 1


def test_40_both_copies_of_a_retried_message_have_one_unique_key(one: One) -> None:
    namesrv, broker = one
    broker.script = [cuts]
    with _producer(namesrv) as producer:
        result = producer.send(_message())
    keys = [decode_properties(header.properties or "")["UNIQ_KEY"] for header in broker.sends]
    assert keys == [result.msg_id, result.msg_id]


def test_41_sends_succeed_on_the_live_one_of_two_brokers(two: Two) -> None:
    namesrv, first, second = two
    first.close()
    with _producer(namesrv) as producer:
        results = [producer.send(_message()) for _ in range(10)]
    assert {result.message_queue.broker_name for result in results} == {second.name}


def test_42_an_async_send_goes_to_another_broker_after_a_reset_with_a_queue_it_has(two: Two) -> None:
    namesrv, first, second = two
    namesrv.routes["T"].queue_datas[1].write_queue_nums = 1
    first.script = [cuts] * 100
    with _producer(namesrv) as producer:
        results = [producer.send_async(_message()).result(10) for _ in range(6)]
    assert {result.message_queue.broker_name for result in results} == {second.name}
    assert {header.queue_id for header in second.sends} == {0}


def test_43_a_broker_error_reaches_the_async_callback_exactly_once(one: One) -> None:
    namesrv, broker = one
    broker.script = [refuses(ResponseCode.SYSTEM_BUSY)]
    calls: list[object] = []
    with _producer(namesrv) as producer:
        future = producer.send_async(_message(), calls.append, calls.append)
        with pytest.raises(BrokerError) as caught:
            future.result(10)
        wait_until(lambda: len(calls) == 1)
    assert caught.value.code == ResponseCode.SYSTEM_BUSY
    assert len(calls) == 1 and isinstance(calls[0], BrokerError)
    assert len(broker.sends) == 1


def test_44_a_callback_that_raises_harms_nobody(one: One) -> None:
    namesrv, _broker = one
    called = threading.Event()

    def bad(result: object) -> None:
        raise RuntimeError("a user's mistake")

    with _producer(namesrv) as producer:
        producer.send_async(_message(), bad).result(10)
        producer.send_async(_message(), lambda result: called.set()).result(10)
        assert called.wait(10)


def test_45_oneway_to_a_dead_broker_raises_nothing(one: One) -> None:
    namesrv, broker = one
    with _producer(namesrv) as producer:
        producer.send(_message())
        broker.close()
        for _ in range(3):
            producer.send_oneway(_message())


def test_46_every_async_send_is_answered_before_shutdown_returns(one: One) -> None:
    namesrv, broker = one
    broker.delay_s = 0.002
    calls: list[object] = []
    producer = _producer(namesrv)
    producer.start()
    for _ in range(100):
        producer.send_async(_message(), calls.append, calls.append)
    producer.shutdown()
    assert len(calls) == 100


def test_47_an_explicit_queue_is_not_left_when_the_send_fails(two: Two) -> None:
    namesrv, first, second = two
    first.script = [cuts] * 10
    with _producer(namesrv) as producer:
        queue = next(
            queue for queue in producer.fetch_publish_message_queues("T") if queue.broker_name == first.name
        )
        with pytest.raises(ShmqError):
            producer.send(_message(), queue=queue)
    assert not second.sends


def test_50_a_retried_body_is_compressed_once(one: One) -> None:
    namesrv, broker = one
    broker.script = [cuts]
    body = b"a" * 10_000
    with _producer(namesrv) as producer:
        producer.send(Message("T", body))
    first, second = (command.body_bytes() for command in broker.of_code(*SENDS))
    assert first == second
    assert len(first) < len(body)


def test_51_no_permission_on_one_broker_is_tried_on_the_other(two: Two) -> None:
    namesrv, first, second = two
    first.script = [refuses(ResponseCode.NO_PERMISSION)] * 8
    with _producer(namesrv) as producer:
        results = [producer.send(_message()) for _ in range(8)]
    assert {result.message_queue.broker_name for result in results} == {second.name}


def test_52_a_retry_code_that_the_user_added_is_retried(one: One) -> None:
    namesrv, broker = one
    broker.script = [refuses(ResponseCode.INVALID_PARAMETER)]
    with _producer(namesrv, retry_response_codes=frozenset({ResponseCode.INVALID_PARAMETER})) as producer:
        assert producer.send(_message()).send_status is SendStatus.SEND_OK
    assert len(broker.sends) == 2


@pytest.mark.long
def test_53_54_backpressure_fails_the_eleventh_send_and_gives_its_permits_back(one: One) -> None:
    namesrv, broker = one
    broker.script = [ignores] * 10
    settings = {"enable_backpressure_for_async_mode": True, "back_pressure_for_async_send_num": 10}
    with _producer(namesrv, auto_batch=False, **settings) as producer:
        pending = [producer.send_async(_message(), timeout_ms=1500) for _ in range(10)]
        started = time.monotonic()
        with pytest.raises(ShmqError):
            producer.send_async(_message(), timeout_ms=300).result(10)
        assert 0.2 < time.monotonic() - started < 1.2
        for future in pending:
            with pytest.raises(ShmqError):
                future.result(10)
        results = [producer.send_async(_message()).result(10) for _ in range(10)]
    assert len(results) == 10


def test_57_a_second_producer_of_a_group_in_the_same_instance_is_refused(one: One) -> None:
    namesrv, _broker = one
    with _producer(namesrv, instance_name="shared"):
        second = _producer(namesrv, instance_name="shared")
        with pytest.raises(ShmqError):
            second.start()


@pytest.mark.long
def test_29_31_a_slow_broker_is_avoided_and_all_slow_is_no_dead_end(two: Two) -> None:
    namesrv, first, second = two
    first.delay_s = 0.6
    with _producer(namesrv, send_latency_fault_enable=True) as producer:
        while not first.sends:
            producer.send(_message())
        second.requests.clear()
        results = [producer.send(_message()) for _ in range(6)]
        assert {result.message_queue.broker_name for result in results} == {second.name}
        second.delay_s = 0.6
        producer.send(_message())
        assert producer.send(_message(), timeout_ms=5000).send_status is SendStatus.SEND_OK


def test_33_a_selector_is_asked_although_its_broker_is_avoided(two: Two) -> None:
    namesrv, first, _second = two
    first.delay_s = 0.6
    with _producer(namesrv, send_latency_fault_enable=True) as producer:
        while not first.sends:
            producer.send(_message())
        first.delay_s = 0.0
        result = producer.send(
            _message(),
            selector=lambda queues, message, argument: next(q for q in queues if q.broker_name == argument),
            argument=first.name,
        )
    assert result.message_queue.broker_name == first.name


def test_58_59_a_modulo_selector_puts_orders_on_their_queues(one: One) -> None:
    namesrv, broker = one
    orders = (15103111039, 15103111065, 15103117235)
    with _producer(namesrv) as producer:
        for order in orders:
            producer.send(_message(), selector=lambda qs, m, arg: qs[arg % len(qs)], argument=order)
        namesrv.add("Eight", broker, queues=8)
        for order in orders:
            producer.send(
                Message("Eight", b"x"), selector=lambda qs, m, arg: qs[arg % len(qs)], argument=order
            )
    assert [header.queue_id for header in broker.sends] == [3, 1, 3, 7, 1, 3]


@pytest.mark.parametrize("answer", [None, "raise"], ids=["62-returns-nothing", "63-raises"])
def test_62_63_a_selector_without_a_queue_sends_nothing(one: One, answer: str | None) -> None:
    namesrv, broker = one

    def selector(queues: object, message: object, argument: object) -> None:
        if answer == "raise":
            raise KeyError("a user's mistake")

    with _producer(namesrv) as producer, pytest.raises(ShmqError) as caught:
        producer.send(_message(), selector=selector, argument=1)
    assert not broker.sends
    if answer == "raise":
        assert isinstance(caught.value.__cause__, KeyError)


def test_15_without_a_name_server_address_a_send_fails_with_10004(monkeypatch: pytest.MonkeyPatch) -> None:
    import shmq.client.addresses as addresses

    monkeypatch.setattr(addresses, "find_socket", lambda name: None)
    monkeypatch.setattr(addresses, "DEFAULT_NAMESRV", "127.0.0.1:1")
    with pytest.raises(ShmqError) as caught, Producer("ChecklistProducer") as producer:
        producer.send(_message())
    assert getattr(caught.value, "code", None) == 10004


def test_16_17_the_environment_names_the_name_server_unless_the_code_does(
    one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    namesrv, broker = one
    monkeypatch.setenv("NAMESRV_ADDR", namesrv.address)
    with Producer("ChecklistProducer") as producer:
        producer.send(_message())
    monkeypatch.setenv("NAMESRV_ADDR", "127.0.0.1:1")
    with _producer(namesrv) as producer:
        producer.send(_message())
    assert len(broker.sends) == 2


def test_18_an_unknown_topic_without_auto_creation_fails_with_10005(one: One) -> None:
    namesrv, _broker = one
    with _producer(namesrv) as producer, pytest.raises(ShmqError) as caught:
        producer.send(Message("Unknown", b"x"))
    assert getattr(caught.value, "code", None) == 10005
    assert namesrv.of_code(RequestCode.GET_ROUTEINFO_BY_TOPIC)
