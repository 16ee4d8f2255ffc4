"""SendFuture: settled once, awaited by many, callbacks exactly once."""

from __future__ import annotations

import threading

import pytest

from shmq.client.async_send import AsyncSend, StoredBatch, settle_stored
from shmq.client.errors import RemotingTimeout
from shmq.client.future import SendFuture
from shmq.client.send_result import SendResult, SendStatus
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue
from tests.helpers.waiting import wait_until


def test_a_result_is_returned_to_every_waiter() -> None:
    future: SendFuture[int] = SendFuture()
    got: list[int] = []
    waiters = [threading.Thread(target=lambda: got.append(future.result(5))) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    future.set_result(7)
    for waiter in waiters:
        waiter.join(5)
    assert got == [7] * 4 and future.done() and future.exception() is None


def test_an_error_is_raised() -> None:
    future: SendFuture[int] = SendFuture()
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        future.result()
    assert isinstance(future.exception(), ValueError)


def test_waiting_ends_with_its_timeout() -> None:
    with pytest.raises(RemotingTimeout):
        SendFuture[int]().result(0.01)
    with pytest.raises(TimeoutError):
        SendFuture[int]().exception(0.01)


def test_each_callback_runs_once_whenever_it_was_added() -> None:
    future: SendFuture[int] = SendFuture()
    calls: list[str] = []
    future.add_done_callback(lambda _: calls.append("early"))
    future.set_result(1)
    future.add_done_callback(lambda _: calls.append("late"))
    assert calls == ["early", "late"]


def test_a_raising_callback_harms_nobody_else() -> None:
    future: SendFuture[int] = SendFuture()
    calls: list[int] = []
    future.add_done_callback(lambda f: calls.append(f.result()))
    future.add_done_callback(lambda _: 1 / 0)
    future.set_result(3)
    assert calls == [3]


def race_callbacks_against_settling() -> list[int]:
    future: SendFuture[int] = SendFuture()
    calls: list[int] = []

    def add(number: int) -> None:
        future.add_done_callback(lambda _: calls.append(number))

    adders = [threading.Thread(target=add, args=(number,)) for number in range(3)]
    for adder in adders:
        adder.start()
    future.set_result(0)
    for adder in adders:
        adder.join(5)
    return sorted(calls)


def test_callbacks_added_while_it_is_settled_run_exactly_once() -> None:
    assert all(race_callbacks_against_settling() == [0, 1, 2] for _ in range(200))


def test_results_of_a_batch_are_made_when_asked_for() -> None:
    queue = MessageQueue("T", "b", 2)
    stored = StoredBatch(
        SendStatus.SEND_OK,
        queue,
        40,
        ["K0", "K1"],
        host=bytes([127, 0, 0, 1, 0, 0, 0x2A, 0x9F]),
        first=0,
        sizes=[300, 300],
    )
    first, future = (AsyncSend(Message("T", b"x"), 0.0, 0, False, 1) for _ in range(2))
    called: list[int] = []
    future.add_done_callback(lambda done: called.append(done.result().queue_offset))
    waited: list[SendResult] = []
    waiter = threading.Thread(target=lambda: waited.append(first.result(10)))
    waiter.start()
    wait_until(lambda: first._waiter is not None)
    assert not future.done()
    settle_stored([first, future], stored)
    waiter.join(10)
    assert called == [41] and future.done() and future.exception() is None
    assert [result.queue_offset for result in waited] == [40] and first.result() is waited[0]
    result = future.result()
    assert (result.msg_id, result.queue_offset, result.message_queue) == ("K1", 41, queue)
    assert result.offset_msg_id == "7F00000100002A9F000000000000012C"
    assert future.result() is result
