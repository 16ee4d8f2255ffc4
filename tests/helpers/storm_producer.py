"""A producer in a storm: random transactions and timers, with its own database, killed at any moment.

    python -m tests.helpers.storm_producer NAMESRV DATABASE NUMBER SEED     NUMBER "asked": sends nothing

Tables of the database (SQLite, one file for all producers, as a real application would have):

    outcome   id of the transaction; its bodies, with "|" between; 8 commit, 12 rollback, 0 unknown for ever;
              the first ms in which they may be delivered
    timer     body; the first ms in which it may be delivered; tried, sent, taking, taken
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from shmq import IllegalOperation, Message, MessageExt, Producer, ShmqError, TransactionProducer
from shmq import LocalTransactionState as State

TOPIC = "Storm"
LEVEL_MS = {0: 0, 1: 1000, 2: 2000}
NEVER_KNOWN_SHARE = 0.02
BATCH_SHARE = 0.1
TIMER_SHARE = 0.4
DEATH_SHARE = 0.01

TABLES = """
PRAGMA journal_mode=WAL;
CREATE TABLE outcome (id TEXT PRIMARY KEY, bodies TEXT, state INTEGER, not_before INTEGER);
CREATE TABLE timer (body TEXT PRIMARY KEY, not_before INTEGER, state TEXT);
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def database(path: str) -> Iterator[sqlite3.Connection]:
    """Every statement is a transaction of its own; processes die here, the host does not."""
    own = sqlite3.connect(path, timeout=30, isolation_level=None)
    own.execute("PRAGMA synchronous=OFF")
    try:
        yield own
    finally:
        own.close()


class Application:
    """The listener: who comes first, local transaction or check, decides in the database."""

    def __init__(self, path: str, chance: random.Random) -> None:
        self.path = path
        self.chance = chance

    def execute_local_transaction(self, message: Any, argument: tuple[str, int]) -> State:
        bodies, wait_ms = argument
        chance = self.chance
        state = chance.choice((State.COMMIT_MESSAGE, State.COMMIT_MESSAGE, State.ROLLBACK_MESSAGE))
        if chance.random() < NEVER_KNOWN_SHARE:
            state = State.UNKNOW
        if chance.random() < DEATH_SHARE:
            os._exit(1)
        with database(self.path) as own:
            try:
                row = (message.transaction_id, bodies, int(state), now_ms() + wait_ms)
                own.execute("INSERT INTO outcome VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:  # a check was faster and rolled it back
                return State.ROLLBACK_MESSAGE
        if chance.random() < DEATH_SHARE:
            os._exit(1)
        return chance.choice((state, state, state, State.UNKNOW))

    def check_local_transaction(self, message: MessageExt) -> State:
        with database(self.path) as own:
            row = (message.transaction_id, "", int(State.ROLLBACK_MESSAGE), 0)
            own.execute("INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?)", row)
            found = own.execute("SELECT state FROM outcome WHERE id = ?", row[:1]).fetchone()
        return State(found[0])


def transact(producer: TransactionProducer, chance: random.Random, body: str) -> None:
    """One transaction: a batch, a message, or one that waits from its commit on."""
    if chance.random() < BATCH_SHARE:
        pair = [f"{body} 1", f"{body} 2"]
        messages = [Message(TOPIC, one.encode()) for one in pair]
        producer.send_message_in_transaction(messages, ("|".join(pair), 0))
        return
    level = chance.choice((0, 0, 1, 2))
    wait_ms = chance.choice((0, chance.randrange(1, 4000))) if not level else 0
    message = Message(TOPIC, body.encode(), delay_level=level)
    if wait_ms:
        message.delay = timedelta(milliseconds=wait_ms)
    producer.send_message_in_transaction(message, (body, LEVEL_MS[level] + wait_ms))


def time_it(producer: Producer, chance: random.Random, path: str, body: str) -> None:
    """One timer, some taken back or put off afterwards."""
    wait_ms = chance.choice((chance.randrange(1, 300), chance.randrange(300, 8000)))
    due_ms = now_ms() + wait_ms
    message = Message(TOPIC, body.encode())
    if chance.random() < 0.5:
        message.delay = timedelta(milliseconds=wait_ms)
    else:
        message.deliver_at = datetime.fromtimestamp(due_ms / 1000, UTC)
        due_ms = int(message.properties["TIMER_DELIVER_MS"])
    with database(path) as own:

        def note(state: str, not_before: int) -> None:
            own.execute("INSERT OR REPLACE INTO timer VALUES (?, ?, ?)", (body, not_before, state))

        note("tried", due_ms)
        handle = producer.send(message).recall_handle
        note("sent", due_ms)
        if not handle or chance.random() < 0.6:
            return
        if chance.random() < 0.5:
            note("taking", due_ms)
            try:
                producer.recall_message(TOPIC, handle)
                note("taken", due_ms)
            except IllegalOperation:  # it was delivered meanwhile: nothing was changed
                note("sent", due_ms)
            return
        moved_ms = now_ms() + chance.randrange(6000)
        note("sent", min(due_ms, moved_ms))
        with suppress(IllegalOperation):
            producer.reschedule_message(TOPIC, handle, datetime.fromtimestamp(moved_ms / 1000, UTC))
            note("sent", moved_ms)


def main(namesrv: str, path: str, number: str, seed: str) -> None:
    chance, pid, count = random.Random(seed), os.getpid(), 0
    settings: dict[str, Any] = {"namesrv_addr": namesrv, "send_msg_timeout_ms": 5000}
    with (
        TransactionProducer("StormGroup", Application(path, chance), topics=(TOPIC,), **settings) as producer,
        Producer("StormTimers", enable_idempotence=True, **settings) as timers,
    ):
        while number == "asked":
            time.sleep(1)
        while True:
            count += 1
            body = f"{number} {pid} {count}"
            try:
                if chance.random() < TIMER_SHARE:
                    time_it(timers, chance, path, body)
                else:
                    transact(producer, chance, body)
            except ShmqError:
                time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
