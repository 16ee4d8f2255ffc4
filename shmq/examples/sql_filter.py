"""Send messages with properties, and receive those that an SQL-92 expression is true of."""

from __future__ import annotations

import threading

from shmq import (
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    MessageSelector,
    Producer,
    PushConsumer,
)
from shmq.examples.options import CONSUMER_GROUP, PRODUCER_GROUP, parser
from shmq.examples.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.sql_filter", __doc__ or "", count=10)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options_parser.add_argument(
        "--sql", default="a BETWEEN 0 AND 3", help="expression (default 'a BETWEEN 0 AND 3')"
    )
    options_parser.add_argument("--expect", type=int, default=4, help="messages to wait for (default 4)")
    options = options_parser.parse_args(arguments)
    enough = threading.Event()
    seen: list[str] = []

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        for message in messages:
            say(f"a={message.get_property('a')} {message.body.decode(errors='replace')}")
            seen.append(message.msg_id)
        if len(seen) >= options.expect:
            enough.set()
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            message = Message(options.topic, f"Hello shmq {number}".encode())
            message.put_user_property("a", str(number))
            producer.send(message)
    consumer = PushConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        await_termination_millis_when_shutdown=1000,
    )
    consumer.subscribe(options.topic, MessageSelector.by_sql(options.sql))
    consumer.register_message_listener(consume)
    with consumer:
        enough.wait(timeout=30)
    print(f"{len(seen)} of {options.count} messages matched")


if __name__ == "__main__":
    main()
