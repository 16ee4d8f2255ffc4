"""The parent: broker, producer, two consumers, comparison, table."""

from __future__ import annotations

import argparse
import atexit
import sys
import tempfile
import time
import uuid
from pathlib import Path

from quickstart import corpus, verify
from quickstart.children import Child, news
from quickstart.job import TOPIC, Job
from quickstart.progress import Bars, Figures, console, show_table
from shmq.client.admin_client import AdminClient
from shmq.embedded import Broker

CONSUMERS = 2
SEGMENT_BYTES = 64 << 20
QUEUES = 8
REGISTERED_SECONDS = 5
DEFAULT_LIMIT = 200_000
SILENCE_MAX = 60
"""Half seconds without any news after which the run is given up."""


def main() -> int:
    """Run it; 0 only when every file came out as it went in."""
    options = _arguments()
    # Paths absolute: the keys must name the files wherever they are read.
    named = [Path(name).absolute() for name in options.files]
    limit = options.limit if options.limit is not None or named else DEFAULT_LIMIT
    chosen = corpus.choose(named or corpus.installed_sources(), limit)
    total = sum(count for _, count in chosen)
    files = [path for path, _ in chosen]
    print(f"{len(files):,} files, {total:,} lines", flush=True)
    broker = None if options.namesrv else _start_broker(options.workers)
    passed = False
    try:
        namesrv_addr = options.namesrv or broker.namesrv_tcp_addr
        _make_topic(namesrv_addr)
        run = uuid.uuid4().hex[:12]
        job = Job(
            namesrv_addr, run, f"QuickStart-{run}", [str(path) for path in files], options.tcp, options.direct
        )
        with tempfile.TemporaryDirectory(prefix="shmq-quickstart-") as folder:
            spools = [Path(folder) / f"consumer-{place}" for place in range(CONSUMERS)]
            figures = _run(job.write(Path(folder) / "job.json"), spools, total)
            verdict = verify.compare(files, spools)
        show_table(verdict, figures)
        passed = not verdict.problems and verdict.messages == total
        print("every file came out as it went in" if passed else "NOT everything matched")
    finally:
        if broker and options.keep:
            _next_commands(broker)
            atexit.unregister(broker.close)
        elif broker:
            broker.close()
    return 0 if passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        description="Send every line of some files through a broker, consume them in two processes, "
        "put the files together again and compare.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="default: .py files of the installed packages"
    )
    parser.add_argument(
        "--limit", type=int, help=f"lines to send (default for the default files: {DEFAULT_LIMIT:,})"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the broker (default 2)")
    parser.add_argument(
        "--namesrv", metavar="HOST:PORT", help="use a running broker in place of a private one"
    )
    parser.add_argument("--keep", action="store_true", help="leave the broker running")
    parser.add_argument("--tcp", action="store_true", help="clients use TCP, not the Unix socket")
    parser.add_argument(
        "--direct",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="consumers read the store's files themselves where the broker grants it (default: yes)",
    )
    return parser.parse_args()


def _start_broker(workers: int) -> Broker:
    """A broker of our own, on a store of its own."""
    broker = Broker(
        brokerName="quickstart", brokerWorkers=workers, mappedFileSizeCommitLog=SEGMENT_BYTES
    ).start()
    print(
        f"broker {broker.broker_name} listens at {broker.unix_socket} and {broker.tcp_addr}, "
        f"its name server at {broker.namesrv_tcp_addr}; store {broker.store_root}",
        flush=True,
    )
    return broker


def _make_topic(namesrv_addr: str) -> None:
    """Make the topic unless it is there: a run must not depend on the broker's auto-creation."""
    with AdminClient(namesrv_addr=namesrv_addr) as admin:
        deadline = time.monotonic() + REGISTERED_SECONDS
        while not admin.cluster_info().broker_addr_table and time.monotonic() < deadline:
            time.sleep(0.01)  # the broker serves, and is about to register at its name server
        admin.ensure_topic(TOPIC, queues=QUEUES)


def _run(job: Path, spools: list[Path], total: int) -> Figures:
    """Consumers first, then the producer; ends when every message was consumed."""
    figures, seen, got = Figures(), bytearray(total), 0
    consumers = [Child("quickstart.consumer", str(job), str(path)) for path in spools]
    children = list(consumers)
    silence = ready = 0
    producer_done = not total
    try:
        producer = Child("quickstart.producer", str(job))
        children.append(producer)
        with Bars(total) as bars:
            for _child, line in news(children):
                silence = 0 if line else silence + 1
                if silence > SILENCE_MAX:
                    print(f"no news for {SILENCE_MAX // 2} s, giving up", file=sys.stderr)
                    break
                ready += bool(line.get("ready"))
                if "sent" in line:
                    bars.update(sent=line["sent"])
                if "seconds" in line:
                    figures.send_seconds, producer_done = line["seconds"], True
                if numbers := line.get("got"):
                    for number in numbers:
                        got += not seen[number]
                        seen[number] = 1
                    bars.update(got=got)
                if "done" in line:
                    figures.add_consumer(line["first"], line["last"], line["latencies_ms"])
                if producer_done and got == total and ready == len(consumers):
                    ready = -1  # said once
                    for consumer in consumers:
                        consumer.ask_to_stop()
    finally:
        for child in children:
            child.kill()
    return figures


def _next_commands(broker: Broker) -> None:
    admin = f"{Path(sys.executable).with_name('shmq-admin')} -n {broker.namesrv_tcp_addr}"
    console.print(
        f"""
The broker goes on running (pid {broker.pid}). Try:
  {admin} clusterList
  {admin} topicStatus -t {TOPIC}
  {admin} consumerProgress
  {admin} sendMessage -t {TOPIC} -p hello -k greeting
  {admin} queryMsgByKey -t {TOPIC} -k greeting
  {admin} storeCheck {broker.store_root}
  {admin} ps
  NAMESRV_ADDR={broker.namesrv_tcp_addr} {sys.executable} -m shmq.examples.producer
Stop it with: kill {broker.pid}   and remove it with: rm -r {broker.store_root.parent}""",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
