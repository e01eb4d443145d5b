"""Who may open the DuckDB file, and when: one writer or several readers at a time, each for a moment.

DuckDB lets one process in at a time, and guards that with fcntl locks, which a process loses when it closes *any*
descriptor of the file. So this module never opens that file itself. Kernels take turns through a ``.lock`` file
beside it (flock, shared or exclusive), connections last for one question, and within a process one thread is in.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tokenkit.errors import LedgerError
from tokenkit.journal import make_private
from tokenkit.ledger.instances import lent, let_go, opened, quoted
from tokenkit.ledger.questions import why

if TYPE_CHECKING:
    import duckdb

STORAGE = "v1.5.0"  # read and written by DuckDB 1.5 and 2 alike


class Unavailable(LedgerError):
    """The DuckDB file cannot be used right now; the journal still has every row."""


class Busy(Unavailable):
    """Another kernel has the file at the moment: all is well, and soon it will be free."""


def section(name: str) -> str:
    """Return one section of ``schema.sql``, such as ``version 1`` or ``views``."""
    parts = re.split(r"^-- @(.+)$", text("schema.sql"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


VERSION = 3
"""The version of ``schema.sql``: its last ``@version`` section."""


def create_tables(connection: duckdb.DuckDBPyConnection, *, version: int = 0) -> None:
    """Bring the tables of the current schema from ``version`` to VERSION."""
    for step in range(version + 1, VERSION + 1):
        connection.execute(section(f"version {step}"))


def migrate(connection: duckdb.DuckDBPyConnection, *, version: int = 0) -> None:
    """Bring the current database from ``version`` to VERSION in one transaction."""
    connection.execute("BEGIN")
    create_tables(connection, version=version)
    connection.execute(section("views"))
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    connection.execute("DELETE FROM schema_version")
    connection.execute("INSERT INTO schema_version VALUES (?)", [VERSION])
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT")


@contextmanager
def writing(path: Path, patience: float, *, turn: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection whose current database is the ledger at ``path``, made or migrated where need be.

    ``turn`` is the file whose lock decides. Raises Unavailable when ``path`` cannot be had within ``patience`` seconds.
    """
    make_private(path.parent)
    with taking_turns(turn, exclusive=True, patience=patience):
        if not path.exists():
            _make(path)
        # One thread: a batch is small, and threads still running when Python exits can abort the process.
        with opened(path, threads=1) as connection:
            _attach(connection, path)
            version = _version(connection, path)
            if version < VERSION:
                migrate(connection, version=version)
            yield connection


@contextmanager
def reading(path: Path, patience: float, *, turn: Path, exports: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the ledger attached as ``ledger``, read only. Raises Unavailable like :func:`writing`.

    It can reach nothing else, unless it ``exports``.
    """
    if not path.exists():
        raise Unavailable(f"There is no ledger {path} yet.")
    with taking_turns(turn, exclusive=False, patience=patience), (opened if exports else lent)(path) as connection:
        _attach(connection, path, "READ_ONLY")
        stamp = _stamp(path)
        if _whole.get(path) != stamp:
            if _version(connection, path) < VERSION:
                raise Unavailable(f"The ledger {path} has not been brought to version {VERSION} yet.")
            _whole[path] = stamp
        yield connection


def save(connection: duckdb.DuckDBPyConnection, query: str, path: Path, form: str) -> None:
    """Write a query's rows to a file; ``form`` is what COPY calls its options."""
    connection.execute(f"COPY ({query}) TO {quoted(path)} ({form})")


def _attach(connection: duckdb.DuckDBPyConnection, path: Path, mode: str = f"STORAGE_VERSION {STORAGE!r}") -> None:
    import duckdb  # here, because importing tokenkit must not import it

    try:
        connection.execute(f"ATTACH {quoted(path)} AS ledger ({mode})")
        connection.execute("USE ledger")
    except duckdb.Error as error:
        raise Unavailable(_prose(path, error)) from error


def _make(path: Path) -> None:
    """Make an empty ledger elsewhere first, so that a crash never leaves half of one under its name."""
    Path(f"{path}.wal").unlink(missing_ok=True)
    with _draft(path) as draft, opened(draft) as connection:
        _attach(connection, draft)
        migrate(connection)


def rewritten(path: Path) -> None:
    """Copy a ledger into a new file and put that in its place, which is how DuckDB gives space back."""
    if not path.exists():
        return
    with _draft(path) as draft, opened(path) as connection:
        _attach(connection, path)
        _version(connection, path)
        connection.execute(f"ATTACH {quoted(draft)} AS anew (STORAGE_VERSION {STORAGE!r})")
        connection.execute("COPY FROM DATABASE ledger TO anew")
        connection.execute("DETACH anew")
        connection.execute("CHECKPOINT ledger")


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yield the name of a file that takes the place of ``path`` when the block has made it.

    It is in a folder that is only ours, because DuckDB makes files with the umask's mode. What a crash left there, the
    next draft removes.
    """
    folder = path.with_name(f"{path.name}.new")
    _remove(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder / path.name
        (folder / path.name).chmod(0o600)
        (folder / path.name).rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Return the attached ledger's version, once it is certain that it is one, and whole."""
    import duckdb  # as in _attach

    try:
        ((found,),) = connection.execute("SELECT max(version) FROM ledger.schema_version").fetchall()
        version = int(found or 0)
        if version <= VERSION:
            # Binding their names is enough; DuckDB's own list of tables takes as long as the rest of a question.
            all_of_them = ", ".join(f"(FROM ledger.{name} LIMIT 0)" for name in _tables(version))
            connection.execute(f"SELECT 1 FROM {all_of_them}")  # noqa: S608 (our own names)
            return version
    except duckdb.CatalogException:
        raise Unavailable(
            f"{path} has no table {_missing(connection)}: it is no tokenkit ledger, or the table was dropped. "
            "Name another file, or move this one away and it is made anew from the journal."
        ) from None
    raise LedgerError(
        f"{path} was written by a newer tokenkit (ledger version {version}; this one knows {VERSION}). "
        "Upgrade tokenkit, or name another file for the ledger."
    )


_whole: dict[Path, object] = {}  # ledgers found whole, as they were then: looking again takes as long as a question


def _stamp(path: Path) -> object:
    """Return what is another after every change. Taken while the file is attached, when nobody can write it."""
    logs = (Path(f"{path}{end}") for end in ("", ".wal"))
    return [(found.st_ino, found.st_size, found.st_mtime_ns) for found in (log.stat() for log in logs if log.exists())]


@cache
def _tables(version: int) -> tuple[str, ...]:
    made = "".join(section(f"version {step}") for step in range(1, version + 1))
    return ("schema_version", *re.findall(r"^CREATE TABLE (\w+)", made, re.MULTILINE))


def _missing(connection: duckdb.DuckDBPyConnection) -> str:
    there = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    lost = set(_tables(VERSION)) - there
    return "schema_version" if "schema_version" in lost else min(lost, default="that can be read")


def _prose(path: Path, error: BaseException) -> str:
    text = why(error)
    holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
    if holder or "Could not set lock" in text:
        by = f"{holder[1]} (process {holder[2]})" if holder else "another program"
        return f"The ledger {path} is held by {by}. New calls wait in the journal until it is closed there."
    if "already attached" in text:
        return f"The ledger {path} is open elsewhere in this process. New calls wait in the journal until it is closed."
    if "Permission denied" in text or "Read-only file system" in text:
        return f"The ledger {path} is not writable ({text})."
    return f"The ledger {path} cannot be opened ({text}). It is a copy: move it away and it is made anew."


def text(name: str) -> str:
    return files("tokenkit.ledger").joinpath(name).read_text("utf-8")


_turns: dict[str, threading.Lock] = {}
_descriptors: set[int] = set()


@contextmanager
def taking_turns(path: Path, *, exclusive: bool, patience: float) -> Iterator[None]:
    """Hold this process's and this machine's turn at a file; a crash gives it back by itself."""
    with _turns.setdefault(str(path), threading.Lock()):
        try:
            descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"The ledger {path} is not writable ({error}).") from error
        _descriptors.add(descriptor)
        try:
            _flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, patience, path)
            yield
        finally:
            _descriptors.discard(descriptor)
            # Unlocked by name, not just closed: a child forked meanwhile holds a copy that would keep it locked.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _flock(descriptor: int, mode: int, patience: float, path: Path) -> None:
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise Busy(f"Another kernel is busy with the ledger {path}. New calls wait in the journal.") from None
            time.sleep(0.01)


_forking = threading.local()


def _before_fork() -> None:
    """Let connections of other threads finish first: a child that inherited one could never open the file itself."""
    _forking.held = [lock for lock in list(_turns.values()) if lock.acquire(timeout=5)]
    let_go()


def _after_fork_in_parent() -> None:
    for lock in _forking.held:
        lock.release()


def _after_fork_in_child() -> None:
    _turns.clear()
    for descriptor in _descriptors:  # of threads that did not finish in time
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
