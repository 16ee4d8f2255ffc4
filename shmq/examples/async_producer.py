"""Send messages without waiting for each answer; callbacks print how each ended."""

from __future__ import annotations

from functools import partial

from shmq import Message, Producer, SendResult
from shmq.examples.options import PRODUCER_GROUP, parser
from shmq.examples.say import say


def stored(number: int, result: SendResult) -> None:
    """Run on a client thread: be quick."""
    say(f"{number:<10} OK {result.msg_id}")


def failed(number: int, error: BaseException) -> None:
    """Run on a client thread: be quick."""
    say(f"{number:<10} failed: {error}")


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options = parser("shmq.examples.async_producer", __doc__ or "", count=100).parse_args(arguments)
    with Producer(PRODUCER_GROUP, namesrv_addr=options.namesrv) as producer:
        futures = [
            producer.send_async(
                Message(options.topic, f"Hello shmq {number}".encode(), tags="TagA", keys=f"order-{number}"),
                partial(stored, number),
                partial(failed, number),
            )
            for number in range(options.count)
        ]
        for future in futures:
            future.exception()


if __name__ == "__main__":
    main()
