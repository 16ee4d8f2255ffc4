"""What messages for any moment cost, on a private broker: lateness, memory, and the speed of other sends.

late      sends messages for moments up to 2 s ahead, one every 10 ms, and compares store time and moment
          (goal: p99 20 ms on an idle machine, none early)
pending   puts `--count` timers over the next day, in a process of its own. Compares the private memory of the
          broker's processes before and after (anonymous pages; wheel and log are pages of files; goal: 16
          MiB more for 1,000,000), and plain sends to this broker and to one without timers, by turns (goal:
          the same rate)
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import statistics
import time
from datetime import timedelta

import psutil

from shmq import Message, Producer, PullConsumer, PullStatus
from shmq.embedded import Broker

DAY_S = 86_400
UNDER_WAY = 2000
PROBE_S = 1.0
PROBES = 9


def private_mib(broker: Broker) -> dict[str, float]:
    """Anonymous memory of the broker's processes, by the first word of their titles; together as "all"."""
    found: dict[str, float] = {}
    supervisor = psutil.Process(broker.pid)
    for process in (supervisor, *supervisor.children(recursive=True)):
        with open(f"/proc/{process.pid}/smaps_rollup") as file:
            anonymous = re.search(r"^Anonymous:\s+(\d+) kB", file.read(), re.MULTILINE)
        title = " ".join(process.cmdline()).removeprefix("shmq: ").split(" ")[0]
        title = title.rsplit("/", 1)[-1]
        found[title] = found.get(title, 0.0) + (int(anonymous[1]) / 1024 if anonymous else 0.0)
    return found | {"all": sum(found.values())}


def plain_rate(producer: Producer) -> float:
    """Sync sends per second in one short probe."""
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < PROBE_S:
        producer.send(Message("Plain", b"x" * 256))
        count += 1
    return count / (time.perf_counter() - begin)


def slowdown(loaded: Broker) -> str:
    """The rate of plain sends to the broker with timers over that of one without, probed by turns."""
    with (
        Broker(brokerWorkers="1", brokerName="broker-b") as bare,
        Producer("Bare", namesrv_addr=bare.namesrv_addr, instance_name="bare") as to_bare,
        Producer("Loaded", namesrv_addr=loaded.namesrv_addr, instance_name="loaded") as to_loaded,
    ):
        to_bare.create_topic("Plain", 1)
        plain_rate(to_bare)
        plain_rate(to_loaded)
        rates = [(plain_rate(to_bare), plain_rate(to_loaded)) for _ in range(PROBES)]
    ratios = sorted(with_timers / without for without, with_timers in rates)
    without, with_timers = (statistics.median(column) for column in zip(*rates, strict=True))
    return (
        f"{without:,.0f}/s without timers, {with_timers:,.0f}/s with them; "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f}, {PROBES} turns)"
    )


def lateness(broker: Broker, producer: Producer, count: int) -> list[int]:
    """How many ms after its moment each of some timers was stored in its topic, sorted."""
    chance = random.Random(1)
    for number in range(count):
        delay = timedelta(milliseconds=chance.uniform(5, 2000))
        producer.send(Message("Late", b"%d" % number, delay=delay))
        time.sleep(0.01)
    time.sleep(2.5)
    late: list[int] = []
    with PullConsumer("BenchReader", namesrv_addr=broker.namesrv_addr) as reader:
        (queue,) = reader.fetch_subscribe_message_queues("Late")
        offset = 0
        while (result := reader.pull(queue, "*", offset, 32)).status is PullStatus.FOUND:
            late += [m.store_timestamp - int(m.properties["TIMER_OUT_MS"]) for m in result.messages]
            offset = result.next_begin_offset
    return sorted(late)


def fill(namesrv_addr: str, count: int) -> None:
    """Put timers over the next day."""
    chance = random.Random(2)
    under_way = []
    with Producer("BenchFill", namesrv_addr=namesrv_addr) as producer:
        for number in range(count):
            delay = timedelta(seconds=chance.uniform(600, DAY_S))
            under_way.append(producer.send_async(Message("Pending", b"%d" % number, delay=delay)))
            if len(under_way) == UNDER_WAY:
                for send in under_way:
                    send.result(60)
                under_way.clear()
        for send in under_way:
            send.result(60)


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="tools/bench-timers", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="pending timers (default 1,000,000)")
    parser.add_argument("--late", type=int, default=300, help="timers whose lateness is measured")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, 1 worker, ASYNC_FLUSH, 256 B plain bodies")
    with (
        Broker(brokerWorkers="1") as broker,
        Producer("Bench", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        for topic in ("Late", "Pending", "Plain"):
            producer.create_topic(topic, 1)
        late = lateness(broker, producer, options.late)
        shares = {"p50": 0.5, "p99": 0.99}
        figures = ", ".join(f"{name} {late[int(len(late) * share)]} ms" for name, share in shares.items())
        print(f"late: {len(late)} timers, min {late[0]} ms, {figures}, max {late[-1]} ms")
        memory = private_mib(broker)
        begin = time.perf_counter()
        filler = multiprocessing.get_context("spawn").Process(
            target=fill, args=(broker.namesrv_addr, options.count)
        )
        filler.start()
        filler.join()
        seconds = time.perf_counter() - begin
        print(f"pending: {options.count:,} timers sent in {seconds:.1f} s ({options.count / seconds:,.0f}/s)")
        time.sleep(2)
        grown = private_mib(broker)
        by_role = ", ".join(f"{role} {grown[role] - memory.get(role, 0.0):+.1f}" for role in sorted(grown))
        print(f"pending: private memory {memory['all']:.1f} MiB before; MiB more with them: {by_role}")
        print(f"pending: plain sends {slowdown(broker)}")


if __name__ == "__main__":
    main()
