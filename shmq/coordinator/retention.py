"""Retention: when the oldest part of the log goes. A service of the coordinator.

Every `cleanResourceInterval` it looks at the disk and at the oldest segment (Apache RocketMQ 5.3,
DefaultMessageStore.java, CleanCommitLogService):

    it is an hour of deleteWhen               delete what is older than fileReservedTime, by a file's mtime
    the disk is above diskMaxUsedSpaceRatio   the same at any hour; also when no segment could be allocated
    request 329                               the same, for the next rounds
    above diskSpaceCleanForciblyRatio         delete also what is younger, if cleanFileForciblyEnable
    above diskSpaceWarningLevelRatio          the same, and sends are refused (page word DISK_FULL) until it
                                              is below again

Unlike RocketMQ it counts what deleting has already won. Space of deleted files that a reader still holds
comes back without deleting more, so it does not count as used, and a round ends as soon as what was deleted
suffices; otherwise one stopped reader would cost the whole log. Who holds them is logged; after
destroyMapedFileIntervalForcibly the reader grants of those processes end, whereupon they let go. What the
broker itself has not delivered yet (`needed`: delayed messages) is spared, except by forced deletion;
messages for a moment are appended once more first (`move_out`).

How files are removed is in `store/log_cleaner.py`. Everything goes in small steps of the duty cycle; after a
death the next coordinator begins by finishing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from shmq.base import log
from shmq.base.clock import Clock
from shmq.broker.live_settings import LiveSettings
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import DISK_FULL, MIN_OFFSET, SEGMENT_ERROR
from shmq.shm.worker_slots import SlotTable
from shmq.store.disk_use import DiskUse, HeldFiles
from shmq.store.log_cleaner import LogCleaner
from shmq.store.names import StoreLayout

DELETE_FILE_BATCH_MAX = 10
"""Segments a round deletes at most."""
MANUAL_ROUNDS = 20
"""Rounds for which a request to delete holds."""
MOVE_TURNS_MAX = 20_000
"""Turns a service gets to move what it needs out of segments that go; the next round goes on."""
STEP_PAUSE_MS = 1
"""Pause between two small steps, or between two runs of steps that are smaller still."""
RUN_MS = 2
"""How long such a run may last: a pause after each of hundreds would wake an idle process for each."""
WAIT_PAUSE_MS = 10
"""Pause while a file is being unlinked."""
FULL_LOOK_MS = 1000
"""How soon to look again while sends are refused."""
RETRY_MS = 1000
"""Pause after the disk refused."""
_HOUR_MS = 3_600_000

_logger = log.get(__name__)


class Retention:
    """Decides what goes, and has it removed."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        bells: Sequence[Doorbell],
        cleaner: LogCleaner,
        settings: LiveSettings,
        clock: Clock,
        *,
        forget_maps: Sequence[Callable[[], None]],
        end_grants: Callable[[Collection[int], str], int],
        count: Callable[[str, int], None],
        hurry: Callable[[], None],
    ) -> None:
        """`forget_maps`: of this process. `end_grants(pids, reason)` ends those processes' reader grants;
        `hurry` makes the next step due."""
        self._layout = layout
        self._page = page
        self._slots = SlotTable(page)
        self._bells = bells
        self._cleaner = cleaner
        self._held = HeldFiles(layout.root)
        self._settings = settings
        self._clock = clock
        self._forget_maps = forget_maps
        self._end_grants = end_grants
        self._count = count
        self._hurry = hurry
        self.needed: list[Callable[[], int | None]] = []
        """Each returns the lowest physical offset that a service of this broker still reads."""
        self.move_out: list[Callable[[int], bool]] = []
        """Each brings some of what its service needs below a physical offset to the log's end; True when
        nothing is left there."""
        self._round: Iterator[int] | None = None
        self._manual_rounds = 0
        self._queues_wanted = False
        self._held_since_ms = self._held_reported_ms = 0
        self._finished = False
        self._deleted = False
        """Something was removed since the last look for who holds such files."""

    # ---- requests

    def delete_expired(self) -> None:
        """Delete what is expired now, whatever the hour (request 329)."""
        self._manual_rounds = MANUAL_ROUNDS
        self._hurry()

    def delete_queue_files(self) -> None:
        """Remove what ConsumeQueues have below their minima with the next round (request 306)."""
        self._queues_wanted = True
        self._hurry()

    # ---- the service

    def step(self, now_ms: int) -> int:
        """Do the next small pieces of a round, or begin one."""
        if self._round is None:
            self._round = self._one_round(now_ms)
        run_end_ms = self._clock.monotonic_ms() + RUN_MS
        try:
            while (pause_ms := next(self._round)) == STEP_PAUSE_MS:
                if self._clock.monotonic_ms() >= run_end_ms:
                    break
            return now_ms + pause_ms
        except StopIteration:
            self._round = None
            pause_ms = FULL_LOOK_MS if self._refuses else self._settings.now.clean_resource_interval
            return now_ms + pause_ms
        except OSError as error:
            self._round = None
            log.event(_logger, logging.ERROR, "retention_refused", error=error)
            return now_ms + RETRY_MS

    @property
    def _refuses(self) -> bool:
        """Whether senders wait for room."""
        return bool(self._page.words[DISK_FULL] or self._page.words[SEGMENT_ERROR])

    def _one_round(self, now_ms: int) -> Iterator[int]:
        """Look, delete what is due, follow up. Yields pauses in ms."""
        if self._page.state is not PageState.OK:
            return  # the disk failed: nothing is changed any more
        use = DiskUse.of(self._layout.root)
        self._tell_full(use.percent())
        settings = self._settings.now
        if use.percent() > settings.disk_max_used_space_ratio or self._held.found or self._deleted:
            self._deleted = False
            for _ in self._held.look():
                yield STEP_PAUSE_MS
            self._report_held(now_ms)
        wanted = self._choose(use, spare=False)
        if wanted:
            yield from self._move_out(wanted[-1] + self._layout.segment_bytes)
        chosen = self._choose(use)
        self._manual_rounds = max(0, self._manual_rounds - 1)
        if chosen:
            end = chosen[-1] + self._layout.segment_bytes
            log.event(
                _logger,
                logging.WARNING if use.percent() > settings.disk_max_used_space_ratio else logging.INFO,
                "segments_expired",
                count=len(chosen),
                min_offset=end,
                disk_percent=use.percent(),
            )
            self._cleaner.raise_minimum(end)
        if chosen or self._queues_wanted or not self._finished:
            self._queues_wanted = False
            yield from self._follow()
            self._finished = self._deleted = True
            self._tell_full(DiskUse.of(self._layout.root).percent())

    def _move_out(self, end: int) -> Iterator[int]:
        """Let services move what they need out of the segments that are to go."""
        for move in self.move_out:
            for _ in range(MOVE_TURNS_MAX):
                if move(end):
                    break
                yield STEP_PAUSE_MS

    def _follow(self) -> Iterator[int]:
        """Have everything below the minimum removed, at the pace that is set."""
        settings = self._settings.now
        pauses = {
            "segment": settings.delete_commit_log_files_interval,
            "queue": settings.delete_consume_queue_files_interval,
            "index": STEP_PAUSE_MS,
            "looked": STEP_PAUSE_MS,
            "waited": WAIT_PAUSE_MS,
        }
        for done in self._cleaner.follow():
            if done not in ("looked", "waited"):
                self._let_go()
            if done == "segment":
                self._count("segments_deleted", 1)
            yield max(STEP_PAUSE_MS, pauses[done])

    def _let_go(self) -> None:
        """Have every process of this broker drop its maps of what was deleted."""
        for forget in self._forget_maps:
            forget()
        for slot in self._slots.taken():
            self._bells[slot.number].ring()

    # ---- deciding

    def _choose(self, use: DiskUse, *, spare: bool = True) -> list[int]:
        """The starts of the segments that go now, oldest first; without `spare` also those that a service
        needs."""
        settings = self._settings.now
        now_ms = self._clock.now_ms()
        hours = {int(hour) for hour in settings.delete_when.split(";")}
        due = time.localtime(now_ms / 1000).tm_hour in hours or self._manual_rounds > 0
        spared = min((at for ask in self.needed if (at := ask()) is not None), default=None)
        low = self._page.words[MIN_OFFSET]
        won = self._held.cost + sum(
            self._layout.segment_bytes for start in self._layout.segments() if start < low
        )
        chosen: list[int] = []
        for start in self._cleaner.removable():
            if start < low:
                continue
            percent = use.percent(without=won)
            forced = settings.clean_file_forcibly_enable and percent > min(
                settings.disk_space_clean_forcibly_ratio, settings.disk_space_warning_level_ratio
            )
            scarce = percent > settings.disk_max_used_space_ratio or (
                self._page.words[SEGMENT_ERROR] == errno.ENOSPC and not chosen and not won
            )
            if not forced:
                end = start + self._layout.segment_bytes
                if not (due or scarce) or (spare and spared is not None and spared < end):
                    break
                if now_ms < self._expires_ms(start):
                    break
            chosen.append(start)
            won += self._layout.segment_bytes
            if len(chosen) == DELETE_FILE_BATCH_MAX:
                break
        return chosen

    def _expires_ms(self, start: int) -> int:
        """When a segment may go by its age."""
        written_ms = self._layout.segment_path(start).stat().st_mtime_ns // 1_000_000
        return written_ms + self._settings.now.file_reserved_time * _HOUR_MS

    # ---- telling

    def _tell_full(self, percent: int) -> None:
        """Let appenders refuse sends while the disk is above its warning level."""
        words = self._page.words
        full = percent if percent > self._settings.now.disk_space_warning_level_ratio else 0
        if full and not words[DISK_FULL]:
            log.event(_logger, logging.ERROR, "disk_full", percent=percent, store=self._layout.root)
        elif words[DISK_FULL] and not full:
            log.event(_logger, logging.WARNING, "disk_has_room", percent=percent)
        words[DISK_FULL] = full

    def _report_held(self, now_ms: int) -> None:
        """Say who holds deleted files, and end the grants of those who do it too long."""
        settings = self._settings.now
        if not self._held.found:
            self._held_since_ms = self._held_reported_ms = 0
            return
        self._held_since_ms = self._held_since_ms or now_ms
        again_ms = self._held_reported_ms + settings.redelete_hanged_file_interval
        if self._held_reported_ms and now_ms < again_ms:
            return
        self._held_reported_ms = now_ms
        pids = sorted({pid for held in self._held.found for pid in held.pids})
        log.event(
            _logger,
            logging.WARNING,
            "deleted_files_held",
            files=len(self._held.found),
            bytes=self._held.cost,
            holders=", ".join(f"{pid} ({_name_of(pid)})" for pid in pids),
        )
        self._let_go()
        if now_ms - self._held_since_ms >= settings.destroy_maped_file_interval_forcibly:
            ended = self._end_grants(pids, "holds deleted files too long")
            log.event(_logger, logging.WARNING, "grants_ended", readers=ended)


def _name_of(pid: int) -> str:
    """How `ps` names a process; empty when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(80).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""
