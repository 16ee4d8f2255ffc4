"""A producer process that sends batches of messages with keys, as fast as wanted, for some seconds.

    python -m tests.helpers.key_load NAMESRV TOPIC PREFIX SECONDS RATE

Its keys are `PREFIX-0` and so on; RATE 0: as fast as it goes. It prints how many messages were acknowledged
and in how many seconds.
"""

from __future__ import annotations

import sys
import time

from shmq import Message, Producer

BATCH = 1000


def main(namesrv: str, topic: str, prefix: str, seconds: str, rate: str) -> None:
    """Send until the time is over."""
    sent, began = 0, time.monotonic()
    with Producer("KeyLoad", namesrv_addr=namesrv) as producer:
        while (passed := time.monotonic() - began) < float(seconds):
            if float(rate) and sent > float(rate) * passed:
                time.sleep(0.001)
                continue
            producer.send(
                [
                    Message(topic, b"x" * 256, keys=f"{prefix}-{n}", tags="TagA")
                    for n in range(sent, sent + BATCH)
                ]
            )
            sent += BATCH
    print(sent, round(time.monotonic() - began, 3))


if __name__ == "__main__":
    main(*sys.argv[1:])
