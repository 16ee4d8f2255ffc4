"""The deduplicator's table: one row per message and group, in the caller's transaction, in any DB-API."""

from __future__ import annotations

import sqlite3
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shmq import Deduplicator
from shmq.base.errors import ClientFault, InvalidParameter
from shmq.client import deduplicator
from shmq.model.message_ext import MessageExt
from shmq.model.record import encode_record


def message(unique_key: str) -> MessageExt:
    properties = f"UNIQ_KEY\x01{unique_key}\x02".encode()
    return MessageExt(
        encode_record(topic=b"T", body=b"x", properties=properties, queue_id=0, born_timestamp=0)
    )


def rows(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    found = connection.execute("SELECT consumer_group, message_key FROM shmq_consumed ORDER BY 1, 2")
    return found.fetchall()


def test_a_message_is_first_once_for_each_group() -> None:
    connection = sqlite3.connect(":memory:")
    one, other = Deduplicator("one", connection), Deduplicator("other", connection)
    assert one.is_first(message("a")) and one.is_first(message("b")) and other.is_first(message("a"))
    assert not one.is_first(message("a")) and not other.is_first(message("a"))
    connection.commit()
    assert rows(connection) == [("one", "a"), ("one", "b"), ("other", "a")]


def test_what_is_rolled_back_is_first_again() -> None:
    connection = sqlite3.connect(":memory:")
    memory = Deduplicator("one", connection)
    assert memory.is_first(message("a"))
    connection.rollback()
    assert rows(connection) == []
    assert memory.is_first(message("a"))


def test_another_key_and_table(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    memory = Deduplicator("one", connection, table="seen", key=lambda m: m.topic)
    assert memory.is_first(message("a")) and not memory.is_first(message("b"))
    assert connection.execute("SELECT message_key FROM seen").fetchall() == [("T",)]


def test_rows_are_purged_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sqlite3.connect(":memory:")
    memory, other = Deduplicator("one", connection), Deduplicator("other", connection)
    monkeypatch.setattr(deduplicator, "now_ms", lambda: 1_000_000)
    assert memory.is_first(message("old")) and other.is_first(message("old"))
    monkeypatch.setattr(deduplicator, "now_ms", lambda: 1_060_000)
    assert memory.is_first(message("young"))
    assert memory.purge(timedelta(seconds=30)) == 1
    assert rows(connection) == [("one", "young"), ("other", "old")]


def test_a_file_of_its_own_notes_what_ended_well(tmp_path: Path) -> None:
    memory = Deduplicator("one", path=tmp_path / "new" / "consumed.sqlite3")
    with pytest.raises(LookupError), memory.once(message("a")) as first:
        assert first
        raise LookupError
    with memory.once(message("a")) as first:
        assert first
    with memory.once(message("a")) as first:
        assert not first
    assert memory.purge(timedelta(0)) in (0, 1)  # noted in this very millisecond, or before
    memory.close()
    with Deduplicator("one", path=tmp_path / "new" / "consumed.sqlite3").once(message("b")) as first:
        assert first


def test_two_threads_with_one_message_take_turns(tmp_path: Path) -> None:
    memory = Deduplicator("one", path=tmp_path / "consumed.sqlite3")
    began, go_on, seen = threading.Event(), threading.Event(), []

    def consume(waits: bool) -> None:
        with memory.once(message("a")) as first:
            seen.append(first)
            if waits:
                began.set()
                assert go_on.wait(20)
        memory.close()

    slow = threading.Thread(target=consume, args=(True,))
    slow.start()
    assert began.wait(20)
    second = threading.Thread(target=consume, args=(False,))
    second.start()
    second.join(0.1)
    assert second.is_alive() and seen == [True]
    go_on.set()
    slow.join(20)
    second.join(20)
    assert seen == [True, False]


class Recorded:
    """A connection of a module with another paramstyle: executes on SQLite what it is given, rewritten."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any]] = []
        self.rowcount = 1

    def cursor(self) -> Recorded:
        return self

    def execute(self, operation: str, parameters: Any = ()) -> None:
        self.statements.append((operation, parameters))

    def commit(self) -> None:
        self.statements.append(("COMMIT", ()))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("style", "values", "named"),
    [
        ("format", "SELECT %s, %s, %s WHERE", False),
        ("pyformat", "SELECT %(p1)s, %(p2)s, %(p3)s WHERE", True),
        ("numeric", "SELECT :1, :2, :3 WHERE", False),
        ("named", "SELECT :p1, :p2, :p3 WHERE", True),
    ],
)
def test_statements_are_written_in_the_style_of_the_module(
    style: str, values: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("some_database")
    module.paramstyle = style  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_database", module)
    monkeypatch.setattr(Recorded, "__module__", "some_database.connections")
    connection = Recorded()
    memory = Deduplicator("one", connection)
    assert connection.statements[1] == ("COMMIT", ())
    assert memory.is_first(message("a"))
    statement, parameters = connection.statements[-1]
    assert values in statement
    assert (list(parameters.values()) if named else list(parameters))[:2] == ["one", "a"]


def test_named_parameters_really_work() -> None:
    connection = sqlite3.connect(":memory:")
    for style in ("qmark", "named"):
        memory = Deduplicator(style, connection, paramstyle=style)
        assert memory.is_first(message("a")) and not memory.is_first(message("a"))


def test_what_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(ClientFault, match="not both"):
        Deduplicator("one", connection, path=tmp_path / "x")
    with pytest.raises(ClientFault, match="table name"):
        Deduplicator("one", connection, table="a; DROP TABLE b")
    with pytest.raises(ClientFault, match="paramstyle"):
        Deduplicator("one", connection, paramstyle="dollar")
    with pytest.raises(ClientFault, match="paramstyle"):
        Deduplicator("one", Recorded())
    with pytest.raises(InvalidParameter):
        Deduplicator("no such group!", connection)
    with pytest.raises(ClientFault, match="once"):
        Deduplicator("one", path=tmp_path / "x").is_first(message("a"))
    with (
        pytest.raises(ClientFault, match="is_first"),
        Deduplicator("one", connection).once(message("a")),
    ):
        pass
