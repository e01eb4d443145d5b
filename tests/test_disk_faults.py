"""A disk that fails at any write: the answer always comes, what was acknowledged stays, budgets are never overdrawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import disk

# Each child walks through every n until a whole run meets no fault, each in a home of its own, and prints what it saw.
BEGIN = """
import errno, json, shutil, sys, warnings
from pathlib import Path
import tokenkit as tk
from tokenkit.errors import BudgetExceeded, LedgerError, TokenkitError
from disk import Disk
warnings.simplefilter("ignore")
base, code, sticky = Path(sys.argv[1]), getattr(errno, sys.argv[2]), sys.argv[3] == "sticky"
told = {"runs": 0, "faults": 0, "lost": 0, "refused": 0, "not recorded": 0, "waited": 0}

def homes():
    # Yields homes and disks until nothing was hit.
    for n in range(1, 400):
        home = base / f"home-{n}"
        if (base / "prepared").exists():
            shutil.copytree(base / "prepared", home)
        disk = Disk(str(home))
        yield n, home, disk
        told["runs"] += 1
        hit = disk.hit
        told["faults"] += hit
        if not hit:
            return
    raise AssertionError("the faults never end")
"""

CALLS = (
    BEGIN
    + """
LIMIT = "0.01 USD"
budget, durability = sys.argv[4] == "budget", sys.argv[5]
for n, home, disk in homes():
    home.mkdir(exist_ok=True)
    file = base / "tokenkit.toml"
    file.write_text(f'[ledger]\\ndurability = "{durability}"\\n')
    with tk.Kit(file, home=home, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        kit._providers["simulated"].local.pace = 0
        if budget:
            kit.budgets.set(LIMIT, window="total")
        acknowledged, spent = [], 0
        if n % 2:  # half of the homes are new to the disk's faults, half have been used
            acknowledged.append(kit.call("Before.", max_tokens=5).receipt)
        disk.arm(n, code, sticky=sticky)
        for turn in range(2):
            try:
                answer = kit.call(f"Turn {turn}.", max_tokens=5)
            except BudgetExceeded as error:
                assert budget, error
                assert "cannot be" in str(error) or "has" in str(error), error
                told["refused"] += 1
                continue
            assert answer.text, "the answer was lost"
            if any(note.startswith("not recorded") for note in answer.receipt.notes):
                told["not recorded"] += 1
            else:
                acknowledged.append(answer.receipt)
        disk.hit = disk.mend()
        after = kit.call("After.", max_tokens=5)
        assert not any(note.startswith("not recorded") for note in after.receipt.notes), after.receipt.notes
        acknowledged.append(after.receipt)
        assert kit.ledger.verify(), kit.ledger.verify().message
        rows = kit.ledger.df()
        assert rows["id"].is_unique
        there = set(rows["id"])
        told["lost"] += sum(receipt.id not in there for receipt in acknowledged)
        if budget:
            kit.budgets.sweep(everything=True)
            (stands,) = kit.budgets.status()
            assert (stands.held, stands.violations) == (0, 0), stands
            assert stands.spent <= stands.budget.amount
            known = kit.ledger.sql("select sum(charged)::BIGINT as n from charges").iloc[0, 0]
            assert known == stands.spent, (n, known, stands)
            assert stands.spent >= sum(receipt.cost_nanos for receipt in acknowledged)
    shutil.rmtree(home)
print(json.dumps(told))
"""
)

READS = (
    BEGIN
    + """
from tokenkit.receipts import Receipt
prepared = base / "prepared"
with tk.Kit.simulated(pace=0, home=prepared) as kit:
    kit.call("Copied before.", max_tokens=5)
    kit.ledger.df()
    for number in range(30):
        kit.journal.write(Receipt(f"{number:032x}", 10**18, 1.0, "ok", "auto", prompt="x" * 500))
for n, home, disk in homes():
    with tk.Kit.simulated(pace=0, home=home) as kit:
        disk.arm(n, code, sticky=sticky)
        try:
            assert len(kit.ledger.df()) == 31, "an answer left calls out"
            told["waited"] += kit.ledger.note is not None
        except LedgerError as error:
            assert "\\n" not in str(error)
            told["refused"] += 1
        disk.hit = disk.mend()
        rows = kit.ledger.df()
        told["lost"] += 31 - len(set(rows["id"]))
        assert rows["id"].is_unique
        kit.call("After.", max_tokens=5)
        assert len(kit.ledger.df()) == 32
        assert kit.ledger.note is None, kit.ledger.note
        assert kit.ledger.verify()
    shutil.rmtree(home)
print(json.dumps(told))
"""
)


EVERY = [("EIO", "once"), ("ENOSPC", "sticky"), ("EIO", "sticky"), ("ENOSPC", "once")]
FAULTS = pytest.mark.parametrize(("error", "sticky"), EVERY if os.environ.get("TOKENKIT_LONG") == "1" else EVERY[:2])


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disk.built(tmp_path_factory.mktemp("shim"))


def run(code: str, shim: Path, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=disk.environment(shim),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@FAULTS
@pytest.mark.parametrize("budget", ["plain", "budget"])
def test_no_answer_and_nothing_acknowledged_is_lost(
    tmp_path: Path, shim: Path, error: str, sticky: str, budget: str
) -> None:
    told = run(CALLS, shim, tmp_path, error, sticky, budget, "process")
    assert told["lost"] == 0
    assert told["faults"] >= told["runs"] - 1 > 5
    assert told["refused"] + told["not recorded"] > 0, "no fault ever mattered: this test proved nothing"


def test_a_journal_that_outlives_power_cuts_says_when_a_sync_fails(tmp_path: Path, shim: Path) -> None:
    told = run(CALLS, shim, tmp_path, "EIO", "once", "plain", "power")
    assert told["lost"] == 0
    assert told["not recorded"] > 0


@FAULTS
def test_every_answer_is_complete_or_one_sentence(tmp_path: Path, shim: Path, error: str, sticky: str) -> None:
    told = run(READS, shim, tmp_path, error, sticky)
    assert told["lost"] == 0
    assert told["faults"] >= told["runs"] - 1 > 5
    assert told["refused"] + told["waited"] > 0, "no fault ever mattered: this test proved nothing"
