"""How far the scrub is, and what damage is known: for whoever shows it. No numpy here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageTable
from shmq.store.names import StoreLayout


@dataclass(slots=True)
class ScrubProgress:
    """How far the scrub is; times are wall ms, 0: never. `found` and `bytes` are of the pass under way."""

    position: int = 0
    passes: int = 0
    began: int = 0
    finished: int = 0
    found: int = 0
    bytes: int = 0

    @classmethod
    def load(cls, layout: StoreLayout) -> ScrubProgress:
        """Read the note; one that cannot be read is a pass that has not begun."""
        try:
            found = json.loads(layout.scrub_progress.read_bytes())
            return cls(**{name: int(found[name]) for name in cls.__dataclass_fields__})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls()


def damage_facts(layout: StoreLayout) -> dict[str, int]:
    """Progress and known damage by the names of runtime statistics. Reads two small files."""
    progress = ScrubProgress.load(layout)
    states = Counter(row.state for row in DamageTable(layout).rows)
    return {
        "scrubPosition": progress.position,
        "scrubPasses": progress.passes,
        "scrubPassBegan": progress.began,
        "scrubPassFinished": progress.finished,
        "scrubPassFound": progress.found,
        "damageMarked": states[MARKED],
        "damageReplaced": states[REPLACED],
        "damageMended": states[MENDED],
    }
