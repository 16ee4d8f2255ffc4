"""Send messages without any answer: the quickest way, for logs and the like; a loss is not noticed."""

from __future__ import annotations

from shmq import Message, Producer
from shmq.examples.options import PRODUCER_GROUP, parser


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options = parser("shmq.examples.oneway_producer", __doc__ or "", count=100).parse_args(arguments)
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            producer.send_oneway(Message(options.topic, f"Hello shmq {number}".encode(), tags="TagA"))
    print(f"{options.count} messages handed over")


if __name__ == "__main__":
    main()
