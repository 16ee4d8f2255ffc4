"""Send messages one by one and print where each was stored."""

from __future__ import annotations

from shmq import Message, Producer
from shmq.examples.options import PRODUCER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options = parser("shmq.examples.producer", __doc__ or "", count=10).parse_args(arguments)
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            message = Message(
                options.topic, f"Hello shmq {number}".encode(), tags="TagA", keys=f"key-{number}"
            )
            result = producer.send(message)
            print(f"{result.send_status.name} {result.msg_id} {result.message_queue} {result.queue_offset}")


if __name__ == "__main__":
    main()
