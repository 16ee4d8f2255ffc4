"""Poll messages with a lite pull consumer: it shares queues with its group, you say when to read."""

from __future__ import annotations

from shmq import ConsumeFromWhere, LitePullConsumer
from shmq.examples.options import CONSUMER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.lite_pull_consumer", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    consumer = LitePullConsumer(
        options.group,
        namesrv_addr=options.namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(options.topic)
    seen = 0
    with consumer:
        try:
            while not options.count or seen < options.count:
                for message in consumer.poll(1000):
                    text = message.body.decode(errors="replace")
                    print(f"{message.queue_id} {message.queue_offset} {text}")
                    seen += 1
            consumer.commit(persist=True)
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
