"""DuckDB instances: what each may reach, and the one that is kept from question to question.

Starting a DuckDB takes as long as many an answer. So the one that answered last stays, with no file open, and the next
question attaches the ledger anew. It may open that one ledger and nothing else, and its settings are locked.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    Key = tuple[str, str | None]


def connect(path: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory, which ``path`` is then attached to; what does not fit memory goes beside ``path``.

    Nothing is ever fetched from the network.
    """
    import duckdb  # here, because importing tokenkit must not import it

    settings = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "temp_directory": f"{path}.tmp",
    }
    return duckdb.connect(":memory:", config=settings if threads is None else {**settings, "threads": str(threads)})


def sealed(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory that can attach the ledger at ``path``, but reaches no other file, network or setting.

    That is for good: what must write a file has an instance of its own.
    """
    connection = connect(path)
    its_own = ", ".join(quoted(Path(f"{path}{end}")) for end in ("", ".wal", ".wal.recovery", ".wal.checkpoint"))
    connection.execute(f"SET allowed_paths = [{its_own}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def opened(path: Path, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an instance that ends with the block; a transaction cut off rolls back."""
    connection = connect(path, threads)
    try:
        yield connection
    finally:
        _end(connection)


@contextmanager
def lent(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a sealed instance with nothing attached. It is kept for the next block, unless this one fails."""
    key = (str(path), os.environ.get("TZ"))  # DuckDB asks for the time zone once
    connection = _spare.pop(key, None) or sealed(path)
    try:
        yield connection
        connection.execute("USE memory")
        for name in ("ledger", "pending"):
            connection.execute(f"DETACH DATABASE IF EXISTS {name}")
    except BaseException:
        _end(connection)
        raise
    let_go()
    if _keeping:
        _spare[key] = connection
    else:
        _end(connection)


def quoted(path: Path) -> str:
    """Return a path as a SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


_spare: dict[Key, duckdb.DuckDBPyConnection] = {}  # at most one
_keeping = [True]
_abandoned: list[object] = []


def let_go() -> None:
    """Close the instance that is kept: before a fork, which copies no threads, and in favour of another."""
    for key in list(_spare):
        _end(_spare.pop(key, None))


def _end(connection: duckdb.DuckDBPyConnection | None) -> None:
    import duckdb  # as in connect

    if connection is not None:
        with suppress(duckdb.Error):
            connection.close()


def _in_child() -> None:
    _abandoned.extend(_spare.values())  # kept by a thread just before the fork; closing would wait for its threads
    _spare.clear()


@atexit.register
def _at_exit() -> None:
    _keeping.clear()
    let_go()


os.register_at_fork(after_in_child=_in_child)
