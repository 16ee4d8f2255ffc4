"""Consume messages with a listener until Ctrl-C or SIGTERM, or until `--count` have come."""

from __future__ import annotations

import threading

from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    MessageExt,
    PushConsumer,
    stop_on_signals,
)
from shmq.examples.options import CONSUMER_GROUP, parser
from shmq.examples.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.consumer", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options_parser.add_argument(
        "--tags", default="*", help="tag expression such as 'TagA || TagB' (default *)"
    )
    options = options_parser.parse_args(arguments)
    enough = threading.Event()
    seen: list[str] = []

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        for message in messages:
            text = message.body.decode(errors="replace")
            where = f"{threading.current_thread().name} {context.message_queue.queue_id}"
            say(f"{where} {message.msg_id} {text}")
            seen.append(message.msg_id)
        if options.count and len(seen) >= options.count:
            enough.set()
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        await_termination_millis_when_shutdown=1000,
    )
    consumer.subscribe(options.topic, options.tags)
    consumer.register_message_listener(consume)
    with consumer, stop_on_signals() as stopping:
        print("Consumer started", flush=True)
        while not stopping.is_set() and not enough.wait(timeout=0.5):
            pass


if __name__ == "__main__":
    main()
