"""tools/torture: the command line, the run, the table."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from shmq import AdminClient, Producer, ShmqError
from shmq.embedded import Broker
from torture.checker import Evidence, Queue, Verdict, judge, read
from torture.consumer import GROUP
from torture.producer import QUEUES, TOPICS
from torture.storm import Children, Storm, schedule

SHOWN_MAX = 10
CATCH_UP_LIMIT_S = 60.0


def main() -> int:
    """Run the storm; 0 only if every promise was kept."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="shmq-torture-"))
    started = time.monotonic()
    evidence, events = _storm(options, folder)
    verdict = judge(evidence)
    times = _silences(evidence, events)
    _report(options, verdict, times, time.monotonic() - started)
    if verdict.holds and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    if not verdict.holds:
        print(
            "again: ./tools/torture "
            + " ".join(sys.argv[1:])
            + ("" if "--seed" in sys.argv else f" --seed {options.seed}")
        )
    return 0 if verdict.holds else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/torture",
        description="Kill processes of a private broker at random under load; prove that nothing was lost.",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the storm (default 1)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="who dies when")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--flush", choices=("ASYNC_FLUSH", "SYNC_FLUSH"), default="ASYNC_FLUSH")
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--consumers", type=int, default=2)
    parser.add_argument(
        "--keep", action="store_true", help="keep store, notes and logs when all is well, too"
    )
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    return parser.parse_args()


Happened = list[tuple[float, str]]
"""When (monotonic s) what was done."""


def _storm(options: argparse.Namespace, folder: Path) -> tuple[Evidence, Happened]:
    """Run it and collect the evidence from the stopped store."""
    notes = folder / "notes"
    notes.mkdir()
    broker = Broker(
        folder / "store",
        logDir=folder / "log",
        brokerWorkers=options.workers,
        flushDiskType=options.flush,
        mappedFileSizeCommitLog=4 << 20,
    )
    happened: Happened = []
    committed: list[dict[Queue, int]] = []
    with ExitStack() as ended:
        ended.callback(broker.close)
        broker.start()
        with Producer("Storm-first", namesrv_addr=broker.namesrv_addr) as producer:
            for topic in TOPICS:
                producer.create_topic(topic, QUEUES)
        address = broker.namesrv_addr
        producers = Children(
            "torture.producer",
            [f"p{n}" for n in range(options.producers)],
            lambda name: [name, str(options.seed), address, str(notes)],
            folder / "clients.log",
        )
        ended.callback(producers.kill)
        consumers = Children(
            "torture.consumer",
            [f"c{n}" for n in range(options.consumers)],
            lambda name: [name, address, str(notes)],
            folder / "clients.log",
        )
        ended.callback(consumers.kill)
        storm = Storm(broker, producers, consumers)
        end = time.monotonic() + options.minutes * 60
        for event in schedule(options.seed):
            time.sleep(event.pause_s)
            if time.monotonic() >= end:
                break
            happened.append((time.monotonic(), event.kind))
            storm.carry_out(event)
            committed.append(_committed(broker))
            if sys.stderr.isatty():
                left = max(0.0, end - time.monotonic())
                print(f"\r{len(happened)} events, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
        _settle(broker, notes, producers, consumers, committed)
    evidence = read(notes, folder / "store", TOPICS)
    evidence.committed = list(committed)
    evidence.expired_end = storm.expired_end
    return evidence, happened


def _settle(
    broker: Broker, notes: Path, producers: Children, consumers: Children, committed: list[dict[Queue, int]]
) -> None:
    """End the producers, let the consumers catch up, end them too."""
    (notes / "done").touch()
    producers.wait(30)
    deadline = time.monotonic() + CATCH_UP_LIMIT_S
    while time.monotonic() < deadline and not _caught_up(broker):
        consumers.start_missing()
        time.sleep(0.2)
    (notes / "over").touch()
    consumers.wait(30)
    committed.append(_committed(broker))


def _committed(broker: Broker) -> dict[Queue, int]:
    """The group's committed offsets; nothing while nobody answers."""
    try:
        with AdminClient(broker.namesrv_addr, timeout_s=1.0) as admin:
            table = admin.consume_stats(GROUP).offset_table
    except (ShmqError, OSError):
        return {}
    return {(queue.topic, queue.queue_id): row.consumer_offset for queue, row in table.items()}


def _caught_up(broker: Broker) -> bool:
    try:
        with AdminClient(broker.namesrv_addr, timeout_s=1.0) as admin:
            table = admin.consume_stats(GROUP).offset_table
    except (ShmqError, OSError):
        return False
    rows = [row for queue, row in table.items() if queue.topic in TOPICS]
    return len(rows) == len(TOPICS) * QUEUES and all(row.consumer_offset >= row.broker_offset for row in rows)


def _silences(evidence: Evidence, happened: Happened) -> dict[str, list[float]]:
    """How long, in s, a producer went without an acknowledgement after each event, at most, by kind."""
    by_producer: defaultdict[str, list[float]] = defaultdict(list)
    for ack in evidence.acks:
        by_producer[ack.sender.name].append(ack.at_s)
    ends = [at_s for at_s, _ in happened[1:]] + [float("inf")]
    times: defaultdict[str, list[float]] = defaultdict(list)
    for (at_s, kind), end_s in zip(happened, ends, strict=True):
        longest = [0.0]
        for acks in by_producer.values():
            acks.sort()
            pairs = itertools.pairwise(acks)
            longest += [later - before for before, later in pairs if later > at_s and before < end_s]
        times[kind].append(max(longest))
    return dict(sorted(times.items()))


def _report(
    options: argparse.Namespace, verdict: Verdict, times: dict[str, list[float]], took_s: float
) -> None:
    if options.json:
        document = {
            "seed": options.seed,
            "seconds": took_s,
            "acknowledged": verdict.acknowledged,
            "deleted": verdict.deleted,
            "doubled": verdict.doubled,
            "seenAgain": verdict.seen_again,
            "silence": {kind: sorted(found) for kind, found in times.items()},
            "wrong": verdict.wrong,
            "holds": verdict.holds,
        }
        print(json.dumps(document, indent=2))
        return
    print("\nlongest silence of a producer after each event, until the next one:")
    print(f"{'event':<16} {'count':>6} {'p50 ms':>9} {'max ms':>9}")
    for kind, found in times.items():
        middle = sorted(found)[len(found) // 2]
        print(f"{kind:<16} {len(found):>6} {middle * 1000:>9.0f} {max(found) * 1000:>9.0f}")
    print(
        f"\n{verdict.acknowledged:,} acknowledged ({verdict.deleted:,} deleted by retention), "
        f"{verdict.doubled} stored twice by a second try, {verdict.seen_again:,} delivered again; "
        f"{took_s:.0f} s, {options.workers} workers, {options.flush}"
    )
    for kind, lines in verdict.wrong.items():
        if lines:
            print(f"WRONG {kind}: {len(lines)}")
            for line in lines[:SHOWN_MAX]:
                print(f"    {line}")
    print("every promise was kept" if verdict.holds else "PROMISES WERE BROKEN")


if __name__ == "__main__":
    sys.exit(main())
