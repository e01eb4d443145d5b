"""Rate limits across kernels: real processes take from one bucket, and together never more than it holds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.sharing import SharedBucket

TAKER = """
import sys
from tokenkit.journal import Journal
from tokenkit.sharing import SharedBucket
journal = Journal(sys.argv[1])
bucket = SharedBucket("here requests", 60, lambda: journal)
print(sum(bucket.take(1, 0) == 0 for _ in range(40)))
"""


def test_four_processes_together_take_no_more_than_one_bucket_holds(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.sqlite3")
    began = time.time()
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, path], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    taken = sum(int(taker.communicate(timeout=60)[0]) for taker in takers)
    assert 60 <= taken <= 60 + (time.time() - began) + 1


def test_what_is_given_back_can_be_taken_by_another(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j.sqlite3"), Journal(tmp_path / "j.sqlite3")
    mine, yours = SharedBucket("x", 60, lambda: one), SharedBucket("x", 60, lambda: two)
    assert mine.take(60, 0) == 0
    assert yours.take(30, 0) == pytest.approx(30, abs=1)
    mine.give_back(40)
    assert yours.take(30, 0) == 0
    one.close()
    two.close()


def test_a_journal_that_cannot_be_written_does_not_cost_the_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file" / "j.sqlite3")
    with pytest.raises(LedgerError):
        journal.head()
    bucket = SharedBucket("x", 60, lambda: journal)
    assert bucket.take(60, 0) == 0
    assert bucket.take(30, 0) > 25
