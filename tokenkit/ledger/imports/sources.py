"""Records from wherever a log lies: JSON, JSON lines, CSV, Parquet, a SQLite file, a data frame, rows.

Each comes with its place, for the sentence that names it, should it be unreadable. Files that can be read in parts are.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tokenkit.errors import UserError
from tokenkit.ledger import instances
from tokenkit.ledger.imports import llm
from tokenkit.ledger.questions import why

Records = Iterator[tuple[str, Any]]
"""Places and records; a record that is a text says why there is none."""

LISTS = ("data", "logs", "spend_logs", "results", "observations")
"""Where APIs put the list of what was asked for."""

_SQLITE = (".db", ".sqlite", ".sqlite3")


def records(source: Path | Iterable[Any]) -> tuple[str, Records]:
    """Return what a source is called and its records. Raises UserError, also while they are read."""
    if not isinstance(source, Path):
        to_dict = getattr(source, "to_dict", None)  # a data frame's; iterated, it would give its columns' names
        return "the rows", _numbered("row", to_dict("records") if to_dict is not None else source)
    path = source.expanduser()
    if not path.exists():
        raise UserError(f"There is no file {path}.")
    if path.is_dir() or path.suffix.lower() == ".parquet":
        return path.name, _parquet(path)
    if path.suffix.lower() in _SQLITE:
        return path.name, _numbered("row", llm.rows_of(path))
    return path.name, _read(path)


def _numbered(what: str, found: Iterable[Any], start: int = 1) -> Records:
    for n, one in enumerate(found, start):
        yield f"{what} {n:,}", one if isinstance(one, Mapping) else f"it is no record but {type(one).__name__}"


def _parquet(path: Path) -> Records:
    """Read one file, or all in a folder and its folders by month, as an export writes them."""
    import duckdb  # here, because importing tokenkit must not import it

    place = path / "**" / "*.parquet" if path.is_dir() else path
    connection = instances.connect(path)
    try:
        table = f"FROM read_parquet({instances.quoted(place)}, hive_partitioning = false, union_by_name = true)"
        # As a number, because DuckDB makes a Python datetime with a zone only where pytz is installed.
        zoned = [name for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall() if "ZONE" in kind]
        instants = ", ".join(f'epoch_us("{name}") AS "{name}"' for name in zoned)
        found = connection.execute(f"SELECT * REPLACE ({instants}) {table}" if zoned else table)
        names = [column[0] for column in found.description or ()]
        seen = 0
        while rows := found.fetchmany(5_000):
            yield from _numbered("row", (dict(zip(names, row, strict=True)) for row in rows), seen + 1)
            seen += len(rows)
    except duckdb.Error as error:
        raise UserError(f"{path} cannot be read as Parquet: {why(error)}") from None
    finally:
        connection.close()


def _read(path: Path) -> Records:
    try:
        packed = path.suffix.lower() == ".gz"
        with _opened(path, packed) as lines:
            yield from _parsed(lines, Path(path.stem if packed else path.name).suffix.lower())
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _opened(path: Path, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parsed(lines: IO[str], kind: str) -> Records:
    if kind in (".csv", ".tsv"):
        yield from _numbered("line", csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ","), 2)
        return
    if kind in (".jsonl", ".ndjson"):
        yield from _by_line(lines)
        return
    text = lines.read()
    try:
        said = json.loads(text)
    except ValueError:
        yield from _by_line(text.splitlines())
        return
    if isinstance(said, dict):
        said = next((said[key] for key in LISTS if isinstance(said.get(key), list)), said)
    yield from _numbered("row", said if isinstance(said, list) else [said])


def _by_line(lines: Iterable[str]) -> Records:
    for n, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield from _numbered("line", [json.loads(line)], n)
            except (ValueError, RecursionError):
                yield f"line {n:,}", "it is no JSON"
