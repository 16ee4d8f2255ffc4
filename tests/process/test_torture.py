"""tools/torture: a short storm keeps every promise, and the checker notices each kind of broken one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tools" / "lib"))

from torture.body import Sender, make_body, sender_of  # noqa: E402
from torture.checker import Ack, Evidence, judge  # noqa: E402
from torture.storm import schedule  # noqa: E402

QUEUE = ("Storm0", 0)


def evidence(count: int = 5) -> Evidence:
    """What a run without any fault leaves."""
    senders = [Sender("p0", number) for number in range(count)]
    return Evidence(
        acks=[Ack(sender, QUEUE, offset, float(offset)) for offset, sender in enumerate(senders)],
        tries=Counter(senders),
        seen=Counter({(*QUEUE, offset): 1 for offset in range(count)}),
        stored={QUEUE: list(senders)},
        committed=[{QUEUE: 1}, {}, {QUEUE: count}],
    )


def wrong(found: Evidence) -> set[str]:
    return {kind for kind, lines in judge(found).wrong.items() if lines}


def test_a_run_without_fault_is_judged_so() -> None:
    verdict = judge(evidence())
    assert verdict.holds and verdict.acknowledged == 5


def test_a_lost_message_is_noticed() -> None:
    found = evidence()
    found.stored[QUEUE].pop()
    assert wrong(found) == {"lost"}


def test_another_message_in_its_place_is_noticed() -> None:
    found = evidence()
    found.stored[QUEUE][2] = Sender("p1", 77)
    assert wrong(found) == {"lost"}


def test_a_torn_body_is_noticed() -> None:
    found = evidence()
    found.stored[QUEUE].append(None)
    assert wrong(found) == {"torn"}
    body = bytearray(make_body(Sender("p0", 3), random.Random(1)))
    assert sender_of(bytes(body)) == Sender("p0", 3)
    body[-1] ^= 1
    assert sender_of(bytes(body)) is None


def test_a_swapped_order_is_noticed() -> None:
    found = evidence()
    found.acks[1], found.acks[2] = (
        found.acks[1]._replace(offset=2),
        found.acks[2]._replace(offset=1),
    )
    senders = found.stored[QUEUE]
    senders[1], senders[2] = senders[2], senders[1]
    assert wrong(found) == {"order"}


def test_a_double_is_noticed_unless_its_producer_tried_twice() -> None:
    found = evidence()
    found.stored[QUEUE].append(Sender("p0", 4))
    assert wrong(found) == {"doubled"}
    found.tries[Sender("p0", 4)] += 1
    assert judge(found).holds and judge(found).doubled == 1


def test_what_no_consumer_was_given_and_an_offset_gone_back_are_noticed() -> None:
    found = evidence()
    del found.seen[*QUEUE, 3]
    found.committed.append({QUEUE: 2})
    assert wrong(found) == {"unseen", "went back"}


def test_retention_explains_what_it_deleted_and_nothing_else() -> None:
    found = evidence()
    found.stored[QUEUE] = found.stored[QUEUE][2:]
    found.minima[QUEUE] = 2
    found.min_offset = found.expired_end = 4096
    del found.seen[*QUEUE, 0]
    assert judge(found).holds and judge(found).deleted == 2
    found.stored[QUEUE][0] = Sender("p1", 77)
    assert wrong(found) == {"lost"}
    found = evidence()
    found.min_offset, found.expired_end = 8192, 4096
    assert wrong(found) == {"retention"}


def test_a_seed_is_a_schedule() -> None:
    first, again, other = schedule(1), schedule(1), schedule(2)
    events = [next(first) for _ in range(50)]
    assert events == [next(again) for _ in range(50)]
    assert events != [next(other) for _ in range(50)]


@pytest.mark.parametrize(
    ("seconds", "flush"),
    [
        (20, "ASYNC_FLUSH"),
        pytest.param(60, "SYNC_FLUSH", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(240)
def test_a_storm_breaks_no_promise(seconds: int, flush: str) -> None:
    command = [sys.executable, "-m", "torture", f"--minutes={seconds / 60}", "--seed=20261121"]
    done = subprocess.run(
        [*command, f"--flush={flush}", "--json"],
        cwd=ROOT / "tools" / "lib",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout[done.stdout.index("{") :])
    assert verdict["holds"] and verdict["acknowledged"] > 100
    print(verdict["silence"])
