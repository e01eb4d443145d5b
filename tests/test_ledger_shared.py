"""One ledger, several hands: kernels, a DuckDB shell that keeps the file, forks, threads, journals come and gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from journals import opened

from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger, copying, files
from tokenkit.receipts import Attempt, Candidate, Charge, Plan, PriceReceipt, Receipt, StageReport, Verdict, new_id
from tokenkit.types import Usage

LONG = os.environ.get("TOKENKIT_LONG") == "1"
TABLES = ("calls", "attempts", "stages", "verdicts", "charges", "plans", "candidate_sets", "prices", "candidates",
          "spend_daily", "latency_by_provider", "compression_by_stage",
          "count_error_by_model", "otel_calls")  # fmt: skip


def receipt(number: int = 0, **fields: object) -> Receipt:
    price = PriceReceipt("user", f"row {number % 3}", 10**9, 2 * 10**9)
    usage = Usage(100 + number, 10)
    attempt = Attempt("a/one", "a", 10**18, usage=usage, cost_nanos=number, price=price)
    plan = Plan((Candidate("a/one", "a", 1.0), Candidate(f"b/{number % 2}", "b", rejected="full")), "score")
    stage = StageReport("dedupe", 200, 100, 0.1, True)
    return Receipt(**{
        "id": new_id(), "started_at": 1_700_000_000_000_000_000 + number, "seconds": 0.5, "status": "ok",
        "requested_model": "auto", "model": "a/one", "provider": "a", "usage": usage, "cost_nanos": number,
        "price": price, "plan": plan, "attempts": (attempt,), "stages": (stage,), "verdicts": (Verdict("p", "allow"),),
        "charges": (Charge("all", "total", "usd", number, number),),
    } | fields)  # fmt: skip


ledger = pytest.fixture(opened)


HOLDER = """
    import sys, time, duckdb
    connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading")
    if sys.argv[2] == "writing":
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE mine (a INT)")
    print("held", flush=True)
    time.sleep(120)
"""


@contextmanager
def held(path: Path, how: str):
    """Keep the file open in another program, as a DuckDB shell does."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(path), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def everything(ledger: Ledger) -> dict[str, list[list[object]]]:
    """Every table and view as sorted text, so that two ledgers can be compared."""
    answers = {}
    for table in TABLES:
        frame = ledger.sql(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {table}")
        answers[table] = sorted(frame.astype(str).values.tolist())
    return answers


@pytest.mark.parametrize("how", ["reading", "idle", "writing"])
def test_a_shell_that_holds_the_file_hides_and_loses_nothing(ledger, tmp_path, how):
    for number in range(5):
        ledger.journal.write(receipt(number))
    assert len(ledger.df()) == 5
    with held(ledger.path, how) as pid:
        for number in range(5, 12):
            ledger.journal.write(receipt(number))
        began = time.monotonic()
        answer = ledger.sql("SELECT count(*) AS n, sum(cost_nanos) AS cost FROM calls")
        assert time.monotonic() - began < ledger.patience, "the kernel waited for somebody who may never go"
        assert answer.values.tolist() == [[12, 66]]
        assert answer.attrs["note"] == ledger.note
        assert f"process {pid}" in ledger.note
        assert str(ledger.path) in ledger.note
        beside = everything(ledger)
        assert ledger.ingest() == 0, "rows wait, and say so"
        assert f"process {pid}" in ledger.note
        assert len(ledger.df()) == 12
    fresh = Ledger(ledger.journal, tmp_path / "fresh.duckdb")
    assert everything(ledger) == beside == everything(fresh), "the same answers with the file and without"
    assert ledger.note is None
    assert len(ledger.df()) == 12
    assert not ledger.standby.exists()


def test_a_shell_may_keep_the_file_from_before_the_first_call(tmp_path):
    ledger = Ledger(Journal(tmp_path / "journal.sqlite3"), tmp_path / "ledger.duckdb")
    ledger.df()
    with held(ledger.path, "idle"):
        for number in range(3):
            ledger.journal.write(receipt(number))
            assert len(ledger.df()) == number + 1
    assert len(ledger.df()) == 3
    ledger.journal.close()


def test_a_connection_of_the_same_process_is_respected(ledger):
    ledger.journal.write(receipt())
    ledger.ingest()
    mine = duckdb.connect(str(ledger.path))
    ledger.journal.write(receipt(1))
    assert len(ledger.df()) == 2
    assert "open elsewhere in this process" in ledger.note
    assert mine.execute("SELECT count(*) FROM calls").fetchone() == (1,)
    mine.execute("CREATE TABLE mine AS SELECT 1 AS a")
    mine.close()
    assert len(ledger.df()) == 2
    assert ledger.note is None
    assert ledger.sql("SELECT a FROM mine")["a"].tolist() == [1], "what the user made there is theirs"


KERNEL = """
    import sys, time
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger
    from tokenkit.receipts import Attempt, Receipt, new_id
    who, seconds, writes, reads = sys.argv[3], float(sys.argv[4]), "w" in sys.argv[5], "r" in sys.argv[5]
    ledger = Ledger(Journal(sys.argv[1]), sys.argv[2])
    mine, notes, until = 0, set(), time.monotonic() + seconds
    while time.monotonic() < until or (writes and not mine):
        for _ in range(writes * 7):
            time.sleep(0.0005)
            ledger.journal.write(Receipt(new_id(), time.time_ns(), 0.1, "ok", "auto", user=who,
                                         attempts=(Attempt("a/one", "a", 1),)))
            mine += 1
        if reads:
            seen = ledger.sql("SELECT count(*) AS n FROM calls WHERE user = ?", [who])["n"][0]
            assert seen == mine, f"{who} wrote {mine} and sees {seen}"
            notes.add(ledger.note)
    print(mine, notes - {None} or "", flush=True)
"""


def run_kernels(ledger: Ledger, *kinds: str, seconds: float) -> list[int]:
    """Run kernels side by side; return how many calls each wrote, once none has shown an error."""
    code = textwrap.dedent(KERNEL)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(ledger.journal.path), str(ledger.path), f"k{n}", str(seconds), kind],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=seconds + 100) for process in crowd]
    finally:
        for process in crowd:
            process.kill()
    assert [err for _, err in told] == [""] * len(kinds)
    counts, notes = zip(*(out.strip("\n").split(" ", 1) for out, _ in told), strict=True)
    assert notes == ("",) * len(kinds)
    return [int(count) for count in counts]


def test_two_kernels_log_and_read_at_once(ledger):
    counts = run_kernels(ledger, "wr", "wr", seconds=2.5)
    assert min(counts) > 0
    assert sorted(ledger.spend(by="user")["calls"]) == sorted(counts)
    assert ledger.sql("SELECT count(*) AS n FROM attempts")["n"][0] == sum(counts)
    assert ledger.verify()


@pytest.mark.skipif(not LONG, reason="a minute; TOKENKIT_LONG=1 runs it")
@pytest.mark.timeout(600)
def test_four_writers_and_two_readers_for_a_minute(ledger):
    counts = run_kernels(ledger, "w", "w", "w", "w", "r", "r", seconds=60)
    assert ledger.sql("SELECT count(*) AS n FROM calls")["n"][0] == sum(counts)
    assert ledger.verify()


def test_a_long_question_of_one_kernel_does_not_stop_another(ledger):
    """While somebody reads, nobody can copy into the file: the other kernel sees its rows all the same, at once."""
    ledger.journal.write(receipt())
    ledger.df()
    with files.reading(ledger.path, 1, turn=ledger.path):  # this process reads; the other is a process of its own
        code = f"""
            import time
            from tokenkit.journal import Journal
            from tokenkit.ledger import Ledger
            from tokenkit.receipts import Receipt, new_id
            ledger = Ledger(Journal({str(ledger.journal.path)!r}), {str(ledger.path)!r})
            ledger.journal.write(Receipt(new_id(), 1, 0.5, "ok", "auto"))
            print(len(ledger.df()), ledger.note)
            ledger.patience = 0.1
            print(ledger.ingest(), ledger.note)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("2 None\n0 Another kernel is busy")
    assert len(ledger.df()) == 2
    assert not ledger.standby.exists(), "rows were laid over the file, no copy was needed"


def test_threads_ask_at_once(ledger):
    counts: list[int] = []

    def work() -> None:
        for number in range(4):
            ledger.journal.write(receipt(number))
            counts.append(int(ledger.sql("SELECT count(*) AS n FROM calls")["n"][0]))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == max(counts) == len(ledger.df()) == 24


FORKING = """
    import os, sys, threading, warnings
    warnings.simplefilter("ignore")
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger
    from tokenkit.receipts import Receipt, new_id
    ledger = Ledger(Journal(sys.argv[1]), sys.argv[2])
    def write():
        ledger.journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto"))
    write()
    ledger.df()
    stop = threading.Event()
    def asking():
        while not stop.is_set():
            ledger.sql("SELECT count(*) FROM calls")
    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    for child in range(6):
        pid = os.fork()
        if pid == 0:
            write()
            fine = len(ledger.df()) >= 2
            write()
            os._exit(0 if fine and ledger.note is None else 1)
        write()
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    thread.join()
    print(len(ledger.df()), ledger.note)
"""


def test_a_forked_child_logs_and_reads_too(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(FORKING), str(tmp_path / "j"), str(tmp_path / "ledger.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("19 None\n", "")


def test_a_journal_restored_from_an_older_copy_continues(ledger, tmp_path):
    ids = []

    def write(count: int) -> None:
        for number in range(count):
            one = receipt(number)
            ids.append(one.id)
            ledger.journal.write(one)

    write(5)
    ledger.journal.close()
    backup = shutil.copy(ledger.journal.path, tmp_path / "backup")
    write(4)
    assert len(ledger.df()) == 9
    ledger.journal.close()
    shutil.copy(backup, ledger.journal.path)
    assert ledger.df()["id"].tolist() == ids, "what was copied before stays"
    assert ledger.verify().fault in ("cut", None)
    write(2)
    assert sorted(ledger.df()["id"]) == sorted(ids), "numbers repeat, receipts do not"
    write(9)
    assert sorted(Ledger(ledger.journal, ledger.path).df()["id"]) == sorted(ids)
    assert len(set(ledger.df()["seq"])) == len(ids)
    assert ledger.sql("SELECT count(*) AS n FROM attempts JOIN calls USING (seq)")["n"][0] == len(ids)


def test_another_journal_adds_to_the_same_ledger(ledger, tmp_path):
    for number in range(4):
        ledger.journal.write(receipt(number, user="first"))
    ledger.ingest()
    ledger.journal.close()
    for part in tmp_path.glob("journal.sqlite3*"):
        part.unlink()
    for number in range(3):
        ledger.journal.write(receipt(number, user="second"))
    assert ledger.spend(by="user").set_index("user")["calls"].to_dict() == {"first": 4, "second": 3}
    assert ledger.df()["seq"].tolist() == list(range(1, 8))
    assert ledger.verify()


def test_many_batches_and_turns_copy_everything_once(ledger, monkeypatch):
    monkeypatch.setattr(copying, "BATCH_BYTES", 2000)
    monkeypatch.setattr(copying, "PAGE", 7)
    clock = iter(range(10**6))
    monkeypatch.setattr("tokenkit.ledger.book.time.monotonic", lambda: next(clock) * 0.7)  # every batch takes its turn
    for number in range(60):
        ledger.journal.write(receipt(number))
    assert ledger.ingest() == 60
    assert ledger.ingest() == 0
    assert ledger.df()["cost_nanos"].tolist() == list(range(60))
    assert ledger.sql("SELECT count(*) AS n FROM prices")["n"][0] == 3
    assert ledger.sql("SELECT count(*) AS n FROM candidate_sets")["n"][0] == 2


def test_a_ledger_of_a_newer_version_is_refused_with_a_sentence(ledger):
    ledger.ingest()
    with duckdb.connect(str(ledger.path)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    ledger.journal.write(receipt())
    with pytest.raises(LedgerError, match=r"newer tokenkit \(ledger version 99; this one knows \d\)\. Upgrade"):
        ledger.df()


def test_a_full_disk_leaves_the_rows_waiting(tmp_path):
    code = """
        import resource, signal, sys
        from tokenkit.journal import Journal
        from tokenkit.ledger import Ledger
        from tokenkit.receipts import Receipt, new_id
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        ledger = Ledger(Journal(sys.argv[1]), sys.argv[2])
        ledger.df()
        for number in range(300):
            ledger.journal.write(Receipt(new_id(), 1, 0.5, "ok", "auto", prompt=f"{number} " * 500))
        size = ledger.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, resource.RLIM_INFINITY))
        print(len(ledger.df()), ledger.note)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(len(ledger.df()), ledger.note)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "j"), str(tmp_path / "ledger.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    full, free = done.stdout.splitlines()
    assert full.startswith("300 New calls cannot be copied into")
    assert free == "300 None"


def test_files_are_private(tmp_path):
    old = os.umask(0)
    try:
        ledger = Ledger(Journal(tmp_path / "new" / "journal.sqlite3"), tmp_path / "other" / "ledger.duckdb")
        ledger.journal.write(receipt())
        ledger.df()
    finally:
        os.umask(old)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "other").iterdir()} == {
        "ledger.duckdb": "0o600",
        "ledger.duckdb.lock": "0o600",
    }
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o700
    ledger.journal.close()


def test_importing_it_brings_in_neither_duckdb_nor_pandas():
    code = "import sys, tokenkit.journal, tokenkit.ledger; print([m for m in ('duckdb', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
