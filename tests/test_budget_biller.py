"""Budgets against a provider that keeps its own book: many kernels, faults, cancelled streams and kill -9.

With ``TOKENKIT_LONG=1`` at the size of the promise: 1,000 calls, 20 kills, 1 USD.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import biller
import pytest

LONG = os.environ.get("TOKENKIT_LONG") == "1"
CALLS, KILLS, LIMIT, MOST = (1000, 20, "1 USD", 400) if LONG else (240, 5, "0.4 USD", 400)


def kernel(home: Path, url: str, calls: int, seed: int, how: str = "wild") -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(biller.__file__)), str(home), url, str(calls), str(seed), str(MOST), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(kernels: list[subprocess.Popen[str]]) -> None:
    for one in kernels:
        one.communicate(timeout=120)
        assert one.returncode in (0, -signal.SIGKILL)


def nanos(limit: str) -> int:
    return int(float(limit.split()[0]) * 10**9)


def test_four_kernels_with_kills_and_cancels_overspend_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    with biller.Biller(seed=1) as provider:
        with biller.kit_of(str(tmp_path), provider.url) as kit:
            kit.budgets.set(LIMIT)
        kernels = [kernel(tmp_path, provider.url, CALLS // 4, seed) for seed in range(4)]
        for n in range(KILLS):
            victim = kernels[chance.randrange(len(kernels))]
            assert victim.stdout is not None
            victim.stdout.readline()  # it is in the middle of its calls, or at their end
            time.sleep(chance.random() * 0.05)
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            kernels.remove(victim)
            kernels.append(kernel(tmp_path, provider.url, CALLS // 4, 100 + n))
        finish(kernels)
        time.sleep(0.1)  # streams whose reader is gone find out at their next chunk
        invoice = provider.book

    with biller.kit_of(str(tmp_path), "http://127.0.0.1:1/v1") as kit:
        assert kit.budgets.sweep(everything=True) >= len(kit.budgets.unknown())
        (stands,) = kit.budgets.status()
        assert stands.held == 0
        assert stands.violations == 0
        assert stands.spent <= nanos(LIMIT)
        assert invoice <= nanos(LIMIT)
        logged = kit.ledger.sql("select sum(cost_nanos) as nanos, count(*) as calls from calls").iloc[0]
        assert logged["nanos"] >= invoice
        assert logged["nanos"] == stands.spent, "money and log disagree"
        touched = kit.ledger.sql("select charged from budgets_touched where account = ?", [stands.account])
        assert touched["charged"].tolist() == [stands.spent], "an account is not the sum of what it was charged"
        assert kit.budgets.unknown(), "no kernel was killed while a call was under way: this test proved nothing"
        assert kit.ledger.verify()

        before = stands.spent
        one = kit.budgets.unknown()[0]
        kit.budgets.reconcile(one.id, "0 USD")
        assert kit.budgets.status()[0].spent == before - one.attempts[-1].cost_nanos
        total = kit.ledger.sql("select sum(cost_nanos) as nanos from calls").iloc[0]["nanos"]
        assert total == kit.budgets.status()[0].spent


def test_without_kills_nearly_all_of_the_limit_is_used(tmp_path: Path) -> None:
    limit = 100_000_000
    with biller.Biller(seed=2, faults=False) as provider:
        with biller.kit_of(str(tmp_path), provider.url) as kit:
            kit.budgets.set("0.1 USD")
        finish([kernel(tmp_path, provider.url, 120, seed, "calm") for seed in range(4)])
        invoice, costs = provider.book, list(provider.billed)
    worst = biller.PROMPT_TOKENS * biller.INPUT_NANOS + MOST * biller.OUTPUT_NANOS
    greedy = 0
    for cost in costs * 4:
        if greedy + worst <= limit:
            greedy += cost
    assert invoice <= limit
    assert invoice >= 0.95 * greedy, f"only {invoice / greedy:.1%} of what one kernel alone would have used"


@pytest.mark.parametrize("lease", [0.05])
def test_a_sleeper_who_comes_back_is_charged_once(tmp_path: Path, lease: float) -> None:
    """A machine that sleeps through its lease is swept by another kernel, and put right when it wakes."""
    with biller.Biller(seed=3, faults=False) as provider, biller.kit_of(str(tmp_path), provider.url) as kit:
        kit.budgets.set("1 USD")
        kit.accounts._lease = int(lease * 10**9)
        stream = kit.stream(biller.prompt(), max_tokens=MOST)
        next(stream)
        time.sleep(2 * lease)
        with biller.kit_of(str(tmp_path), provider.url) as other:
            assert other.budgets.sweep() == 1
            assert len(other.budgets.unknown()) == 1
            assert other.budgets.status()[0].spent > provider.book
        for _ in stream:
            pass
        (stands,) = kit.budgets.status()
        assert (stands.spent, stands.held) == (provider.book, 0)
        assert kit.budgets.unknown() == ()
        logged = kit.ledger.sql("select sum(cost_nanos) as nanos, count(*) as rows from calls").iloc[0]
        assert (logged["nanos"], logged["rows"]) == (provider.book, 3)
