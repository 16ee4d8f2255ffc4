"""See which queues of a topic are this member's, and how that changes as members come and go."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from shmq import MessageQueue, PullConsumer
from shmq.examples.options import CONSUMER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.queue_listener", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    options_count = options.count
    changes: list[int] = []
    enough = threading.Event()

    def changed(topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        ids = ", ".join(str(queue.queue_id) for queue in sorted(mine)) or "none"
        print(f"{topic}: mine are {ids} of {len(everyones)} queues", flush=True)
        changes.append(len(mine))
        if options_count and len(changes) >= options_count:
            enough.set()

    consumer = PullConsumer(options.group, namesrv_addr=options.namesrv)
    consumer.register_message_queue_listener(options.topic, changed)
    with consumer:
        try:
            while not enough.wait(timeout=1):
                pass
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
