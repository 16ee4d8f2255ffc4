"""storeCheck, storeRepair, storeScrub: is a store on this host whole, what was not, and making it whole."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.output import Column, Failure, Report
from shmq.base.errors import QueryNotFound, Unavailable
from shmq.base.runtime_dir import page_name
from shmq.shm.control_page import ControlPage
from shmq.store.check import Finding, check_store
from shmq.store.damage_table import DamageTable
from shmq.store.scrub_progress import ScrubProgress
from shmq.store.store_view import layout_of

DEFAULT_FOLDER = Path.home() / ".local" / "share" / "shmq"

Roots = Annotated[
    list[Path] | None, typer.Argument(help=f"folders of stores [default: all below {DEFAULT_FOLDER}]")
]

_DAMAGE_COLUMNS = (
    Column("#Position", "position", 20),
    Column("#Bytes", "size", 8),
    Column("#State", "state", 9),
    Column("#Topic", "topic", 24),
    Column("#QID", "queue_id", 4),
    Column("#Offset", "queue_offset", 10),
    Column("#Found", "found", 19),
    Column("#By", "found_by", 8),
    Column("#Reason", "reason"),
)


def store_check(roots: Roots = None) -> Report:
    """Check every record, ConsumeQueue unit and position of a store. Any finding makes the exit code 2."""
    report = Report("StoreCheck", [])
    for root in _stores(roots):
        with _control_page(root) as page:
            findings = [str(finding) for finding in check_store(root, page)]
        where = "with its control page" if page else "without a control page"
        report.items.append({"store": str(root), "controlPage": page is not None, "findings": findings})
        report.errors += [Failure(str(root), 0, finding) for finding in findings]
        report.lines.append(f"{root}: checked {where}, {len(findings)} findings")
    return report


def store_repair(roots: Roots = None) -> Report:
    """Mend a stopped store. Shows first what is wrong and what would be done about it, and asks, or --yes.

    Whatever is replaced is kept in the store's folder `quarantine`. Refused while a broker runs. The exit
    code is 2 when something is left to be done.
    """
    from shmq.store.repair import action_for, alone, repair_store

    report = Report("StoreRepair", [])
    for root in _stores(roots):
        with alone(root), _control_page(root) as page:
            findings = list(check_store(root, page))
            plan = [(finding, action_for(finding)) for finding in findings]
            repaired = bool(findings) and _may_repair(root, plan)
            if repaired:
                repair_store(root)
            left = list(check_store(root, page)) if repaired else findings
        report.items.append(
            {
                "store": str(root),
                "planned": [{"finding": str(finding), "action": action} for finding, action in plan],
                "repaired": repaired,
                "left": [str(finding) for finding in left],
            }
        )
        report.errors += [Failure(str(root), 0, str(finding)) for finding in left]
        done = "repaired" if repaired else "nothing was changed"
        report.lines.append(f"{root}: {len(findings)} findings, {done}, {len(left)} left")
    return report


def _may_repair(root: Path, plan: list[tuple[Finding, str]]) -> bool:
    """Show what would be done and ask; without a terminal only --yes is an answer."""
    for finding, action in plan:
        print(f"{root}: {finding}\n    -> {action}", file=sys.stderr)
    if session.current.yes:
        return True
    if not sys.stdin.isatty():
        print("nothing was changed: not confirmed (--yes)", file=sys.stderr)
        return False
    print(f"Repair {root}? What is replaced is kept in {root / 'quarantine'} [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def store_scrub(roots: Roots = None) -> Report:
    """List all damage that was ever found in a store's log and what was done, and how far the scrub is."""
    report = Report("StoreScrub", [], columns=_DAMAGE_COLUMNS)
    for root in _stores(roots):
        layout = layout_of(root)
        rows = [{"store": str(root), **asdict(row)} for row in DamageTable(layout).rows]
        report.items += rows
        progress = ScrubProgress.load(layout)
        report.more.setdefault("scrub", []).append({"store": str(root), **asdict(progress)})
        scrub = f"scrub: {progress.passes} passes, now at {progress.position}"
        report.lines.append(f"{root}: {len(rows)} damaged stretches; {scrub}")
    return report


def _stores(roots: list[Path] | None) -> Iterator[Path]:
    """The stores that were named, or all of this user's; QueryNotFound for a folder that is none."""
    for root in roots or sorted(path.parent for path in DEFAULT_FOLDER.glob("*/commitlog")):
        if not (root / "commitlog").is_dir():
            raise QueryNotFound(f"{root} is no store: it has no commitlog folder")
        yield root


@contextlib.contextmanager
def _control_page(root: Path) -> Iterator[ControlPage | None]:
    """The page of the broker that has the store open, or died on it; None when it was stopped properly."""
    try:
        page = ControlPage.attach(page_name(root), readonly=True)
    except Unavailable:
        yield None
        return
    try:
        yield page
    finally:
        page.close()
