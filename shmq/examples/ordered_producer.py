"""Send the steps of several orders: create, pay, push, finish. The order's number chooses the queue."""

from __future__ import annotations

from shmq import Message, Producer, select_by_hash
from shmq.examples.options import PRODUCER_GROUP, parser

STEPS = ("create", "pay", "push", "finish")


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options = parser("shmq.examples.ordered_producer", __doc__ or "", count=10).parse_args(arguments)
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for step in STEPS:
            for number in range(options.count):
                order = f"order {number}"
                message = Message(options.topic, f"{order}: {step}".encode(), tags=step)
                sent = producer.send(message, selector=select_by_hash, argument=order)
                print(f"{order}: {step} -> queue {sent.message_queue.queue_id}")


if __name__ == "__main__":
    main()
