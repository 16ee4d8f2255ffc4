"""What a run left to be done about damage: finish replacements that were cut short, replace what was marked.

Recovery only, before anything of the log is believed. numpy.
"""

from __future__ import annotations

from shmq.store.checksum_check import SegmentChecksums
from shmq.store.damage_search import Damage, find_damage
from shmq.store.damage_table import MARKED, REPLACING
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.quarantine import Quarantine


def finish_pending(layout: StoreLayout) -> None:
    """Deal with every pending row. Segments that are gone meanwhile took their damage with them."""
    quarantine = Quarantine(layout, "recovery")
    segments = layout.segments()
    gone = [r for r in quarantine.table.pending if layout.segment_start(r.position) not in segments]
    if gone:
        quarantine.table.rows = [row for row in quarantine.table.rows if row not in gone]
        quarantine.table.save()
    for row in [row for row in quarantine.table.pending if row.state == REPLACING]:
        quarantine.finish(row)
    for row in [row for row in quarantine.table.pending if row.state == MARKED]:
        start = layout.segment_start(row.position)
        segment = MappedFile(layout.segment_path(start), start, layout.segment_bytes, writable=False)
        end = row.position + row.size
        sums = SegmentChecksums.load(layout, start)
        failing = sums.failing(segment.map, start, row.position, start + segment.size)
        again = find_damage(layout, segment, start, end, [piece for piece in failing if piece.start < end])
        damage = next((damage for damage in again if damage.position == row.position), None)
        damage = damage or Damage(row.position, row.size, row.reason, None, True, row.store_time)
        quarantine.replace(segment, damage)
