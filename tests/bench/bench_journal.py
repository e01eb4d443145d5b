"""What a durable receipt costs on the call path, and what questions cost later: everything interleaved in one run.

``write`` is beside the bare INSERT of the same finished row (SQLite WAL, no chain), SQLite as it comes (rollback
journal, fsync), and DuckDB. Then ingest in rows a second beside COPY from Parquet of the same calls, bytes a call, and
the standard questions. ``python bench_journal.py 1000000`` asks them of a million calls.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from tokenkit.journal import Journal, append
from tokenkit.ledger import Ledger
from tokenkit.receipts import Attempt, Candidate, Plan, PriceReceipt, Receipt, StageReport, new_id
from tokenkit.types import TokenCount, Usage

MODELS = tuple(f"provider{n % 3}/model-{n}" for n in range(4))
PROMPT = "Explain in two sentences why the sky is blue, and what would change on Mars. "
QUESTIONS = {
    "daily cost by model": "FROM spend_daily",
    "p95 latency by provider": "FROM latency_by_provider",
    "compression by stage": "FROM compression_by_stage",
    "today's spend by user": "SELECT user, sum(cost_usd) FROM calls WHERE started_at >= current_date GROUP BY user",
    "calls one by one (count)": "SELECT count(*) FROM calls",
}


def receipt(number: int) -> Receipt:
    """Make a receipt of ordinary size: four candidates, one try, one stage, a short prompt and answer."""
    model, provider = MODELS[number % 4], f"provider{number % 3}"
    price = PriceReceipt("genai-prices", "model", 2_500_000_000, 10**10, version="1", data_hash="ab" * 32)
    usage = Usage(100 + number % 900, 50 + number % 300)
    candidates = tuple(
        Candidate(m, m[:9], 5.0 - n, (("weight", 5.0), ("cost", float(-n))), float(n == 0),
                  TokenCount(100 + number % 900, True, "o200k_base"), 128_000, 1_000_000 + number)
        for n, m in enumerate(MODELS)
    )  # fmt: skip
    begun = time.time_ns() - (number % 30) * 86_400 * 10**9
    attempt = Attempt(model, provider, begun, 0.5 + (number % 97) / 100, 0.1, http_status=200, request_id="req",
                      finish_reason="stop", usage=usage, cost_nanos=price.cost(usage), price=price)  # fmt: skip
    return Receipt(
        new_id(), begun, 0.6, "ok", "auto", model, provider, usage=usage, cost_nanos=price.cost(usage), price=price,
        finish_reason="stop", plan=Plan(candidates, "score", 200), attempts=(attempt,), user=f"user {number % 50}",
        stages=(StageReport("dedupe", 300, 280, 0.001, True),), prompt=PROMPT * (number % 9), answer=PROMPT * 2,
        prompt_sha256="cd" * 32, endpoint_name="bench",
    )  # fmt: skip


def bare(path: Path, *pragmas: str) -> Callable[[Receipt, str], None]:
    """Return a plain INSERT of a finished row, as a program without a journal would do it."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    columns = "seq INTEGER PRIMARY KEY, id TEXT UNIQUE, started_at INTEGER, body TEXT, prev BLOB, hash BLOB"
    connection.execute(f"CREATE TABLE receipts ({columns})")
    insert = "INSERT INTO receipts (id, started_at, body, prev, hash) VALUES (?, ?, ?, ?, ?)"
    nothing = bytes(32)
    return lambda one, body: connection.execute(insert, (one.id, one.started_at, body, nothing, nothing))


def into_duckdb(path: Path) -> Callable[[Receipt, str], None]:
    """Return one durable INSERT a call into DuckDB."""
    connection = duckdb.connect(str(path))
    connection.execute("CREATE TABLE receipts (id VARCHAR, started_at BIGINT, body VARCHAR)")
    return lambda one, body: connection.execute("INSERT INTO receipts VALUES (?, ?, ?)", (one.id, one.started_at, body))


def call_path(folder: Path, rounds: int) -> None:
    """Print microseconds a receipt for each way to keep one; JSON is apart, because all of them need it."""
    journal = Journal(folder / "path.sqlite3")
    wal = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000")
    ways: dict[str, tuple[int, Callable[[Receipt, str], object]]] = {
        "to_json alone": (1, lambda one, _: one.to_json()),
        "Journal.write (with JSON)": (1, lambda one, _: journal.write(one)),
        "bare INSERT, SQLite WAL": (1, bare(folder / "bare.sqlite3", *wal)),
        "bare INSERT, SQLite as it comes": (50, bare(folder / "plain.sqlite3")),
        "bare INSERT, DuckDB": (50, into_duckdb(folder / "one.duckdb")),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    chance = random.Random(0)
    for number in range(rounds):
        one = receipt(number)
        body = one.to_json()
        turns = list(ways.items())
        chance.shuffle(turns)  # who comes second finds the first one's caches warm
        for name, (every, way) in turns:
            if number % every == 0:
                began = time.perf_counter()
                way(one, body)
                times[name].append((time.perf_counter() - began) * 1e6)
    middle = {name: statistics.median(found) for name, found in times.items()}
    base = middle["bare INSERT, SQLite WAL"]
    for name, found in times.items():
        late = sorted(found)[int(len(found) * 0.99)]
        print(f"{name:34} p50 {middle[name]:8.1f} µs   mean {statistics.fmean(found):8.1f}   p99 {late:8.1f}")
    own = middle["Journal.write (with JSON)"] - middle["to_json alone"]
    average = {name: statistics.fmean(found) for name, found in times.items()}  # with the checkpoints all of them have
    mean = average["Journal.write (with JSON)"] - average["to_json alone"]
    ratios = f"{own / base:.2f} x the bare WAL insert; by means {mean / average['bare INSERT, SQLite WAL']:.2f} x"
    print(f"durable, chained, beyond JSON      p50 {own:8.1f} µs   = {ratios}\n")
    journal.close()


def copying(folder: Path, rows: int) -> Ledger:
    """Print how fast waiting rows reach the ledger, and how much room they take."""
    ledger = Ledger(Journal(folder / "journal.sqlite3"), folder / "ledger.duckdb")
    ledger.df()
    for start in range(0, rows, 5000):
        with ledger.journal.transaction() as connection:  # one transaction: this is about reading them
            for number in range(start, min(start + 5000, rows)):
                append(connection, receipt(number))
    began = time.perf_counter()
    copied = ledger.ingest()
    seconds = time.perf_counter() - began
    parquet = ledger.export(folder / "calls.parquet")
    began = time.perf_counter()
    with duckdb.connect(str(folder / "copy.duckdb")) as connection:
        connection.execute(f"CREATE TABLE calls AS FROM '{parquet}'")
    beside = time.perf_counter() - began
    print(f"ingest {copied / seconds:,.0f} rows/s; COPY of the finished calls from Parquet {rows / beside:,.0f} rows/s")
    ledger.journal.close()  # folds the write-ahead log into the file
    sizes = {"journal": ledger.journal.path, "ledger": ledger.path, "parquet": parquet}
    print("bytes a call:", ", ".join(f"{name} {path.stat().st_size / rows:,.0f}" for name, path in sizes.items()))
    return ledger


def asking(ledger: Ledger) -> None:
    """Print milliseconds a question, opening and closing the file included."""
    for name, query in QUESTIONS.items():
        times = []
        for _ in range(7):
            began = time.perf_counter()
            ledger.sql(query)
            times.append((time.perf_counter() - began) * 1e3)
        print(f"{name:28} first {times[0]:7.1f} ms   then {statistics.median(times[1:]):7.1f} ms")
    ledger.journal.write(receipt(0))
    began = time.perf_counter()
    ledger.sql("SELECT count(*) FROM calls")
    print(f"{'the same with a row waiting':28}       {(time.perf_counter() - began) * 1e3:7.1f} ms")
    ledger.journal.close()


def main(rows: int = 20_000, rounds: int = 4000) -> None:
    """Run all three parts on files in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        call_path(Path(name), rounds)
        asking(copying(Path(name), rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
