"""A storm: transactional producers in processes of their own, random outcomes and delays, everybody dies.

The producers keep their local transactions in one SQLite file, as a real application would: what is committed
there must be delivered once, everything else never. SHMQ_STORM_S is how long it lasts (60 s).
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from shmq import PullConsumer, PullStatus, ShmqError
from shmq.embedded import Broker
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until

STORM_S = float(os.environ.get("SHMQ_STORM_S", "60"))
TOPIC = "Storm"
PRODUCERS = 4
SETTINGS = {
    "brokerWorkers": "2",
    "messageDelayLevel": "1s 2s",
    "transactionTimeOut": "2000",
    "transactionCheckInterval": "500",
    "transactionCheckMax": "1000",
    "mappedFileSizeCommitLog": str(1 << 20),
}

PRODUCER = """
import os, random, sqlite3, sys, time
from shmq import LocalTransactionState as State, Message, ShmqError, TransactionProducer

namesrv, path, number, seed = sys.argv[1:]
chance, pid = random.Random(seed), os.getpid()


def rows():
    return sqlite3.connect(path, timeout=30, isolation_level=None)


class Application:
    def execute_local_transaction(self, message, argument):
        state = chance.choice((State.COMMIT_MESSAGE, State.COMMIT_MESSAGE, State.ROLLBACK_MESSAGE))
        if chance.random() < 0.01:
            os._exit(1)
        own = rows()
        own.execute("INSERT INTO outcome VALUES (?, ?, ?)", (message.transaction_id, argument, int(state)))
        own.close()
        if chance.random() < 0.01:
            os._exit(1)
        return chance.choice((state, state, state, State.UNKNOW))

    def check_local_transaction(self, message):
        own = rows()
        found = own.execute("SELECT state FROM outcome WHERE id = ?", (message.transaction_id,)).fetchone()
        own.close()
        return State(found[0]) if found else State.ROLLBACK_MESSAGE


count = 0
with TransactionProducer(
    "StormGroup", Application(), namesrv_addr=namesrv, topics=("Storm",), send_msg_timeout_ms=5000
) as producer:
    while number == "asked":
        time.sleep(1)
    while True:
        count += 1
        body = f"{number} {pid} {count}"
        batch = chance.random() < 0.1
        message = Message("Storm", body.encode(), delay_level=0 if batch else chance.choice((0, 0, 1, 2)))
        try:
            if batch:
                pair = [Message("Storm", f"{body} {part}".encode()) for part in (1, 2)]
                producer.send_message_in_transaction(pair, f"{body} 1|{body} 2")
            else:
                producer.send_message_in_transaction(message, body)
        except ShmqError:
            time.sleep(0.1)
"""


def start_producer(broker: Broker, rows: Path, number: object, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PRODUCER, broker.namesrv_addr, str(rows), str(number), str(seed)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def delivered(broker: Broker) -> Counter[str]:
    found: Counter[str] = Counter()
    with PullConsumer("StormReader", namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(TOPIC):
            offset = 0
            while (result := reader.pull(queue, "*", offset, 1000)).status is PullStatus.FOUND:
                found.update(message.body.decode() for message in result.messages)
                offset = result.next_begin_offset
    return found


def committed(rows: Path) -> set[str]:
    with closing(sqlite3.connect(rows, timeout=30)) as own:
        found = own.execute("SELECT bodies FROM outcome WHERE state = 8").fetchall()
    return {body for (bodies,) in found for body in bodies.split("|")}


@pytest.mark.long
@pytest.mark.timeout(STORM_S * 2 + 240)
def test_what_was_committed_is_delivered_once_and_nothing_else(tmp_path: Path) -> None:
    rows, chance = tmp_path / "outcomes.db", random.Random(11)
    with closing(sqlite3.connect(rows)) as own:
        own.execute("PRAGMA journal_mode=WAL")
        own.execute("CREATE TABLE outcome (id TEXT PRIMARY KEY, bodies TEXT, state INTEGER)")
    kills: Counter[str] = Counter()
    with Broker(tmp_path / "store", **SETTINGS) as broker:
        producers = [start_producer(broker, rows, n, n) for n in range(PRODUCERS)]
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.1, 1.5))  # a random moment is what is wanted here
            role = chance.choice(("producer", "worker", "coordinator"))
            if role == "producer":
                chance.choice(producers).kill()
            else:
                for child in psutil.Process(broker.pid).children(recursive=True):
                    if role in " ".join(_words(child)):
                        os.kill(child.pid, signal.SIGKILL)
                        break
            kills[role] += 1
            for n, producer in enumerate(producers):
                if producer.poll() is not None:
                    kills["by itself"] += 1
                    producers[n] = start_producer(broker, rows, n, chance.randrange(1 << 30))
        for producer in producers:
            producer.kill()
            producer.wait()
        asked = start_producer(broker, rows, "asked", 0)  # sends nothing, only answers
        wanted = committed(rows)
        try:
            wait_until(lambda: _is_there(broker, wanted), 120, "everything committed is delivered")
        finally:
            asked.kill()
            asked.wait()
        found = delivered(broker)
        assert [body for body, times in found.items() if times > 1] == []
        assert set(found) == wanted == committed(rows)
        print(f"{len(wanted)} committed and delivered; kills: {dict(kills)}")
    assert list(check_store(tmp_path / "store", levels=SETTINGS["messageDelayLevel"])) == []


def _is_there(broker: Broker, wanted: set[str]) -> bool:
    try:
        return wanted <= set(delivered(broker))
    except ShmqError:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
