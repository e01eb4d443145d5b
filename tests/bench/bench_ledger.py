"""The whole way of a receipt in one run: written on the call path, copied into the ledger, asked about, opened again.

Everything is beside what else one would do with the same rows, interleaved, as medians and ratios. ``Journal.write``:
a bare SQLite insert, a table as the tool ``llm`` keeps one, DuckDB. Ingest: DuckDB reading the same rows from Parquet,
and the same JSON. Four questions through ``kit.ledger.sql``: DuckDB held open, polars and pandas on Parquet of the
same rows; the answers must agree. Then how all of it grows.

    python bench_ledger.py [--quick | --large]     # to 100 thousand calls, or 10 million; by default 1 million
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tokenkit import Kit
from tokenkit.journal import GENESIS, Journal, append, written
from tokenkit.journal.files import open_file
from tokenkit.ledger import Ledger, copying, files, instances
from tokenkit.receipts import Receipt, StageReport, new_id
from tokenkit.types import Usage

pl = import_module("polars") if find_spec("polars") else None  # only the benches know it
ARROW = find_spec("pyarrow") is not None  # without it pandas reads no Parquet

PROMPT = "Explain in two sentences why the sky is blue, and what would change on Mars. "
TABLES = ("calls", "attempts", "stages", "verdicts", "charges", "plans", "candidate_sets", "prices")
PLACED = "INSERT INTO receipts (id, started_at, body) VALUES (?, ?, ?)"
RARELY = 20  # what syncs to the disk at every row is asked for this many times less often

Ways = dict[str, Callable[[Any], object]]
Times = dict[str, list[float]]
Given = tuple[Receipt, str]  # a receipt, and its JSON made beforehand


def interleaved(ways: Ways, rounds: int, given: Callable[[int], Any] = int, rare: Sequence[str] = ()) -> Times:
    """Time every way once a round, each round beginning with another one; return their times in seconds."""
    times: Times = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        what = given(number)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name not in rare or number % RARELY == 0:
                began = time.perf_counter()
                ways[name](what)
                times[name].append(time.perf_counter() - began)
    return times


def samples() -> list[Receipt]:
    """Return receipts as a kit really makes them, simulated but for the network: four candidates, prompt and answer."""
    stages = (StageReport("normalize", 320, 300, 0.001, True), StageReport("dedupe", 300, 280, 0.001, True))
    with Kit.simulated(pace=0) as kit:
        for n in range(40):
            kit.call(PROMPT * (1 + n % 9), user=f"user-{n % 10}", session=f"session-{n // 4}", max_tokens=60 + n * 5)
        made = [entry.receipt for entry in kit.journal.rows()]
    return [replace(one, stages=stages) if n % 3 == 0 else one for n, one in enumerate(made)]


def fresh(of: Sequence[Receipt], number: int) -> Receipt:
    """Return one of the samples as a new call, its words in an order of their own: no file may save by repetition."""
    one = of[number % len(of)]
    words = ((text or "").split() for text in (one.prompt, one.answer))
    prompt, answer = (" ".join(random.sample(text, len(text))) for text in words)
    return replace(one, id=new_id(), started_at=time.time_ns(), prompt=prompt, answer=answer)


def bare(path: Path) -> Callable[[Given], object]:
    """Return the least one can do: WAL, no index, no chain, SQLite's own page size."""
    rows = sqlite3.connect(path, isolation_level=None)
    rows.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
    rows.execute("CREATE TABLE receipts (seq INTEGER PRIMARY KEY, id TEXT, started_at INTEGER, body TEXT)")
    return lambda given: rows.execute(PLACED, (given[0].id, given[0].started_at, given[1]))


def as_llm_does(path: Path) -> Callable[[Given], object]:
    """Return an insert of our own into columns like those of ``llm``'s table of responses, SQLite as it comes.

    That is a rollback journal and an fsync a call. ``llm`` also keeps a full-text index by triggers; left out here.
    """
    rows = sqlite3.connect(path, isolation_level=None)
    columns = "model prompt system prompt_json options_json response response_json conversation_id datetime_utc"
    counts = "input_tokens INTEGER, output_tokens INTEGER"
    rows.execute(f"CREATE TABLE responses (id TEXT PRIMARY KEY, {columns.replace(' ', ' TEXT, ')} TEXT, {counts})")
    placed = f"INSERT INTO responses VALUES ({', '.join('?' * 12)})"

    def keep(given: Given) -> None:
        one, usage = given[0], given[0].usage or Usage()
        asked = json.dumps({"messages": [{"role": "user", "content": one.prompt}]})
        got = json.dumps({"content": one.answer, "finish_reason": one.finish_reason, "model": one.model})
        texts = (one.id, one.model, one.prompt, None, asked, "{}", one.answer, got, one.session, time.ctime())
        rows.execute(placed, (*texts, usage.input_tokens, usage.output_tokens))

    return keep


def into_duckdb(path: Path) -> Callable[[Given], object]:
    """Return one durable insert a call into DuckDB."""
    rows = duckdb.connect(str(path))
    rows.execute("CREATE TABLE receipts (id VARCHAR, started_at BIGINT, body VARCHAR)")
    return lambda given: rows.execute(PLACED, (given[0].id, given[0].started_at, given[1]))


def parts(path: Path) -> Ways:
    """Return what a write consists of, each piece alone, on a file set up as the journal's."""
    rows = open_file(path, "process", 10)
    numbers = iter(range(1, sys.maxsize))
    head = "SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1"
    insert = "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)"

    def inserted(given: Given) -> None:
        rows.execute(insert, (next(numbers), given[0].id, given[0].started_at, given[1], GENESIS, GENESIS))

    return {
        "JSON and its UTF-8": lambda given: written(given[0]),
        "SHA-256": lambda given: hashlib.sha256(GENESIS + given[1].encode()).digest(),
        "looking up the head": lambda _: rows.execute(head).fetchone(),
        "insert and commit": inserted,
        "is the file still there": lambda _: os.stat(path),
    }


def written_down(folder: Path, of: Sequence[Receipt], rounds: int) -> None:
    """Print microseconds a receipt for every way to keep one, and where ours go."""
    journal, dumped = Journal(folder / "path.sqlite3"), bare(folder / "dumped.sqlite3")
    ways: Ways = {
        "Journal.write": lambda given: journal.write(given[0]),
        "(a) bare WAL insert": bare(folder / "bare.sqlite3"),
        "(b) to_json and that insert": lambda given: dumped((given[0], given[0].to_json())),
        "(c) a table as llm's, fsync": as_llm_does(folder / "llm.sqlite3"),
        "(d) DuckDB, one insert": into_duckdb(folder / "one.duckdb"),
    }
    given = ((one, one.to_json()) for one in (fresh(of, number) for number in range(rounds)))
    pieces = parts(folder / "parts.sqlite3")
    times = interleaved(ways | pieces, rounds, lambda _: next(given), rare=list(ways)[3:])
    size = statistics.fmean(len(one.to_json()) for one in of)
    print(f"A receipt of {size:,.0f} characters; microseconds\n{'':30}  median    mean     p99   ours is")
    ours = statistics.median(times["Journal.write"])
    for name in ways:
        found = sorted(times[name])
        middle, late = statistics.median(found), found[int(len(found) * 0.99)]
        row = "".join(f"{t * 1e6:8.1f}" for t in (middle, statistics.fmean(found), late))
        print(f"{name:30}{row}{'' if name == 'Journal.write' else f'{ours / middle:8.2f} x of it'}")
    share = {name: statistics.median(times[name]) for name in pieces}
    share["lock, calls, the rest"] = ours - sum(share.values())
    print("".join(f"  of ours, {name:26}{t * 1e6:8.1f}  {t / ours:5.0%}\n" for name, t in share.items()))
    journal.close()


def copied(folder: Path, of: Sequence[Receipt], rows: int, rounds: int) -> None:
    """Print rows a second from the journal into the ledger, beside DuckDB on the very same rows; and bytes a call."""
    journal = Journal(folder / "journal.sqlite3")
    ledgers = [Ledger(journal, folder / f"ledger-{n}.duckdb") for n in range(3 * rounds)]
    for ledger in ledgers:
        ledger.sql("SELECT 1")  # makes the file and its tables: not timed either
    with journal.transaction() as connection:  # nor is writing them
        for number in range(rows):
            append(connection, fresh(of, number))
    source = Ledger(journal, folder / "ledger.duckdb")
    parquet = {table: folder / f"{table}.parquet" for table in TABLES}
    source.export(parquet["calls"])
    with reading(source.path) as connection:
        for table in TABLES[1:]:
            connection.execute(f"COPY {table} TO {instances.quoted(parquet[table])}")
    lines = folder / "receipts.jsonl"
    with lines.open("wb") as out:
        out.writelines(entry.body + b"\n" for batch in copying.batches(journal, 0) for entry in batch)

    def loaded(ledger: Ledger, *tables: str) -> None:
        with files.writing(ledger.path, 5, turn=ledger.path) as target:
            for table in tables:
                stored = "COLUMNS(lambda c: c NOT IN ('total_tokens', 'cost_usd'))"  # not the two that are computed
                target.execute(f"INSERT INTO {table} BY NAME SELECT {stored} FROM {instances.quoted(parquet[table])}")

    def parsed(number: int) -> None:
        with closing(duckdb.connect(str(folder / f"parsed-{number}.duckdb"), config={"threads": "1"})) as target:
            target.execute(f"CREATE TABLE receipts AS FROM read_json({instances.quoted(lines)})")

    ways: Ways = {
        "Ledger.ingest": lambda n: ledgers[n].ingest(),
        "  of it, reading the journal": lambda _: sum(len(batch) for batch in copying.batches(journal, 0)),
        "INSERT FROM read_parquet, calls": lambda n: loaded(ledgers[rounds + n], "calls"),
        "  the same, all tables": lambda n: loaded(ledgers[2 * rounds + n], *TABLES),
        "read_json of the same receipts": parsed,
    }
    times = {name: statistics.median(found) for name, found in interleaved(ways, rounds).items()}
    totals = "SELECT count(*), sum(cost_nanos), sum(input_tokens) FROM calls"
    with reading(ledgers[0].path) as mine, reading(ledgers[rounds].path) as theirs:
        assert mine.execute(totals).fetchall() == theirs.execute(totals).fetchall()
    print(f"{rows:,} waiting receipts into a ledger that is there, one thread{'':6}rows/s   ours takes")
    for name, seconds in times.items():
        ratio = f"{times['Ledger.ingest'] / seconds:8.1f} x as long" if name != "Ledger.ingest" else ""
        print(f"{name:55}{rows / seconds:13,.0f}{ratio}")
    journal.close()  # folds the write-ahead log into the file
    sizes = {"journal": journal.path, "ledger": ledgers[0].path, "Parquet of calls": parquet["calls"], "JSON": lines}
    found = ", ".join(f"{name} {path.stat().st_size / rows:,.0f}" for name, path in sizes.items())
    print(f"bytes a call, prompts and answers kept: {found}\n")


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a plain connection to a ledger that nobody has open, with every thread."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {instances.quoted(path)} AS ledger (READ_ONLY)")
        connection.execute("USE ledger")
        yield connection


def in_pandas(name: str, rows: pd.DataFrame, day: int, zone: str) -> pd.Series:
    """Answer as one would in pandas."""
    if name.startswith("daily"):
        days = rows["started_at"].dt.tz_convert(zone).dt.floor("D")
        return rows.groupby([days, "model"])["cost_nanos"].sum()
    if name.startswith("p95"):
        return rows[rows["status"] == "ok"].groupby("provider")["seconds"].quantile(0.95)
    if name.startswith("compression"):
        sums = rows[rows["skipped"].isna()].groupby("stage")[["tokens_before", "tokens_after"]].sum()
        return sums["tokens_before"] - sums["tokens_after"]
    late = rows[rows["started_at_ns"] >= day]
    return pd.concat([late.groupby(scope)["cost_nanos"].sum() for scope in ("user", "provider", "session")])


def in_polars(name: str, path: Path, day: int, zone: str) -> Any:
    """Answer as one would in polars, lazily from the file."""
    rows, cost = pl.scan_parquet(path), pl.col("cost_nanos").sum()
    if name.startswith("daily"):
        return rows.group_by(pl.col("started_at").dt.convert_time_zone(zone).dt.date(), "model").agg(cost).collect()
    if name.startswith("p95"):
        ok = rows.filter(pl.col("status") == "ok").group_by("provider")
        return ok.agg(pl.col("seconds").quantile(0.95, "linear")).collect()
    if name.startswith("compression"):
        saved = pl.col("tokens_before").sum() - pl.col("tokens_after").sum()
        return rows.filter(pl.col("skipped").is_null()).group_by("stage").agg(saved).collect()
    late = rows.filter(pl.col("started_at_ns") >= day)
    scopes = (pl.col(scope).alias("scope") for scope in ("user", "provider", "session"))
    return pl.concat([late.group_by(scope).agg(cost) for scope in scopes]).collect()


DAILY = "SELECT CAST(started_at AS DATE) AS day, model, {} AS n FROM calls GROUP BY ALL"
LATENCY = "SELECT provider, quantile_cont(seconds, 0.95) AS n FROM attempts WHERE status = 'ok' GROUP BY ALL"
STAGES = "SELECT stage, sum(tokens_before - tokens_after)::BIGINT AS n FROM stages WHERE skipped IS NULL GROUP BY ALL"
TODAY = """SELECT coalesce("user", provider, "session") AS scope, sum(cost_nanos)::BIGINT AS n FROM calls
  WHERE started_at_ns >= {} GROUP BY GROUPING SETS ("user", provider, "session")"""
QUESTIONS = {  # of which table, the columns it needs, and our words
    "daily cost by model": ("calls", ["started_at", "model", "cost_nanos"], DAILY.format("sum(cost_nanos)::BIGINT")),
    "p95 latency by provider": ("attempts", ["provider", "seconds", "status"], LATENCY),
    "compression by stage": ("stages", ["stage", "tokens_before", "tokens_after", "skipped"], STAGES),
    "today by user, provider, session":
        ("calls", ["user", "provider", "session", "started_at_ns", "cost_nanos"], TODAY),
}  # fmt: skip
ALONE = {  # what has no counterpart elsewhere: money as exact USD, the views as they come, opening
    "daily cost by model, in USD": DAILY.format("sum(cost_usd)"),
    "p95 latency by model": LATENCY.replace("provider", "model"),  # the history knows one provider only
    **{f"FROM {view}": f"FROM {view}" for view in ("spend_daily", "latency_by_provider", "compression_by_stage")},
    "opening, and a count": "SELECT count(*) FROM calls",
}


def as_answer(found: Any) -> dict[tuple[str, ...], float]:
    """Return an answer as {group: number}, whoever gave it."""
    if isinstance(found, pd.Series):
        found = found.reset_index()
    rows = found.itertuples(index=False) if isinstance(found, pd.DataFrame) else found.iter_rows()
    keyed = ((tuple(str(key)[:10] if hasattr(key, "year") else str(key) for key in row[:-1]), row[-1]) for row in rows)
    return {key: float(number) for key, number in keyed}


def ways_to_ask(kit: Kit, held: duckdb.DuckDBPyConnection, path: Path, name: str, day: int, zone: str) -> Ways:
    """Return every way to answer one question."""
    table, columns, sql = QUESTIONS[name][0], QUESTIONS[name][1], QUESTIONS[name][2].format(day)
    wanted = f"COLUMNS(lambda c: c IN {tuple(columns)})"
    frame = pd.read_parquet(path, columns=columns) if ARROW else held.sql(f"SELECT {wanted} FROM {table}").df()
    ways: Ways = {
        "ledger.sql": lambda _: kit.ledger.sql(sql),
        "DuckDB, held open": lambda _: held.execute(sql).df(),
        "pandas, in memory": lambda _: in_pandas(name, frame, day, zone),
    }
    if pl is not None:
        ways["polars, lazy"] = lambda _: in_polars(name, path, day, zone)
    if ARROW:
        ways["pandas, read"] = lambda _: in_pandas(name, pd.read_parquet(path, columns=columns), day, zone)
    return ways


def beside(kit: Kit, folder: Path, day: int, rounds: int) -> None:
    """Print milliseconds a question for us and for the others, who must give the same answer."""
    paths = {table: folder / f"{table}.parquet" for table in ("calls", "attempts", "stages")}
    began = time.perf_counter()
    kit.ledger.export(paths["calls"])
    print(f"ledger.export of every column to Parquet: {time.perf_counter() - began:.1f} s")
    os.link(kit.ledger.path, folder / "held.duckdb")  # DuckDB opens a path only once in a process
    with reading(folder / "held.duckdb") as held:
        for table in ("attempts", "stages"):
            held.execute(f"COPY {table} TO {instances.quoted(paths[table])}")
        zone = str(held.execute("SELECT current_setting('TimeZone')").fetchall()[0][0])
        heads = ("ledger.sql", "DuckDB, held open", "polars, lazy", "pandas, read", "pandas, in memory")
        print(f"{'ms (times ours)':34}" + "".join(f"{head:>20}" for head in heads))
        for name in QUESTIONS:
            ways = ways_to_ask(kit, held, paths[QUESTIONS[name][0]], name, day, zone)
            answers = {head: as_answer(way(0)) for head, way in ways.items()}  # and everything is warm
            ours = answers["ledger.sql"]
            for head, other in answers.items():
                assert ours.keys() == other.keys(), (name, head)
                assert all(abs(ours[key] - other[key]) <= 1e-9 * abs(ours[key]) for key in ours), (name, head)
            times = {head: statistics.median(found) * 1e3 for head, found in interleaved(ways, rounds).items()}
            ratio = {head: f"{took:.1f} ({took / times['ledger.sql']:.2f} x)" for head, took in times.items()}
            cells = "".join(f"{ratio.get(head, 'not installed'):>20}" for head in heads)
            print(f"{name:34}{cells}   {len(ours):,} groups, same answers")


OPENED_ANEW = """
import sys, time
began = time.perf_counter()
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger
ledger = Ledger(Journal(sys.argv[1]), sys.argv[2])
imported = time.perf_counter()
ledger.sql("SELECT count(*) FROM calls")
print(imported - began, time.perf_counter() - imported)
"""


def opened(kit: Kit, rounds: int) -> None:
    """Print where opening takes its time: the pieces in DuckDB alone, all of ours, and in a process just begun."""
    pieces: Times = {}
    queries = {"attach": f"ATTACH {instances.quoted(kit.ledger.path)} AS ledger (READ_ONLY); USE ledger"}
    queries["count"] = "SELECT count(*) FROM calls"
    for _ in range(rounds):
        clock = [time.perf_counter()]
        connection = instances.connect(kit.ledger.path)
        for name in ("connect", *queries, "close"):
            if name in queries:
                connection.execute(queries[name])
            elif name == "close":
                connection.close()
            clock.append(time.perf_counter())
            pieces.setdefault(name, []).append((clock[-1] - clock[-2]) * 1e3)
    print("opening, ms:", ", ".join(f"{name} {statistics.median(found):.1f}" for name, found in pieces.items()), end="")
    command = [sys.executable, "-c", OPENED_ANEW, str(kit.journal.path), str(kit.ledger.path)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    imports, first = (statistics.median(float(run[n]) * 1e3 for run in runs) for n in (0, 1))
    print(f"; in a new process: importing {imports:.0f}, first question {first:.0f}")


def asked(sizes: Sequence[int], rounds: int) -> None:
    """Ask at every size, beside the others from a million calls on or at the last, and print how times grow."""
    before: dict[str, float] = {}
    for calls in sizes:
        with tempfile.TemporaryDirectory() as name, Kit.synthetic(calls, home=Path(name)) as kit:
            print(f"{calls:,} synthetic calls, {kit.ledger.path.stat().st_size / calls:.0f} bytes a call in the ledger")
            opened(kit, rounds)
            day = int(kit.ledger.sql("SELECT epoch_ns(date_trunc('day', max(started_at))) AS n FROM calls")["n"][0])
            if calls >= 1_000_000 or calls == sizes[-1]:
                beside(kit, Path(name), day, rounds)
            queries = {name: sql.format(day) for name, (_, _, sql) in QUESTIONS.items()} | ALONE
            ways = {name: lambda _, q=query: kit.ledger.sql(q) for name, query in queries.items()}
            interleaved(ways, 1)
            now = {name: statistics.median(found) * 1e3 for name, found in interleaved(ways, rounds).items()}
            for name, took in now.items():
                growth = f"   {took / before[name]:5.2f} x the last" if before else ""
                print(f"  ledger.sql: {name:34}{took:9.1f} ms{growth}")
            print()
            before = now


def main(quick: bool = False, large: bool = False) -> None:
    """Run all parts on files in temporary folders."""
    warnings.simplefilter("ignore", DeprecationWarning)  # DuckDB's own use of pandas
    for name in [name for name, there in (("polars", pl), ("pyarrow", ARROW)) if not there]:
        print(f"{name} is not installed: its column is left out")
    with tempfile.TemporaryDirectory() as name:
        of = samples()
        written_down(Path(name), of, 600 if quick else 6000)
        copied(Path(name), of, 5000 if quick else 50_000, 1 if quick else 3)
    sizes = [10_000, 100_000, 1_000_000, 10_000_000][: 2 if quick else 4 if large else 3]
    asked(sizes, 3 if quick else 7)


if __name__ == "__main__":
    main("--quick" in sys.argv, "--large" in sys.argv)
