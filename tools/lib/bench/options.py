"""What tools/bench can be asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.durability import MEASURED

EPILOG = """
Workloads: names from --list, or `all` (the project's targets, every class: under half an hour), `scaling`
(what must not cost more as it grows; an hour of it is the soak) or `full` (the whole matrix: hours).
Peers come from tools/bench-peers; one that is not there is named in the report.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Speed of shmq beside its peers and this machine's limits, in alternating turns.",
        epilog=EPILOG,
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all")
    parser.add_argument("--list", action="store_true", help="name workloads and systems, measure nothing")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every system (default 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn (default 5)")
    parser.add_argument(
        "--durability",
        nargs="+",
        choices=[kind.value for kind in MEASURED],
        help="only these classes (default: those each workload is meant for)",
    )
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="only these systems")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME", help="also this peer: nats, beanstalkd, sqlite"
    )
    parser.add_argument(
        "--compare", metavar="REF", help="only shmq, this tree against the commit REF of this repository"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="also write results.json and one HTML page per class there"
    )
    parser.add_argument(
        "--publish", type=Path, metavar="PAGE", help="also bring the tables in this Markdown page up to date"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    return options
