"""Two members of one group that broadcasts: each of them gets every message."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    MessageModel,
    Producer,
    PushConsumer,
)
from shmq.examples.options import CONSUMER_GROUP, PRODUCER_GROUP, parser

MEMBERS = ("first", "second")


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.broadcasting", __doc__ or "", count=3)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    seen: Counter[str] = Counter()
    changed = threading.Condition()

    def listener(name: str) -> Callable[..., ConsumeConcurrentlyStatus]:
        def consume(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus:
            with changed:
                for message in messages:
                    print(f"{name}: {message.body.decode()}", flush=True)
                seen[name] += len(messages)
                changed.notify_all()
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        return consume

    def member(name: str) -> PushConsumer:
        # The instance name is the name of the file in which this member keeps its offsets.
        consumer = PushConsumer(
            options.group,
            namesrv_addr=options.namesrv,
            instance_name=name,
            message_model=MessageModel.BROADCASTING,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        consumer.subscribe(options.topic)
        consumer.register_message_listener(listener(name))
        return consumer

    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            producer.send(Message(options.topic, f"Hello everybody {number}".encode()))
    with member(MEMBERS[0]), member(MEMBERS[1]), changed:
        changed.wait_for(lambda: all(seen[name] >= options.count for name in MEMBERS), timeout=30)


if __name__ == "__main__":
    main()
