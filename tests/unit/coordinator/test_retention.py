"""What retention decides: by hour, age and disk use, forced or not, with what is held and what is needed."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmq.base.clock import monotonic_ms
from shmq.broker.live_settings import LiveSettings
from shmq.coordinator import retention as module
from shmq.coordinator.retention import Retention
from shmq.shm.control_page import PageState
from shmq.shm.page_layout import DISK_FULL, MIN_OFFSET, SEGMENT_ERROR, WRITE_POSITION
from shmq.store.check import check_store
from shmq.store.disk_use import DiskUse, HeldFile
from shmq.store.log_cleaner import LogCleaner
from tests.helpers.store import OpenStore, request, small_settings

SEGMENT = 64 << 10
OTHER_HOUR = f"{(time.localtime().tm_hour + 12) % 24:02d}"


class Clock:
    """The clocks of the machine, as a retention asks them."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return monotonic_ms()


class Bench:
    """A store of ten segments, a retention over it, and a disk that says what the test wants."""

    def __init__(self, store: OpenStore, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.store = store
        for n in range(330):
            store.send("T", b"%06d" % n * 300)
        store.flush()
        assert len(store.layout.segments()) >= 10
        self.segments = 100
        """Size of the disk, in segments."""
        self.used = 10
        """Segments used on it before anything was deleted, without what is held."""
        self.ended: list[Collection[int]] = []
        changed = {"delete_when": OTHER_HOUR, "clean_resource_interval": 1000, **settings}
        changed.setdefault("delete_commit_log_files_interval", 0)
        self.clock = Clock()
        self.retention = Retention(
            store.layout,
            store.page,
            store.bells,
            LogCleaner(store.layout, store.page, store.directory, store.store.queues),
            LiveSettings(small_settings(**changed)),
            self.clock,
            forget_maps=(store.store.follow_retention,),
            end_grants=self._end_grants,
            count=lambda name, n: None,
            hurry=lambda: None,
        )
        first = len(store.layout.segments())
        monkeypatch.setattr(module.DiskUse, "of", lambda folder: self._use(first))
        monkeypatch.setattr(module.HeldFiles, "look", lambda held: iter(()))

    def _end_grants(self, pids: Collection[int], reason: str) -> int:
        self.ended.append(pids)
        return len(pids)

    def _use(self, first: int) -> DiskUse:
        gone = first - len(self.store.layout.segments())
        held = self.retention._held.cost // SEGMENT
        used = self.used - gone + held
        return DiskUse(used * SEGMENT, (self.segments - used) * SEGMENT)

    def round(self, now_ms: int = 1) -> int:
        """One whole round; return how many segments it deleted."""
        before = len(self.store.layout.segments())
        while (next_ms := self.retention.step(now_ms)) - now_ms < 500:
            pass
        assert next_ms - now_ms == 1000
        return before - len(self.store.layout.segments())

    def age(self, count: int, hours: float) -> None:
        for start in self.store.layout.segments()[:count]:
            then = time.time() - hours * 3600
            os.utime(self.store.layout.segment_path(start), (then, then))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store") as opened:
        yield opened
        assert list(check_store(opened.root, opened.page)) == []


def test_nothing_goes_in_another_hour_or_when_it_is_young(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(store, monkeypatch)
    bench.age(3, 100)
    assert bench.round() == 0, "another hour"
    bench.retention.delete_expired()
    assert bench.round() == 3, "asked for: the three that are old"
    assert bench.round() == 0
    bench.age(2, 71.9)
    bench.retention.delete_expired()
    assert bench.round() == 0


def test_in_its_hour_expired_segments_go_ten_a_round_and_the_active_one_never(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = time.localtime().tm_hour
    both = f"{hour:02d};{(hour + 1) % 24:02d}"  # the hour may end while this runs
    bench = Bench(store, monkeypatch, delete_when=both, file_reserved_time=1)
    bench.age(100, 2)
    written = store.layout.segment_start(store.page.words[WRITE_POSITION])
    deleted = bench.round() + bench.round() + bench.round()
    assert deleted > 0 and store.layout.segments()[0] <= written
    assert store.layout.segments()[0] == store.page.words[MIN_OFFSET]


@pytest.mark.parametrize(
    ("used", "old", "forced", "deleted", "refuses"),
    [
        (75, 4, True, 0, False),  # not above diskMaxUsedSpaceRatio
        (76, 4, True, 1, False),  # expired ones, as many as it takes to be no longer above
        (78, 4, True, 3, False),
        (80, 4, True, 4, False),  # no more are old enough
        (85, 0, True, 0, False),
        (88, 0, True, 3, False),  # young ones, until it is no longer above diskSpaceCleanForciblyRatio
        (88, 0, False, 0, False),  # cleanFileForciblyEnable=false
        (92, 0, True, 7, False),  # refused above 90, and then no more
        (97, 0, False, 0, True),
        (98, 1, False, 1, True),
    ],
)
def test_the_fuller_the_disk_the_more_goes_and_never_more_than_needed(
    store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    used: int,
    old: int,
    forced: bool,
    deleted: int,
    refuses: bool,
) -> None:
    bench = Bench(store, monkeypatch, clean_file_forcibly_enable=forced)
    bench.used = used
    bench.age(old, 100)
    assert bench.round() == deleted
    assert bench.round() == 0
    assert (store.page.words[DISK_FULL] > 0) is refuses
    if refuses:
        (outcome,) = store.store.append([request(store.queue("T"), [b"x"])])
        assert "% full" in str(outcome.error if outcome else "")
        bench.used = 10
        bench.round()
    assert store.page.words[DISK_FULL] == 0
    (outcome,) = store.store.append([request(store.queue("T"), [b"x"])])
    assert outcome is not None and outcome.error is None


def test_what_is_held_by_others_does_not_let_more_be_deleted(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(store, monkeypatch, destroy_maped_file_interval_forcibly=5000)
    held = [HeldFile(f"{store.root}/commitlog/{n:020d}", SEGMENT, (4711,)) for n in range(8)]
    bench.retention._held.found = held
    bench.used = 80
    assert bench.round(1) == 0, "88 are used, but that is 80 when they let go"
    assert bench.ended == []
    bench.used = 84
    assert bench.round(2000) == 0
    assert store.page.words[DISK_FULL] > 90, "but there is no room now"
    bench.round(200_000)
    assert bench.ended == [[4711]], "they had their time"
    bench.retention._held.found = []
    bench.used = 82
    bench.round(300_000)
    assert store.page.words[DISK_FULL] == 0


def test_what_a_service_needs_is_spared_but_for_forced_deletion(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(store, monkeypatch)
    bench.age(6, 100)
    bench.retention.needed.append(lambda: 2 * SEGMENT + 100)
    bench.retention.needed.append(lambda: None)
    bench.retention.delete_expired()
    assert bench.round() == 2
    assert bench.round() == 0
    bench.used = 97
    assert bench.round() > 2, "the disk is full"


def test_a_segment_that_cannot_be_allocated_lets_expired_ones_go(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(store, monkeypatch)
    bench.age(4, 100)
    store.page.words[SEGMENT_ERROR] = errno.EIO
    assert bench.round() == 0
    store.page.words[SEGMENT_ERROR] = errno.ENOSPC
    assert bench.round() == 1
    store.page.words[SEGMENT_ERROR] = 0


def test_nothing_goes_when_the_disk_has_failed(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(store, monkeypatch)
    bench.age(4, 100)
    bench.retention.delete_expired()
    store.page.state = PageState.FLUSH_FAILED
    assert bench.round() == 0
    store.page.state = PageState.OK
    assert bench.round() == 4


def test_a_refusing_disk_is_asked_again(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(store, monkeypatch)
    bench.age(2, 100)
    bench.retention.delete_expired()
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "commitlog":
            raise OSError(errno.EIO, "Input/output error")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert bench.round() == 0
    assert store.page.words[MIN_OFFSET] == 2 * SEGMENT, "they are given up"
    monkeypatch.setattr(Path, "unlink", real)
    assert bench.round() == 2
