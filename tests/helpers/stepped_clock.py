"""A wall clock that tests may step, in every Python process of a broker: its own clocks, not the machine's.

`StepClock.environment` makes each process import a `sitecustomize` first, which adds the step to `time.time`
and `time.time_ns`. The step is one 8-byte word of a mapped file: a change is seen by all of them at once. The
monotonic clock goes on as it is, as it does when an administrator sets the machine's clock.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_CODE = """
import mmap, os, struct, time
_file = os.open({path!r}, os.O_RDONLY)
_step = mmap.mmap(_file, 8, access=mmap.ACCESS_READ)
os.close(_file)
_real = time.time_ns
time.time_ns = lambda: _real() + struct.unpack_from("=q", _step)[0]
time.time = lambda: time.time_ns() / 1e9
"""


class StepClock:
    """The step of one test's processes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        path = folder / "step"
        path.write_bytes(bytes(8))
        (folder / "sitecustomize.py").write_text(_CODE.format(path=str(path)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        inherited = os.environ.get("PYTHONPATH")
        self.environment = {"PYTHONPATH": os.pathsep.join([str(folder), *([inherited] if inherited else [])])}

    def set(self, seconds: float) -> None:
        """Let the wall clock be so far off from now on."""
        struct.pack_into("=q", self._map, 0, int(seconds * 1e9))
