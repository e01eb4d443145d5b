"""What a team's journal costs: rows a second beside SQLite's, alone and with four kernels, on this machine in one run.

PostgreSQL runs with fsync, SQLite as tokenkit uses it (outlives the process) and at the same promise (``power``). A
call under a budget is two transactions: reserve, and settle with the receipt. ``python bench_team.py 500``
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # clusters.py serves the tests, too

from bench_journal import receipt
from clusters import Cluster

from tokenkit.accounts import Accounts
from tokenkit.budget import Ask, Budget, Who
from tokenkit.journal import Journal
from tokenkit.ledger.chain import verify
from tokenkit.team import TeamJournal

NOBODY = Who(None, "p", "p/m", None, None)
BUDGETS = [Budget("1000000 USD", name="all"), Budget("1000000 USD", window="day"), Budget("9000M tokens")]


def opened(place: str) -> Journal | TeamJournal:
    """Open the journal a word on the command line names."""
    if place.startswith("postgresql:"):
        return TeamJournal(place, patience=60)
    path, durability = place.split("|")
    return Journal(path, durability="power" if durability == "power" else "process", patience=60)


def ways(journal: Journal | TeamJournal) -> dict[str, Callable[[int], object]]:
    """What is timed: a receipt alone, and a call on three budgets."""
    books = Accounts(lambda: journal, BUDGETS)

    def call(number: int) -> None:
        one = receipt(number)
        if books.reserve(books.rules(), NOBODY, one.id, Ask(500, 500, 10**7), lambda: one):
            raise SystemExit("refused: raise the limits")
        books.write(one)

    return {"receipt": lambda number: journal.write(receipt(number)), "call on 3 budgets": call}


def work(place: str, name: str, rounds: int) -> None:
    """Be one of several kernels: say when ready, wait for the word, say how long it took."""
    journal = opened(place)
    way = ways(journal)[name]
    way(0)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for number in range(rounds):
        way(number)
    print(time.perf_counter() - began, flush=True)
    journal.close()


def crowd(place: str, name: str, rounds: int, kernels: int) -> float:
    """Return rows a second of so many kernels together."""
    command = [sys.executable, __file__, "work", place, name, str(rounds)]
    them = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(kernels)]
    for one in them:
        assert one.stdout is not None
        one.stdout.readline()
    for one in them:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    slowest = max(float(one.communicate(timeout=300)[0]) for one in them)
    return kernels * rounds / slowest


def main(rounds: int = 400) -> None:
    """Print a table: each way, on each journal, by one kernel and by four."""
    cluster = Cluster()
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = {
                "PostgreSQL, fsync": cluster.url(),
                "SQLite, power (fsync)": f"{folder}/power.sqlite3|power",
                "SQLite, process": f"{folder}/process.sqlite3|process",
            }
            for name in ("receipt", "call on 3 budgets"):
                for what, place in places.items():
                    journal = opened(place)
                    way = ways(journal)[name]
                    times = []
                    for number in range(rounds):
                        began = time.perf_counter()
                        way(number)
                        times.append((time.perf_counter() - began) * 1e6)
                    journal.close()
                    alone, four = (crowd(place, name, rounds, kernels) for kernels in (1, 4))
                    late = sorted(times)[int(rounds * 0.99)]
                    print(
                        f"{name:18} {what:22} p50 {statistics.median(times):7.0f} µs  p99 {late:8.0f}   "
                        f"{alone:7,.0f}/s alone  {four:7,.0f}/s by 4 kernels"
                    )
            whole(places.values())
    finally:
        cluster.remove()


def whole(places: Iterable[str]) -> None:
    """Stop with a sentence where a chain broke: fast and wrong is no result."""
    for place in places:
        journal = opened(place)
        found = verify(journal)
        journal.close()
        if not found:
            raise SystemExit(str(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*map(int, sys.argv[1:]))
