"""Let the pull schedule service call a function for each queue; offsets are kept at the broker."""

from __future__ import annotations

import threading

from shmq import MessageQueue, PullScheduleService, PullStatus, PullTaskContext
from shmq.examples.options import CONSUMER_GROUP, parser
from shmq.examples.say import say


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.pull_schedule", __doc__ or "", count=0)
    options_parser.add_argument("--group", default=CONSUMER_GROUP, help="consumer group")
    options = options_parser.parse_args(arguments)
    enough = threading.Event()
    seen: list[str] = []

    def pull(queue: MessageQueue, context: PullTaskContext) -> None:
        consumer = context.pull_consumer
        offset = max(0, consumer.fetch_consume_offset(queue, from_store=False))
        result = consumer.pull(queue, "*", offset, 32)
        for message in result.messages:
            text = message.body.decode(errors="replace")
            say(f"{queue.queue_id} {message.queue_offset} {text}")
            seen.append(message.msg_id)
        consumer.update_consume_offset(queue, result.next_begin_offset)
        context.pull_next_delay_time_millis = 0 if result.status is PullStatus.FOUND else 100
        if options.count and len(seen) >= options.count:
            enough.set()

    service = PullScheduleService(options.group, namesrv_addr=options.namesrv)
    service.register_pull_task_callback(options.topic, pull)
    with service:
        try:
            while not enough.wait(timeout=1):
                pass
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
