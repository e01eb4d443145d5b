"""What a ledger takes in, gives out and lets go of: imports, Parquet by month, OpenTelemetry, retention."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenkit.ledger import files
from tokenkit.ledger.imports import tables
from tokenkit.ledger.imports.values import Row

if TYPE_CHECKING:
    import duckdb

_WHOLE = ("started_at_ns", "cost_nanos", *tables.TOKENS)
_SPLIT = ("seconds", "time_to_first_chunk")
_YES_OR_NO = ("cached", "streamed")
COLUMNS = ("id", "status", "model", "provider", *_WHOLE, *_SPLIT, *_YES_OR_NO, *tables.TEXTS)
"""What is kept of a call that was logged elsewhere."""

_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_TAKE_IN = f"""
CREATE OR REPLACE TEMP TABLE fresh AS
SELECT row_number() OVER (ORDER BY started_at_ns DESC, id) AS place, * REPLACE
  (coalesce(usage_source, CASE WHEN input_tokens IS NOT NULL THEN 'reported' END) AS usage_source)
FROM (SELECT DISTINCT ON (id) * FROM incoming ORDER BY id, number DESC) WHERE id NOT IN (SELECT id FROM calls);
INSERT INTO calls BY NAME
SELECT least((SELECT min(seq) FROM calls), 0) - place AS seq,
       make_timestamp(started_at_ns // 1000) AT TIME ZONE 'UTC' AS started_at, {_NAMES}, 1 AS tries
FROM fresh ORDER BY place DESC;
INSERT INTO attempts BY NAME
SELECT c.seq, 1 AS position, c.model, c.provider, c.started_at, c.started_at_ns, c.seconds, c.time_to_first_chunk,
       0.0 AS waited, c.status, c.error_type, c.error, c.response_model, c.finish_reason, c.input_tokens,
       c.output_tokens, c.cache_read_input_tokens, c.cache_creation_input_tokens, c.reasoning_output_tokens,
       c.usage_source, c.cost_nanos
FROM calls c JOIN fresh USING (id) ORDER BY seq;
DROP TABLE incoming;
DROP TABLE fresh;
"""  # noqa: S608 (our own names)


@dataclass(frozen=True, slots=True)
class Retained:
    """What retention did: calls dropped, or whose texts were dropped, that began before ``before``.

    ``journal_rows`` is how many rows the journal let go of; None: it keeps all of them.
    """

    calls: int
    before: datetime
    texts_only: bool
    journal_rows: int | None = None

    def __repr__(self) -> str:
        what = "the texts of " if self.texts_only else ""
        rows, calls = self.journal_rows, "call" if self.calls == 1 else "calls"
        kept = "keeps its rows" if rows is None else f"let go of {rows:,} row{'' if rows == 1 else 's'}"
        return f"Retained(dropped {what}{self.calls:,} {calls} from before {self.before:%Y-%m-%d}; the journal {kept})"


def take_in(connection: duckdb.DuckDBPyConnection, batches: Iterable[list[Row]]) -> tuple[int, int]:
    """Add rows that are not there yet, numbered below the journal's calls; return how many were new, and how many not.

    All of it is one transaction: a file that turns out to be unreadable half-way leaves nothing behind.
    """
    connection.execute("BEGIN")
    connection.execute(f"CREATE TEMP TABLE incoming AS SELECT 0::BIGINT AS number, {_NAMES} FROM calls LIMIT 0")  # noqa: S608
    seen = 0
    try:
        for rows in batches:
            connection.register("batch", _framed(rows, seen))
            connection.execute("INSERT INTO incoming BY NAME SELECT * FROM batch")
            connection.unregister("batch")
            seen += len(rows)
        ((different,),) = connection.execute("SELECT count(DISTINCT id) FROM incoming").fetchall()
        before = _count(connection)
        connection.execute(_TAKE_IN)
        new = _count(connection) - before
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return new, different - new


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    ((calls,),) = connection.execute("SELECT count(*) FROM calls").fetchall()
    return int(calls)


def _framed(rows: list[Row], seen: int) -> Any:
    """Return rows as a data frame whose columns have one type each, whatever the first of them hold."""
    import pandas  # as in copying

    def column(name: str) -> Any:
        values = [row.get(name) for row in rows]
        if name in _WHOLE:
            return pandas.Series(values, dtype="Int64")
        if name in _SPLIT:
            return pandas.Series(values, dtype="float64")
        if name in _YES_OR_NO:
            return pandas.Series([bool(value) for value in values], dtype=bool)
        return pandas.Series([None if value is None else _said(value) for value in values], dtype=object)

    frame = pandas.DataFrame({name: column(name) for name in COLUMNS})
    frame["number"] = range(seen, seen + len(rows))
    return frame


def _said(value: Any) -> str:
    return str(value).encode(errors="replace").decode()  # a lone surrogate has no UTF-8


def by_month(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the calls as Parquet, a folder a month, which DuckDB, Spark or a lake reads as one table."""
    folder.mkdir(parents=True, exist_ok=True)
    months = "SELECT *, year(started_at) AS year, month(started_at) AS month FROM calls ORDER BY seq"
    form = "FORMAT parquet, COMPRESSION zstd, PARTITION_BY (year, month), FILENAME_PATTERN 'calls_{i}'"
    files.save(connection, months, folder, f"{form}, OVERWRITE_OR_IGNORE")


# Column by column, the attribute of OpenTelemetry's conventions for generative AI.
_ATTRIBUTES = (
    ("operation", "gen_ai.operation.name"), ("provider", "gen_ai.provider.name"),
    ("request_model", "gen_ai.request.model"), ("response_model", "gen_ai.response.model"),
    ("input_tokens", "gen_ai.usage.input_tokens"), ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_creation_input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("reasoning_output_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("session", "gen_ai.conversation.id"), ("user", "user.id"), ("error_type", "error.type"),
    ("finish_reason", "gen_ai.response.finish_reasons"), ("id", "tokenkit.receipt"), ("model", "tokenkit.model"),
    ("cost_usd", "tokenkit.cost_usd"), ("endpoint_name", "tokenkit.endpoint"),
)  # fmt: skip


def as_spans(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Write the calls as OTLP/JSON, one resourceSpans object a line, as collectors' file exporters do."""
    names = ", ".join(f'"{name}"' for name, _ in _ATTRIBUTES)
    asked = connection.execute(f"SELECT id, started_at_ns, seconds, status, {names} FROM calls ORDER BY seq")  # noqa: S608
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "tokenkit"}}]}
    with target.open("w", encoding="utf-8") as file:
        while rows := asked.fetchmany(1000):
            spans = [_span(row) for row in rows]
            scope = {"scope": {"name": "tokenkit"}, "spans": spans}
            line = {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _span(row: tuple[Any, ...]) -> dict[str, Any]:
    call, began, seconds, status, *values = row
    attributes = []
    for (name, key), value in zip(_ATTRIBUTES, values, strict=True):
        if value is None:
            continue
        if name == "finish_reason":
            kind: dict[str, Any] = {"arrayValue": {"values": [{"stringValue": value}]}}
        else:
            kind = {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}
        attributes.append({"key": key, "value": kind})
    operation = next((v for (n, _), v in zip(_ATTRIBUTES, values, strict=True) if n == "operation"), "chat")
    model = next((v for (n, _), v in zip(_ATTRIBUTES, values, strict=True) if n == "request_model"), "")
    return {
        # A call's id is 32 hex digits, a trace's; a span's is its last 16.
        "traceId": call[:32].ljust(32, "0"),
        "spanId": call if len(call) <= 16 else call[-16:],
        "name": f"{operation} {model}".strip(),
        "kind": 3,
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(began + int((seconds or 0) * 10**9)),
        "attributes": attributes,
        "status": {"code": 2 if status == "error" else 1},
    }


def retain(connection: duckdb.DuckDBPyConnection, before: datetime, *, texts_only: bool) -> Retained:
    """Drop calls that began before ``before`` with all that belongs to them, or only their prompts and answers."""
    moment = before.astimezone(UTC).isoformat()
    old = "started_at < CAST(? AS TIMESTAMPTZ)"
    connection.execute("BEGIN")
    if texts_only:
        wanted = f"{old} AND (prompt IS NOT NULL OR answer IS NOT NULL)"
        ((count,),) = connection.execute(f"SELECT count(*) FROM calls WHERE {wanted}", [moment]).fetchall()  # noqa: S608
        connection.execute(f"UPDATE calls SET prompt = NULL, answer = NULL WHERE {wanted}", [moment])  # noqa: S608
    else:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE gone AS SELECT seq, id FROM calls WHERE {old}", [moment])  # noqa: S608
        ((count,),) = connection.execute("SELECT count(*) FROM gone").fetchall()
        for table in ("attempts", "stages", "verdicts", "charges", "plans", "calls"):
            connection.execute(f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM gone)")  # noqa: S608 - our own names
        connection.execute("DELETE FROM ratings WHERE id IN (SELECT id FROM gone)")
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT")
    return Retained(int(count), before, texts_only)
