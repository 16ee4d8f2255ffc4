"""The other end of the end-to-end workload: a push consumer that reports each message's age on arrival."""

from __future__ import annotations

import os
import sys
import time

from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, MessageExt, PushConsumer


def listen(messages: list[MessageExt], context: object) -> ConsumeConcurrentlyStatus:
    """Print the nanoseconds since the send call, which the body carries (CLOCK_MONOTONIC is the host's)."""
    now = time.monotonic_ns()
    for message in messages:
        os.write(1, b"%d\n" % (now - int(message.body)))
    return ConsumeConcurrentlyStatus.CONSUME_SUCCESS


def main() -> None:
    """Consume until the input is closed."""
    namesrv_addr, topic = sys.argv[1:]
    consumer = PushConsumer(
        "BenchLatencyConsumer",
        namesrv_addr=namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(topic, "*")
    consumer.register_message_listener(listen)
    with consumer:
        os.write(1, b"ready\n")
        sys.stdin.read()


if __name__ == "__main__":
    main()
