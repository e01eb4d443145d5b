"""A team's journal when things break: kernels killed or asleep, servers restarted, rights withheld, passwords wrong."""

from __future__ import annotations

import os
import signal
import time
import traceback

import clusters
import pytest
from clusters import PASSWORD, Place, process, receipt, shell, together
from journals import chained

from tokenkit.accounts import Accounts
from tokenkit.budget import Ask, Budget, Who
from tokenkit.errors import ConfigError, LedgerError
from tokenkit.journal import append
from tokenkit.receipts import Receipt, new_id
from tokenkit.team import TeamJournal
from tokenkit.team.tables import MIGRATIONS

LONG = os.environ.get("TOKENKIT_LONG") == "1"
ANYBODY = Who(None, "p", "p/m", None, None)
pytestmark = clusters.NEEDED

server = pytest.fixture(clusters.serving, scope="module")
place = pytest.fixture(clusters.unused)
journal = pytest.fixture(clusters.opened)


# When things break.


DYING = """
    books = Accounts(lambda: journal, [Budget("1000 tokens")])
    with journal.transaction() as rows:
        append(rows, receipt("half"))
        rows.execute("INSERT INTO accounts VALUES ('tokens in total', 'always', 7, 7, 7, 0, 0)")
        rows.execute("SELECT 1").fetchone()  # all of it has arrived in the server
        print("in the middle", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_kernel_that_dies_or_sleeps_in_the_middle_leaves_nothing_and_holds_nobody_up(place, journal, how):
    journal.write(receipt())
    dying = process(DYING, place, patience=1)
    dying.stdin.write("go\n")
    dying.stdin.flush()
    assert dying.stdout.readline() == "in the middle\n"
    dying.send_signal(how)
    journal.write(receipt())
    assert journal.head()[0] == 2
    assert journal.ask("SELECT count(*) FROM accounts") == [(0,)]
    assert chained(journal)
    dying.kill()
    dying.communicate()


def test_random_kills_lose_nothing_that_was_acknowledged(place, journal):
    code = """
        while True:
            one = receipt()
            journal.write(one)
            print(one.id, flush=True)
    """
    acknowledged: list[str] = []
    for number in range(200 if LONG else 4):
        writer = process(code, place)
        writer.stdin.write("go\n")
        writer.stdin.flush()
        acknowledged.append(writer.stdout.readline().strip())
        time.sleep(0.01 * (number % 7))
        writer.kill()
        acknowledged += [line for line in writer.communicate()[0].split("\n") if len(line) == len(acknowledged[0])]
    kept = [entry.id for entry in journal.rows(0, 1_000_000)]
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
    assert chained(journal)


def test_a_server_that_restarts_costs_no_receipt_and_one_that_is_away_no_money(tmp_path):
    server = clusters.Cluster("fsync=off")
    try:
        journal = TeamJournal(server.url(), patience=5)
        books = Accounts(lambda: journal, [Budget("1000 tokens")])
        asked, lost = Ask(6, 4, 0), receipt()
        assert books.reserve(books.rules(), ANYBODY, lost.id, asked, lambda: lost) == ()
        server.stop()
        with pytest.raises(LedgerError, match=r"cannot be reached.*See that it runs") as caught:
            journal.write(receipt())
        assert f"127.0.0.1:{server.port}/postgres" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert books.rules(), "a budget was forgotten because the server is away"
        with pytest.raises(LedgerError):
            books.reserve(books.rules(), ANYBODY, new_id(), asked, lambda: receipt())
        server.start()
        journal.write(receipt())
        for how in (signal.SIGINT, signal.SIGQUIT):  # in between two calls nobody notices
            server.stop(how)
            server.start()
            with journal.transaction() as rows:
                append(rows, receipt())
        assert [one.held for one in books.status()] == [10]
        books.write(Receipt(lost.id, 1, 0.0, "ok", "p/m", cost_nanos=0, attempts=lost.attempts))
        assert [one.held for one in books.status()] == [0]

        def amid() -> None:
            with journal.transaction() as rows:
                append(rows, receipt())
                rows.execute("SELECT 1").fetchone()
                server.stop(signal.SIGQUIT)
                server.start()
                append(rows, receipt())

        with pytest.raises(LedgerError):
            amid()
        assert journal.head()[0] == 4
        assert chained(journal)
        journal.close()
    finally:
        server.remove()


FORKING = """
    stop, counts = threading.Event(), [0]
    def busy():
        while not stop.is_set():
            journal.write(receipt("thread"))
            counts[0] += 1
    thread = threading.Thread(target=busy)
    thread.start()
    for child in range(8):
        journal.write(receipt("parent"))
        pid = os.fork()
        if pid == 0:
            for _ in range(5):
                journal.write(receipt("child"))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    with journal.transaction() as rows:
        append(rows, receipt("parent"))
        if (pid := os.fork()) == 0:
            try:
                rows.execute("DELETE FROM receipts").fetchone()
            except Exception:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0, "a child spoke in its parent's transaction"
    stop.set()
    thread.join()
    print(counts[0])
"""


def test_a_fork_amid_writes_loses_nothing_and_leaves_the_parent_its_connections(place, journal):
    (said,) = together([process(FORKING, place)])
    users = [entry.receipt.user for entry in journal.rows(0, 1_000_000)]
    assert (users.count("parent"), users.count("child"), users.count("thread")) == (9, 40, int(said))
    assert chained(journal)


# Who may do what, and what may be seen.


def test_a_member_may_write_and_spend_but_change_no_receipt(server, place, journal):
    journal.write(receipt())
    shell(place, "CREATE ROLE member LOGIN PASSWORD 'member'", f'GRANT USAGE ON SCHEMA "{place[1]}" TO member',
          f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA "{place[1]}" TO member',
          "GRANT UPDATE, DELETE ON buckets, budgets, accounts, asked, holds TO member")  # fmt: skip
    member = TeamJournal(server.url(user="member", password="member"), schema=place[1])
    books = Accounts(lambda: member, [Budget("1000 tokens")])
    one = receipt()
    assert books.reserve(books.rules(), ANYBODY, one.id, Ask(6, 4, 0), lambda: one) == ()
    books.write(one)
    member.write(receipt())
    assert chained(member)
    with pytest.raises(LedgerError, match="may not do that"), member.transaction() as rows:
        rows.execute("UPDATE receipts SET body = ''")
    member.close()


def _foreign(place: Place) -> None:
    shell(place, f'CREATE SCHEMA "{place[1]}"', "CREATE TABLE recipes (name TEXT)")


def _newer(place: Place) -> None:
    TeamJournal(place[0], schema=place[1]).head()
    shell(place, f"UPDATE meta SET value = to_jsonb({len(MIGRATIONS) + 1}) WHERE key = 'journal_version'")


def _tableless(place: Place) -> None:
    TeamJournal(place[0], schema=place[1]).head()
    shell(place, "DROP TABLE receipts")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_foreign, "no tokenkit journal"), (_newer, "newer tokenkit.*Upgrade"), (_tableless, "was dropped")],
)
def test_a_schema_that_cannot_be_used_is_named_with_what_to_do(place, journal, spoil, says):
    spoil(place)
    for use in (lambda: journal.write(receipt()), journal.rows, journal.head):
        with pytest.raises(LedgerError, match=says) as caught:
            use()
        assert str(journal.path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_password_shows_nowhere(server):
    shell((server.url(), "public"), "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    wrong = server.url().replace(PASSWORD, "sesame-sesame")
    secrets = (PASSWORD, "sesame-sesame")
    for url, says in (
        (server.url("latin"), "LATIN1"),
        (server.url("none"), "no such database"),
        (wrong, "user or password"),
        (wrong.replace(str(server.port), "1"), "cannot be reached"),
    ):
        journal = TeamJournal(url, patience=2)
        assert repr(journal).startswith("TeamJournal('postgresql://owner@127.0.0.1:")
        with pytest.raises(LedgerError, match=says) as caught:
            journal.head()
        _hides(caught.value, journal, *secrets)
    for url in ("postgresql//owner:sesame-sesame@here/db", "postgresql://owner:sesame-sesame@here:port:no/db?what"):
        with pytest.raises((ConfigError, LedgerError)) as refused:
            TeamJournal(url).head()
        _hides(refused.value, None, *secrets)


def _hides(error: BaseException, journal: TeamJournal | None, *secrets: str) -> None:
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [whole]
    while frames:
        one = frames.pop()
        frames += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
        seen = [str(one), *(f"{f.locals}" for f in one.stack if f.filename != __file__)]
        assert not any(secret in text for secret in secrets for text in seen)
    assert not any(secret in f"{journal!r} {vars(journal) if journal else ''}" for secret in secrets)
