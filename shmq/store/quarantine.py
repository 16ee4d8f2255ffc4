"""Damaged bytes of the log are kept aside, and a record that nobody is given takes their place.

    1  the bytes go to <store>/quarantine/00000000000000012345-<n>, durably
    2  a row of the damage table says what is about to stand there (`damage_table.py`), durably
    3  substitutes (`model/damaged_record.py`) are written, synced, and their pieces summed anew
    4  the row says it is done

A crash in between: step 3 is done again from the row by the next start. Whose message it was is told by the
ConsumeQueue units that point there, else by the record itself when only its body or a text is damaged; a
stretch that was nobody's becomes a plug, and one that reaches the segment's end a BLANK. Units get their tags
code at once, and everything else from the walk that follows.

When one byte had changed, as the sums tell, and putting it back makes a whole record whose body has its CRC,
it is put back instead, and nothing is lost. (Several bytes can look like one: in one of 4,000 cases, and then
hardly ever with a whole record as the result.)

Recovery and repair, under the store lock, no appender alive; `mend` also the scrub. Nothing removes what lies
aside but people.
"""

from __future__ import annotations

import logging
import os

from shmq.base import faults, log
from shmq.base.errors import MessageIllegal
from shmq.model.damaged_record import RECORD_BYTES_MIN, plug, substitute
from shmq.model.record import BLANK_BYTES_MIN, RecordFields, check_record, encode_blank, parse_record
from shmq.model.sys_flag import TRANSACTION_COMMIT, TRANSACTION_MASK
from shmq.store.aside import keep_aside
from shmq.store.checksum_check import Change
from shmq.store.checksums import sum_anew
from shmq.store.commit_log import is_record
from shmq.store.damage_search import Damage
from shmq.store.damage_table import MENDED, REPLACED, REPLACING, DamageRow, DamageTable
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout, file_name
from shmq.store.unit_finder import FoundUnit, UnitFinder, mark_unit

_logger = log.get(__name__)

faults.declare(
    {
        "quarantine.kept": "damaged bytes are aside, the log still has them",
        "quarantine.noted": "the table says what is about to be written, the log still has the damage",
        "quarantine.written": "the substitute is in the log, perhaps not durably; its sums are the old ones",
        "quarantine.summed": "log and sums agree and are durable, the table says it is still to be done",
    }
)


class Quarantine:
    """Replaces damage in one store."""

    def __init__(self, layout: StoreLayout, found_by: str) -> None:
        """`found_by`: who works, for the table: recovery or repair."""
        self._layout = layout
        self._found_by = found_by
        self._finder: UnitFinder | None = None
        self.table = DamageTable(layout)

    def mend(self, segment: MappedFile, damage: Damage) -> DamageRow | None:
        """Put back the one byte that changed; None when it is not known, or no whole record comes out.

        The only change that is made while a broker runs: one store of one byte below the flushed position,
        where nobody else writes.
        """
        begin, change = damage.position, damage.change
        if change is None or not self._is_whole_with(segment, damage, change):
            return None
        aside = keep_aside(self._layout, file_name(begin), bytes(self._bytes(segment, begin, damage.end)))
        row = self._row(damage, begin, damage.size, None)
        row.state, row.aside, row.found_by = MENDED, aside.name, self._found_by
        fd = os.open(self._layout.segment_path(segment.start), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes([change.was]), change.position - segment.start)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._done([row], "damage_mended")
        return row

    def replace(self, segment: MappedFile, damage: Damage) -> list[DamageRow]:
        """Deal with one stretch of damage; return its rows, done."""
        begin, end = damage.position, damage.end
        if (mended := self.mend(segment, damage)) is not None:
            return [mended]
        aside = keep_aside(self._layout, file_name(begin), bytes(self._bytes(segment, begin, end)))
        faults.reach("quarantine.kept")
        rows = self._plan(segment, damage)
        for row in rows:
            row.aside, row.found_by = aside.name, self._found_by
        self.table.put(rows)
        faults.reach("quarantine.noted")
        self._write(begin, b"".join([self._bytes_of(row) for row in rows]))
        for row in rows:
            mark_unit(self._layout, row.topic, row.queue_id, row.queue_offset, row.position)
            row.state = REPLACED
        self._done(rows, "damage_replaced")
        return rows

    def _done(self, rows: list[DamageRow], event: str) -> None:
        """Note rows that are dealt with, and tell."""
        self.table.put(rows)
        for row in rows:
            log.event(
                _logger,
                logging.WARNING,
                event,
                position=row.position,
                size=row.size,
                reason=row.reason,
                topic=row.topic,
                queue_id=row.queue_id,
                queue_offset=row.queue_offset,
                kept_in=self._layout.quarantine / row.aside,
            )

    def finish(self, row: DamageRow) -> None:
        """Write a row's substitute once more: a crash may have left it half done."""
        self._write(row.position, self._bytes_of(row))
        mark_unit(self._layout, row.topic, row.queue_id, row.queue_offset, row.position)
        row.state = REPLACED
        self.table.save()

    # ---- whose it was

    def _bytes(self, segment: MappedFile, begin: int, end: int) -> memoryview:
        return segment.view[begin - segment.start : end - segment.start]

    def _row(self, damage: Damage, position: int, size: int, unit: FoundUnit | None) -> DamageRow:
        row = DamageRow(position, size, damage.reason, REPLACING, store_time=max(1, damage.store_time))
        if unit is not None:
            row.topic, row.queue_id, row.queue_offset = unit.topic, unit.queue_id, unit.queue_offset
        return row

    def _plan(self, segment: MappedFile, damage: Damage) -> list[DamageRow]:
        """The rows that fill the stretch without a gap."""
        begin, end = damage.position, damage.position + damage.size
        units = self._units.between(begin, end) or self._own_unit(segment, damage)
        rows: list[DamageRow] = []
        position = begin
        for unit in units:
            if unit.position - position >= RECORD_BYTES_MIN:
                rows.append(self._row(damage, position, unit.position - position, None))
                position = unit.position
            rows.append(self._row(damage, position, unit.position + unit.size - position, unit))
            position = unit.position + unit.size
        reaches_segment_end = end == segment.start + segment.size
        if end - position >= (BLANK_BYTES_MIN if reaches_segment_end else RECORD_BYTES_MIN):
            rows.append(self._row(damage, position, end - position, None))
        elif rows:
            rows[-1].size += end - position
        return rows

    def _own_unit(self, segment: MappedFile, damage: Damage) -> list[FoundUnit]:
        """What the damaged record says of itself, unless its queue knows better."""
        if not damage.is_record:
            return []
        begin, end = damage.position, damage.position + damage.size
        try:
            fields = parse_record(self._bytes(segment, begin, end))
        except MessageIllegal:
            return []
        topic = _topic_of(self._bytes(segment, begin, end), fields)
        is_counted = fields.sys_flag & TRANSACTION_MASK in (0, TRANSACTION_COMMIT)
        if not topic or not is_counted or fields.queue_id < 0 or fields.queue_offset < 0:
            return []
        if self._units.position_of(topic, fields.queue_id, fields.queue_offset) is not None:
            return []
        return [FoundUnit(topic, fields.queue_id, fields.queue_offset, begin, end - begin)]

    @property
    def _units(self) -> UnitFinder:
        if self._finder is None:
            self._finder = UnitFinder(self._layout)
        return self._finder

    def _is_whole_with(self, segment: MappedFile, damage: Damage, change: Change) -> bool:
        """Whether a whole record, or a BLANK, comes out when the one changed byte is put back."""
        begin = damage.position
        found = bytearray(self._bytes(segment, begin, damage.end))
        found[change.position - begin] = change.was
        size = check_record(found, 0, len(found))
        if size == 0:
            return int.from_bytes(found[:4], "big") == len(found)
        return size == len(found) and is_record(memoryview(found), begin)

    # ---- writing

    def _bytes_of(self, row: DamageRow) -> bytes:
        """What stands where a row says."""
        start = self._layout.segment_start(row.position)
        if not row.topic and row.position + row.size == start + self._layout.segment_bytes:
            return encode_blank(row.size).ljust(row.size, b"\0")
        made: bytes | None = None
        if row.topic:
            made = substitute(
                row.size,
                topic=row.topic.encode(),
                queue_id=row.queue_id,
                queue_offset=row.queue_offset,
                physical_offset=row.position,
                store_timestamp=row.store_time,
            )
        return made or plug(row.size, physical_offset=row.position, store_timestamp=row.store_time)

    def _write(self, position: int, data: bytes) -> None:
        start = self._layout.segment_start(position)
        fd = os.open(self._layout.segment_path(start), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, position - start)
            faults.reach("quarantine.written")
            os.fdatasync(fd)
        finally:
            os.close(fd)
        sum_anew(self._layout, position, position + len(data))
        faults.reach("quarantine.summed")


def _topic_of(record: memoryview, fields: RecordFields) -> str:
    """The topic a record names; empty when no queue can have that name."""
    raw = bytes(record[fields.topic_at : fields.topic_at + fields.topic_length])
    text = raw.decode("utf-8", "replace")
    return "" if "/" in text or "\0" in text or text in (".", "..") or "�" in text else text
