"""Run workloads on systems in alternating turns, class by class; print, and write the reports."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack

from rich.console import Console

from bench import machine, options, selection
from bench.comparison import Comparison
from bench.durability import MEASURED, NOT_THERE_YET
from bench.report import html, markdown
from bench.report.table import console, print_row
from bench.results import Results
from bench.selection import Plan


def main() -> int:
    """Do what was asked for; 0 when every row has at least one figure."""
    # A polite end, so that servers, clients and files are cleared away on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    asked = options.parse()
    # With --json the table goes where progress goes, so that the output is JSON alone.
    out = Console(stderr=True, highlight=False) if asked.json else console()
    with ExitStack() as stack:
        plan = selection.plan(asked, stack)
        if asked.list:
            selection.print_list(plan, out)
            return 0
        results = _run(plan, out)
    if asked.json:
        print(json.dumps(results.as_json(), indent=1))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "results.json").write_text(json.dumps(results.as_json()))
        for kind in results.classes:
            page = asked.out / f"{kind.value}.html"
            page.write_text(html.page(results, kind))
            out.print(f"written: {page}")
    if asked.publish:
        markdown.publish(results, asked.publish)
    return 0 if all(row.turns for row in results.rows) else 1


def _run(plan: Plan, out: Console) -> Results:
    """Measure, class by class."""
    results = Results(machine.facts(), plan.facts)
    for name, value in (results.machine | results.run).items():
        out.print(f"{name:<10} {value}", soft_wrap=True)
    for kind in MEASURED:
        workloads = plan.of_class(kind)
        if not workloads:
            continue
        out.rule(f"{kind.value}: {kind.promise}")
        with Comparison(kind, plan.systems, rounds=plan.rounds, seconds=plan.seconds) as comparison:
            for workload in workloads:
                row = comparison.run(workload)
                print_row(row, out)
                results.rows.append(row)
            results.settings[kind] = comparison.settings
    for kind, reason in NOT_THERE_YET.items():
        out.print(f"\n{kind.value}: {reason}")
    return results


if __name__ == "__main__":
    sys.exit(main())
