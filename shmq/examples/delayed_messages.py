"""Send messages that are delivered later, by delay level, and show how long each has waited."""

from __future__ import annotations

import threading
import time

from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PushConsumer,
)
from shmq.examples.options import CONSUMER_GROUP, PRODUCER_GROUP, parser
from shmq.examples.say import say

LEVELS = (1, 2)
"""1 s and 5 s in the default table of levels."""


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.delayed_messages", __doc__ or "", count=len(LEVELS))
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    seen: list[str] = []
    enough = threading.Event()

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        for message in messages:
            waited_s = time.time() - message.born_timestamp / 1000
            say(f"{message.body.decode()} waited {waited_s:.1f} s")
            seen.append(message.msg_id)
        if len(seen) >= options.count:
            enough.set()
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            level = LEVELS[number % len(LEVELS)]
            producer.send(Message(options.topic, f"level {level}".encode(), delay_level=level))
    consumer = PushConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(options.topic)
    consumer.register_message_listener(consume)
    with consumer:
        enough.wait(timeout=30)


if __name__ == "__main__":
    main()
