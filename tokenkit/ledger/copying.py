"""From the journal into tables, exactly once: the watermark is committed together with the rows it stands for.

Where a journal was restored from an older copy, its numbers begin to repeat. The watermark's hash shows that; the
journal is then read from its start, and rows already here are recognised by their id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tokenkit.journal import GENESIS, Entry, Journal
from tokenkit.ledger.files import create_tables, section, text

if TYPE_CHECKING:
    import duckdb
    import pandas

BATCH_BYTES = 16 * 2**20  # of JSON in one transaction; DuckDB's memory grows with it
PAGE = 500  # rows read from the journal under its lock at a time


class Mark(NamedTuple):
    """How far a journal has been copied: ``base + journal seq = calls.seq``; ``hash`` is that of row ``seq``."""

    base: int
    seq: int
    hash: bytes
    restored: bool = False


def mark_of(connection: duckdb.DuckDBPyConnection, journal_id: str, tables: str) -> Mark:
    """Return the watermark of a journal in the schema ``tables``; a new one begins after the last call there."""
    found = connection.execute(
        f"SELECT base, seq, hash, restored FROM {tables}.sources WHERE journal_id = ?",  # noqa: S608 (our own name)
        [journal_id],
    ).fetchall()
    if found:
        return Mark(*found[0])
    return Mark(_last(connection, tables), 0, GENESIS)


def true_mark(connection: duckdb.DuckDBPyConnection, journal: Journal, mark: Mark, tables: str) -> Mark:
    """Return ``mark``, or, when the journal does not have its row any more, one that begins anew and tells by id."""
    if mark.seq == 0:
        return mark
    row = journal.rows(mark.seq - 1, 1)
    if row and row[0].seq == mark.seq and row[0].hash == mark.hash:
        return mark
    return Mark(_last(connection, tables), 0, GENESIS, True)


def copy(
    connection: duckdb.DuckDBPyConnection, journal: Journal, journal_id: str, mark: Mark, known: str = "calls"
) -> Iterator[tuple[int, Mark]]:
    """Copy what lies past ``mark`` into the current schema, a transaction at a time.

    Yields how many calls each transaction made, and the watermark it reached. ``known`` is the table whose ids are
    already here, asked only where the journal was restored.
    """
    for batch in batches(journal, mark.seq):
        yield from _commit(connection, batch, journal_id, mark, known)


def _commit(
    connection: duckdb.DuckDBPyConnection, batch: list[Entry], journal_id: str, mark: Mark, known: str
) -> Iterator[tuple[int, Mark]]:
    import duckdb  # here, because importing tokenkit must not import it

    reached = mark._replace(seq=batch[-1].seq, hash=batch[-1].hash)
    rows = _frame(connection, batch, mark, known)
    connection.register("batch", rows)
    connection.execute("BEGIN")
    try:
        if len(rows):
            connection.execute(text("ingest.sql"))
    except (duckdb.DataError, duckdb.IntegrityError, duckdb.InvalidInputException):
        # One row that no column can hold must not keep the others out: halve until it is alone, then leave it empty.
        connection.execute("ROLLBACK")
        half = len(batch) // 2
        if half:
            yield from _commit(connection, batch[:half], journal_id, mark, known)
            yield from _commit(connection, batch[half:], journal_id, mark, known)
        elif batch[0].body:
            yield from _commit(connection, [batch[0]._replace(body=b"")], journal_id, mark, known)
        else:
            raise
        return
    connection.execute("DELETE FROM sources WHERE journal_id = ?", [journal_id])
    connection.execute(
        "INSERT INTO sources BY NAME SELECT ? AS journal_id, ? AS base, ? AS seq, ? AS hash, ? AS restored, "
        "now() AS copied_at",
        [journal_id, *reached],
    )
    connection.execute("COMMIT")
    yield len(rows), reached


def _frame(connection: duckdb.DuckDBPyConnection, batch: list[Entry], mark: Mark, known: str) -> pandas.DataFrame:
    """Return the entries that are not in ``known`` yet as the frame ``batch`` of ``ingest.sql``."""
    import pandas  # a column of text passes from pandas to DuckDB five times faster than as a parameter

    if mark.restored:
        there = {row[0] for row in connection.execute(f"SELECT id FROM {known}").fetchall()}  # noqa: S608 (our own name)
        batch = [entry for entry in batch if entry.id not in there]
    return pandas.DataFrame(
        {
            "seq": pandas.Series([mark.base + entry.seq for entry in batch], dtype="int64"),
            "id": pandas.Series([entry.id for entry in batch], dtype=object),
            "started_at_ns": pandas.Series([entry.started_at for entry in batch], dtype="int64"),
            "body": pandas.Series([_readable(entry.body) for entry in batch], dtype=object),
        }
    )


def overlay(connection: duckdb.DuckDBPyConnection, journal: Journal, journal_id: str, mark: Mark | None) -> None:
    """Make a reading connection complete: what lies past ``mark`` is laid over the attached ledger, in memory.

    Without a mark there is no ledger attached, and all of the journal is read.
    """
    if mark is not None and not journal.rows(mark.seq, 1):
        return
    connection.execute("ATTACH ':memory:' AS pending")
    connection.execute("CREATE SCHEMA pending.rows")
    connection.execute("USE pending.rows")
    create_tables(connection)
    for _ in copy(connection, journal, journal_id, mark or Mark(0, 0, GENESIS), "ledger.main.calls"):
        pass  # all of it: what waits is whatever came since the last time the file could be written
    connection.unregister("batch")
    connection.execute("DELETE FROM sources")  # these rows are not copied anywhere
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'pending' AND schema_name = 'rows'"
    ).fetchall()
    connection.execute("USE pending.main")
    for (table,) in tables:
        below = "" if mark is None else f"FROM ledger.main.{table} {_UNION.get(table, 'UNION ALL')} BY NAME "
        connection.execute(f"CREATE VIEW {table} AS {below} FROM pending.rows.{table}")
    connection.execute(section("views"))


_UNION = {"prices": "UNION", "candidate_sets": "UNION"}  # the same number there and here means the same row


def batches(journal: Journal, after: int) -> Iterator[list[Entry]]:
    """Yield the journal's entries past ``after`` in lists of about BATCH_BYTES, until there are no more."""
    batch: list[Entry] = []
    size = 0
    while page := journal.rows(after, PAGE):
        after = page[-1].seq
        for entry in page:
            batch.append(entry)
            size += len(entry.body)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _last(connection: duckdb.DuckDBPyConnection, tables: str) -> int:
    ((last,),) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {tables}.calls").fetchall()  # noqa: S608 (same)
    return int(last)


def _readable(body: bytes) -> str:
    """Return JSON that DuckDB reads: half a surrogate pair, which it refuses, becomes a question mark."""
    text = body.decode(errors="replace")
    if "\\ud" not in text:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace").decode()
    except (ValueError, RecursionError):
        return text
