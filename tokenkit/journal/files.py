"""The journal's file: its tables by version, how it is made and opened, and what may be wrong with it."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tokenkit.errors import LedgerError

Durability = Literal["process", "power"]
"""``process``: outlives any crash of the process (kill -9). ``power``: outlives a power cut too, at an fsync a call."""

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
    (
        # Budgets and their books. Amounts are nano-USD or tokens, by the budget's unit; see accounts.py.
        "CREATE TABLE budgets (key TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE accounts (
             account    TEXT NOT NULL,
             period     TEXT NOT NULL,     -- what was spent belongs to its period, whatever the clock says later
             spent      INTEGER NOT NULL,  -- settled
             held       INTEGER NOT NULL,  -- reserved by tries under way
             calls      INTEGER NOT NULL,
             violations INTEGER NOT NULL,  -- tries that cost more than was held for them
             noticed    INTEGER NOT NULL,  -- 1: the warning was given; 2: the notice that it is spent, too
             PRIMARY KEY (account, period)
           ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE asked (             -- calls under way, and those whose end nobody saw
             call  TEXT PRIMARY KEY,       -- Receipt.id
             state TEXT NOT NULL,          -- held, settled (a failed try; the call goes on), unknown (swept)
             lease INTEGER NOT NULL,       -- Unix nanoseconds: later nobody is thought to be at work on it
             body  TEXT NOT NULL           -- the receipt to file should that be so: Receipt.to_json()
           ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE holds (
             call    TEXT NOT NULL,
             account TEXT NOT NULL,
             period  TEXT NOT NULL,
             amount  INTEGER NOT NULL,
             unit    TEXT NOT NULL,
             PRIMARY KEY (call, account)
           ) STRICT, WITHOUT ROWID""",
    ),
)


NETWORKED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"})
_warned: set[Path] = set()


def network_mount(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the kind of network file system that ``folder`` is on; None for a local disk, or where nobody can tell."""
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    places = [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]
    above = [(len(place), kind) for place, kind in places if folder.is_relative_to(place)]
    kind = max(above, default=(0, ""))[1]
    return kind if kind in NETWORKED else None


def warn_of_network(folder: Path) -> None:
    """Say once that locks may not hold where this folder is: two machines could spend the same money."""
    kind = None if folder in _warned else network_mount(folder)
    if kind is not None:
        _warned.add(folder)
        warnings.warn(
            f"{folder} is on a network file system ({kind}), where SQLite's locks may not hold between machines: "
            "budgets could be overdrawn, receipts lost. Set TOKENKIT_HOME to a local folder, or use a team's journal.",
            RuntimeWarning,
            stacklevel=2,
        )


def make_private(folder: Path) -> None:
    """Make a folder and every missing one above it, for nobody but their owner (0700)."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)  # not parents=True, which gives those above the umask's mode


def open_file(path: Path, durability: Durability, patience: float) -> sqlite3.Connection:
    make_private(path.parent)
    warn_of_network(path.parent)
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


def prose(path: Path, error: BaseException, doing: str) -> str:
    """Say what went wrong with the file and what to do about it."""
    text = " ".join(((error.strerror or "") if isinstance(error, OSError) else str(error)).split())
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


def abandon(connection: sqlite3.Connection) -> None:
    """Never close this connection, not even when Python exits.

    Closing one that was inherited through fork, or whose file was replaced, deletes the write-ahead log that the
    path names *now*, which another process may be writing.
    """
    import ctypes  # only here, where a reference has to be kept beyond the interpreter's own end

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
