"""A consumer process: a clustering push consumer that writes down what it gets until told to stop."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from histogram import Histogram
from quickstart import spool
from quickstart.job import NUMBER_PROPERTY, RUN_PROPERTY, TOPIC, Job, tell
from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, MessageExt, PushConsumer

BATCH_MAX = 256


class Recorder:
    """The message listener: spools this run's messages and tells the parent their numbers.

    Runs in the consumer's threads; `lock` guards everything.
    """

    def __init__(self, run: str, path: Path) -> None:
        """Write to a new spool at `path`."""
        self.lock = threading.Lock()
        self.run = run
        self.spool = path.open("wb")
        self.latencies_ms = Histogram()
        self.first = self.last = 0.0

    def __call__(self, messages: list[MessageExt], context: object) -> ConsumeConcurrentlyStatus:
        """Take one batch."""
        now = time.time()
        numbers = []
        with self.lock:
            for message in messages:
                properties = message.properties
                if properties.get(RUN_PROPERTY) != self.run:
                    continue  # from an earlier run on the same broker
                number = int(properties[NUMBER_PROPERTY])
                numbers.append(number)
                received = spool.Received(
                    number, message.queue_id, message.queue_offset, message.keys, message.body
                )
                spool.write(self.spool, received)
                self.latencies_ms.record(int(now * 1000) - message.born_timestamp)
            if numbers:
                self.first = self.first or now
                self.last = now
                # After the spool has them: the parent may stop us when it knows of the last message.
                self.spool.flush()
                tell(got=numbers)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS


def main() -> None:
    """Consume until the parent closes this process's input."""
    job = Job.read(sys.argv[1])
    recorder = Recorder(job.run, Path(sys.argv[2]))
    consumer = PushConsumer(
        job.group,
        namesrv_addr=job.namesrv_addr,
        use_unix_socket=not job.tcp,
        direct_pull=job.direct,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        consume_message_batch_max_size=BATCH_MAX,
    )
    consumer.subscribe(TOPIC, "*")
    consumer.register_message_listener(recorder)
    with consumer:
        tell(ready=True)
        sys.stdin.read()
    recorder.spool.close()
    tell(done=True, first=recorder.first, last=recorder.last, latencies_ms=recorder.latencies_ms.counts)


if __name__ == "__main__":
    main()
