"""kill -9 anywhere: every receipt that was acknowledged is in the ledger exactly once.

Two processes write and print each id once ``write`` has returned; a third copies into the ledger over and over. At
random moments one of them is killed and started again. TOKENKIT_LONG=1 makes that 1,000 kills instead of a few.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import pytest

from tokenkit.journal import Journal
from tokenkit.ledger import Ledger
from tokenkit.ledger.chain import verify
from tokenkit.receipts import Receipt, new_id

LONG = os.environ.get("TOKENKIT_LONG") == "1"
KILLS = 1000 if LONG else 30

WRITER = """
    import os, sys
    from tokenkit.journal import Journal
    from tokenkit.receipts import Attempt, Receipt, new_id
    journal = Journal(sys.argv[1])
    os.write(1, b"ready\\n")
    for number in range(150):  # then wait for the end: a fast machine must not fill the disk
        attempts = (Attempt("a/one", "a", 1),) * (number % 3)
        one = Receipt(new_id(), 10**18, 0.5, "ok", "auto", attempts=attempts, prompt="x" * (13 * number))
        journal.write(one)
        os.write(1, one.id.encode() + b"\\n")
    while True:
        os.read(0, 1)
"""

COPIER = """
    import os, sys
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger, copying
    copying.BATCH_BYTES = 20_000  # many transactions, so that kills land inside them and between them
    ledger = Ledger(Journal(sys.argv[1]), sys.argv[2])
    os.write(1, b"ready\\n")
    while True:
        ledger.ingest()
        if ledger.note:
            print(ledger.note, file=sys.stderr, flush=True)
"""


class Mortal:
    """A script that is started again each time it is killed; what it prints goes to files, which survive it."""

    def __init__(self, name: str, code: str, folder: Path, *arguments: str) -> None:
        self.name, self.code, self.folder, self.arguments = name, textwrap.dedent(code), folder, arguments
        self.lives = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.out = self.folder / f"{self.name}-{self.lives}.out"
        self.err = self.folder / f"{self.name}-{self.lives}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            command = [sys.executable, "-c", self.code, *self.arguments]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err)

    def kill(self, after: float) -> None:
        """Kill it some seconds after it has begun its work."""
        give_up = time.monotonic() + 60
        while not self.out.stat().st_size:
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < give_up, "it never began"
            time.sleep(0.002)
        time.sleep(after)
        self.process.kill()
        assert self.process.wait() == -9, self.err.read_text()
        self.process.stdin.close()

    def said(self) -> list[str]:
        """Every whole line of every life."""
        text = "".join(part.read_text() for part in self.folder.glob(f"{self.name}-*.out"))
        return [line for line in text.split("\n")[:-1] if line != "ready"]

    def complaints(self) -> str:
        return "".join(part.read_text() for part in self.folder.glob(f"{self.name}-*.err"))


@pytest.mark.timeout(3600 if LONG else 240)
def test_every_acknowledged_receipt_is_in_the_ledger_exactly_once(tmp_path):
    journal, path, rng = Journal(tmp_path / "journal.sqlite3"), tmp_path / "ledger.duckdb", random.Random(7)
    files = (str(journal.path), str(path))
    writers = [Mortal(f"writer{n}", WRITER, tmp_path, *files) for n in (1, 2)]
    copier = Mortal("copier", COPIER, tmp_path, *files)
    everybody = [*writers, copier]
    for _ in range(KILLS):
        victim = rng.choice(everybody)
        victim.kill(rng.uniform(0, 0.08))
        victim.start()
    while sum(len(writer.said()) for writer in writers) < 1000:
        writers[0].kill(0.05)
        writers[0].start()
    for mortal in everybody:
        mortal.kill(0)

    acknowledged = [line for writer in writers for line in writer.said()]
    ledger = Ledger(journal, path)
    there = ledger.sql("SELECT id, count(*) AS times, any_value(tries) AS tries FROM calls GROUP BY id").set_index("id")
    assert len(acknowledged) >= 1000
    assert len(set(acknowledged)) == len(acknowledged)
    assert [identity for identity in acknowledged if identity not in there.index] == [], "acknowledged, and lost"
    assert there["times"].max() == 1, "copied twice"
    assert len(there) == journal.head()[0], "written, and not copied"
    tries = ledger.sql("SELECT count(*) AS n, count(DISTINCT (seq, position)) AS different FROM attempts").iloc[0]
    assert tries["n"] == tries["different"] == there["tries"].sum(), "an attempt without its call, or twice"
    assert [mortal.complaints() for mortal in everybody] == ["", "", ""], "something could not be opened"
    assert ledger.verify()
    assert ledger.note is None
    journal.close()


CUT_SHORT = """
    import os, sys
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger, copying, files, instances
    import duckdb
    left = int(sys.argv[3])
    def one_step_less():
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
    class Counting:
        # a connection that dies before its n-th statement, so that each gap between two of them is tried
        def __init__(self, connection): self.connection = connection
        def __getattr__(self, name): return getattr(self.connection, name)
        def execute(self, *args):
            one_step_less()
            return self.connection.execute(*args)
    connect = instances.connect
    instances.connect = lambda *args: Counting(connect(*args))
    rename, chmod = files.Path.rename, files.Path.chmod
    files.Path.rename = lambda self, to: (one_step_less(), rename(self, to))[1]
    files.Path.chmod = lambda self, mode: (one_step_less(), chmod(self, mode))[1]
    copying.BATCH_BYTES = 300
    Ledger(Journal(sys.argv[1]), sys.argv[2]).ingest()
    print("done")
"""


@pytest.mark.timeout(1800 if LONG else 240)
def test_a_copy_cut_short_before_any_statement_is_finished_by_the_next(tmp_path):
    """Not at random: the process dies before its n-th statement, from making the file to the last commit."""
    journal = Journal(tmp_path / "journal.sqlite3")
    for number in range(6):
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto", user=str(number)))
    steps = range(200) if LONG else sorted(random.Random(3).sample(range(60), 9))
    for step in steps:
        path = tmp_path / f"{step}" / "ledger.duckdb"
        command = [sys.executable, "-c", textwrap.dedent(CUT_SHORT), str(journal.path), str(path), str(step)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == -9 or done.stdout == "done\n", done.stderr
        ledger = Ledger(journal, path)
        assert ledger.df()["user"].tolist() == list("012345"), f"killed before statement {step}"
        assert ledger.note is None
        assert sorted(p.name for p in path.parent.iterdir()) == ["ledger.duckdb", "ledger.duckdb.lock"]
        if done.stdout:
            break
    journal.close()


def test_a_journal_cut_off_at_any_length_is_read_as_far_as_it_goes_or_named(tmp_path):
    journal = Journal(tmp_path / "whole" / "journal.sqlite3")
    for number in range(30):
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto", prompt="x" * 50 * number))
    journal.close()
    whole = journal.path.read_bytes()
    for length in (*range(0, len(whole), 1 if LONG else 1733), len(whole)):
        (tmp_path / "cut.sqlite3").write_bytes(whole[:length])
        cut = Journal(tmp_path / "cut.sqlite3")
        found = verify(cut, [journal.head()])
        assert bool(found) == (length == len(whole)), f"cut at byte {length} of {len(whole)}"
        assert "\n" not in str(found)
        cut.close()
        for name in ("cut.sqlite3", "cut.sqlite3-wal", "cut.sqlite3-shm"):
            (tmp_path / name).unlink(missing_ok=True)
    journal.close()


def test_a_damaged_ledger_file_costs_no_answer(tmp_path):
    """The file is a copy: whatever is in it, questions are answered, and the note says what to do about it."""
    journal, path = Journal(tmp_path / "journal.sqlite3"), tmp_path / "ledger.duckdb"
    for number in range(5):
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto", user=str(number)))
    ledger = Ledger(journal, path)
    assert len(ledger.df()) == 5
    whole = path.read_bytes()

    def drop(table: str) -> None:
        connection = duckdb.connect(str(path))
        connection.execute(f"DROP TABLE {table}")
        connection.close()

    for spoil in (
        lambda: path.write_bytes(b"no database"),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(whole[:5000]),
        lambda: path.write_bytes(whole[: len(whole) // 2]),
        lambda: drop("calls"),
        lambda: drop("sources"),
        lambda: drop("schema_version"),
    ):
        path.write_bytes(whole)
        spoil()
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto"))
        frame = Ledger(journal, path).sql("SELECT count(*) AS n FROM calls")
        assert frame["n"][0] == journal.head()[0]
        assert str(path) in frame.attrs["note"]
        assert "\n" not in frame.attrs["note"]
    path.unlink()
    assert len(ledger.df()) == journal.head()[0], "moved away, it is made anew"
    assert ledger.note is None
    assert not ledger.standby.exists(), "and the standby is gone"
    journal.close()


def test_a_flipped_bit_in_the_ledger_changes_no_answer(tmp_path):
    journal, path, rng = Journal(tmp_path / "journal.sqlite3"), tmp_path / "ledger.duckdb", random.Random(11)
    for number in range(200):
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto", cost_nanos=number, prompt=f"prompt {number}"))
    question = (
        "SELECT count(*) AS n, sum(cost_nanos) AS cost, string_agg(prompt, ',' ORDER BY seq) AS prompts FROM calls"
    )
    expected = Ledger(journal, path).sql(question)
    whole = path.read_bytes()
    noted = 0
    for flip in range(400 if LONG else 16):
        spoiled = bytearray(whole)
        spoiled[rng.randrange(12288 if flip % 2 else len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoiled)
        answer = Ledger(journal, path).sql(question)
        assert answer.equals(expected)
        noted += "note" in answer.attrs
    assert noted, "none of the flips was even seen"
    journal.close()
