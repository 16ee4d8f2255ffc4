"""What a coordinator must not forget when it dies, kept by the worker that holds the client.

The coordinator hands a note over with the answer to a forwarded request (heartbeats, queue locks); its
content is opaque here. After a coordinator's restart all notes are told to the new one. Used in the
worker's event loop only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

NOTES_MAX = 200_000
"""Bound over all connections; a client has one note per group and one per locked queue."""


class KeptNote(NamedTuple):
    """One note: ``until_ms`` 0 lives as long as its connection, else until that monotonic time, ms."""

    connection_id: int
    key: str
    content: bytes
    until_ms: int


class KeptNotes:
    """Notes by (connection, key)."""

    def __init__(self) -> None:
        """Start without notes."""
        self._notes: dict[tuple[int, str], KeptNote] = {}
        self._by_connection: dict[int, set[str]] = {}

    def __len__(self) -> int:
        """Count the notes."""
        return len(self._notes)

    def keep(self, note: KeptNote) -> bool:
        """Keep or replace a note; False when there is no room for another."""
        name = (note.connection_id, note.key)
        if name not in self._notes and len(self._notes) >= NOTES_MAX:
            return False
        self._notes[name] = note
        self._by_connection.setdefault(note.connection_id, set()).add(note.key)
        return True

    def drop(self, connection_id: int, key: str) -> None:
        """Forget one note; nothing happens when it is not there."""
        if self._notes.pop((connection_id, key), None) is not None:
            keys = self._by_connection[connection_id]
            keys.discard(key)
            if not keys:
                del self._by_connection[connection_id]

    def connection_closed(self, connection_id: int, *, process_ended: bool = False) -> None:
        """Forget the notes that live as long as their connection; all of a client whose process has ended."""
        for key in list(self._by_connection.get(connection_id, ())):
            if process_ended or self._notes[(connection_id, key)].until_ms == 0:
                self.drop(connection_id, key)

    def all(self, now_ms: int) -> Iterator[KeptNote]:
        """Yield what is still worth telling; notes whose time is over are dropped."""
        for note in list(self._notes.values()):
            if 0 < note.until_ms <= now_ms:
                self.drop(note.connection_id, note.key)
            else:
                yield note
