"""ps: which processes shmq has on this host, what each does, and how far every store's log is.

Reads shared memory and /proc only. It asks no broker anything, so it also answers beside a hung one, and
shows a page that a dead broker left behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from shmq.admin.output import Column, Item, Report
from shmq.base.errors import ShmqError
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import COUNTER_NAMES, totals
from shmq.shm.worker_slots import SlotTable

SHM_FOLDER = Path("/dev/shm")
PAGE_PREFIX = "shmq-"
TITLE_PREFIX = "shmq: "
FORK_SERVER = "fork server"
MIB = 1 << 20

COLUMNS = (
    Column("#Broker", "broker", 12),
    Column("#Role", "role", 16),
    Column("#PID", "pid", 8),
    Column("#State", "state", 10),
    Column("#Phase", "phase", 8),
    Column("#Claims", "claims", 10),
    Column("#Conns", "connections", 6),
    Column("#CPU(s)", "cpuSeconds", 8),
    Column("#RSS(MiB)", "residentMiB", 9),
)
POSITIONS = {
    "minOffset": at.MIN_OFFSET,
    "flushedPosition": at.FLUSHED_POSITION,
    "writePosition": at.WRITE_POSITION,
    "indexedPosition": at.INDEXED_POSITION,
    "zeroedPosition": at.ZEROED_POSITION,
}


def ps(
    counters: Annotated[
        bool, typer.Option("--counters", help="what was counted since the start, too")
    ] = False,
) -> Report:
    """List shmq's processes of this host with their roles, and the positions of every store in use."""
    processes = {item["pid"]: item for item in _titled_processes()}
    pages = [page for path in sorted(SHM_FOLDER.glob(PAGE_PREFIX + "*")) if (page := _page(path))]
    for page in pages:
        for slot in page["slots"]:
            if slot["pid"] in processes:
                processes[slot["pid"]] |= slot
    items = sorted(processes.values(), key=lambda item: (item["broker"], item["order"], item["role"]))
    for item in items:
        del item["order"]
    lines = [line for page in pages for line in ("", *_page_lines(page, counters))]
    for page in pages:
        del page["slots"]  # joined to the processes above
    return Report("Processes", items, COLUMNS, lines, more={"stores": pages})


def _titled_processes() -> list[Item]:
    """Every process whose title says that it is shmq's: `shmq: worker 0 broker-a`."""
    found = []
    for process in psutil.process_iter():
        try:
            title = _title(process)
            if title is None:
                continue
            role, broker = _role_and_broker(process, title)
            times, memory = process.cpu_times(), process.memory_info()
            found.append(
                {
                    "broker": broker,
                    "role": role,
                    "pid": process.pid,
                    "state": process.status(),
                    "phase": "",
                    "claims": "",
                    "connections": "",
                    "cpuSeconds": round(times.user + times.system, 1),
                    "residentMiB": memory.rss // MIB,
                    "order": 0,
                }
            )
        except psutil.Error:
            continue  # ended meanwhile, or not ours to look at
    return found


def _title(process: psutil.Process) -> str | None:
    """What follows `shmq: ` in a process title; None for other people's processes."""
    line = " ".join(process.cmdline())
    return line.removeprefix(TITLE_PREFIX).strip() if line.startswith(TITLE_PREFIX) else None


def _role_and_broker(process: psutil.Process, title: str) -> tuple[str, str]:
    """A title's last word is the broker, except for the fork server, which serves its parent's."""
    if title == FORK_SERVER:
        parent = process.parent()
        owner = _title(parent) if parent is not None else None
        return FORK_SERVER, owner.rpartition(" ")[2] if owner else ""
    role, _, broker = title.rpartition(" ")
    return role, broker


def _page(path: Path) -> Item | None:
    """What one control page says: its state, its positions, its slots; None when it cannot be read."""
    try:
        page = ControlPage.attach("/" + path.name, readonly=True)
    except (ShmqError, OSError, ValueError) as error:
        return {"page": path.name, "error": str(error), "slots": []}
    try:
        words = page.words
        facts: dict[str, Any] = {"page": path.name, "state": PageState(words[at.STATE]).name}
        facts["positions"] = {name: words[word] for name, word in POSITIONS.items()}
        facts["visiblePosition"] = page.visible_position()
        facts["queues"] = words[at.QUEUE_SLOTS_USED]
        facts["counters"] = totals(page)
        facts["slots"] = [
            {
                "pid": slot.pid,
                "state": slot.state.name.lower(),
                "phase": slot.phase.name,
                "claims": slot.claim_seq,
                "connections": slot.connections,
                "order": slot.number,
            }
            for slot in SlotTable(page).taken()
        ]
        return facts
    finally:
        page.close()


def _page_lines(page: Item, counters: bool) -> list[str]:
    if "error" in page:
        return [f"{page['page']}: {page['error']}"]
    counted = [
        f"  {name:<24}{count:>16}  {COUNTER_NAMES[name]}"
        for name, count in page["counters"].items()
        if counters and count
    ]
    positions = "  ".join(f"{name} {value}" for name, value in page["positions"].items())
    return [f"{page['page']}: {page['state']}, {page['queues']} queues, {positions}", *counted]
