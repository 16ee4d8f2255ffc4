"""prove: cut the power of a copy of somebody's store, again and again, and see what is there afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from shmq.admin.output import Failure, Item, Report
from shmq.base.errors import ConfigFault, QueryNotFound, Unavailable
from shmq.model.setting import rules
from shmq.model.settings import BrokerSettings, load_settings
from shmq.prove.experiment import CUTS_PER_MOMENT, Experiment, Verdict
from shmq.prove.experiment import Failure as LostData
from shmq.prove.store_copy import copy_store, store_bytes

COPIES = 4
"""The copy, its durable images, a cut, and a cut of its recovery."""

LARGE_BYTES = 256 << 20
"""From this size on a broker that stands still for several cuts at once would stand still too long."""

CANNOT_SHOW = (
    "a disk or controller that says it has synced and has not: only pulling the plug shows that",
    "the file system's own recovery; names and lengths are chosen more freely here than a journal would",
    "damage to bytes that were synced (a failing disk): that is storeCheck's business",
    "every moment: cuts come at random ones; another seed cuts at others",
)

_NOT_TAKEN_OVER = frozenset(
    {
        *("storePathRootDir", "storePathCommitLog", "runtimeDir", "logDir", "brokerName", "brokerId"),
        *("namesrvAddr", "namesrvPort", "listenPort", "brokerIP1", "brokerIP2", "haListenPort", "aclEnable"),
        *("brokerRole", "autoCreateTopicEnable", "brokerPermission", "mappedFileSizeCommitLog"),
        "mappedFileSizeConsumeQueue",
    }
)
"""Settings that say where a broker is and who may ask it; sizes are read off the files."""


def prove(
    store: Annotated[Path | None, typer.Argument(help="folder of the store [default: an empty one]")] = None,
    config: Annotated[Path | None, typer.Option("-c", "--config", help="the broker's settings file")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a setting, such as flushDiskType=SYNC_FLUSH")
    ] = None,
    cuts: Annotated[int, typer.Option("--cuts", help="how often the power is cut", min=1)] = 30,
    seed: Annotated[int | None, typer.Option("--seed", help="repeat the choices of that run")] = None,
    segments: Annotated[
        int, typer.Option("--segments", help="how many of the log's newest segments are copied", min=1)
    ] = 2,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where to work [default: the system's temporary folder]")
    ] = None,
) -> Report:
    """Prove on a copy of a store that a power cut takes nothing that was acknowledged.

    A private broker runs on the copy, with the settings given, under a load of its own; what it syncs is
    recorded. Cuts are then replayed: stores are built in which anything that was not synced may be missing,
    old or torn, and each is recovered, some after a second cut during recovery. The store itself is only
    read; its broker may run. Exit code 2 when anything was lost.
    """
    chosen = seed if seed is not None else int.from_bytes(os.urandom(4), "big")
    work = Path(tempfile.mkdtemp(prefix="shmq-prove-", dir=folder))
    keep = False
    try:
        given = _settings(store, config, settings or [], work, segments)
        size = store_bytes(work / "store", segments) if store is not None else 0
        per_moment = CUTS_PER_MOMENT if size < LARGE_BYTES else 1
        with Experiment(work, given, chosen, cuts_per_moment=per_moment) as experiment, _bar(cuts) as advance:
            verdict = experiment.run(cuts, advance)
        keep = bool(verdict.failures)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    return _report(store, chosen, verdict, given)


def _settings(
    store: Path | None, config: Path | None, arguments: list[str], work: Path, segments: int
) -> dict[str, object]:
    """The user's settings that matter here, and the sizes of the store, which is copied to `work`."""
    loaded = load_settings(BrokerSettings, config, arguments)
    given: dict[str, object] = {
        rule.key: getattr(loaded.settings, name)
        for name, rule in rules(BrokerSettings).items()
        if loaded.origins.get(name, "default") != "default" and rule.key not in _NOT_TAKEN_OVER
    }
    if store is None:
        return given
    if not (store / "commitlog").is_dir():
        raise QueryNotFound(f"{store} is no store: it has no commitlog folder")
    if work.is_relative_to(store.resolve()):
        raise ConfigFault(f"{work} is inside the store: choose another --folder")
    needed, free = COPIES * store_bytes(store, segments), shutil.disk_usage(work).free
    if needed > free:
        raise Unavailable(
            f"the copies need about {needed >> 20} MiB and {work.parent} has {free >> 20} MiB: "
            "choose another --folder or fewer --segments"
        )
    layout = copy_store(store, work / "store", segments)
    given["maxIndexNum"] = loaded.settings.max_index_num
    given["maxHashSlotNum"] = loaded.settings.max_hash_slot_num
    given["mappedFileSizeCommitLog"] = layout.segment_bytes
    given["mappedFileSizeConsumeQueue"] = layout.queue_file_bytes
    return given


@contextlib.contextmanager
def _bar(cuts: int) -> Iterator[Callable[[], object]]:
    """A progress bar on stderr, when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("power cuts", total=cuts)
        yield lambda: progress.advance(task)


def _report(store: Path | None, seed: int, verdict: Verdict, given: dict[str, object]) -> Report:
    mode = str(given.get("flushDiskType", "ASYNC_FLUSH"))
    item: Item = {
        "store": str(store) if store is not None else None,
        "flushDiskType": mode,
        "seed": seed,
        "cuts": verdict.cuts,
        "cutsDuringRecovery": verdict.cuts_in_recovery,
        "acknowledged": verdict.acked,
        "seenByConsumers": verdict.seen,
        "pagesNotSynced": verdict.pages_changed,
        "pagesLostOrTorn": verdict.pages_not_whole,
        "namesLost": verdict.names_lost,
        "longestRecoveryMs": verdict.recovery_ms_max,
        "holds": not verdict.failures,
        "failures": [_failure(failure) for failure in verdict.failures],
        "cannotShow": list(CANNOT_SHOW),
    }
    promise = "what was acknowledged" if mode == "SYNC_FLUSH" else "what was flushed"
    lines = [
        f"{verdict.cuts} power cuts ({verdict.cuts_in_recovery} again during recovery), seed {seed}, {mode}",
        f"{verdict.acked} messages acknowledged, {verdict.seen} seen by consumers up to the last cut",
        f"of {verdict.pages_changed} pages that were not synced {verdict.pages_not_whole} were old or torn, "
        f"{verdict.names_lost} names were missing; longest recovery {verdict.recovery_ms_max} ms",
        f"VERDICT: {promise} is all there after each cut"
        if not verdict.failures
        else f"VERDICT: {promise} is not all there",
        "This cannot show:",
        *(f"  - {text}" for text in CANNOT_SHOW),
    ]
    report = Report("Prove", [item], lines=lines)
    report.errors = [
        Failure(failure.seed, 0, _summary(failure_item))
        for failure, failure_item in zip(verdict.failures, item["failures"], strict=True)
    ]
    return report


def _failure(failure: LostData) -> Item:
    found = failure.judgement
    return {
        "seed": failure.seed,
        "lost": len(found.lost),
        "seenInVain": len(found.unseen),
        "torn": len(found.torn),
        "findings": found.findings,
        "examples": [str(entry.place) for entry in (*found.lost[:5], *found.unseen[:5])],
        "kept": str(failure.folder),
    }


def _summary(item: Item) -> str:
    return (
        f"{item['lost']} acknowledged messages lost, {item['seenInVain']} that consumers saw, {item['torn']} "
        f"torn, {len(item['findings'])} findings; kept in {item['kept']}"
    )
