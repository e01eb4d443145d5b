"""What-if over a long log: folding it once, then moving a weight. Growth over lengths is what counts: near 1 to slide.

python tests/bench/bench_replay.py [CALLS ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tokenkit import Kit, Policy

QUESTIONS = {
    "spend by model": "select model, sum(cost_usd) from calls group by model",
    "spend by day": "select cast(started_at as date), sum(cost_usd) from calls group by 1 order by 1",
    "latency": "select model, quantile_cont(seconds, [0.5, 0.95]) from attempts where status = 'ok' group by model",
    "dearest users": 'select "user", sum(cost_usd) from calls group by 1 order by 2 desc limit 10',
    "compression": "select stage, sum(tokens_after) / sum(tokens_before) from stages group by stage",
}


def main(lengths: list[int]) -> None:
    """Print the fold, the slide and the standard questions for each length."""
    slid = 0.0
    for calls in lengths:
        with tempfile.TemporaryDirectory() as home:
            began = time.perf_counter()
            kit = Kit.synthetic(calls, home=Path(home))
            made = time.perf_counter() - began
            with kit:
                kit.ledger.sql("select 1 as one")
                began = time.perf_counter()
                slider = kit.replay().slider
                folded = time.perf_counter() - began
                moves = []
                for n in range(200):
                    began = time.perf_counter()
                    slider.choose(Policy(weights={"small": n / 20}))
                    moves.append(time.perf_counter() - began)
                middle = statistics.median(moves) * 1000
                growth = f"   {middle / slid:.2f} x the last" if slid else ""
                slid = middle
                size = kit.ledger.path.stat().st_size / calls
                print(
                    f"{calls:>11,} calls: made in {made:.1f} s, {size:.0f} bytes a call, "
                    f"folded in {folded * 1000:.0f} ms, a move takes {middle:.3f} ms{growth}"
                )
                for name, question in QUESTIONS.items():
                    times = []
                    for _ in range(5):
                        began = time.perf_counter()
                        kit.ledger.sql(question)
                        times.append(time.perf_counter() - began)
                    print(f"{'':14}{name:16} {statistics.median(times) * 1000:6.0f} ms")


if __name__ == "__main__":
    main([int(float(word)) for word in sys.argv[1:]] or [10_000, 1_000_000, 10_000_000])
