"""The standard questions over a long log, beside pandas and polars on the same calls: one run, medians, ratios.

``kit.ledger.sql`` opens the file, checks for waiting rows, answers, and closes, each time. pandas and polars read the
Parquet export of the same calls (only the columns they need); pandas (which needs pyarrow for it) also has the frame
in memory already. The answers must agree. Then how times grow with the log, opening alone, and bytes a call.

    python bench_questions.py [calls ...]      # by default 100000 1000000; 10000000 takes a few minutes more
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tokenkit import Kit

try:
    import polars as pl
except ImportError:  # only this bench knows it
    pl = None

SQL = {
    "cost by day and model": """SELECT CAST(started_at AS DATE) AS day, model, sum(cost_nanos)::BIGINT AS n
        FROM calls GROUP BY ALL""",
    "p95 latency by provider": """SELECT provider, quantile_cont(seconds, 0.95) AS n FROM calls
        WHERE status = 'ok' GROUP BY ALL""",
    "compression by stage": """SELECT stage, sum(tokens_after)::BIGINT AS n FROM stages
        WHERE skipped IS NULL GROUP BY ALL""",
    "spend of the last day by user": """SELECT "user", sum(cost_nanos)::BIGINT AS n FROM calls
        WHERE started_at_ns >= (SELECT max(started_at_ns) FROM calls) - 86400000000000 GROUP BY ALL""",
}  # fmt: skip

COLUMNS = {
    "cost by day and model": ("calls", ["started_at", "model", "cost_nanos"]),
    "p95 latency by provider": ("calls", ["provider", "seconds", "status"]),
    "compression by stage": ("stages", ["stage", "tokens_after", "skipped"]),
    "spend of the last day by user": ("calls", ["user", "started_at_ns", "cost_nanos"]),
}
DAY = 86_400 * 10**9


def in_pandas(name: str, frame: pd.DataFrame) -> float:
    """Answer in pandas; return the sum of the answer's column, to compare by."""
    if name == "cost by day and model":
        answer = frame.groupby([frame["started_at"].dt.date, "model"])["cost_nanos"].sum()
    elif name == "p95 latency by provider":
        answer = frame[frame["status"] == "ok"].groupby("provider")["seconds"].quantile(0.95)
    elif name == "compression by stage":
        answer = frame[frame["skipped"].isna()].groupby("stage")["tokens_after"].sum()
    else:
        late = frame[frame["started_at_ns"] >= frame["started_at_ns"].max() - DAY]
        answer = late.groupby("user", dropna=False)["cost_nanos"].sum()
    return float(answer.sum())


def in_polars(name: str, path: Path) -> float:
    """Answer in polars, lazily from the file."""
    rows = pl.scan_parquet(path)
    if name == "cost by day and model":
        answer = rows.group_by(pl.col("started_at").dt.date(), "model").agg(pl.col("cost_nanos").sum().alias("n"))
    elif name == "p95 latency by provider":
        p95 = pl.col("seconds").quantile(0.95, "linear").alias("n")
        answer = rows.filter(pl.col("status") == "ok").group_by("provider").agg(p95)
    elif name == "compression by stage":
        answer = rows.filter(pl.col("skipped").is_null()).group_by("stage").agg(pl.col("tokens_after").sum().alias("n"))
    else:
        recent = pl.col("started_at_ns") >= pl.col("started_at_ns").max() - DAY
        answer = rows.filter(recent).group_by("user").agg(pl.col("cost_nanos").sum().alias("n"))
    return float(answer.collect()["n"].sum())


def timed(work: Callable[[], Any], rounds: int = 5) -> tuple[float, Any]:
    """Return the median of some rounds in milliseconds, the first left out as a warm-up, and the answer."""
    times, answer = [], work()
    for _ in range(rounds):
        began = time.perf_counter()
        answer = work()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), answer


def ask(kit: Kit, folder: Path, calls: int) -> dict[str, float]:
    """Print every question's time beside the others'; return ours in milliseconds."""
    files = {"calls": kit.ledger.export(folder / "calls.parquet"), "stages": folder / "stages.parquet"}
    with duckdb.connect() as connection:  # our own export is of calls
        connection.execute(f"ATTACH '{kit.ledger.path}' AS ledger (READ_ONLY)")
        connection.execute(f"COPY ledger.stages TO '{files['stages']}'")
    ours: dict[str, float] = {}
    print(f"\n{calls:,} calls; milliseconds   ledger.sql   polars, Parquet   pandas, Parquet   pandas, in memory")
    for name, query in SQL.items():
        table, columns = COLUMNS[name]
        path = files[table]
        ours[name], frame = timed(lambda query=query: kit.ledger.sql(query))
        found = float(frame["n"].sum())
        from_file, other = timed(lambda n=name, p=path, c=columns: in_pandas(n, pd.read_parquet(p, columns=c)), 3)
        held = pd.read_parquet(path, columns=columns)
        in_memory, _ = timed(lambda n=name, f=held: in_pandas(n, f), 3)
        assert abs(found - other) <= 1e-6 * abs(found), (name, found, other)
        lazy = None
        if pl is not None:
            lazy, third = timed(lambda n=name, p=path: in_polars(n, p))
            assert abs(found - third) <= 1e-6 * abs(found), (name, found, third)
        cells = (lazy, from_file, in_memory)
        beside = "   ".join("    not installed" if t is None else f"{t:7.1f} ({t / ours[name]:5.2f} x)" for t in cells)
        print(f"{name:30} {ours[name]:9.1f}   {beside}")
    return ours


def main(sizes: list[int]) -> None:
    """Ask at every size, each in a home of its own."""
    before: tuple[int, dict[str, float]] | None = None
    for calls in sizes:
        with tempfile.TemporaryDirectory() as name, Kit.synthetic(calls, home=Path(name)) as kit:
            ours = ask(kit, Path(name), calls)
            opening, _ = timed(lambda kit=kit: kit.ledger.sql("SELECT 1"))
            size = kit.ledger.path.stat().st_size
            print(f"opening, answering 'SELECT 1', closing: {opening:.1f} ms; {size / calls:.0f} bytes a call")
            ours["opening"] = opening
            if before is not None:
                times = ", ".join(f"{name} {ours[name] / before[1][name]:.2f}" for name in ours)
                print(f"growth from {before[0]:,} to {calls:,} calls ({calls / before[0]:g} x): {times}")
            before = (calls, ours)


if __name__ == "__main__":
    main([int(float(word)) for word in sys.argv[1:]] or [100_000, 1_000_000])
