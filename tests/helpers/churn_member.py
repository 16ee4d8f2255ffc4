"""A member of a churning group: fails at random, writes down every delivery, and is killed at any moment.

    python -m tests.helpers.churn_member NAMESRV GROUP TOPIC LOG SEED

Lines of the log, written before the consumer hears of the outcome:

    start <ns> <topic> <queue id> <offset> <number> <tries>
    end   <ns> <topic> <queue id> <offset> ok|fail
    take  <ns> <topic> <queue id>                              the queue's offset is read
    drop  <ns> <topic> <queue id>                              the queue is given away
"""

from __future__ import annotations

import random
import sys
import threading
import time

from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    MessageExt,
    MessageQueue,
    PushConsumer,
)
from shmq.client.rebalancer import Owned

FAILING_SHARE = 0.3
POISON_EVERY = 40
"""Every so many-th message fails whenever it is tried."""
RECONSUME_MAX = 3


def is_poison(number: int) -> bool:
    return number % POISON_EVERY == 0


def main(namesrv: str, group: str, topic: str, path: str, seed: str) -> None:
    lock, chance = threading.Lock(), random.Random(int(seed))
    with open(path, "a", buffering=1) as log:

        def write(*words: object) -> None:
            with lock:
                log.write(" ".join(map(str, words)) + "\n")

        class Member(PushConsumer):
            def first_offset(self, queue: MessageQueue) -> int:
                write("take", time.time_ns(), queue.topic, queue.queue_id)
                return super().first_offset(queue)

            def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
                write("drop", time.time_ns(), queue.topic, queue.queue_id)
                super().queue_dropped(queue, held)

        def consume(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus:
            (message,) = messages
            queue, number = context.message_queue, int(message.body)
            place = (queue.topic, queue.queue_id, message.queue_offset)
            write("start", time.time_ns(), *place, number, message.reconsume_times)
            time.sleep(chance.uniform(0, 0.01))
            failed = is_poison(number) or chance.random() < FAILING_SHARE
            write("end", time.time_ns(), *place, "fail" if failed else "ok")
            if failed and chance.random() < 0.5:
                raise RuntimeError(f"number {number} failed")
            status = ConsumeConcurrentlyStatus
            return status.RECONSUME_LATER if failed else status.CONSUME_SUCCESS

        consumer = Member(
            group,
            namesrv_addr=namesrv,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            max_reconsume_times=RECONSUME_MAX,
            consume_thread_min=2,
            consume_thread_max=8,
            await_termination_millis_when_shutdown=2000,
        )
        consumer.subscribe(topic)
        consumer.register_message_listener(consume)
        with consumer:
            print("ready", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    main(*sys.argv[1:])
