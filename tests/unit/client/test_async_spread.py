"""Async sends that are not batched go round the queues like sync ones."""

from __future__ import annotations

from collections import Counter

import pytest

from shmq import Message, Producer
from tests.helpers.stub_cluster import stub_cluster


@pytest.mark.parametrize("auto_batch", [None, False])
def test_lone_async_sends_take_every_queue_in_turn(auto_batch: bool | None) -> None:
    with (
        stub_cluster("broker-a") as (namesrv, (broker,)),
        Producer("Spread", namesrv_addr=namesrv.address, auto_batch=auto_batch) as producer,
    ):
        futures = [producer.send_async(Message("T", b"%d" % n)) for n in range(40)]
        results = [future.result(10) for future in futures]
        assert Counter(r.message_queue.queue_id for r in results) == {0: 10, 1: 10, 2: 10, 3: 10}
        assert len(broker.sends) == 40
