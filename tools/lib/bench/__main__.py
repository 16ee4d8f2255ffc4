"""Run workloads on systems in alternating turns, class by class; print, and write the reports."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench import machine, options, selection
from bench.comparison import Comparison
from bench.durability import MEASURED, NOT_THERE_YET
from bench.report import html, markdown
from bench.report.table import console, print_row
from bench.result import Row
from bench.results import Results
from bench.selection import Plan
from bench.workload import Workload


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
        results = run_plan(plan, out, asked.out)
    if asked.json:
        print(json.dumps(results.as_json(), indent=1))
    if asked.out:
        for page in _write(results, asked.out):
            out.print(f"written: {page}")
    if asked.publish:
        markdown.publish(results, asked.publish)
    return 0 if all(row.turns for row in results.rows) else 1


def _write(results: Results, folder: Path) -> list[Path]:
    """Write the JSON and a page for each class; return the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results.as_json()))
    pages = {folder / f"{kind.value}.html": html.page(results, kind) for kind in results.classes}
    for path, text in pages.items():
        path.write_text(text)
    return list(pages)


def run_plan(plan: Plan, out: Console, folder: Path | None) -> Results:
    """Measure, class by class; what is there already is written after every row: a run may be cut short."""
    results = Results(machine.facts(), plan.facts)
    for name, value in (results.machine | results.run).items():
        out.print(f"{name:<10} {value}", soft_wrap=True)
    for kind in MEASURED:
        workloads = plan.of_class(kind)
        if not workloads:
            continue
        out.rule(f"{kind.value}: {kind.promise}")
        with Comparison(kind, plan.systems, rounds=plan.rounds, seconds=plan.seconds) as comparison:
            results.settings[kind] = comparison.settings
            for workload in workloads:
                row = _row(comparison, workload)
                print_row(row, out)
                results.rows.append(row)
                if folder is not None:
                    _write(results, folder)
    for kind, reason in NOT_THERE_YET.items():
        out.print(f"\n{kind.value}: {reason}")
    return results


def _row(comparison: Comparison, workload: Workload) -> Row:
    """One row. A defect of the bench itself costs this row, is shown whole, and does not end the run."""
    try:
        return comparison.run(workload)
    except Exception as defect:
        traceback.print_exc()
        comparison.start_afresh()
        why = f"the bench itself failed: {type(defect).__name__}: {defect}"
        return Row(workload, comparison.durability, missing={"all": why})


if __name__ == "__main__":
    sys.exit(main())
