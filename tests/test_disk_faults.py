"""A disk that fails at any change: the answer always comes, what was acknowledged stays, budgets are never overdrawn.

Each test starts this file as a script, in a child whose disk can fail. The child walks through every n until a whole
run meets no fault; each n has a copy of one prepared home and a process of its own, and ends in one of three ways:
its kit goes on, closes while the disk still fails, or dies. What is left is then looked at by another process.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from disk import Disk, apart, built

import tokenkit as tk
from tokenkit.errors import BudgetExceeded, LedgerError
from tokenkit.ledger.chain import verify
from tokenkit.providers.simulated import Fault
from tokenkit.receipts import Receipt

LONG = os.environ.get("TOKENKIT_LONG") == "1"


class Way(NamedTuple):
    """How a disk fails."""

    error: int
    sticky: bool = False
    torn: bool = False
    syncs_only: bool = False


WAYS = {
    "EIO": Way(errno.EIO),
    "ENOSPC for good": Way(errno.ENOSPC, sticky=True),
    "EIO for good": Way(errno.EIO, sticky=True),
    "EIO, torn": Way(errno.EIO, torn=True),
    "ENOSPC": Way(errno.ENOSPC),
    "EIO in a sync": Way(errno.EIO, syncs_only=True),
    "EIO in every sync": Way(errno.EIO, sticky=True, syncs_only=True),
}

Arm = Callable[[], Disk]
Facts = dict[str, Any]
Run = Callable[[str, Arm, Path], Facts]
Check = Callable[[Path, Facts, bool], None]

BARE = re.compile(r"Traceback|Stack Trace|\b\w+(Error|Exception)\b(?! code)")


def in_prose(message: str, home: Path) -> None:
    """One sentence or more that names the file and is no bare error of a library."""
    assert not BARE.search(message), message
    assert "\n" not in message, message
    assert str(home) in message, message
    assert message.endswith("."), message


def sweep(base: Path, way: str, step: int, run: Run, check: Check) -> Counter[str]:
    """Fail the first change, the next by ``step`` and so on, until a run meets no fault; add up what runs counted."""
    total: Counter[str] = Counter()
    for n in count(1, step):
        for ending in ENDINGS if LONG else (ENDINGS[n % len(ENDINGS)],):
            home = base / "home"
            shutil.copytree(base / "prepared", home)

            def arm(n: int = n, home: Path = home) -> Disk:
                disk = Disk(home)
                disk.arm(n, **WAYS[way]._asdict())
                return disk

            try:
                facts = apart(partial(run, ending, arm, home))
                apart(partial(check, home, facts, LONG or n % 4 == 0))
            except AssertionError as error:
                raise AssertionError(f"{way}, {ending}, at change {n}: {error}") from error
            shutil.rmtree(home)
            total.update({"runs": 1, **{key: facts[key] for key in facts if isinstance(facts[key], int)}})
        if not facts["failed"]:
            break
    return total


def unwritten(receipt: Receipt, home: Path) -> bool:
    """Whether a receipt says that it was not written; if so it must say so in prose."""
    said = [note.removeprefix("not recorded: ") for note in receipt.notes if note.startswith("not recorded")]
    for note in said:
        in_prose(note, home)
    return bool(said)


def asked(kit: tk.Kit) -> int:
    """How often the simulated world was asked."""
    return sum(sum(provider.local.calls.values()) for provider in kit.providers)


def calling(ending: str, arm: Arm, home: Path) -> Facts:
    """Two calls on a failing disk, the first of which opens the journal."""
    facts: Facts = {"written": [], "unwritten": 0}

    def ask(prompt: str) -> bool:
        answer = kit.call(prompt, model="swift", max_tokens=5)
        assert answer.text, "the answer was lost"
        lost = unwritten(answer.receipt, home)
        facts["unwritten"] += lost
        facts["written"] += [] if lost else [answer.receipt.id]
        return not lost

    kit = tk.Kit.simulated(pace=0, home=home)
    disk = arm()
    ask("One.")
    ask("Two.")
    if ending == "closes":
        kit.close()
    facts["failed"] = disk.mend()
    if ending == "goes on":
        assert ask("Three."), "the disk is whole again, and still nothing is written"
    return facts


def called(home: Path, facts: Facts, thorough: bool) -> None:
    with tk.Kit.simulated(pace=0, home=home) as kit:
        after = kit.call("After.", model="swift", max_tokens=5)
        assert not unwritten(after.receipt, home)
        whole(kit, [*facts["written"], after.receipt.id], thorough)


def whole(kit: tk.Kit, written: list[str], thorough: bool) -> None:
    """Every acknowledged receipt is in the journal (and, if asked thoroughly, in the ledger), and none twice."""
    found = verify(kit.journal)
    assert found, str(found)
    ids = [entry.receipt.id for entry in kit.journal.rows()]
    assert len(set(ids)) == len(ids)
    assert set(written) <= set(ids), "acknowledged, and lost"
    if thorough:
        rows = kit.ledger.df()
        assert kit.ledger.note is None, kit.ledger.note
        assert rows["id"].tolist() == ids
        assert kit.ledger.verify()


def closed(error: BudgetExceeded, sent: int, home: Path) -> None:
    """A hard budget that cannot be read says so, and has sent nothing since."""
    in_prose(str(error), home)
    assert "Nothing was sent, because the budgets cannot be" in str(error), error
    assert sent == 0, "refused, and yet sent"


def spending(ending: str, arm: Arm, home: Path) -> Facts:
    """Two calls under a hard budget; the first try of the first one fails, and is settled by itself."""
    facts: Facts = {"written": [], "unwritten": 0, "refused": 0, "in full": 0, "paid": 0}
    kit = tk.Kit.simulated(pace=0, home=home, faults=[Fault(calls=(1,), status=500, retry_after=0)])
    kit.budgets.status()
    assert kit.accounts.rules()
    disk = arm()
    for prompt in ("One.", "Two."):
        before = asked(kit)
        try:
            answer = kit.call(prompt, model="sage", max_tokens=20)
        except BudgetExceeded as error:
            closed(error, asked(kit) - before - (before == 0 and len(error.receipt.attempts)), home)
            facts["refused"] += 1
            facts["unwritten"] += unwritten(error.receipt, home)
            continue
        assert answer.text, "the answer was lost"
        facts["paid"] += answer.receipt.cost_nanos
        facts["in full"] += any("not settled" in note for note in answer.receipt.notes)
        lost = unwritten(answer.receipt, home)
        facts["unwritten"] += lost
        facts["written"] += [] if lost else [answer.receipt.id]
    if ending == "closes":
        kit.close()
    facts["failed"] = disk.mend()
    if ending == "goes on":
        answer = kit.call("Three.", model="sage", max_tokens=20)
        assert not unwritten(answer.receipt, home)
        facts["paid"] += answer.receipt.cost_nanos
        facts["written"].append(answer.receipt.id)
    return facts


def spent(home: Path, facts: Facts, thorough: bool) -> None:
    with tk.Kit.simulated(pace=0, home=home) as kit:
        (stands,) = kit.budgets.status()
        assert stands.spent + stands.held <= stands.budget.amount, stands
        kit.budgets.sweep(everything=True)
        (stands,) = kit.budgets.status()
        assert (stands.held, stands.violations) == (0, 0), stands
        assert facts["paid"] <= stands.spent <= stands.budget.amount, (facts, stands)
        charged = sum(c.charged for entry in kit.journal.rows() for c in entry.receipt.charges)
        assert charged == stands.spent, "the receipts and the books disagree"
        after = kit.call("After.", model="sage", max_tokens=20)
        whole(kit, [*facts["written"], after.receipt.id], thorough)


def asking(ending: str, arm: Arm, home: Path) -> Facts:
    """A question to the ledger while rows wait in the journal."""
    facts: Facts = {"refused": 0, "noted": 0}
    kit = tk.Kit.simulated(pace=0, home=home)
    disk = arm()
    try:
        rows = kit.ledger.df()
        assert rows["id"].tolist() == IDS, "the answer left calls out"
        if "note" in rows.attrs:
            facts["noted"] = 1
            in_prose(rows.attrs["note"], home)
    except LedgerError as error:
        facts["refused"] = 1
        in_prose(str(error), home)
    if ending == "closes":
        kit.close()
    facts["failed"] = disk.mend()
    if ending == "goes on":
        assert kit.ledger.df()["id"].tolist() == IDS
        assert kit.ledger.note is None, kit.ledger.note
    return facts


def answered(home: Path, facts: Facts, thorough: bool) -> None:
    import duckdb

    with tk.Kit.simulated(pace=0, home=home) as kit:
        assert kit.ledger.df()["id"].tolist() == IDS
        assert kit.ledger.note is None, kit.ledger.note
        with duckdb.connect(str(kit.ledger.path), read_only=True) as file:
            ids = [row[0] for row in file.execute("SELECT id FROM calls ORDER BY seq").fetchall()]
        assert ids == IDS, "the file itself has not every row once"
        left = sorted(path.name for path in home.iterdir() if "duckdb" in path.name)
        assert left == FILES, left


IDS = [f"{number:032x}" for number in range(31)]
FILES = ["ledger.duckdb", "ledger.duckdb.lock"]


def warm() -> None:
    """Load what every run needs once, so that its forks find it there."""
    for module in ("duckdb", "numpy", "pandas", "tokenkit.analysis"):
        import_module(module)
    with tk.Kit.simulated(pace=0) as kit:
        kit.call("Warm.", max_tokens=5)


def prepare(base: Path, *, budget: bool = False, waiting: int = 0, ledger: bool = True) -> None:
    shutil.rmtree(base / "prepared", ignore_errors=True)
    with tk.Kit.simulated(pace=0, home=base / "prepared") as kit:
        for number in range(1 if ledger else 0):
            kit.journal.write(Receipt(IDS[number], 10**18, 1.0, "ok", "auto", prompt="x" * 500))
            kit.ledger.df()
        if budget:
            kit.budgets.set("0.02 USD", window="total")
        for number in range(1 if ledger else 0, waiting):
            kit.journal.write(Receipt(IDS[number], 10**18, 1.0, "ok", "auto", prompt="x" * 500))


ENDINGS = ("goes on", "closes", "dies")


class Scenario(NamedTuple):
    """What a home holds before, what is done on it while the disk fails, and what must then be true."""

    prepared: dict[str, Any]
    run: Run
    check: Check


SCENARIOS = {
    "calls": Scenario({}, calling, called),
    "budget": Scenario({"budget": True}, spending, spent),
    "questions": Scenario({"waiting": 31}, asking, answered),
    "first question": Scenario({"waiting": 31, "ledger": False}, asking, answered),
}


SHORT = (
    ("calls", "EIO", 1), ("budget", "EIO", 2), ("budget", "ENOSPC for good", 3), ("questions", "EIO", 3),
    ("first question", "ENOSPC for good", 8),
)  # fmt: skip
"""What every run of the tests walks through, in which steps; the long profile walks through all, one by one."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("shim"))


@pytest.mark.timeout(1200 if LONG else 240)
@pytest.mark.parametrize(("scenario", "way", "step"), [*product(SCENARIOS, WAYS, (1,))] if LONG else SHORT)
def test_no_change_of_the_disk_that_fails_costs_more_than_itself(
    tmp_path: Path, shim: Path, scenario: str, way: str, step: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, scenario, way, str(step), str(tmp_path)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["failed"] >= found["runs"] / len(ENDINGS) - 1
    mattered = found.get("unwritten", 0) + found.get("refused", 0) + found.get("noted", 0)
    assert mattered > 0 or WAYS[way].syncs_only, f"no fault ever mattered: this test proved nothing ({found})"


def main(scenario: str, way: str, step: int, base: Path) -> None:
    """Walk through a scenario in this process, whose disk can fail, and print what was counted."""
    warnings.simplefilter("error")
    warm()
    prepared, run, check = SCENARIOS[scenario]
    prepare(base, **prepared)
    print(json.dumps(sweep(base, way, step, run, check)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
