"""Recovers a cut store as a broker's start would, and reads everything in it. Runs in a process of its own.

`recover` is what `shmq-broker` does in its recovery child (`store/recovery.py`), then the store check, then
every message of the load's topics by its ConsumeQueue. `recover_partly` ends the process at one of
recovery's own syncs: the power failed again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from shmq.base import log, syncs
from shmq.base.errors import Bug
from shmq.base.runtime_dir import page_name
from shmq.model.record import parse_record
from shmq.model.settings import BrokerSettings, load_settings
from shmq.prove.ledger import Queues, Recovered, body_crc
from shmq.shm.append_lock import semaphore_name, unlink_semaphore
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from shmq.store.config_tables import load_topics
from shmq.store.names import StoreLayout
from shmq.store.page_fill import offsets_of
from shmq.store.recovery import open_or_recover
from shmq.store.store_view import StoreView
from shmq.store.write_recorder import WriteRecorder, begin

EXIT_CUT = 75
"""A recovery that ended because its power was cut."""


def quietly() -> None:
    """Prepare a process for this: what recovery reports is the verdict's, not a log's."""
    log.setup("recovery", None, logging.CRITICAL)


def recover(root: Path, arguments: Sequence[str], prefix: str, adopt: bool = False) -> Recovered:
    """Recover the store at `root` under the settings `arguments` (key=value); read what its topics hold that
    begin with `prefix`.

    `adopt` also takes a store that another engine wrote last. Leaves nothing in /dev/shm.
    """
    settings = load_settings(BrokerSettings, None, arguments).settings
    try:
        report = open_or_recover(root, settings, adopt, owner_pid=os.getpid())
        page = ControlPage.attach(page_name(root))
        try:
            findings = [str(finding) for finding in check_store(root, page)]
            queues, others, more = _read(root, page, prefix)
            findings += more
        finally:
            page.close()
        findings += [f"damaged: {at}, {size} bytes" for at, size in report.damaged]
        topics = frozenset(load_topics(StoreLayout.of(root, settings)).queue_counts)
        return Recovered(
            queues, others, topics, findings, report.write_position, report.bytes_cut, report.took_ms
        )
    finally:
        forget_page(root)


Bounds = dict[tuple[str, int], tuple[int, int]]


def _read(root: Path, page: ControlPage, prefix: str) -> tuple[Queues, Bounds, list[str]]:
    """Every message by its queue, and consumer offsets that are beyond their queue."""
    view = StoreView(root, page)
    queues: Queues = {}
    others: Bounds = {}
    maxima: dict[tuple[str, int], int] = {}
    for topic, queue_id, low, high in view.queues():
        maxima[topic, queue_id] = high
        if not topic.startswith(prefix):
            others[topic, queue_id] = (low, high)
        else:
            found: list[int | None] = []
            for unit in view.units(topic, queue_id, low, high):
                record = view.record_at(unit.physical_offset)
                found.append(None if record is None else _crc_of(record))
            queues[topic, queue_id] = found
    beyond = [
        f"consumer offset {offset} of {name} is beyond the end of queue {queue_id}"
        for name, by_queue in offsets_of(page).items()
        for queue_id, offset in by_queue.items()
        if offset > maxima.get((name[1], queue_id), 0)
    ]
    return queues, others, beyond


def _crc_of(record: memoryview) -> int | None:
    fields = parse_record(record)
    return body_crc(record[fields.body_at : fields.body_at + fields.body_length])


def recover_partly(
    root: Path, record: Path, arguments: Sequence[str], syncs_done: int, last_one_done: bool
) -> bool:
    """Begin to recover the store at `root`, recording to the new folder `record`, and die at the sync after
    `syncs_done` others, which the disk has done or not; nothing is left in /dev/shm.

    True when recovery came to its end before that.
    """
    settings = load_settings(BrokerSettings, None, arguments).settings
    begin(record, root)
    pid = os.fork()
    if pid == 0:
        try:
            syncs.intercept(DyingRecorder(record, syncs_done, last_one_done))
            open_or_recover(root, settings, owner_pid=os.getpid())
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    forget_page(root)
    if status not in (0, EXIT_CUT):
        raise Bug(f"recovery failed with status {status} before its power was cut")
    return status == 0


class DyingRecorder(WriteRecorder):
    """Records some syncs; at the next one the power fails, before or after the disk has done it."""

    def __init__(self, folder: Path, syncs_done: int, last_one_done: bool) -> None:
        super().__init__(folder)
        self._left = syncs_done
        self._last_one_done = last_one_done

    @contextlib.contextmanager
    def watch(self, fd: int, changed: tuple[int, int] | None) -> Iterator[None]:
        """Surround one sync, perhaps the last one: then the process ends with `EXIT_CUT`."""
        self._left -= 1
        if self._left < 0 and not self._last_one_done:
            os._exit(EXIT_CUT)
        with super().watch(fd, changed):
            yield
        if self._left < 0:
            os._exit(EXIT_CUT)


def forget_page(root: Path) -> None:
    """Remove the control page of the store at `root` and its semaphore, as a restart of the host does."""
    name = page_name(root)
    with contextlib.suppress(Exception):
        page = ControlPage.attach(name)
        unlink_semaphore(semaphore_name(name, page))
        page.close()
    ControlPage.unlink(name)
