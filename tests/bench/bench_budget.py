"""What a budget costs a call, and what it is worth: time with none, one and three; overspend beside checking first.

The last part plays one log two ways, 64 calls at once: check what is spent and then send, as others do, against holding
the worst case. Both see the same calls; the first overspends by what was in flight.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from tokenkit import Kit
from tokenkit.accounts import Accounts
from tokenkit.budget import Ask, Budget, Who
from tokenkit.journal import Journal
from tokenkit.receipts import Attempt, Receipt
from tokenkit.types import Usage

AT_ONCE = 64


def per_call(budgets: int, rounds: int = 7, calls: int = 300) -> float:
    """Return microseconds of a simulated call that is answered at once, under so many budgets."""
    with Kit.simulated(pace=0) as kit:
        for n in range(budgets):
            kit.budgets.set("1000 USD", window=("day", "month", "total")[n])
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(calls):
                kit.call("Name a river.", model="sage", max_tokens=20)
            times.append((time.perf_counter() - began) / calls * 1e6)
        return statistics.median(times)


def played(limit: int, calls: int = 4000) -> tuple[int, int]:
    """Return what two ways of keeping ``limit`` (nano-USD) spend on the same calls: checking first, and holding."""
    chance = random.Random(1)
    log = [(worst := chance.randint(1000, 4000), chance.randint(100, worst)) for _ in range(calls)]
    spent, flying = 0, []
    for _, cost in log:
        if spent < limit:  # what is in flight is not counted yet
            flying.append(cost)
        if len(flying) >= AT_ONCE:
            spent += flying.pop(0)
    checked = spent + sum(flying)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite3")
        accounts = Accounts(lambda: journal, [Budget(f"{limit / 10**9:.9f} USD")])
        caller, open_calls = Who(None, "p", "p/m", None, None), []

        def receipt(n: int, cost: int) -> Receipt:
            attempt = Attempt("p/m", "p", n, usage=Usage(1, 1), cost_nanos=cost)
            return Receipt(f"c{n}", n, 0.0, "ok", "p/m", cost_nanos=cost, attempts=(attempt,))

        for n, (worst, cost) in enumerate(log):
            lost = receipt(n, worst)
            if accounts.reserve(accounts.rules(), caller, f"c{n}", Ask(1, 1, worst), lambda lost=lost: lost):
                accounts.forget(lost)
            else:
                open_calls.append(receipt(n, cost))
            if len(open_calls) >= AT_ONCE:
                accounts.write(open_calls.pop(0))
        for one in open_calls:
            accounts.write(one)
        held = accounts.status()[0].spent
        journal.close()
    return checked, held


def kept(past: int, accounts_there: int, rounds: int = 2000) -> tuple[float, float]:
    """Return microseconds of reserve, settle and receipt, and of one plain insert of the same row, after ``past``."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite3")
        books = Accounts(lambda: journal, [Budget("1000000 USD", user="*")])
        attempt = Attempt("p/m", "p", 1, usage=Usage(1, 1), cost_nanos=10)

        def receipt(name: str) -> Receipt:
            return Receipt(name, 1, 0.0, "ok", "p/m", cost_nanos=10, attempts=(attempt,))

        with journal.transaction() as rows:
            body = receipt("old").to_json()
            rows.executemany(
                "INSERT INTO receipts VALUES (?, ?, 1, ?, x'00', x'00')",
                ((n, f"old-{n}", body) for n in range(1, past + 1)),
            )
        callers = [Who(f"user-{n}", "p", "p/m", None, None) for n in range(accounts_there)]
        full, plain = [], []
        for n in range(rounds):
            made = receipt(f"new-{n}")
            began = time.perf_counter()
            books.reserve(books.rules(), callers[n % len(callers)], made.id, Ask(1, 1, 20), lambda made=made: made)
            books.write(made)
            full.append(time.perf_counter() - began)
            began = time.perf_counter()
            with journal.transaction() as rows:
                row = (past + rounds + n + 1, f"plain-{n}", made.to_json())
                rows.execute("INSERT INTO buckets VALUES (?, 1.0, 1.0)", (row[1] + row[2],))
            plain.append(time.perf_counter() - began)
        journal.close()
        return statistics.median(full) * 1e6, statistics.median(plain) * 1e6


def main() -> None:
    """Print all three."""
    before = 0.0
    for past, there in ((1, 1), (100_000, 1), (1_000_000, 1), (1, 100)):
        full, plain = kept(past, there)
        growth = f", {full / before:.2f} x the first" if before else ""
        before = before or full
        print(
            f"{past:>9,} receipts, {there:>3} accounts: reserve, settle and receipt {full:.0f} us, "
            f"one plain insert {plain:.0f} us ({full / plain:.1f} x){growth}"
        )
    none = per_call(0)
    print(f"a simulated call without a budget: {none:.0f} us")
    for budgets in (1, 3):
        with_them = per_call(budgets)
        print(f"  with {budgets} budget{'s' if budgets > 1 else ''}: {with_them:.0f} us ({with_them / none:.2f} x)")
    for limit in (200_000, 1_000_000, 4_000_000):
        checked, held = played(limit)
        print(
            f"limit {limit:,} nano-USD, {AT_ONCE} at once: check then send spends {checked / limit:.1%} of it, "
            f"hold then send {held / limit:.1%}"
        )


if __name__ == "__main__":
    main()
