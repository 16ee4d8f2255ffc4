"""Effect once: consumers are killed in the middle, messages sent twice; the database counts each once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from shmq import Message, Producer
from shmq.embedded import Broker
from shmq.model.properties import UNIQ_KEY
from tests.helpers.waiting import wait_until

COUNT = 600

_CONSUMER = """
import os, sqlite3, sys
from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, Deduplicator, PushConsumer
namesrv, path, dies_after = sys.argv[1:]
connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
connection.execute("CREATE TABLE IF NOT EXISTS effect (body TEXT)")
deduplicator = Deduplicator("EffectGroup", connection)
left = int(dies_after)
def consume(messages, context):
    global left
    for message in messages:
        if deduplicator.is_first(message):
            connection.execute("INSERT INTO effect VALUES (?)", (bytes(message.body).decode(),))
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)     # the row and the effect are written, neither is committed
    connection.commit()
    if left == -1:
        os.kill(os.getpid(), 9)         # both are committed, the offset is not
    return ConsumeConcurrentlyStatus.CONSUME_SUCCESS
consumer = PushConsumer("EffectGroup", namesrv_addr=namesrv, consume_thread_min=1, consume_thread_max=1,
    consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET)
consumer.subscribe("Effect")
consumer.register_message_listener(consume)
with consumer:
    sys.stdin.read()
"""


@pytest.mark.long
def test_each_message_has_effect_once(shared_broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "database"
    with Producer("Effect", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("Effect", 4)
        for n in range(COUNT):
            for _ in range(1 + n % 3 // 2):  # every third one twice, as after a lost answer
                message = Message("Effect", b"%d" % n)
                message.properties[UNIQ_KEY] = f"EFFECT{n:026d}"
                producer.send(message)

    def consumer(dies_after: int) -> subprocess.Popen[bytes]:
        arguments = (shared_broker.namesrv_addr, str(path), str(dies_after))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(
            [sys.executable, "-c", _CONSUMER, *arguments], stdin=subprocess.PIPE, env=environment
        )

    for dies_after in (50, 0, 120):
        assert consumer(dies_after).wait(30) == -9
    last = consumer(-10)
    try:

        def effects() -> list[int]:
            with sqlite3.connect(path, timeout=30) as database:
                return sorted(int(body) for (body,) in database.execute("SELECT body FROM effect"))

        wait_until(lambda: len(effects()) >= COUNT, 30, "all have effect")
    finally:
        last.communicate(timeout=20)
    assert effects() == list(range(COUNT))
    assert len(list(sqlite3.connect(path).execute("SELECT 1 FROM shmq_consumed"))) == COUNT
