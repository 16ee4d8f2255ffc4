"""A storm: transactional producers in processes of their own, random outcomes and delays, timers; all die.

The producers keep their local transactions and timers in one SQLite file, as a real application would: what
is committed there must be delivered once, everything else never, and nothing before its time.
SHMQ_STORM_S is how long it lasts (60 s), SHMQ_STORM_SEED where its chances begin.
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
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from shmq import MessageExt, PullConsumer, ShmqError
from shmq.embedded import Broker
from shmq.model.names import TRANSACTION_CHECK_MAX_TOPIC
from shmq.store.check import check_store
from tests.helpers.storm_producer import TABLES, TOPIC, database
from tests.helpers.waiting import wait_until

STORM_S = float(os.environ.get("SHMQ_STORM_S", "60"))
SEED = int(os.environ.get("SHMQ_STORM_SEED", "11"))
PRODUCERS = 4
SETTLE_S = 180
SETTINGS = {
    "brokerWorkers": "2",
    "messageDelayLevel": "1s 2s",
    "transactionTimeOut": "2000",
    "transactionCheckInterval": "500",
    "transactionCheckMax": "40",
    "mappedFileSizeCommitLog": str(1 << 20),
}


class Ledger(NamedTuple):
    """What the producers' database says must have been delivered, may, and must not be before its time."""

    wanted: set[str]
    allowed: set[str]
    not_before: dict[str, int]
    never_known: set[str]
    timers: int


def ledger(path: Path) -> Ledger:
    with database(str(path)) as own:
        outcomes = own.execute("SELECT bodies, state, not_before FROM outcome").fetchall()
        timers = own.execute("SELECT body, not_before, state FROM timer").fetchall()
    not_before = {body: ms for body, ms, _ in timers}
    wanted = {body for body, _, state in timers if state == "sent"}
    allowed = {body for body, _, state in timers if state in ("tried", "taking")}
    for bodies, state, ms in outcomes:
        if state == 8:
            wanted.update(bodies.split("|"))
            not_before |= dict.fromkeys(bodies.split("|"), ms)
    never_known = {bodies.partition("|")[0] for bodies, state, _ in outcomes if not state}
    return Ledger(wanted, wanted | allowed, not_before, never_known, len(timers))


def start_producer(broker: Broker, rows: Path, number: object, seed: int) -> subprocess.Popen[bytes]:
    arguments = (broker.namesrv_addr, str(rows), str(number), str(seed))
    command = [sys.executable, "-m", "tests.helpers.storm_producer", *arguments]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def read_all(broker: Broker, topic: str, group: str) -> Iterator[MessageExt]:
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(topic):
            offset, end = 0, reader.max_offset(queue)
            while offset < end:  # an answer may say "ask again", as after a worker's death
                result = reader.pull(queue, "*", offset, 1000)
                yield from result.messages
                offset = result.next_begin_offset


def delivered(broker: Broker) -> list[tuple[str, int]]:
    """Body and store time of everything that was delivered."""
    return [(m.body.decode(), m.store_timestamp) for m in read_all(broker, TOPIC, "StormReader")]


def given_up(broker: Broker) -> list[str]:
    """The first bodies of the transactions that are kept aside."""
    found = read_all(broker, TRANSACTION_CHECK_MAX_TOPIC, "TOOLS_CONSUMER")
    return [_first_body(message) for message in found]


def _first_body(half: MessageExt) -> str:
    """A batch's body is that of request 320: six numbers, then the first message's body."""
    if half.get_property("SHMQ_HALF_BATCH") is None:
        return half.body.decode()
    length = int.from_bytes(half.body[16:20])
    return half.body[20 : 20 + length].decode()


def kill_one(broker: Broker, role: str) -> None:
    for child in psutil.Process(broker.pid).children(recursive=True):
        if role in " ".join(_words(child)):
            os.kill(child.pid, signal.SIGKILL)
            return


@pytest.mark.long
@pytest.mark.timeout(STORM_S * 2 + SETTLE_S + 120)
def test_what_was_committed_is_delivered_once_and_nothing_else(tmp_path: Path) -> None:
    rows, chance = tmp_path / "outcomes.db", random.Random(SEED)
    with closing(sqlite3.connect(rows)) as own:
        own.executescript(TABLES)
    kills: Counter[str] = Counter()
    with Broker(tmp_path / "store", **SETTINGS) as broker:
        producers = [start_producer(broker, rows, n, SEED + n) for n in range(PRODUCERS)]
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.1, 1.5))  # a random moment is what is wanted here
            role = chance.choice(("producer", "worker", "coordinator"))
            if role == "producer":
                chance.choice(producers).kill()
            else:
                kill_one(broker, role)
            kills[role] += 1
            for n, producer in enumerate(producers):
                if producer.poll() is not None:
                    kills["by itself"] += 1
                    producers[n] = start_producer(broker, rows, n, chance.randrange(1 << 30))
        for producer in producers:
            producer.kill()
            producer.wait()
        asked = start_producer(broker, rows, "asked", 0)  # sends nothing, only answers
        try:
            wait_until(lambda: _is_settled(broker, rows), SETTLE_S, "everything is decided and delivered")
        finally:
            asked.kill()
            asked.wait()
        told, found = ledger(rows), delivered(broker)
        times = Counter(body for body, _ in found)
        assert [body for body, n in times.items() if n > 1] == []
        assert told.wanted <= set(times) <= told.allowed
        early = [(body, told.not_before[body] - ms) for body, ms in found if ms < told.not_before[body]]
        assert early == []
        assert sorted(given_up(broker)) == sorted(told.never_known)
        late = sorted(ms - told.not_before[body] for body, ms in found)
        print(
            f"seed {SEED}, {STORM_S:.0f} s: {len(told.wanted)} wanted, {len(found)} delivered, of them "
            f"{told.timers} timers; {len(told.never_known)} given up; late by {late[len(late) // 2]} ms "
            f"(median), {late[-1]} ms (most); kills: {dict(kills)}"
        )
    assert list(check_store(tmp_path / "store", levels=SETTINGS["messageDelayLevel"])) == []


def _is_settled(broker: Broker, rows: Path) -> bool:
    try:
        told = ledger(rows)
        there = {body for body, _ in delivered(broker)}
        return told.wanted <= there and told.never_known <= set(given_up(broker))
    except ShmqError:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
