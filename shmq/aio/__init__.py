"""The clients for asyncio: `await producer.send(message)`, coroutine listeners, awaited pulls.

Same names, settings and rules as in `shmq`; the work is done by the same client on its own threads, and the
event loop is never blocked. Objects belong to the loop they were started in.
"""

from __future__ import annotations

from shmq.aio.lite_pull_consumer import LitePullConsumer
from shmq.aio.producer import Producer
from shmq.aio.pull_consumer import PullConsumer
from shmq.aio.push_consumer import PushConsumer
from shmq.aio.transaction_producer import TransactionProducer

__all__ = ["LitePullConsumer", "Producer", "PullConsumer", "PushConsumer", "TransactionProducer"]
