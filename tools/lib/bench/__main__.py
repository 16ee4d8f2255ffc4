"""Run the workloads, compare them with this machine's limits, print a table or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from bench import limits, machine, workloads
from bench.goals import judge
from bench.result import Result
from shmq.embedded import Broker

WIDTH = 190
SEGMENT_BYTES = 256 << 20
QUEUE_FILE_BYTES = 6_000_000
PULL_TOPIC = "BenchBatch"


def main() -> int:
    """Run what was asked for."""
    options = _arguments()
    results = list(_run(options))
    settings = {
        "workers": str(options.workers),
        "flush": options.flush,
        "body": f"{limits.BODY_BYTES} B",
        "seconds": f"{options.seconds:g}",
    }
    if options.json:
        rows = [result.as_json() for result in results]
        print(json.dumps({"machine": machine.facts(), "settings": settings, "results": rows}, indent=2))
    else:
        _print(machine.facts() | settings, results)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description="Speed on this machine, as ratios to its own limits in the same run."
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each workload (default 3)")
    parser.add_argument("--flush", choices=["ASYNC_FLUSH", "SYNC_FLUSH"], default="ASYNC_FLUSH")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> Iterator[Result]:
    wanted = set(options.only or ROWS)
    echo, copy = limits.echo_round_trip(), limits.memory_copy()
    yield echo
    yield copy
    if "start" in wanted:
        result = workloads.start_up(options.workers)
        result.goal = judge("start", result, echo)
        yield result
    if wanted == {"start"}:
        return
    with Broker(
        brokerName="bench",
        brokerWorkers=options.workers,
        flushDiskType=options.flush,
        mappedFileSizeCommitLog=SEGMENT_BYTES,
        mappedFileSizeConsumeQueue=QUEUE_FILE_BYTES,
    ) as broker:
        for name, workload in ROWS.items():
            if name in wanted and workload is not None:
                result = workload(broker.namesrv_addr, options)
                _compare(name, result, echo, copy)
                result.goal = judge(name, result, echo)
                yield result


def _pull(direct: bool) -> Callable[[str, argparse.Namespace], Result]:
    """Pull rows read what the batch row wrote; alone they write first."""

    def run(namesrv_addr: str, options: argparse.Namespace) -> Result:
        if "batch" not in (options.only or ROWS):
            workloads.batch_send(namesrv_addr, options.seconds, PULL_TOPIC)
        return workloads.pull(namesrv_addr, PULL_TOPIC, direct=direct)

    return run


ROWS: dict[str, Callable[[str, argparse.Namespace], Result] | None] = {
    "start": None,
    "sync": lambda addr, options: workloads.sync_send(addr, options.seconds),
    "async": lambda addr, options: workloads.async_send(addr, options.seconds),
    "batch": lambda addr, options: workloads.batch_send(addr, options.seconds, PULL_TOPIC),
    "direct": _pull(direct=True),
    "socket": _pull(direct=False),
    "latency": lambda addr, options: workloads.end_to_end(addr, int(300 * options.seconds)),
}
"""The workloads by name, in the order they run; `start` runs brokers of its own."""


def _compare(name: str, result: Result, echo: Result, copy: Result) -> None:
    """Put a row beside the limit that it aims at."""
    if name in ("sync", "latency"):
        result.ratios["p50 / bare round trip p50"] = result.micros() / echo.micros()
    if name in ("batch", "direct", "socket"):
        result.ratios["of memory copy"] = result.bytes_s / copy.bytes_s


def _print(settings: dict[str, str], results: list[Result]) -> None:
    # Piped into a file or a report, the table keeps one line per row.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for name, value in settings.items():
        console.print(f"{name:<10} {value}", soft_wrap=True)
    table = Table("workload", "per second", "MB/s", "p50 us", "p99 us", "p99.9 us", "compared", "goal")
    for column in table.columns[1:6]:
        column.justify = "right"
    for result in results:
        latency = [result.micros(name) for name in ("p50", "p99", "p99.9")] if result.latency.total else []
        table.add_row(
            result.name,
            f"{result.rate:,.0f}" if result.rate else "",
            f"{result.bytes_s / 1e6:,.0f}" if result.bytes_s else "",
            *[f"{value:,.1f}" for value in latency] or ["", "", ""],
            ", ".join(f"{value:.2f} {text}" for text, value in result.ratios.items()),
            result.goal,
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
