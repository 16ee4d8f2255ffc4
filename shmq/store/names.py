"""Where everything of one store lies, and how its files are named (Apache RocketMQ 5.3,
StorePathConfigHelper.java).

    commitlog/00000000001073741824               CommitLog segment, named by its first physical offset
    consumequeue/T/0/00000000000006000000        ConsumeQueue file, named by its first byte, 20 a unit
    index/20261120140311482                      IndexFile, named by the local time it was made
    checkpoint  abort  lock  config/*.json       as RocketMQ has them
    checksums/00000000001073741824               sums of the segment of that name (`checksums.py`)
    appenders.lock  flush.lock  shmq/            shmq's own, like checksums/; RocketMQ ignores them

A folder of segments holds files of exactly one size and nothing else: RocketMQ refuses to load it otherwise.
Pure; used by every process. No numpy here: the supervisor imports it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shmq.model.settings import BrokerSettings
from shmq.model.unit import UNIT_BYTES

_NAME_DIGITS = 20
_CONSUME_QUEUE = "consumequeue"


def file_name(start: int) -> str:
    """The name of the segment or ConsumeQueue file that begins at byte `start`."""
    return f"{start:0{_NAME_DIGITS}d}"


def parse_file_name(name: str) -> int | None:
    """The byte a file called `name` begins at; None when it is no segment's name."""
    if len(name) == _NAME_DIGITS and name.isascii() and name.isdecimal():
        return int(name)
    return None


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """The paths and file sizes of one store.

    `segment_bytes` is the size of a CommitLog segment, `queue_file_bytes` of a ConsumeQueue file (whole
    units).
    """

    root: Path
    segment_bytes: int
    queue_file_bytes: int

    @classmethod
    def of(cls, root: Path, settings: BrokerSettings) -> StoreLayout:
        """The layout that `settings` ask for; a ConsumeQueue file's size is rounded up to whole units."""
        units = -(-settings.mapped_file_size_consume_queue // UNIT_BYTES)
        return cls(root, settings.mapped_file_size_commit_log, units * UNIT_BYTES)

    @property
    def commit_log(self) -> Path:
        """The folder of CommitLog segments."""
        return self.root / "commitlog"

    @property
    def consume_queue(self) -> Path:
        """The folder of ConsumeQueues, one folder per topic in it, one per queue in that."""
        return self.root / _CONSUME_QUEUE

    @property
    def index(self) -> Path:
        """The folder of IndexFiles."""
        return self.root / "index"

    @property
    def config(self) -> Path:
        """The folder of the JSON tables."""
        return self.root / "config"

    @property
    def checkpoint(self) -> Path:
        """The file of `checkpoint.py`."""
        return self.root / "checkpoint"

    @property
    def abort(self) -> Path:
        """The file that exists while a broker runs (`run_marks.py`)."""
        return self.root / "abort"

    @property
    def lock(self) -> Path:
        """The file whose lock makes a process the store's owner."""
        return self.root / "lock"

    @property
    def appenders_lock(self) -> Path:
        """Shared by every process that may append; exclusive for whoever repairs."""
        return self.root / "appenders.lock"

    @property
    def flush_lock(self) -> Path:
        """Exclusive for whoever loads, syncs and stores `flushed_position`."""
        return self.root / "flush.lock"

    @property
    def timer_wheel(self) -> Path:
        """The file of `timer_wheel.py`."""
        return self.root / "timerwheel"

    @property
    def timer_log(self) -> Path:
        """The folder of `timer_log.py`'s segments."""
        return self.root / "timerlog"

    @property
    def identity(self) -> Path:
        """The file that says which engine wrote the store last (`run_marks.py`)."""
        return self.root / "shmq" / "identity.json"

    @property
    def producers(self) -> Path:
        """The file of `producer_file.py`."""
        return self.root / "shmq" / "producers"

    @property
    def filters(self) -> Path:
        """The folder of installed filter functions."""
        return self.root / "filters"

    @property
    def checksums(self) -> Path:
        """The folder of what the bytes of log and tables must sum to."""
        return self.root / "checksums"

    @property
    def scrub_progress(self) -> Path:
        """How far the scrub is (`scrub.py`)."""
        return self.checksums / "scrub.json"

    @property
    def quarantine(self) -> Path:
        """The folder of damaged bytes that were replaced."""
        return self.root / "quarantine"

    def checksum_path(self, start: int) -> Path:
        """The side file of the segment that begins at physical offset `start`."""
        return self.checksums / file_name(start)

    def segment_start(self, physical_offset: int) -> int:
        """The first physical offset of the segment that holds `physical_offset`."""
        return physical_offset - physical_offset % self.segment_bytes

    def segment_path(self, start: int) -> Path:
        """The file of the segment that begins at physical offset `start`."""
        return self.commit_log / file_name(start)

    def queue_folder(self, topic: str, queue_id: int) -> Path:
        """The folder of one ConsumeQueue."""
        return self.consume_queue / topic / str(queue_id)

    def queue_folder_text(self, topic: str, queue_id: int) -> str:
        """The same as text: a start looks at ten thousand of them, and a Path costs ten times as much."""
        return f"{self.root}/{_CONSUME_QUEUE}/{topic}/{queue_id}"

    def queue_file_path(self, topic: str, queue_id: int, start: int) -> Path:
        """The ConsumeQueue file that begins at byte `start` of that queue's stream."""
        return self.queue_folder(topic, queue_id) / file_name(start)

    def segments(self) -> list[int]:
        """The starts of the segments on disk, ascending. Empty when there is no folder."""
        return file_starts(self.commit_log)

    def make_folders(self) -> None:
        """Make the folders a store needs; existing ones stay."""
        for folder in (self.commit_log, self.consume_queue, self.index, self.config, self.identity.parent):
            folder.mkdir(parents=True, exist_ok=True)


def file_starts(folder: Path | str) -> list[int]:
    """The starts of all segment-named files in `folder`, ascending. Empty when there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(start for name in names if (start := parse_file_name(name)) is not None)
