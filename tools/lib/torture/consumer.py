"""A consumer process: notes what it is given as [topic, queue id, queue offset, sender, number].

torture.consumer NAME NAMESRV FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, MessageExt, PushConsumer
from torture.body import sender_of
from torture.lines import Lines
from torture.producer import TOPICS

GROUP = "Storm"


def main() -> None:
    """Consume until killed or told to stop."""
    name, namesrv, folder = sys.argv[1:4]
    log = Lines(Path(folder) / f"{name}.seen")
    over = Path(folder) / "over"

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        for message in messages:
            sender = sender_of(message.body)
            place = (message.topic, message.queue_id, message.queue_offset)
            log.put(*place, *(sender or ("", -1)))
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        GROUP, namesrv_addr=namesrv, consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
    )
    for topic in TOPICS:
        consumer.subscribe(topic)
    consumer.register_message_listener(consume)
    with consumer:
        while not over.exists():
            time.sleep(0.1)


if __name__ == "__main__":
    main()
