"""Old rows are let go of the journal: the rest is one chain that says so itself, and nothing newer is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit import Kit
from tokenkit.journal import Journal, beginning, let_go
from tokenkit.ledger import chain
from tokenkit.receipts import Receipt

DAY = 86_400 * 10**9


def filled(folder: Path, days: list[int]) -> Journal:
    """Make a journal with one receipt for each day, in the order they ended."""
    journal = Journal(folder / "journal.sqlite3")
    for number, day in enumerate(days):
        journal.write(Receipt(f"{number:032x}", day * DAY, 1.0, "ok", "auto", prompt="secret plan"))
    return journal


@settings(deadline=None, max_examples=60)
@given(
    days=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    cuts=st.lists(st.tuples(st.integers(0, 10), st.integers(-1, 40)), min_size=1, max_size=4),
)
def test_only_old_rows_go_and_the_rest_is_one_chain(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], cuts: list[tuple[int, int]]
) -> None:
    journal = filled(tmp_path_factory.mktemp("home"), days)
    for before, upto in cuts:
        had = journal.rows(limit=1000)
        gone = let_go(journal, before * DAY, upto)
        left = journal.rows(limit=1000)
        assert left == had[gone:] or left[:-1] == had[gone:]  # the last: the row that tells of it
        assert all(entry.started_at < before * DAY and entry.seq <= upto for entry in had[:gone])
        found = chain.verify(journal)
        assert found, found.message
        assert found.let_go == beginning(journal)[0] == left[0].seq - 1
    journal.write(Receipt("f" * 32, DAY, 1.0, "ok", "auto"))
    assert chain.verify(journal)


def test_rows_deleted_behind_the_chain_s_back_are_found(tmp_path: Path) -> None:
    journal = filled(tmp_path, [1] * 8 + [5] * 2)
    assert let_go(journal, 2 * DAY, 5) == 5
    with journal.transaction() as rows:  # one more row than the chain knows of, and meta made to fit
        digest = rows.execute("SELECT hash FROM receipts WHERE seq = 6").fetchone()[0]
        rows.execute("DELETE FROM receipts WHERE seq = 6")
        assert chain.verify(Journal(tmp_path / "journal.sqlite3")).fault is None  # not committed yet
        rows.executemany("UPDATE meta SET value = ? WHERE key = ?", ((6, "let_go_seq"), (digest, "let_go_hash")))
    found = chain.verify(journal)
    assert found.fault == "deleted"
    assert "no row of the chain says" in str(found)
    with journal.transaction() as rows:
        rows.execute("UPDATE meta SET value = 5 WHERE key = 'let_go_seq'")
    assert chain.verify(journal).fault == "deleted"


def test_a_crash_half_way_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    journal = filled(tmp_path, [1] * 400)
    code = (
        "import sys, tokenkit.journal.retention as r; from tokenkit.journal import Journal; r.AT_ONCE = 1\n"
        "print('go', flush=True); r.let_go(Journal(sys.argv[1]), 2**62, 390)"
    )
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02):
        command = [sys.executable, "-c", code, str(journal.path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        found = chain.verify(journal)
        assert found, found.message
    let_go(journal, 2**62, 390)
    assert journal.rows(limit=1)[0].seq == 391
    assert chain.verify(journal)


def test_what_a_kit_lets_go_is_gone_from_its_files_and_the_numbers_stay(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        for number in range(6):
            kit.call(f"Tell nobody about {'zanzibar' * 30} {number}", max_tokens=5)
        before = kit.ledger.df()
        done = kit.ledger.retain(0, texts_only=True)
        assert done.calls == 6
        assert done.journal_rows == 6
        assert "let go of 6 rows" in repr(done)
        kit.call("After", max_tokens=5)
        after = kit.ledger.df()
        assert after["cost_usd"].tolist()[:6] == before["cost_usd"].tolist()
        assert after["id"].is_unique
        assert kit.ledger.note is None
        said = kit.ledger.verify()
        assert said
        assert "6 older rows were let go" in str(said)
        assert kit.ledger.compact() > 0
        kit.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"zanzibarzanzibar" not in path.read_bytes(), path
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        assert len(kit.ledger.df()) == 7
        kit.call("And on", max_tokens=5)
        assert len(kit.ledger.df()) == 8
        assert kit.ledger.verify()


def test_the_journal_is_kept_where_asked_for(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        for _ in range(3):
            kit.call("Hello", max_tokens=5)
        done = kit.ledger.retain(0, keep_journal=True)
        assert (done.calls, done.journal_rows) == (3, None)
        assert len(kit.journal.rows()) == 3
        assert kit.ledger.df().empty
        assert kit.ledger.retain(0).journal_rows == 3
        assert kit.receipt() is None


def test_budgets_do_not_forget_what_was_spent(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        kit.budgets.set("1 USD", window="total")
        for _ in range(3):
            kit.call("Hello", max_tokens=5)
        kit.ledger.df()
        spent = kit.budgets.status()[0].spent
        kit.ledger.retain(0)
        assert kit.budgets.status()[0].spent == spent > 0
