"""The list of all damage that was ever found in a store's log: `<store>/quarantine/damage.json`.

A row per damaged stretch: where, how large, why, whose message, when and by whom found, and what was done:

    marked      the scrub of a running broker found it: readers pass over it, the next start replaces it
    replacing   its substitute is being written: done again after a crash
    replaced    a substitute stands in its place, the damaged bytes are kept aside
    mended      the one byte that had changed is what it was; the message is whole

Written whole and durably by one process at a time: recovery and repair under the store lock, the coordinator
while the broker runs. Anybody may read it. No numpy here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from shmq.base.files import fsync_folder, write_durably
from shmq.store.names import StoreLayout

FILE_NAME = "damage.json"

MARKED, REPLACING, REPLACED, MENDED = "marked", "replacing", "replaced", "mended"


@dataclass(slots=True)
class DamageRow:
    """One stretch of the log. `queue_id` and `queue_offset` are -1 and `topic` empty when nobody's."""

    position: int
    size: int
    reason: str
    state: str
    topic: str = ""
    queue_id: int = -1
    queue_offset: int = -1
    store_time: int = 1
    aside: str = ""
    found_by: str = ""
    found: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))


class DamageTable:
    """The rows, in the order in which they were found."""

    def __init__(self, layout: StoreLayout) -> None:
        """Read them. A list that cannot be read is an empty one: what it tells of is done or found again."""
        self._layout = layout
        self._path = layout.quarantine / FILE_NAME
        self.rows: list[DamageRow] = []
        try:
            found = json.loads(self._path.read_bytes())
            self.rows = [DamageRow(**row) for row in found["rows"]]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self.rows = []

    @property
    def pending(self) -> list[DamageRow]:
        """The rows that still have to be dealt with by a start."""
        return [row for row in self.rows if row.state in (MARKED, REPLACING)]

    def overlapping(self, position: int, end: int) -> list[DamageRow]:
        """The rows that speak of bytes in `[position, end)`."""
        return [row for row in self.rows if row.position < end and row.position + row.size > position]

    def put(self, rows: Sequence[DamageRow]) -> None:
        """Add rows, in place of those that begin at the same position, and write the list."""
        places = {row.position for row in rows}
        self.rows = [row for row in self.rows if row.position not in places] + list(rows)
        self.save()

    def save(self) -> None:
        """Write the list durably. OSError when the disk refuses."""
        if not self._layout.quarantine.is_dir():
            self._layout.quarantine.mkdir(mode=0o700)
            fsync_folder(self._layout.root)
        text = json.dumps({"rows": [asdict(row) for row in self.rows]}, indent=1)
        write_durably(self._path, text.encode(), backup=False)
