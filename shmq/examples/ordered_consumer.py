"""Consume the steps of orders one after the other: a queue has one owner, who takes its messages in order."""

from __future__ import annotations

import threading

from shmq import ConsumeFromWhere, ConsumeOrderlyContext, ConsumeOrderlyStatus, MessageExt, PushConsumer
from shmq.examples.options import CONSUMER_GROUP, parser
from shmq.examples.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.ordered_consumer", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    consumed: list[str] = []
    enough = threading.Event()

    def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> ConsumeOrderlyStatus:
        for message in messages:
            text = bytes(message.body).decode()
            say(f"queue {context.message_queue.queue_id}: {text}")
            consumed.append(text)
        if options.count and len(consumed) >= options.count:
            enough.set()
        return ConsumeOrderlyStatus.SUCCESS

    consumer = PushConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(options.topic)
    consumer.register_message_listener_orderly(consume)
    with consumer:
        try:
            while not enough.wait(timeout=1):
                pass
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
