"""Experiment: one broker under load, its power cut again and again.

    1  the broker of `embedded.py` runs on a store that is recorded from the start (`write_recorder.py`)
    2  at a moment chosen by the seed all its processes are stopped (SIGSTOP) together: this is the cut.
       What producers were acknowledged and consumers were given by now is the ledger to be kept
    3  stores are built as the cut could have left them (`power_cut.py`); then the broker runs on
    4  each of them is recovered in another process, some after a second cut during recovery, read, and judged

The first difference ends it, keeping the store, its record and the cut. Any process may run it; it makes its
folders below the one it is given and removes them when all is well.
"""

from __future__ import annotations

import contextlib
import enum
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from shmq.base.errors import ShmqError, Unavailable
from shmq.base.runtime_dir import page_name
from shmq.embedded import SMALL_SETTINGS, Broker
from shmq.model.settings import BrokerSettings, FlushDiskType, load_settings
from shmq.prove.ledger import Judgement, Recovered, judge
from shmq.prove.load import Load
from shmq.prove.recovering import forget_page, quietly, recover, recover_partly
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import FLUSHED_POSITION
from shmq.store.page_fill import visible_word
from shmq.store.power_cut import CutNotes, cut_power
from shmq.store.write_recorder import ENVIRONMENT, begin

CUTS_PER_MOMENT = 3
AGAIN_EVERY = 3
"""Every so manieth cut is followed by a second one while it is being recovered."""

SYNCS_MAX = 12
"""A recovery is cut after at most so many of its syncs."""

STOP_LIMIT_S = 30.0
PREFIX = "ShmqProve"


Answer = TypeVar("Answer")


class Restart(enum.Enum):
    """How a broker under test is ended before it is started again."""

    CLEAN = "stopped"
    KILLED = "killed, its control page stays: a fast restart"
    KILLED_WITHOUT_PAGE = "killed, its control page goes: a full recovery over a warm page cache"


@dataclass(slots=True)
class Failure:
    """A cut after which something was missing or wrong. `folder` keeps what it was built from."""

    seed: str
    judgement: Judgement
    folder: Path


@dataclass(slots=True)
class Verdict:
    """What an experiment saw."""

    cuts: int = 0
    cuts_in_recovery: int = 0
    acked: int = 0
    seen: int = 0
    pages_changed: int = 0
    pages_not_whole: int = 0
    names_lost: int = 0
    recovery_ms_max: int = 0
    refused: int = 0
    """Requests of the load that were answered with an error: nothing was promised for them."""
    failures: list[Failure] = field(default_factory=list)

    def note(self, notes: CutNotes, recovered: Recovered) -> None:
        """Count one cut."""
        self.pages_changed += notes.pages_changed
        self.pages_not_whole += notes.pages_old + notes.pages_torn
        self.names_lost += notes.names_lost
        self.recovery_ms_max = max(self.recovery_ms_max, recovered.ms)


class Experiment:
    """Cuts of one broker. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        seed: int | str,
        *,
        environment: Mapping[str, str] | None = None,
        pause_s: float = 0.002,
        cuts_per_moment: int = CUTS_PER_MOMENT,
    ) -> None:
        """`folder` may hold a `store` to begin with; `settings` are the broker's, by RocketMQ's names."""
        self._cuts_per_moment = cuts_per_moment
        self._keep_cuts = cuts_per_moment > 1
        self.folder = folder
        self.store = folder / "store"
        self.record = folder / "record"
        self.seed = seed
        self.rng = random.Random(seed)
        self._settings = {**SMALL_SETTINGS, **settings}
        self.arguments = [
            f"{key}={value}" for key, value in {**self._settings, "storePathRootDir": self.store}.items()
        ]
        self._environment = {ENVIRONMENT: str(self.record), **(environment or {})}
        chosen = load_settings(BrokerSettings, None, self.arguments).settings
        self._all_acked = chosen.flush_disk_type is FlushDiskType.SYNC_FLUSH
        self._all_seen = visible_word(chosen) == FLUSHED_POSITION
        self._before: Recovered | None = None
        self._pause_s = pause_s
        self.broker = Broker(self.store, **self._settings)
        self._open = contextlib.ExitStack()
        self._pool: ProcessPoolExecutor

    def __enter__(self) -> Experiment:
        """Start the broker, recorded."""
        with self._open:
            context = multiprocessing.get_context("spawn")
            self._pool = self._open.enter_context(ProcessPoolExecutor(1, context, quietly))
            if self.store.exists():
                self._before = self.elsewhere(recover, self.store, self.arguments, PREFIX, True)
            self.store.mkdir(parents=True, exist_ok=True)
            begin(self.record, self.store)
            self._open.callback(forget_page, self.store)  # a killed broker leaves it
            with _environment(self._environment):
                self._open.enter_context(self.broker)
            self._open.callback(self.thaw)
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the broker."""
        self._open.close()

    def run(
        self, cuts: int, on_cut: Callable[[], object] = lambda: None, *, restarts: Sequence[Restart] = ()
    ) -> Verdict:
        """Cut so often under a load; `on_cut` hears of each that was judged. Ends at the first failure.

        Before each moment but the first the broker is started anew in the next of these ways, in turn.
        """
        verdict = Verdict()
        moment = 0
        with self.new_load() as load:
            while verdict.cuts < cuts and not verdict.failures:
                if restarts and moment:
                    load.go()
                    self.restart(restarts[moment % len(restarts)])
                self._wait_for_news(load)
                moment += 1
                count = min(self._cuts_per_moment, cuts - verdict.cuts)
                self.cut([f"{moment}/{n}" for n in range(count)], load, verdict, on_cut)
            verdict.refused = load.refused
        return verdict

    def restart(self, how: Restart) -> None:
        """End the broker and start it again on its store; the record goes on."""
        if how is Restart.CLEAN:
            self.broker.stop()
        else:
            self.broker.kill()
            if how is Restart.KILLED_WITHOUT_PAGE:
                forget_page(self.store)
        with _environment(self._environment):
            self.broker.start()

    def new_load(self) -> Load:
        """A load for this broker, not begun."""
        tcp = self.broker.tcp_addr
        return Load(self.broker.namesrv_addr, tcp, PREFIX, self.seed, self._pause_s)

    def _wait_for_news(self, load: Load) -> None:
        """Let the load go on until more was acknowledged, something seen, and then any length of time."""
        wanted = len(load.ledger.acked) + self.rng.randint(5, 60)
        load.go()
        limit = time.monotonic() + STOP_LIMIT_S
        while len(load.ledger.acked) < wanted or not load.ledger.seen:
            if time.monotonic() > limit or not self.broker.running:
                raise Unavailable("the broker under test acknowledges nothing any more")
            time.sleep(0.001)
        time.sleep(self.rng.random() * 0.02)

    def cut(
        self,
        names: Sequence[str],
        load: Load,
        verdict: Verdict,
        on_cut: Callable[[], object] = lambda: None,
    ) -> None:
        """Cut this moment in several ways, each named and seeded by one of `names`; judge each."""
        self.freeze()
        try:
            ledger, flushed = load.ledger.now(), self._flushed()
            cuts = [(seed, self.build(seed)) for seed in (f"{self.seed}/{name}" for name in names)]
            load.rest()  # so that the store does not grow while cuts are looked at
        finally:
            self.thaw()
        verdict.acked, verdict.seen = len(ledger.acked), len(ledger.seen)
        for seed, notes in cuts:
            verdict.cuts += 1
            again = verdict.cuts % AGAIN_EVERY == 0
            verdict.cuts_in_recovery += again
            try:
                recovered = self._recover(seed, again)
            except ShmqError as error:
                recovered = Recovered(findings=[f"the start failed: {error}"])
            verdict.note(notes, recovered)
            judgement = judge(
                ledger,
                recovered,
                promised_below=None if self._all_acked else flushed,
                seen_below=None if self._all_seen else flushed,
            )
            judgement.findings += self._missing_from_before(recovered)
            if judgement.holds:
                shutil.rmtree(self.target(seed).parent)
            else:
                verdict.failures.append(Failure(seed, judgement, self.target(seed).parent))
            on_cut()

    def _missing_from_before(self, recovered: Recovered) -> list[str]:
        """Queues that were there before the broker was started, and are not as long any more."""
        if self._before is None:
            return []
        return [
            f"{topic} queue {queue_id} ended at {high} and is {recovered.others.get((topic, queue_id))} now"
            for (topic, queue_id), (_, high) in self._before.others.items()
            if recovered.others.get((topic, queue_id), (0, 0))[1] < high
        ]

    # ---- the cut

    def freeze(self) -> None:
        """Stop every process of the broker and wait until each thread of them stands still."""
        os.killpg(self.broker.pid, signal.SIGSTOP)
        limit = time.monotonic() + STOP_LIMIT_S
        while any(state not in "TtZX" for state in _states(self.broker.pid)):
            if time.monotonic() > limit:
                raise Unavailable("a process of the broker under test does not stop")
            time.sleep(0.0005)

    def thaw(self) -> None:
        """Let it run on."""
        if self.broker.running:
            os.killpg(self.broker.pid, signal.SIGCONT)

    def _flushed(self) -> int:
        page = ControlPage.attach(page_name(self.store), readonly=True)
        try:
            return int(page.words[FLUSHED_POSITION])
        finally:
            page.close()

    def target(self, seed: str) -> Path:
        """Where the store cut with this seed is."""
        return self.folder / "cuts" / seed.replace("/", "-") / "store"

    def build(self, seed: str) -> CutNotes:
        """Make the store that a cut with this seed leaves, while the broker stands still."""
        target = self.target(seed)
        target.parent.mkdir(parents=True)
        return cut_power(self.record, target, seed)

    # ---- afterwards

    def _recover(self, seed: str, again: bool) -> Recovered:
        """Recover a cut store in another process, after a second cut when `again`.

        Recovery changes it; a small store is kept beside as the cut left it, for whoever has to find out.
        """
        target = self.target(seed)
        if self._keep_cuts:
            shutil.copytree(target, target.with_name("cut"))
        if again:
            record = target.parent / "record"
            rng = random.Random(seed)
            when = (rng.randint(0, SYNCS_MAX), rng.random() < 0.5)
            self.elsewhere(recover_partly, target, record, self.arguments, *when)
            second = target.with_name("again")
            cut_power(record, second, seed)
            target = second
        return self.elsewhere(recover, target, self.arguments, PREFIX)

    def elsewhere(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call a function of `recovering.py` in the other process."""
        return self._pool.submit(function, *arguments).result()


_environment_lock = threading.Lock()


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Add to this process's environment, for the children started meanwhile."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _states(group: int) -> Iterator[str]:
    """The state letter of every thread of a process group."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            state, _, process_group = _stat(folder)[:3]
            if int(process_group) == group:
                yield state
                for task in (folder / "task").iterdir():
                    yield _stat(task)[0]


def _stat(folder: Path) -> list[str]:
    """The fields of /proc/*/stat behind the name: state, parent, process group ..."""
    return (folder / "stat").read_text().rpartition(")")[2].split()
