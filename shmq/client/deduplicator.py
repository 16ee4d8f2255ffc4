"""Deduplicator: remembers in a database which messages a group has consumed, so that each has effect once.

Delivery is at least once: a message comes again when its consumer died before its offset was committed, and
when its producer sent it again after a lost answer (both copies then have one UNIQ_KEY). Here the memory is
a table in the database that the listener changes anyway: the row and the listener's own changes are one
transaction, so both are there or neither. Runs in consumer programs, in the listener's thread.

    def on_messages(messages, context):
        with database.connect() as connection, connection.cursor() as cursor:
            for message in messages:
                if deduplicator.is_first(message, connection):
                    cursor.execute("UPDATE account SET balance = balance + %s ...", ...)
            connection.commit()             # rows and changes together
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

Without a database of one's own it keeps a SQLite file: `with deduplicator.once(message) as is_first:`. There
the row is stored after the work, so a death in between means the work is done again.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from shmq.base.clock import now_ms
from shmq.base.errors import ClientFault, Unavailable
from shmq.model.message_ext import MessageExt
from shmq.model.names import check_group

DEFAULT_TABLE = "shmq_consumed"
DEFAULT_FILE = ".local/share/shmq/consumed.sqlite3"
BUSY_LIMIT_S = 30.0
"""How long a thread waits for another one: for the file, or for the end of the same message."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,126}")

_MARKS: dict[str, Callable[[int], str]] = {
    "qmark": lambda number: "?",
    "numeric": lambda number: f":{number}",
    "named": lambda number: f":p{number}",
    "format": lambda number: "%s",
    "pyformat": lambda number: f"%(p{number})s",
}
"""How each DB-API `paramstyle` writes its parameter of that number, counted from 1 (PEP 249)."""


class Cursor(Protocol):
    """What is used of a DB-API cursor."""

    rowcount: int

    def execute(self, operation: str, parameters: Any = ...) -> Any:
        """Run one statement."""

    def close(self) -> None:
        """End it."""


class Connection(Protocol):
    """What is used of a DB-API connection (PEP 249)."""

    def cursor(self) -> Any:
        """Return a `Cursor`."""

    def commit(self) -> None:
        """Commit the transaction."""


class Deduplicator:
    """The memory of one consumer group.

    A row is (group, message key, time in ms); the first two are the primary key. May be used by many threads;
    a connection belongs to the thread that gives it.
    """

    def __init__(
        self,
        group: str,
        connection: Connection | None = None,
        *,
        path: str | Path | None = None,
        table: str = DEFAULT_TABLE,
        paramstyle: str | None = None,
        key: Callable[[MessageExt], str] | None = None,
    ) -> None:
        """Remember for `group`, in `table` of `connection`'s database, else in a SQLite file: `path`, by
        default ~/.local/share/shmq/consumed.sqlite3.

        The table is made when it is missing, and that is committed. `connection` is the one `is_first` uses
        when none is given to it: right for a consumer with one thread. `paramstyle` is that of the
        connection's module when not given. `key` names a message, by default its unique key. ClientFault for
        names that cannot be.
        """
        check_group(group)
        if not _IDENTIFIER.fullmatch(table):
            raise ClientFault(f"table name {table!r} is not possible: letters, digits, _ and . are")
        if connection is not None and path is not None:
            raise ClientFault("give a connection to your database or the path of a SQLite file, not both")
        self._group = group
        self._table = table
        self._key = key or (lambda message: message.msg_id)
        self._given = connection
        self._path = Path(path) if path is not None else Path.home() / DEFAULT_FILE
        self._local = threading.local()
        self._busy: set[str] = set()
        self._turn = threading.Condition()
        first = self._own() if connection is None else connection
        self._style = paramstyle or _paramstyle_of(first)
        if self._style not in _MARKS:
            raise ClientFault(f"paramstyle {self._style!r} is unknown: {', '.join(_MARKS)} exist")
        self._make_table(first)

    def is_first(self, message: MessageExt, connection: Connection | None = None) -> bool:
        """Tell whether the group has not consumed `message`, and note it in the connection's transaction.

        The caller commits, together with what the message made it do; a rollback forgets the note. While
        another transaction that noted the same message is open, a database waits for its end. Its errors
        (locked, unique key just taken) come through: roll back and let the message come again.
        """
        used = connection or self._given
        if used is None:
            raise ClientFault("is_first needs a connection, as there is none to commit; or use once()")
        return self._note(used, self._key(message))

    @contextlib.contextmanager
    def once(self, message: MessageExt) -> Iterator[bool]:
        """Give whether this is the first time; note the message when the block ends without an error.

        Uses the SQLite file alone. Two threads with one message take turns.
        """
        if self._given is not None:
            raise ClientFault("once() commits by itself; with a connection of yours use is_first()")
        name = self._key(message)
        self._enter(name)
        try:
            if self._is_noted(name):
                yield False
                return
            yield True
            own = self._own()
            self._note(own, name)
            own.commit()
        finally:
            self._leave(name)

    def purge(self, older_than: timedelta, connection: Connection | None = None) -> int:
        """Forget messages noted longer ago and return how many; commit with your connection.

        Keep them as long as a message may come again: at least the time messages are kept (fileReservedTime).
        """
        used = connection or self._given
        own = used is None
        target = self._own() if used is None else used
        limit = now_ms() - int(older_than.total_seconds() * 1000)
        count = self._execute(
            target,
            f"DELETE FROM {self._table} WHERE consumer_group = {{}} AND consumed_ms < {{}}",
            self._group,
            limit,
        )
        if own:
            target.commit()
        return count

    def close(self) -> None:
        """Close this thread's SQLite connection; yours stays open."""
        own: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if own is not None:
            own.close()
            self._local.connection = None

    # ---- statements

    def _note(self, connection: Connection, name: str) -> bool:
        """Insert a row unless it is there. Not by catching the error of the unique key: in some databases
        that ends the caller's transaction."""
        inserted = self._execute(
            connection,
            f"INSERT INTO {self._table} (consumer_group, message_key, consumed_ms) SELECT {{}}, {{}}, {{}} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self._table} WHERE consumer_group = {{}} AND "
            "message_key = {})",
            self._group,
            name,
            now_ms(),
            self._group,
            name,
        )
        return inserted == 1

    def _is_noted(self, name: str) -> bool:
        found = self._own().execute(
            f"SELECT 1 FROM {self._table} WHERE consumer_group = ? AND message_key = ?", (self._group, name)
        )
        return found.fetchone() is not None

    def _make_table(self, connection: Connection) -> None:
        self._execute(
            connection,
            f"CREATE TABLE IF NOT EXISTS {self._table} (consumer_group VARCHAR(255) NOT NULL, message_key "
            "VARCHAR(255) NOT NULL, consumed_ms BIGINT NOT NULL, PRIMARY KEY (consumer_group, message_key))",
        )
        connection.commit()

    def _execute(self, connection: Connection, statement: str, *values: str | int) -> int:
        """Run a statement whose `{}` are the values' places, and return the rows it touched."""
        mark = _MARKS[self._style]
        text = statement.format(*(mark(number) for number in range(1, len(values) + 1)))
        named = self._style in ("named", "pyformat")
        parameters = {f"p{n}": value for n, value in enumerate(values, 1)} if named else values
        cursor: Cursor = connection.cursor()
        try:
            cursor.execute(text, parameters)
            return int(cursor.rowcount)
        finally:
            cursor.close()

    # ---- the SQLite file

    def _own(self) -> sqlite3.Connection:
        """This thread's connection to the file."""
        own: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if own is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            own = sqlite3.connect(self._path, timeout=BUSY_LIMIT_S)
            own.execute("PRAGMA journal_mode=WAL")
            self._local.connection = own
        return own

    def _enter(self, name: str) -> None:
        with self._turn:
            if not self._turn.wait_for(lambda: name not in self._busy, BUSY_LIMIT_S):
                raise Unavailable(f"message {name} is being consumed by another thread: take it again later")
            self._busy.add(name)

    def _leave(self, name: str) -> None:
        with self._turn:
            self._busy.discard(name)
            self._turn.notify_all()


def _paramstyle_of(connection: Connection) -> str:
    """Return the `paramstyle` of the DB-API module that a connection comes from."""
    parts = type(connection).__module__.split(".")
    for end in range(len(parts), 0, -1):
        style = getattr(sys.modules.get(".".join(parts[:end])), "paramstyle", None)
        if isinstance(style, str):
            return style
    raise ClientFault(
        f"{type(connection).__module__} does not tell how its statements take parameters: give paramstyle="
    )
