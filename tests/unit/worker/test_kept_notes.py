"""Notes kept for the next coordinator: how long each lives."""

from __future__ import annotations

import pytest

from shmq.worker import kept_notes
from shmq.worker.kept_notes import KeptNote, KeptNotes


def test_a_note_without_a_time_lives_as_long_as_its_connection() -> None:
    notes = KeptNotes()
    notes.keep(KeptNote(1, "beat", b"x", 0))
    notes.keep(KeptNote(1, "lock", b"y", 5000))
    notes.connection_closed(1)
    assert [note.key for note in notes.all(4999)] == ["lock"]
    assert list(notes.all(5000)) == [] and len(notes) == 0


def test_a_note_of_the_same_key_replaces_the_older_one() -> None:
    notes = KeptNotes()
    notes.keep(KeptNote(1, "beat", b"old", 0))
    notes.keep(KeptNote(1, "beat", b"new", 0))
    assert [note.content for note in notes.all(0)] == [b"new"]
    notes.drop(1, "beat")
    notes.drop(1, "beat")
    assert len(notes) == 0


def test_notes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_notes, "NOTES_MAX", 1)
    notes = KeptNotes()
    assert notes.keep(KeptNote(1, "a", b"", 0))
    assert not notes.keep(KeptNote(1, "b", b"", 0))
    assert notes.keep(KeptNote(1, "a", b"again", 0))
