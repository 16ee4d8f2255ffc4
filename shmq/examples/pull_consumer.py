"""Pull every message of a topic, queue by queue, keeping the offsets oneself."""

from __future__ import annotations

from shmq import PullConsumer, PullStatus
from shmq.examples.options import CONSUMER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.pull_consumer", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    left = options.count or 1 << 62
    with PullConsumer(options.group, namesrv_addr=options.namesrv) as consumer:
        for queue in consumer.fetch_subscribe_message_queues(options.topic):
            offset = consumer.min_offset(queue)
            while left > 0:
                result = consumer.pull(queue, "*", offset, min(32, left))
                print(f"{queue}: {result}")
                offset = result.next_begin_offset
                match result.status:
                    case PullStatus.FOUND:
                        for message in result.messages:
                            print(f"{message.queue_offset} {message.body.decode(errors='replace')}")
                        left -= len(result.messages)
                    case PullStatus.NO_NEW_MSG:
                        break
                    case PullStatus.NO_MATCHED_MSG | PullStatus.OFFSET_ILLEGAL:
                        continue
            consumer.update_consume_offset(queue, offset)


if __name__ == "__main__":
    main()
