"""What messages for any moment cost, on a private broker: lateness, memory, and the speed of other sends.

late      sends messages for moments up to 2 s ahead, one every 10 ms, and compares store time and moment
pending   puts `--count` timers over the next day, in a process of its own, and compares before and after:
          the coordinator's private memory (anonymous pages; wheel and log are pages of files), and the
          rate of plain sends
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
PROBES = 5


def coordinator_of(broker: Broker) -> psutil.Process:
    """The broker's coordinator."""
    children = psutil.Process(broker.pid).children(recursive=True)
    return next(child for child in children if "coordinator" in " ".join(child.cmdline()))


def private_mib(process: psutil.Process) -> float:
    """Anonymous memory of a process."""
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        found = re.search(r"^Anonymous:\s+(\d+) kB", file.read(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def plain_rate(producer: Producer) -> float:
    """Sync sends per second, the median of some short probes."""
    rates = []
    for _ in range(PROBES):
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < PROBE_S:
            producer.send(Message("Plain", b"x" * 256))
            count += 1
        rates.append(count / (time.perf_counter() - begin))
    return statistics.median(rates)


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
    parser.add_argument("--count", type=int, default=100_000, help="pending timers (default 100,000)")
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
        coordinator = coordinator_of(broker)
        memory, rate = private_mib(coordinator), plain_rate(producer)
        begin = time.perf_counter()
        filler = multiprocessing.get_context("spawn").Process(
            target=fill, args=(broker.namesrv_addr, options.count)
        )
        filler.start()
        filler.join()
        seconds = time.perf_counter() - begin
        print(f"pending: {options.count:,} timers sent in {seconds:.1f} s ({options.count / seconds:,.0f}/s)")
        time.sleep(2)
        grown, after = private_mib(coordinator) - memory, plain_rate(producer)
        print(f"pending: private memory of the coordinator {memory:.1f} MiB, {grown:+.1f} MiB with them")
        print(f"pending: plain sends {rate:,.0f}/s before, {after:,.0f}/s after: {after / rate:.2f}")


if __name__ == "__main__":
    main()
