"""Deliver messages at any moment; put one off and take one back while they wait."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, Message, MessageExt, Producer, PushConsumer
from shmq.examples.options import CONSUMER_GROUP, PRODUCER_GROUP, parser
from shmq.examples.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.any_delay", __doc__ or "", count=3)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    arrived: list[MessageExt] = []

    def listen(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        for message in messages:
            waited_ms = message.store_timestamp - message.born_timestamp
            say(f"{message.body.decode()} after {waited_ms} ms")
            arrived.append(message)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        await_termination_millis_when_shutdown=1000,
    )
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        producer.create_topic(options.topic)
        for number in range(options.count):
            delay = timedelta(milliseconds=250 * (number + 1))
            producer.send(Message(options.topic, b"delayed %d" % number, delay=delay))
        moment = datetime.now() + timedelta(seconds=60)
        put_off = producer.send(Message(options.topic, b"put off", deliver_at=moment))
        taken_back = producer.send(Message(options.topic, b"taken back", deliver_at=moment))
        assert put_off.recall_handle and taken_back.recall_handle
        producer.reschedule_message(
            options.topic, put_off.recall_handle, datetime.now() + timedelta(seconds=1)
        )
        print("taken back:", producer.recall_message(options.topic, taken_back.recall_handle))
        consumer.subscribe(options.topic)
        consumer.register_message_listener(listen)
        with consumer:
            while len(arrived) < options.count + 1:
                time.sleep(0.01)


if __name__ == "__main__":
    main()
