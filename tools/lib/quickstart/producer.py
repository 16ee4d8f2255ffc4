"""The producer process: every line of every file, asynchronously, all lines of a file into one queue."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path

from quickstart.corpus import key_of, pieces, tag_of
from quickstart.job import NUMBER_PROPERTY, RUN_PROPERTY, TOPIC, Job, tell
from shmq import Message, Producer

IN_FLIGHT_MAX = 20_000
"""Unanswered sends; the client batches what waits, so more would only cost memory."""

TELL_EVERY = 2_000


def main() -> None:
    """Send everything, wait for every answer, tell the parent how it went."""
    job = Job.read(sys.argv[1])
    with Producer(
        "QuickStartProducer", namesrv_addr=job.namesrv_addr, use_unix_socket=not job.tcp
    ) as producer:
        queues = sorted(producer.fetch_publish_message_queues(TOPIC))
        number = answered = 0
        waiting: deque = deque()
        started = time.monotonic()
        for place, name in enumerate(job.files):
            path = Path(name)
            queue, tag = queues[place % len(queues)], tag_of(path)
            for piece in pieces(path):
                message = Message(TOPIC, piece.data, tags=tag, keys=key_of(path, piece.line))
                message.put_user_property(RUN_PROPERTY, job.run)
                message.put_user_property(NUMBER_PROPERTY, str(number))
                waiting.append(producer.send_async(message, queue=queue))
                number += 1
                if len(waiting) >= IN_FLIGHT_MAX or waiting[0].done():
                    waiting.popleft().result()
                    answered += 1
                    if answered % TELL_EVERY == 0:
                        tell(sent=answered)
        while waiting:
            waiting.popleft().result()
            answered += 1
            if answered % TELL_EVERY == 0:
                tell(sent=answered)
        tell(sent=answered, seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
