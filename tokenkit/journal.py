"""The journal: one SQLite file in which a receipt is durable, and chained to the one before, when ``write`` returns.

Several processes append to one file. Each row carries ``sha256(hash of the row before || body)``, so an edit, a
deletion or a swap is found later; a cut at the very end is not visible in the chain itself (the ledger's watermark
sees it as far as it has copied). What is written is written as it is: redaction comes before, in ``recorded``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenkit.errors import ConfigError, LedgerError
from tokenkit.receipts import Receipt

Durability = Literal["process", "power"]
"""``process``: outlives any crash of the process (kill -9). ``power``: outlives a power cut too, at an fsync a call."""

GENESIS = bytes(32)
"""What the first row of a journal is chained to."""

APPLICATION_ID = 0x746B6A31  # "tkj1", in the SQLite header: tells a journal from somebody else's database

# One entry a version; PRAGMA user_version counts them. An entry, once released, is never edited: add the next one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE receipts (
             seq        INTEGER PRIMARY KEY,   -- 1, 2, 3, ... without gaps
             id         TEXT NOT NULL UNIQUE,  -- Receipt.id
             started_at INTEGER NOT NULL,      -- Unix nanoseconds
             body       TEXT NOT NULL,         -- Receipt.to_json()
             prev       BLOB NOT NULL,         -- hash of row seq - 1; 32 zero bytes for the first
             hash       BLOB NOT NULL          -- sha256(prev || body)
           ) STRICT""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
    ),
    (
        # Token buckets that every kernel shares: how full, and when that was (Unix seconds).
        "CREATE TABLE buckets (name TEXT PRIMARY KEY, level REAL NOT NULL, at REAL NOT NULL) STRICT, WITHOUT ROWID",
    ),
)

_HEAD = "SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1"
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
        wanted = "WHERE id LIKE ? OR id LIKE ?" if part else ""
        escaped = part.replace("%", "").replace("_", "")
        like = (f"{escaped}%", f"%{escaped}") if part else ()
        rows = self._read(f"SELECT body FROM receipts {wanted} ORDER BY seq DESC LIMIT 1", like)  # noqa: S608 - ours
        return Receipt.from_json(rows[0][0]) if rows else None

    def meta(self, key: str) -> str | int | bytes | None:
        """Return a value of the ``meta`` table: ``journal_id`` (unlike any other journal's), ``created_at`` (ns)."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        value: str | int | bytes | None = rows[0][0] if rows else None
        return value

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
            with suppress(FileNotFoundError):
                found = os.stat(self.path)
                if self._file == (os.getpid(), found.st_dev, found.st_ino):
                    return self._connection
            _abandon(self._connection)
            self._connection = None
        self._connection = _open(self.path, self.durability, self.patience)
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
            raise LedgerError(_prose(self.path, error, doing)) from error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or self._file is None:
            return
        if self._file[0] != os.getpid():
            _abandon(connection)
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
        digest = hashlib.sha256(prev + raw).digest()
        connection.execute(_INSERT, (seq + 1, receipt.id, receipt.started_at, text, prev, digest))
    except sqlite3.IntegrityError:
        if connection.execute("SELECT 1 FROM receipts WHERE id = ?", (receipt.id,)).fetchone() is None:
            raise
    except OverflowError as error:
        raise LedgerError(f"Receipt {receipt.id} starts at {receipt.started_at} ns, which is no time.") from error


def make_private(folder: Path) -> None:
    """Make a folder and every missing one above it, for nobody but their owner (0700)."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)  # not parents=True, which gives those above the umask's mode


def _open(path: Path, durability: Durability, patience: float) -> sqlite3.Connection:
    make_private(path.parent)
    with suppress(FileExistsError):
        # Made here and not by SQLite, which would give it the umask's mode; -wal and -shm inherit this one.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda raw: raw.decode(errors="replace")  # a flipped bit must not stop a whole page
    try:
        _version(connection, path)  # before anything is changed in what may be somebody else's file
        connection.execute("PRAGMA page_size = 8192")  # for a new file; at 4096 a receipt of 2 kB has a page to itself
        _patiently(connection, "PRAGMA journal_mode = WAL", patience)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")  # 16 MB: a checkpoint's fsync is spread over more calls
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _patiently(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Execute what SQLite does not wait for by itself: two processes turning one new file to WAL at once."""
    give_up = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
        else:
            return


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # again, now that nobody else can change it
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        facts = (("journal_id", secrets.token_hex(16)), ("created_at", time.time_ns()))
        connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", facts)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (tables or version):
        raise LedgerError(
            f"{path} is a SQLite database, but not a tokenkit journal. Name another file for the journal."
        )
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"{path} was written by a newer tokenkit (journal version {version}; this one knows {len(MIGRATIONS)}). "
            "Upgrade tokenkit, or name another file for the journal."
        )
    return version


def _prose(path: Path, error: BaseException, doing: str) -> str:
    """Say what went wrong with the file and what to do about it."""
    text = (error.strerror or "") if isinstance(error, OSError) else str(error)
    low = text.lower()
    if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        why = "something on its path is not what it should be, a file or a folder. Name another path"
    elif isinstance(error, PermissionError) or any(word in low for word in ("readonly", "read-only", "unable to open")):
        why = f"the file or its directory {path.parent} is not writable. Allow writing there or name another path"
    elif "is full" in low or "no space left" in low:
        why = "the disk is full. Free some space and call again"
    elif "not a database" in low:
        why = "it is not a SQLite file. Move it away (a new one is made) or name another path"
    elif "malformed" in low or isinstance(error, UnicodeDecodeError):
        why = "the file is damaged. Move it away with its -wal file, and recover it with the sqlite3 shell's .recover"
    elif "locked" in low or "busy" in low:
        why = "another process has been holding its write lock all this time. See who has it open"
    elif "disk i/o" in low:
        why = "the disk reported an error. Check the disk, or name a path on another one"
    elif "no such table" in low:
        why = "a table of it was dropped. Move the file away (a new one is made)"
    else:
        why = "SQLite gave no better reason"
    return f"Cannot {doing} the journal {path}: {why} ({text})."


def _abandon(connection: sqlite3.Connection) -> None:
    """Never close this connection, not even when Python exits.

    Closing one that was inherited through fork, or whose file was replaced, deletes the write-ahead log that the
    path names *now*, which another process may be writing.
    """
    import ctypes  # only here, where a reference has to be kept beyond the interpreter's own end

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


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
