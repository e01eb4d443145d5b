"""One DuckDB answers question after question: it stays sealed, remembers nothing, and goes where it could do harm."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing

import duckdb
import pytest

from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger, instances
from tokenkit.receipts import Receipt, new_id


def receipt(cost: int = 1) -> Receipt:
    return Receipt(new_id(), 1_700_000_000_000_000_000, 0.5, "ok", "auto", model="a/one", provider="a", cost_nanos=cost)


@pytest.fixture
def ledger(tmp_path):
    instances.let_go()
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.write(receipt())
    yield Ledger(journal, tmp_path / "ledger.duckdb")
    journal.close()
    instances.let_go()


@pytest.fixture
def started(monkeypatch):
    """The instances that were started for questions."""
    found = []
    sealed = instances.sealed
    monkeypatch.setattr(instances, "sealed", lambda path: found.append(sealed(path)) or found[-1])
    return found


def kept() -> list[duckdb.DuckDBPyConnection]:
    return list(instances._spare.values())


def test_questions_share_one_instance_and_see_every_new_call(ledger, started):
    for number in range(1, 6):
        assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == number
        ledger.journal.write(receipt())
    assert len(started) == 1
    assert kept() == started


def test_between_questions_it_holds_no_file_and_no_rows(ledger):
    ledger.sql("FROM calls")
    with duckdb.connect(str(ledger.path)) as mine:  # DuckDB refuses this while it is attached anywhere in the process
        mine.execute("BEGIN")
        mine.execute("CREATE TABLE notes (text VARCHAR)")
        mine.execute("COMMIT")
    databases = [name for (name,) in kept()[0].execute("SELECT database_name FROM duckdb_databases()").fetchall()]
    assert sorted(databases) == ["memory", "system", "temp"]
    assert kept()[0].execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_rows_laid_over_a_busy_ledger_are_gone_with_their_question(ledger, started):
    ledger.ingest()
    ledger.journal.write(receipt())
    reader = os.open(f"{ledger.path}.lock", os.O_RDWR)
    try:
        fcntl.flock(reader, fcntl.LOCK_SH)  # another kernel asks: nobody can write meanwhile, all can read
        for _ in range(3):
            assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 2
            assert ledger.sql("SELECT max(seq) AS n FROM calls")["n"][0] == 2
    finally:
        os.close(reader)
    assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 2
    assert len(started) == 1
    assert kept()[0].execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall() == [(0,)]


@pytest.mark.parametrize(
    "query",
    [
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET allowed_paths = ['/']",
        "ATTACH '{folder}/other.duckdb'",
        "CREATE TABLE memory.main.mine AS SELECT 1 AS a",
        "CREATE TEMP TABLE mine AS SELECT 1 AS a",
        "PREPARE mine AS SELECT 1",
        "SET VARIABLE mine = 1",
        "USE memory",
    ],
)
def test_nothing_asked_changes_what_the_next_question_meets(ledger, query, tmp_path):
    with pytest.raises(LedgerError):
        ledger.sql(query.format(folder=tmp_path))
    assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 1
    settings = ledger.sql(
        "SELECT current_setting('enable_external_access') AS access, current_setting('lock_configuration') AS locked"
    )
    assert settings.values.tolist() == [[False, True]]
    assert not (tmp_path / "other.duckdb").exists()


def test_a_question_that_failed_takes_its_instance_along(ledger, started):
    for _ in range(2):
        with pytest.raises(LedgerError, match="nonsense"):
            ledger.sql("SELECT nonsense FROM calls")
        assert not kept()
    assert ledger.sql("SELECT 1 AS n")["n"][0] == 1
    assert len(started) == 3


def test_two_ledgers_in_turn_keep_one_instance(ledger, tmp_path, started):
    with closing(Journal(tmp_path / "second.sqlite3")) as journal:
        second = Ledger(journal, tmp_path / "second.duckdb")
        for _ in range(3):
            assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 1
            assert second.sql("SELECT count(*) AS n FROM calls")["n"][0] == 0
            assert len(kept()) == 1
    assert len(started) == 6


def test_days_are_those_of_the_time_zone_in_force(ledger, monkeypatch):
    for zone in ("Pacific/Kiritimati", "Pacific/Niue"):  # 25 hours apart
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        with duckdb.connect() as anew:  # DuckDB 1 asks once a process, DuckDB 2 once an instance
            ((expected,),) = anew.execute("SELECT current_setting('TimeZone')").fetchall()
        assert ledger.sql("SELECT current_setting('TimeZone') AS zone")["zone"][0] == expected
    monkeypatch.undo()
    time.tzset()


def test_threads_that_ask_at_once_all_get_their_answers(ledger):
    answers, failures = [], []

    def ask() -> None:
        try:
            for _ in range(5):
                answers.append(int(ledger.sql("SELECT sum(cost_nanos)::BIGINT AS n FROM calls")["n"][0]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert answers == [1] * 30
    assert len(kept()) == 1


def test_no_threads_of_ours_are_there_when_a_process_forks(tmp_path):
    """Python 3.12 warns of a fork beside threads; and what a child inherits of DuckDB could never be closed."""
    code = """
        import os, sys, warnings
        warnings.simplefilter("error")
        from pathlib import Path
        import tokenkit as tk
        from tokenkit.ledger import instances
        with tk.Kit.simulated(pace=0, home=Path(sys.argv[1])) as kit:
            kit.call("hello")
            assert kit.ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 1
            assert instances._spare
            pid = os.fork()
            if pid == 0:
                kept = len(instances._spare)
                kit.call("again, from the child")
                many = kit.ledger.sql("SELECT count(*) AS n FROM calls")["n"][0]
                sys.stdout.flush()
                sys.exit(0 if (kept, many) == (0, 2) else 1)
            assert not instances._spare
            assert os.waitpid(pid, 0)[1] == 0
            assert kit.ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == 2
            print("well")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "well"), ran.stderr


def test_a_process_ends_well_whatever_it_left_open(tmp_path):
    code = """
        import atexit, sys, threading
        from pathlib import Path
        import tokenkit as tk
        kit = tk.Kit.simulated(pace=0, home=Path(sys.argv[1]))
        kit.call("hello")
        atexit.register(lambda: print(kit.ledger.sql("SELECT count(*) AS n FROM calls")["n"][0]))
        kit.ledger.sql("FROM calls")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "1", "")
