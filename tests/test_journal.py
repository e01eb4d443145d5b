"""The journal keeps what it acknowledged: across threads, forks, full disks, deleted files and stray interrupts."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import chained

from tokenkit.errors import ConfigError, LedgerError
from tokenkit.journal import APPLICATION_ID, GENESIS, MIGRATIONS, Journal, append
from tokenkit.receipts import Attempt, Receipt, Verdict, new_id
from tokenkit.types import Usage

TEXT = st.text(st.characters(), max_size=40)  # half surrogate pairs and NUL included


def receipt(number: int = 0, **fields: object) -> Receipt:
    return Receipt(**{"id": new_id(), "started_at": 10**18 + number, "seconds": 0.5, "status": "ok",
                      "requested_model": "auto"} | fields)  # fmt: skip


def ids(journal: Journal) -> list[str]:
    return [entry.id for entry in journal.rows(0, 1_000_000)]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own: fork, kill and limits are no business of pytest's process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Receipt, id=st.uuids().map(str), started_at=st.integers(0, 2**63 - 1), seconds=st.floats(0, 1e9),
            status=st.sampled_from(["ok", "error", "cancelled"]), requested_model=TEXT, prompt=st.none() | TEXT,
            answer=st.none() | TEXT, user=st.none() | TEXT, cost_nanos=st.none() | st.integers(-(2**70), 2**70),
            usage=st.none() | st.builds(Usage, st.none() | st.integers(0, 10**9)),
            attempts=st.lists(st.builds(Attempt, TEXT, TEXT, st.integers(0, 2**62)), max_size=2).map(tuple),
            verdicts=st.lists(st.builds(Verdict, TEXT, TEXT, TEXT), max_size=2).map(tuple),
        ),
        max_size=6,
        unique_by=lambda one: one.id,
    )
)  # fmt: skip
def test_every_receipt_comes_back_equal_once_and_in_order(tmp_path_factory, receipts):
    journal = Journal(tmp_path_factory.mktemp("any") / "journal.sqlite3")
    for one in receipts + receipts[::-1]:  # whoever is in doubt writes again
        journal.write(one)
    assert [entry.receipt for entry in journal.rows()] == receipts
    assert chained(journal)
    journal.close()


def test_rows_come_in_pages_and_the_head_is_the_last(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    assert journal.head() == (0, GENESIS)
    assert journal.rows() == []
    for number in range(7):
        journal.write(receipt(number))
    assert [e.seq for e in journal.rows(2, 3)] == [3, 4, 5]
    assert journal.head() == (7, journal.rows(6)[0].hash)
    assert journal.find(journal.rows(3)[0].hash) == 4
    assert journal.find(b"none") is None
    assert len(str(journal.meta("journal_id"))) == 32
    assert journal.meta("nothing") is None
    journal.close()
    assert len(journal.rows()) == 7, "a closed journal opens again"
    journal.close()


def test_files_are_private(tmp_path):
    old = os.umask(0)
    try:
        journal = Journal(tmp_path / "a" / "b" / "journal.sqlite3")
        journal.write(receipt())
    finally:
        os.umask(old)
    assert {f.name: oct(f.stat().st_mode & 0o777) for f in journal.path.parent.iterdir()} == {
        "journal.sqlite3": "0o600",
        "journal.sqlite3-wal": "0o600",
        "journal.sqlite3-shm": "0o600",
    }
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
    assert journal.path.parent.parent.stat().st_mode & 0o777 == 0o700
    journal.close()


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_durability_is_sqlites_own_level(tmp_path, durability, level):
    journal = Journal(tmp_path / "journal.sqlite3", durability=durability)
    with journal.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == level
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    journal.close()


def test_an_unknown_durability_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'process' or 'power'"):
        Journal(tmp_path / "journal.sqlite3", durability="ponies")


def test_threads_share_one_journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    written: list[str] = []

    def work() -> None:
        for number in range(50):
            one = receipt(number)
            journal.write(one)
            written.append(one.id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(journal)) == sorted(written)
    assert chained(journal)
    journal.close()


WRITER = """
    import sys
    from tokenkit.journal import Journal
    from tokenkit.receipts import Receipt, new_id
    journal = Journal(sys.argv[1])
    sys.stdin.readline()
    for number in range(int(sys.argv[2])):
        journal.write(Receipt(new_id(), 10**18 + number, 0.5, "ok", "auto"))
"""


def test_processes_that_make_the_file_together_all_succeed(tmp_path):
    path = tmp_path / "new" / "journal.sqlite3"
    crowd = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path), "40"], stdin=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]  # fmt: skip
    errors = []
    for process in crowd:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        errors.append(process.communicate(timeout=60)[1])
    journal = Journal(path)
    assert errors == [""] * 5
    assert len(set(ids(journal))) == 200
    assert chained(journal)
    journal.close()


FORKING = """
    import os, sys, threading, warnings
    warnings.simplefilter("ignore")
    from tokenkit.journal import Journal
    from tokenkit.receipts import Receipt, new_id
    def write(journal, user):
        journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto", user=user))
    def open_files():
        for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
            try:
                yield os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                pass  # the descriptor of the listing itself
    journal = Journal(sys.argv[1])
    stop = threading.Event()
    counts = [0]
    def busy():
        while not stop.is_set():
            write(journal, "thread")
            counts[0] += 1
    thread = threading.Thread(target=busy)
    thread.start()
    for child in range(12):
        write(journal, "parent")
        pid = os.fork()
        if pid == 0:
            inherited = [name for name in open_files() if "journal.sqlite3" in name]
            for _ in range(5):
                write(journal, "child")
            os._exit(1 if inherited else 0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    thread.join()
    print(counts[0])
"""


def test_a_fork_amid_writes_loses_nothing_and_inherits_nothing(tmp_path):
    done = run(FORKING, tmp_path / "journal.sqlite3")
    assert (done.returncode, done.stderr) == (0, "")
    journal = Journal(tmp_path / "journal.sqlite3")
    users = [entry.receipt.user for entry in journal.rows(0, 1_000_000)]
    assert (users.count("parent"), users.count("child"), users.count("thread")) == (12, 60, int(done.stdout))
    assert chained(journal)
    journal.close()


def test_a_child_forked_behind_pythons_back_opens_its_own(tmp_path):
    """Where no fork hook ran, the process id still tells; stale state stands for such a fork here."""
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.write(receipt())
    before, journal._file = journal._connection, (os.getpid() + 1, *journal._file[1:])
    journal.write(receipt())
    assert journal._connection is not before
    assert len(ids(journal)) == 2
    journal.close()
    before.close()


def test_a_transaction_is_all_or_nothing(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.write(receipt())

    def half() -> None:
        with journal.transaction() as connection:
            append(connection, receipt())
            connection.execute("INSERT INTO meta VALUES ('spent', 5)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (len(ids(journal)), journal.meta("spent")) == (1, None)
    with journal.transaction() as connection:
        append(connection, receipt())
        connection.execute("INSERT INTO meta VALUES ('spent', 5)")
    assert (len(ids(journal)), journal.meta("spent")) == (2, 5)
    journal.close()


def test_a_deleted_file_is_noticed_and_made_again(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.write(receipt())
    for part in tmp_path.iterdir():
        part.unlink()
    late = receipt()
    journal.write(late)
    other = Journal(tmp_path / "journal.sqlite3")
    assert ids(other) == [late.id], "a write after the deletion went where nobody can read it"
    journal.close()
    other.close()


def test_a_receipt_that_is_no_json_says_so(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    with pytest.raises(LedgerError, match="cannot be written as JSON"):
        journal.write(receipt(user=object()))
    with pytest.raises(LedgerError, match="no time"):
        journal.write(receipt(2**64))
    journal.write(receipt())
    assert len(ids(journal)) == 1
    journal.close()


# What each broken file is made of, and what the sentence about it must name.
def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name)")
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()


def _tableless(path: Path) -> None:
    with Journal(path).transaction() as connection:
        connection.execute("DROP TABLE receipts")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_garbage, "not a SQLite file"),
        (_foreign, "not a tokenkit journal"),
        (_newer, "newer tokenkit.*Upgrade"),
        (_tableless, "was dropped"),
        (Path.mkdir, "not writable|not what it should be"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(tmp_path, spoil, says):
    path = tmp_path / "journal.sqlite3"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    journal = Journal(path)
    for use in (lambda: journal.write(receipt()), journal.rows, journal.head):
        with pytest.raises(LedgerError, match=says) as caught:
            use()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    journal.close()
    if spoil is _foreign:
        assert path.read_bytes() == before, "somebody else's database was changed"


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="Name another path"):
        Journal(tmp_path / "file" / "journal.sqlite3").write(receipt())


UNPRIVILEGED = """
    import os, sys
    from tokenkit.journal import Journal
    from tokenkit.errors import LedgerError
    from tokenkit.receipts import Receipt, new_id
    if os.geteuid() == 0:
        os.setuid(65534)  # root may write anywhere
    try:
        Journal(sys.argv[1]).write(Receipt(new_id(), 1, 0.5, "ok", "auto"))
    except LedgerError as error:
        print(error)
"""


def test_a_read_only_directory_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    done = run(UNPRIVILEGED, closed / "journal.sqlite3")
    assert done.stderr == ""
    assert "is not writable" in done.stdout
    assert str(closed) in done.stdout


FULL = """
    import resource, signal, sys
    from tokenkit.journal import Journal
    from tokenkit.errors import LedgerError
    from tokenkit.receipts import Receipt, new_id
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(sys.argv[1])
    def write():
        one = Receipt(new_id(), 1, 0.5, "ok", "auto", prompt="x" * 3000)
        journal.write(one)
        print(one.id)
    write()
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    failures = 0
    while failures < 5:
        try:
            write()
        except LedgerError as error:
            failures += 1
            print(error, file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write()
"""


@pytest.mark.parametrize("limit", [50_000, 123_457, 400_000])
def test_a_full_disk_loses_nothing_acknowledged_and_passes(tmp_path, limit):
    done = run(FULL, tmp_path / "journal.sqlite3", limit)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Cannot write the journal") == 5
    journal = Journal(tmp_path / "journal.sqlite3")
    assert ids(journal) == done.stdout.split()
    assert chained(journal)
    journal.close()


def test_a_lock_held_too_long_is_a_sentence(tmp_path):
    path = tmp_path / "journal.sqlite3"
    holder, waiter = Journal(path), Journal(path, patience=0.05)
    with holder.transaction(), pytest.raises(LedgerError, match="another process has been holding"):
        waiter.write(receipt())
    waiter.write(receipt())
    assert len(ids(holder)) == 1
    holder.close()
    waiter.close()


def test_a_home_on_a_network_file_system_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenkit.journal import files

    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/far nfs4 rw 0 0\nbroken\n")
    assert files.network_mount(tmp_path / "far" / "home", mounts) == "nfs4"
    assert files.network_mount(tmp_path / "farther", mounts) is None
    assert files.network_mount(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr(files, "network_mount", lambda folder: "nfs4")
    journal = Journal(tmp_path / "home" / "journal.sqlite3")
    with pytest.warns(RuntimeWarning, match="network file system"):
        journal.head()
    journal.close()
    journal.head()  # said once
    journal.close()
