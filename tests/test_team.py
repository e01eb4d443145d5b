"""A team's journal on a real PostgreSQL: what one machine's journal promises holds among many."""

from __future__ import annotations

import os
import threading
import time

import clusters
import psycopg
import pytest
from clusters import Place, process, receipt, shell, together
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from journals import chained
from test_budget import Books

from tokenkit.accounts import Accounts
from tokenkit.budget import Budget, Who
from tokenkit.errors import LedgerError
from tokenkit.journal import GENESIS, Journal, append
from tokenkit.ledger import Ledger
from tokenkit.receipts import Attempt, Receipt
from tokenkit.sharing import SharedBucket
from tokenkit.team import TeamJournal
from tokenkit.team.tables import TABLES, said
from tokenkit.types import Usage

LONG = os.environ.get("TOKENKIT_LONG") == "1"
TEXT = st.text(st.characters(), max_size=40)  # half surrogate pairs and NUL included
ANYBODY = Who(None, "p", "p/m", None, None)
pytestmark = clusters.NEEDED

server = pytest.fixture(clusters.serving, scope="module")
place = pytest.fixture(clusters.unused)
journal = pytest.fixture(clusters.opened)


# What is written.


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            Receipt, id=st.uuids().map(str), started_at=st.integers(0, 2**63 - 1), seconds=st.floats(0, 1e9),
            status=st.sampled_from(["ok", "error"]), requested_model=TEXT, prompt=st.none() | TEXT, user=TEXT,
            usage=st.none() | st.builds(Usage, st.none() | st.integers(0, 10**9)),
            attempts=st.lists(st.builds(Attempt, TEXT, TEXT, st.integers(0, 2**62)), max_size=2).map(tuple),
        ),
        max_size=6,
        unique_by=lambda one: one.id,
    )
)  # fmt: skip
def test_the_chain_is_the_one_sqlite_would_have_made(tmp_path_factory, journal, receipts):
    with journal.transaction() as rows:
        rows.execute("DELETE FROM receipts")
    alone = Journal(tmp_path_factory.mktemp("any") / "journal.sqlite3")
    for number, one in enumerate(receipts + receipts[::-1]):  # whoever is in doubt writes again
        alone.write(one)
        if number % 2:
            journal.write(one)
        else:
            with journal.transaction() as rows:
                append(rows, one)
    assert journal.rows() == alone.rows()
    assert journal.head() == alone.head()
    assert [entry.receipt for entry in journal.rows()] == receipts
    alone.close()


def test_rows_come_in_pages_and_are_found_by_hash_and_id(journal):
    assert (journal.head(), journal.rows(), journal.receipt()) == ((0, GENESIS), [], None)
    written = [receipt(number) for number in range(7)]
    for one in written:
        journal.write(one)
    assert [e.seq for e in journal.rows(2, 3)] == [3, 4, 5]
    assert journal.head() == (7, journal.rows(6)[0].hash)
    assert journal.find(journal.rows(3)[0].hash) == 4
    assert journal.find(b"none") is None
    assert journal.receipt() == written[-1]
    assert journal.receipt(written[2].id[-12:].upper()) == written[2]
    assert journal.receipt("no such \\%_id") is None
    assert len(str(journal.meta("journal_id"))) == 32
    assert isinstance(journal.meta("created_at"), int)
    assert journal.meta("nothing") is None
    journal.close()
    assert len(journal.rows()) == 7, "a closed journal opens again"


def test_a_transaction_is_all_or_nothing(place, journal, caplog):
    def half() -> None:
        with journal.transaction() as rows:
            append(rows, receipt())
            rows.execute("INSERT INTO budgets VALUES (?, 'why?')", ("key",))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert journal.head()[0] == 0

    def pretend() -> None:
        with journal.transaction() as rows:
            append(rows, receipt())
            with pytest.raises(psycopg.Error):
                rows.execute("SELECT 1 / 0").fetchone()

    with pytest.raises(LedgerError, match="had failed"):
        pretend()
    with journal.transaction() as rows:
        append(rows, receipt())
        rows.execute("INSERT OR REPLACE INTO budgets VALUES (?, 'why?')", ("key",))
        assert rows.execute("SELECT body FROM budgets WHERE body <> '?' AND key = ?", ("key",)).fetchone() == ("why?",)
        assert rows.execute("DELETE FROM budgets").rowcount == 1
        assert rows.execute("DELETE FROM budgets").fetchone() is None
    assert journal.head()[0] == 1
    other = TeamJournal(place[0], schema=place[1], patience=1)
    with journal.transaction(), pytest.raises(KeyboardInterrupt), other.transaction():
        raise KeyboardInterrupt  # its lock is still to come: who interrupts does not wait for it
    assert not caplog.records, "the driver spoke to the user"
    with pytest.raises(LedgerError, match="larger than a BIGINT"):
        journal.write(receipt(2**64))
    with pytest.raises(LedgerError, match="none that PostgreSQL can hold"):
        journal.ask("SELECT 1 FROM budgets WHERE key = ?", ("NUL \0",))


def test_threads_share_one_journal_and_its_few_connections(journal):
    threads = [threading.Thread(target=lambda: [journal.write(receipt()) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.head()[0] == 200
    assert chained(journal)
    assert journal.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tokenkit'")[0][0] <= 4


# Money.


class TeamBooks(Books):
    """The machine that tests the books of one home, over two connections to a team's."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.journals = [TeamJournal(self.place[0], schema=self.place[1]) for _ in range(2)]
        with self.journals[0].transaction() as rows:
            for table in TABLES:
                if table != "meta":
                    rows.execute(f"DELETE FROM {table}")
        self.kernels = [
            Accounts(lambda journal=journal: journal, self.budgets, lease=100.0, now=lambda: self.clock)
            for journal in self.journals
        ]


def test_the_books_of_a_team_add_up(place):
    class Here(TeamBooks):
        pass

    Here.place = place
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=1000 if LONG else 12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


SPENDER = """
    books = Accounts(lambda: journal, [Budget("1000 tokens", name="all"), Budget("0.0003 USD", name="money")])
    for number in range(100):
        one, who = receipt(), Who(None, "p", "p/m", None, None)
        def tried(cost, tokens=None, one=one):
            from tokenkit.types import Usage
            usage = Usage(6, 0)
            attempt = Attempt("p/m", "p", 1, usage=usage, cost_nanos=cost)
            return Receipt(one.id, 1, 0.0, "ok", "p/m", cost_nanos=cost, attempts=(attempt,))
        short = books.reserve(books.rules(), who, one.id, Ask(6, 4, 2000), lambda: tried(2000))
        print("refused" if short else "held")
        books.forget(tried(0)) if short else books.write(tried(1500))
"""


@pytest.mark.parametrize("strict", [False, True], ids=["as it comes", "as strict as it gets"])
def test_four_kernels_with_a_hundred_calls_each_overspend_nothing(server, place, strict):
    if strict:  # what somebody set for the whole database must not take the books' ground away
        shell((server.url(), "public"), "CREATE DATABASE strict TEMPLATE template0",
              "ALTER DATABASE strict SET default_transaction_isolation = 'serializable'",
              "ALTER DATABASE strict SET default_transaction_read_only = on",
              "ALTER DATABASE strict SET synchronous_commit = off")  # fmt: skip
        place = (server.url("strict"), "team")
        shell((place[0], "public"), "SET default_transaction_read_only = off", "CREATE SCHEMA team")
    said = "".join(together([process(SPENDER, place) for _ in range(4)])).split()
    journal = TeamJournal(place[0], schema=place[1])
    tokens, money = Accounts(
        lambda: journal, [Budget("1000 tokens", name="all"), Budget("0.0003 USD", name="money")]
    ).status()
    held = said.count("held")
    # 10 tokens and 2,000 nano-USD are asked for, 6 and 1,500 are used: so at most 4 + 500 are left unused at the end.
    assert 990 - 3 * 10 < tokens.spent <= 1000 or 300_000 - 4 * 2000 < money.spent <= 300_000
    assert (tokens.spent, money.spent) == (held * 6, held * 1500)
    assert (tokens.held, money.held, tokens.violations, money.violations) == (0, 0, 0, 0)
    assert journal.head()[0] == held
    assert chained(journal)
    journal.close()


def test_buckets_are_shared_and_go_on_alone_without_the_server(place):
    taker = """
        bucket = SharedBucket("requests", 60, lambda: journal)
        print(sum(bucket.take(1, 0) == 0 for _ in range(40)))
    """
    began = time.time()
    taken = sum(map(int, together([process(taker, place) for _ in range(3)])))
    assert 60 <= taken <= 60 + (time.time() - began) + 1
    nowhere = TeamJournal("postgresql://127.0.0.1:1/none")
    assert SharedBucket("requests", 60, lambda: nowhere).take(1, 0) == 0


# What is read from it.


def test_the_ledger_copies_each_row_once_and_verify_names_what_was_changed(place, journal, tmp_path):
    ledger = Ledger(journal, tmp_path / "ledger.duckdb")
    for number in range(5):
        journal.write(receipt(number))
    assert ledger.ingest() == 5
    journal.write(receipt(5))
    assert len(ledger.df()) == 6  # asking copies too
    assert ledger.ingest() == 0
    again = Ledger(TeamJournal(place[0], schema=place[1]), tmp_path / "ledger.duckdb")  # another kernel's
    again.journal.write(receipt(6))
    assert list(again.df()["id"]) == [entry.id for entry in journal.rows()] == list(ledger.df()["id"])
    again.journal.close()
    assert ledger.verify()

    shell(place, "CREATE TABLE kept AS SELECT * FROM receipts")
    for change, fault, seq in (
        (["UPDATE receipts SET body = replace(body, '0.5', '0.6') WHERE seq = 3"], "edited", 3),
        (["UPDATE receipts SET id = 'x' WHERE seq = 4"], "edited", 4),
        (["DELETE FROM receipts WHERE seq = 5"], "deleted", 6),
        (["DELETE FROM receipts WHERE seq = 7"], "cut", 7),
        (
            [f"UPDATE receipts SET seq = {new} WHERE seq = {old}" for old, new in ((2, 0), (3, 2), (0, 3))],
            "reordered",
            2,
        ),
    ):
        shell(place, *change)
        found = ledger.verify()
        assert (found.fault, found.seq) == (fault, seq), found
        shell(place, "TRUNCATE receipts", "INSERT INTO receipts SELECT * FROM kept")
    assert ledger.verify()


def test_sql_is_said_in_postgresqls_words():
    assert said("SELECT '?' FROM asked WHERE a = ? AND b = ?", 's"x') == (
        """SELECT '?' FROM "s""x".asked WHERE a = $1 AND b = $2"""
    )
