"""The checkpoint file: up to where everything is known to be on the disk (Apache RocketMQ 5.3,
StoreCheckpoint.java).

    0   i64  physicMsgTimestamp    store time of the newest CommitLog bytes that are synced
    8   i64  logicsMsgTimestamp    store time up to which the ConsumeQueues are synced
    16  i64  indexMsgTimestamp     end time of the newest full index file that is synced
    24  i64  masterFlushedOffset   slaves only
    32  i64  confirmPhyOffset      here: a record boundary; log and ConsumeQueues below it are synced
    40..4095 zeros                 all big-endian

RocketMQ writes the times before the ConsumeQueue is synced, and reads a whole segment after a crash because
times are all it has. Here every value is written after the sync it speaks of, by the flusher alone, and
confirmPhyOffset tells recovery where to begin; RocketMQ does not use that field for decisions. No numpy here:
the supervisor imports it.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from shmq.base import faults
from shmq.base.file_sums import announce
from shmq.base.files import fsync_folder

_FIELDS = struct.Struct(">qqqqq")
FIELDS_BYTES = 40
assert _FIELDS.size == FIELDS_BYTES

faults.declare({"checkpoint.written": "the checkpoint's bytes are in the file, perhaps not on the disk"})

FILE_BYTES = 4096
SAFETY_MS = 3000
"""RocketMQ's distance between the written times and what it trusts."""


@dataclass(slots=True)
class Checkpoint:
    """The five values; all zero when there is no file."""

    physic_timestamp: int = 0
    logics_timestamp: int = 0
    index_timestamp: int = 0
    master_flushed_offset: int = 0
    confirm_offset: int = 0

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read `path`; a missing or short file is a checkpoint that knows nothing."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        return cls(*_FIELDS.unpack_from(data)) if len(data) >= _FIELDS.size else cls()

    @property
    def trusted_timestamp(self) -> int:
        """Records stored up to this time are surely on the disk, in log and ConsumeQueue."""
        return max(0, min(self.physic_timestamp, self.logics_timestamp) - SAFETY_MS)

    def encode(self) -> bytes:
        """The 40 bytes RocketMQ reads."""
        return _FIELDS.pack(
            self.physic_timestamp,
            self.logics_timestamp,
            self.index_timestamp,
            self.master_flushed_offset,
            self.confirm_offset,
        )

    def save(self, path: Path) -> None:
        """Write and sync. In place.

        40 bytes lie in one sector, so a power cut leaves the old or the new values. Their sum is kept in
        `checksums/`.
        """
        announce(path.parent / "checksums", path, self.encode())
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            new = os.fstat(fd).st_size < FILE_BYTES
            if new:
                os.ftruncate(fd, FILE_BYTES)
            os.pwrite(fd, self.encode(), 0)
            faults.reach("checkpoint.written")
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if new:
            fsync_folder(path.parent)  # else a power cut may take the name, and with it every checkpoint
