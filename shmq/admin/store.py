"""storeCheck: prove that what a store holds fits together, with its broker running, stopped or dead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from shmq.admin.output import Failure, Report
from shmq.base.errors import QueryNotFound, Unavailable
from shmq.base.runtime_dir import page_name
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store

DEFAULT_FOLDER = Path.home() / ".local" / "share" / "shmq"


def store_check(
    roots: Annotated[
        list[Path] | None, typer.Argument(help=f"folders of stores [default: all below {DEFAULT_FOLDER}]")
    ] = None,
) -> Report:
    """Check every record, ConsumeQueue unit and position of a store. Any finding makes the exit code 2."""
    report = Report("StoreCheck", [])
    for root in roots or sorted(path.parent for path in DEFAULT_FOLDER.glob("*/commitlog")):
        if not (root / "commitlog").is_dir():
            raise QueryNotFound(f"{root} is no store: it has no commitlog folder")
        with _control_page(root) as page:
            findings = [str(finding) for finding in check_store(root, page)]
        where = "with its control page" if page else "without a control page"
        report.items.append({"store": str(root), "controlPage": page is not None, "findings": findings})
        report.errors += [Failure(str(root), 0, finding) for finding in findings]
        report.lines.append(f"{root}: checked {where}, {len(findings)} findings")
    return report


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
