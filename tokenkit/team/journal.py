"""The team's journal: what ``tokenkit.journal.Journal`` is to one machine, in PostgreSQL for as many as reach it.

Transactions come one after another, as in SQLite: each takes one advisory lock first. So numbers have no gaps, each row
is chained to the one before, and a reservation sees every other. A kernel that stops in the middle (a laptop closed)
is cut off by the server within ``patience``, and nothing of its transaction remains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tokenkit.errors import LedgerError
from tokenkit.journal import CALLS, GENESIS, Entry, written
from tokenkit.receipts import Receipt
from tokenkit.team.lines import Lines
from tokenkit.team.server import Server
from tokenkit.team.tables import BEGIN, said
from tokenkit.types import Secret

if TYPE_CHECKING:
    import psycopg

# For this transaction alone: behind a pooler, the next one may be another server process's. What is committed is
# durable, whatever the database's own habit is.
_LOCK = """SELECT set_config('lock_timeout', ?, true), set_config('idle_in_transaction_session_timeout', ?, true),
  set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
  pg_advisory_xact_lock(?)"""
# The head is read, and the hash made, in the server: a writer far away holds the lock for no round trip.
_APPEND = """INSERT INTO receipts (seq, id, started_at, body, prev, hash)
  SELECT coalesce(head.seq, 0) + 1, new.id, new.started_at, new.body, coalesce(head.hash, new.genesis),
    sha256(coalesce(head.hash, new.genesis) || convert_to(new.body, 'UTF8'))
  FROM (SELECT ?::text AS id, ?::bigint AS started_at, ?::text AS body, ?::bytea AS genesis) new
  LEFT JOIN (SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1) head ON true"""


class TeamJournal:
    """A durable, append-only list of receipts that many machines share, with the books of their budgets beside it.

    ``dsn`` is a ``postgresql://user:password@host:5432/database`` URL; the tables are made in ``schema`` at first use.
    ``patience`` is how many seconds to wait for the server, and for other writers; ``connections`` how many this
    process opens at most. Every failure is a :class:`LedgerError` that says what to do.
    """

    path: str = "?"  # where it is, without the password; unknown where __init__ refused its arguments

    def __init__(self, dsn: str, *, schema: str = "tokenkit", patience: float = 10, connections: int = 4) -> None:
        place, dsn = Secret(dsn), ""  # no frame of a traceback may still know it
        self.schema, self.patience = schema, patience
        self._server = Server(place, schema, patience)
        self.path = self._server.where
        self._lines = Lines(self._server, connections)

    def __repr__(self) -> str:
        return f"TeamJournal({self.path!r}, schema={self.schema!r})"

    def write(self, receipt: Receipt) -> None:
        """Append a receipt; when this returns, it is committed in the server.

        Writing an id that is already there does nothing, so a caller in doubt writes again: as this itself does, once,
        where the connection broke. Raises LedgerError.
        """
        text, _ = written(receipt)
        parameters = (receipt.id, receipt.started_at, text, GENESIS)
        try:
            with self._begun() as rows:
                rows.execute(_APPEND, parameters)
        except LedgerError as error:
            if not _lost(error.__cause__):
                raise
            with self._begun() as rows:
                rows.execute(_APPEND, parameters)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Hold the lock for a block: all of it is committed, or, when the block raises, none of it.

        What is yielded takes the SQL of SQLite's journal: ``rows.execute(sql, parameters)``.
        """
        with self._begun() as rows:
            yield rows

    def rows(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Return up to ``limit`` entries with ``seq`` greater than ``after``, oldest first."""
        query = """SELECT seq, id, started_at, convert_to(body, 'UTF8'), prev, hash FROM receipts
                   WHERE seq > ? ORDER BY seq LIMIT ?"""
        return [Entry._make(row) for row in self.ask(query, (after, limit))]

    def head(self) -> tuple[int, bytes]:
        """Return the last row's ``seq`` and hash; ``(0, GENESIS)`` for an empty journal."""
        found = self.ask("SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1")
        return (found[0][0], found[0][1]) if found else (0, GENESIS)

    def find(self, digest: bytes) -> int | None:
        """Return the ``seq`` of the row with this hash; None when there is none. Reads the whole table."""
        found = self.ask("SELECT seq FROM receipts WHERE hash = ?", (digest,))
        return found[0][0] if found else None

    def receipt(self, part: str = "") -> Receipt | None:
        """Return the latest receipt, or the latest whose id begins or ends with ``part``; None when there is none."""
        wanted = "WHERE (id ILIKE ? OR id ILIKE ?) AND" if part else "WHERE"
        plain = "".join(letter for letter in part if letter not in "%_\\")
        like = (f"{plain}%", f"%{plain}") if part else ()
        found = self.ask(f"SELECT body FROM receipts {wanted} {CALLS} ORDER BY seq DESC LIMIT 1", like)  # noqa: S608
        return Receipt.from_json(found[0][0]) if found else None

    def meta(self, key: str) -> str | int | bytes | None:
        """Return a value of the ``meta`` table: ``journal_id`` (unlike any other journal's), ``created_at`` (ns)."""
        found = self.ask("SELECT value FROM meta WHERE key = ?", (key,))
        value: str | int | bytes | None = found[0][0] if found else None
        return value

    def ask(self, query: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query over the journal's own tables: for the modules that keep books in it."""
        try:
            return self._answered(query, parameters)
        except LedgerError as error:
            if not _lost(error.__cause__):
                raise
        return self._answered(query, parameters)  # nothing was changed, so it can be asked of a new connection

    def close(self) -> None:
        """Close the connections. A later write opens others."""
        self._lines.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # __init__ may have refused its arguments
            self._lines.close()

    def _answered(self, query: str, parameters: Sequence[object]) -> list[Any]:
        import psycopg

        try:
            with self._lines.one() as connection:
                return connection.execute(said(query, self.schema), parameters).fetchall()
        except (psycopg.Error, UnicodeError) as error:
            raise LedgerError(self._server.prose(error, "read")) from error

    @contextmanager
    def _begun(self) -> Iterator[Rows]:
        import psycopg

        try:
            # A block that raises, for whatever reason, has its connection closed: the server rolls back.
            with self._lines.one() as connection, _Queue(connection) as queue:
                rows = Rows(connection, queue, self.schema)
                milliseconds = str(max(1, round(self.patience * 1000)))
                rows.execute(BEGIN)
                rows.execute(_LOCK, (milliseconds, milliseconds, self._server.lock))
                yield rows
                done = rows.execute("COMMIT")
                queue.empty()
                if done.said != "COMMIT":  # a failed transaction that somebody commits all the same
                    raise LedgerError(f"Cannot write the team journal {self.path}: a statement of it had failed.")
        except (psycopg.Error, UnicodeError) as error:
            raise LedgerError(self._server.prose(error, "write")) from error


class _Queue:
    """Statements sent ahead (libpq's pipeline): only who asks for an answer waits for the server.

    Left by an exception, it hangs up first: psycopg would else wait for the answers still out, a lock's among them.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection, self._block = connection, connection.pipeline()

    def __enter__(self) -> _Queue:
        self._pipeline = self._block.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        import psycopg

        if kind is None:
            self._block.__exit__(None, None, None)
            return
        self._connection.close()
        with suppress(psycopg.Error):  # it is closed: that is all it can say
            self._block.__exit__(None, None, None)

    def empty(self) -> None:
        """Wait for every answer that is out; raise the first failure among them."""
        self._pipeline.sync()


class Rows:
    """An open transaction: takes the SQL that SQLite's connection takes."""

    def __init__(self, connection: psycopg.Connection[Any], queue: _Queue, schema: str) -> None:
        self._connection, self._queue, self._schema = connection, queue, schema

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Send a statement with ``?`` for its parameters; its answer is waited for when it is asked for."""
        return Answer(self._connection.execute(said(sql, self._schema), parameters), self._queue)


class Answer:
    """What a statement gave: rows, or how many it changed."""

    def __init__(self, cursor: psycopg.Cursor[Any], queue: _Queue) -> None:
        self._cursor, self._queue = cursor, queue

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; None when there is none left, or the statement gives none."""
        self._arrive()
        row: tuple[Any, ...] | None = self._cursor.fetchone() if self._cursor.description else None
        return row

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        self._arrive()
        return self._cursor.fetchall() if self._cursor.description else []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed or gave."""
        self._arrive()
        return self._cursor.rowcount

    def _arrive(self) -> None:
        if self._cursor.pgresult is None:
            self._queue.empty()

    @property
    def said(self) -> str | None:
        """The server's word for what was done."""
        return self._cursor.statusmessage


def _lost(error: BaseException | None) -> bool:
    """Say whether a connection broke, which a new one may mend; a server that cannot be reached has no cause here."""
    import psycopg

    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate[:3] in ("080", "57P")
