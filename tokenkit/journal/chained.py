"""The journal: one SQLite file in which a receipt is durable, and chained to the one before, when ``write`` returns.

Several processes append to one file. Each row carries ``sha256(hash of the row before || body)``, so an edit, a
deletion or a swap is found later; a cut at the very end is not visible in the chain itself (the ledger's watermark
sees it as far as it has copied). What is written is written as it is: redaction comes before, in ``recorded``.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tokenkit.errors import ConfigError, LedgerError
from tokenkit.journal.files import Durability, abandon, open_file, prose
from tokenkit.receipts import Receipt

GENESIS = bytes(32)
"""What the first row of a journal is chained to."""

_HEAD = "SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1"
# A rating, or that old rows were let go, is written like a receipt, and is none.
CALLS = """replace(replace(body, '"operation":"rating"', ''), '"operation":"retention"', '') = body"""
_LINK = """INSERT INTO receipts (seq, id, started_at, body, prev, hash)
  SELECT seq + 1, ?1, ?2, ?3, hash, chained(hash, ?4) FROM receipts ORDER BY seq DESC LIMIT 1"""
_INSERT = "INSERT INTO receipts (seq, id, started_at, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?)"
# The casts and defaults are for damaged files, whose rows may hold what the table's own types forbid.
_ROWS = """SELECT seq, coalesce(CAST(id AS TEXT), ''), coalesce(CAST(started_at AS INTEGER), 0),
  coalesce(CAST(body AS BLOB), x''), coalesce(CAST(prev AS BLOB), x''), coalesce(CAST(hash AS BLOB), x'')
  FROM receipts WHERE seq > ? ORDER BY seq LIMIT ?"""


class Entry(NamedTuple):
    """One row of the journal: ``started_at`` in Unix nanoseconds, ``body`` the receipt's JSON as UTF-8."""

    seq: int
    id: str
    started_at: int
    body: bytes
    prev: bytes
    hash: bytes

    @property
    def receipt(self) -> Receipt:
        """The receipt itself."""
        return Receipt.from_json(self.body)


class Journal:
    """A durable, append-only list of receipts in one file; shared by threads, by processes, and across a fork.

    The file (0600) and its missing parent directories (0700) are made at first use. ``patience`` is how many seconds
    to wait while another process writes. Every failure is a :class:`LedgerError` that says what to do.
    """

    def __init__(
        self, path: str | os.PathLike[str], durability: Durability = "process", *, patience: float = 10
    ) -> None:
        if durability not in ("process", "power"):
            raise ConfigError(f"journal durability is {durability!r}; it can be 'process' or 'power'.")
        self.path = Path(path).expanduser().resolve()  # now: a notebook may change its directory later
        self._name = str(self.path)
        self.durability, self.patience = durability, patience
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int, int] | None = None  # pid, device, inode the connection belongs to
        _ALIVE.add(self)

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r}, durability={self.durability!r})"

    def write(self, receipt: Receipt) -> None:
        """Append a receipt; when this returns, a crash of the process can no longer lose it.

        Writing an id that is already there does nothing, so a caller in doubt writes again. Raises LedgerError.
        """
        line = written(receipt)  # before the lock: other threads and processes need not wait for JSON
        with self._lock:
            connection = None
            try:
                connection = self._ready()
                try:
                    # One statement is one transaction: a third of the time of three. It does nothing in an empty file.
                    done = connection.execute(_LINK, (receipt.id, receipt.started_at, *line)).rowcount == 1
                except (sqlite3.IntegrityError, OverflowError):
                    done = False  # append tells what is there already from what cannot be
                if not done:
                    connection.execute("BEGIN IMMEDIATE")
                    append(connection, receipt, line)
                    connection.execute("COMMIT")
            except BaseException as error:
                self._undo(connection, error, "write")
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for a block: all of it is committed, or, when the block raises, none of it.

        Lets money and log change together: ``with journal.transaction() as c: settle(c, ...); append(c, receipt)``.
        """
        with self._lock:
            connection = None
            try:
                connection = self._ready()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                self._undo(connection, error, "write")
                raise

    def rows(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Return up to ``limit`` entries with ``seq`` greater than ``after``, oldest first."""
        return [Entry._make(row) for row in self._read(_ROWS, (after, limit))]

    def head(self) -> tuple[int, bytes]:
        """Return the last row's ``seq`` and hash; ``(0, GENESIS)`` for an empty journal.

        Kept elsewhere (printed, mailed, signed), it proves later that nothing up to it was changed or cut off.
        """
        rows = self._read(_HEAD)
        return (rows[0][0], rows[0][1]) if rows else (0, GENESIS)

    def find(self, digest: bytes) -> int | None:
        """Return the ``seq`` of the row with this hash; None when there is none. Reads the whole file."""
        rows = self._read("SELECT seq FROM receipts WHERE hash = ?", (digest,))
        return rows[0][0] if rows else None

    def receipt(self, part: str = "") -> Receipt | None:
        """Return the latest receipt, or the latest whose id begins or ends with ``part``; None when there is none."""
        wanted = "WHERE (id LIKE ? OR id LIKE ?) AND" if part else "WHERE"
        escaped = part.replace("%", "").replace("_", "")
        like = (f"{escaped}%", f"%{escaped}") if part else ()
        rows = self._read(f"SELECT body FROM receipts {wanted} {CALLS} ORDER BY seq DESC LIMIT 1", like)  # noqa: S608
        return Receipt.from_json(rows[0][0]) if rows else None

    def meta(self, key: str) -> str | int | bytes | None:
        """Return a value of the ``meta`` table: ``journal_id`` (unlike any other journal's), ``created_at`` (ns)."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        value: str | int | bytes | None = rows[0][0] if rows else None
        return value

    def ask(self, query: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return the rows of a query over the journal's own tables: for the modules that keep books in it."""
        return self._read(query, parameters)

    def compact(self) -> int:
        """Write the file anew without what was deleted, and return how many bytes that gave back.

        Calls of other kernels wait meanwhile. Raises LedgerError.
        """
        before = self._size()
        self._read("VACUUM")
        self._read("PRAGMA wal_checkpoint(TRUNCATE)")
        return before - self._size()

    def _size(self) -> int:
        both = (self.path, Path(f"{self.path}-wal"))
        return sum(file.stat().st_size for file in both if file.exists())

    def close(self) -> None:
        """Close the file. A later write opens it again."""
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        with suppress(AttributeError):  # __init__ may have refused its arguments
            self._drop()

    def _read(self, query: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            connection = None
            try:
                connection = self._ready()
                return connection.execute(query, parameters).fetchall()
            except BaseException as error:
                self._undo(connection, error, "read")
                raise

    def _ready(self) -> sqlite3.Connection:
        """Return the connection, opened anew in a forked child and where the file was deleted or replaced."""
        if self._connection is not None:
            try:
                found = os.stat(self._name)
                if self._file == (os.getpid(), found.st_dev, found.st_ino):
                    return self._connection
            except FileNotFoundError:
                pass
            abandon(self._connection)
            self._connection = None
        self._connection = open_file(self.path, self.durability, self.patience)
        self._connection.create_function("chained", 2, _chained, deterministic=True)
        found = os.stat(self.path)
        self._file = (os.getpid(), found.st_dev, found.st_ino)
        return self._connection

    def _undo(self, connection: sqlite3.Connection | None, error: BaseException, doing: str) -> None:
        """Roll back, and raise what is the file's fault as LedgerError; the rest is the caller's to raise again."""
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()  # the next call opens another
        if isinstance(error, sqlite3.Error | OSError | UnicodeDecodeError):  # the last: a message quoting damaged bytes
            raise LedgerError(prose(self.path, error, doing)) from error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or self._file is None:
            return
        if self._file[0] != os.getpid():
            abandon(connection)
            return
        with suppress(sqlite3.Error):
            connection.close()


def written(receipt: Receipt) -> tuple[str, bytes]:
    """Return the receipt's JSON as the journal keeps it, and its UTF-8. Raises LedgerError where it is no JSON."""
    try:
        text = receipt.to_json()
        return text, text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; its backslash escape is exactly what JSON calls it, so nothing is lost.
        raw = text.encode(errors="backslashreplace")
        return raw.decode(), raw
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise LedgerError(f"Receipt {receipt.id} cannot be written as JSON: {error}") from error


def append(connection: sqlite3.Connection, receipt: Receipt, line: tuple[str, bytes] | None = None) -> None:
    """Chain a receipt to the head within an open :meth:`Journal.transaction`; an id already there is left alone.

    ``line`` is ``written(receipt)``, where the caller has it already.
    """
    text, raw = line or written(receipt)
    row = connection.execute(_HEAD).fetchone()
    seq, prev = row or (0, GENESIS)
    try:
        connection.execute(_INSERT, (seq + 1, receipt.id, receipt.started_at, text, prev, _chained(prev, raw)))
    except sqlite3.IntegrityError:
        if connection.execute("SELECT 1 FROM receipts WHERE id = ?", (receipt.id,)).fetchone() is None:
            raise
    except OverflowError as error:
        raise LedgerError(f"Receipt {receipt.id} starts at {receipt.started_at} ns, which is no time.") from error


def _chained(prev: bytes, body: bytes) -> bytes:
    return hashlib.sha256(prev + body).digest()


_ALIVE: weakref.WeakSet[Journal] = weakref.WeakSet()
_forking = threading.local()


def _before_fork() -> None:
    """Close every journal, so that a child inherits no SQLite state: it cannot be used there, nor safely closed."""
    _forking.held = [j for j in list(_ALIVE) if j._lock.acquire(timeout=5)]
    for journal in _forking.held:
        journal._drop()


def _after_fork_in_parent() -> None:
    for journal in _forking.held:
        journal._lock.release()


def _after_fork_in_child() -> None:
    for journal in list(_ALIVE):
        journal._lock = threading.Lock()  # whoever held it lives in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
