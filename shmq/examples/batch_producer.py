"""Send many messages with few requests: a list is one batch; a splitter keeps each batch below 4 MiB."""

from __future__ import annotations

from shmq import Message, MessageSplitter, Producer
from shmq.examples.options import PRODUCER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options = parser("shmq.examples.batch_producer", __doc__ or "", count=100_000).parse_args(arguments)
    messages = [
        Message(options.topic, f"Hello shmq {number}".encode(), tags="Tag", keys=f"OrderID{number}")
        for number in range(options.count)
    ]
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for batch in MessageSplitter(messages, limit_bytes=1 << 20):
            result = producer.send(batch)
            print(f"{result.send_status.name} {len(batch)} messages from offset {result.queue_offset} on")


if __name__ == "__main__":
    main()
