"""Ask a consumer something and wait for its reply; both ends run in this one program."""

from __future__ import annotations

from shmq import (
    ConsumeConcurrentlyStatus,
    Message,
    MessageExt,
    Producer,
    PushConsumer,
    create_reply_message,
)
from shmq.examples.options import CONSUMER_GROUP, PRODUCER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.request_reply", __doc__ or "", count=3)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:

        def answer(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
            for message in messages:
                producer.send(create_reply_message(message, b"you said: " + message.body))
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        producer.create_topic(options.topic)
        consumer = PushConsumer(
            options.group, namesrv_addr=options.namesrv, await_termination_millis_when_shutdown=1000
        )
        consumer.subscribe(options.topic)
        consumer.register_message_listener(answer)
        with consumer:
            for number in range(options.count):
                question = Message(options.topic, f"question {number}".encode())
                reply = producer.request(question, timeout_ms=10_000)
                print(reply.body.decode())


if __name__ == "__main__":
    main()
