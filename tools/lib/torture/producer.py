"""A producer process: one message after the other, each again and again until it is acknowledged.

    torture.producer NAME SEED NAMESRV FOLDER

Its file has ["try", number, attempt] before each attempt, and ["ack", number, topic, queue id, queue offset,
monotonic s] after each acknowledgement. Started again after a kill it goes on behind its last line; a message
that was under way is tried again: it may be stored without anybody knowing.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from shmq import Message, Producer, SendStatus, ShmqError
from torture.body import Sender, make_body
from torture.lines import Lines, rows

TOPICS = ("Storm0", "Storm1")
QUEUES = 4
PAUSE_S = 0.02


def main() -> None:
    """Send until killed or told to stop by the end of standard input."""
    name, seed, namesrv, folder = sys.argv[1:5]
    path = Path(folder) / f"{name}.sent"
    known = list(rows(path))
    number = 1 + max((row[1] for row in known), default=-1)
    done = Path(folder) / "done"
    log = Lines(path)
    if known and known[-1][0] != "ack":
        number -= 1
    rng = random.Random(f"{seed}/{name}/{number}")
    with Producer(
        f"Storm-{name}",
        namesrv_addr=namesrv,
        retry_times_when_send_failed=0,
        send_msg_timeout_ms=10_000,
        compress_msg_body_over_howmuch=1 << 30,  # bodies are read as they are stored
    ) as producer:
        attempt = 0
        while not done.exists():
            topic = TOPICS[number % len(TOPICS)]
            log.put("try", number, attempt)
            try:
                queues = producer.fetch_publish_message_queues(topic)
                queue = queues[number // len(TOPICS) % len(queues)]
                result = producer.send(Message(topic, make_body(Sender(name, number), rng)), queue=queue)
            except ShmqError:
                attempt += 1
                time.sleep(PAUSE_S)
                continue
            if result.send_status is not SendStatus.SEND_OK:
                attempt += 1
                continue
            place = result.message_queue
            log.put("ack", number, place.topic, place.queue_id, result.queue_offset, time.monotonic())
            number, attempt = number + 1, 0


if __name__ == "__main__":
    main()
