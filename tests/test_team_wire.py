"""A team's journal over TLS that is really checked, and through a connection pooler in either of its modes."""

from __future__ import annotations

import ipaddress
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import clusters
import pytest
from clusters import process, receipt, shell, together
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from journals import chained

from tokenkit import Kit
from tokenkit.accounts import Accounts
from tokenkit.budget import Ask, Budget, Who
from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger
from tokenkit.receipts import new_id
from tokenkit.team import TeamJournal

pytestmark = clusters.NEEDED


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that is its own authority; return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    here, secret = folder / f"{name}.crt", folder / f"{name}.key"
    here.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    secret.chmod(0o600)
    return here, secret


server = pytest.fixture(clusters.serving, scope="module")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a certificate ``server``, which is its own authority, and of a ``stranger``'s."""
    folder = tmp_path_factory.mktemp("papers")
    certificate(folder, "server")
    certificate(folder, "stranger")
    return folder


@pytest.fixture(scope="module")
def sealed(papers: Path) -> Iterator[clusters.Cluster]:
    """A server with TLS, that also knows of clients' certificates."""
    found = clusters.Cluster("fsync=off")
    try:
        found.stop()
        for file in ("server.crt", "server.key"):
            lend(papers / file, Path(found.data, file), found.user)
        # Whom the server asks for a certificate is a matter of the name; without TLS nobody comes in.
        rules = (("owner", "scram-sha-256"), ("carded", "scram-sha-256 clientcert=verify-ca"), ("sworn", "cert"))
        Path(found.data, "pg_hba.conf").write_text(
            "".join(f"hostssl all {user} 127.0.0.1/32 {rule}\n" for user, rule in rules)
        )
        found.settings = (*found.settings, "ssl=on", "ssl_ca_file=server.crt")
        found.start()
        for user in ("carded", "sworn"):
            shell((found.url(), "public"), f"CREATE ROLE {user} LOGIN PASSWORD '{clusters.PASSWORD}'")
        yield found
    finally:
        found.remove()


def lend(file: Path, to: Path, user: str | None) -> None:
    """Copy a file to where a server reads it, as its own."""
    shutil.copyfile(file, to)
    to.chmod(0o600)
    if user is not None:
        shutil.chown(to, user)


def refusal(url: str, says: str) -> None:
    """Assert that the journal there is refused with one line that begins so, and knows no password."""
    journal = TeamJournal(url, schema="refused", patience=3)
    with pytest.raises(LedgerError) as refused:
        journal.head()
    # The prose before the driver's own words, which stand in brackets: those alone tell nobody what to do.
    assert re.search(says, str(refused.value).split(" (")[0]), refused.value
    one_line_and_no_password(refused.value)


def one_line_and_no_password(error: BaseException) -> None:
    """Assert it of the message, and of every frame's variables except this file's, which made the URL."""
    assert "\n" not in str(error)
    whole = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    frames = 0
    while whole:
        one = whole.pop()
        whole += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
        ours = [frame for frame in one.stack if frame.filename != __file__]
        frames += len(ours)
        assert clusters.PASSWORD not in f"{one} {[frame.locals for frame in ours]}"
    assert frames, "no frame of the journal's was looked at"


def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(server: clusters.Cluster) -> None:
    for mode in ("require", "verify-full"):
        refusal(server.url() + f"?sslmode={mode}", r"speaks no TLS.*Turn TLS on there, or ask for less$")


def test_receipts_and_budgets_go_over_tls_where_the_environment_says_so(
    sealed: clusters.Cluster, papers: Path, tmp_path: Path
) -> None:
    url = sealed.url() + f"?sslmode=verify-full&sslrootcert={papers}/server.crt"
    (tmp_path / "tokenkit.toml").write_text('[ledger]\njournal_env = "TEAM"\n[[budget]]\nlimit = "5000 tokens"\n')
    environ = {"TOKENKIT_SIMULATED": "1", "TEAM": url}
    for number in (1, 2):  # the second kit reads what the first has written
        with Kit(tmp_path / "tokenkit.toml", home=tmp_path / str(number), environ=environ) as kit:
            answer = kit.call("Hello")
            assert [entry.id for entry in kit.journal.rows()][-1] == answer.receipt.id
            assert kit.journal.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
            assert len(kit.ledger.df()) == number
            (state,) = kit.accounts.status()
            usages = [entry.receipt.usage for entry in kit.journal.rows()]
            assert state.spent == sum(usage.total_tokens or 0 for usage in usages if usage) > 0
            assert (state.held, len(usages)) == (0, number)
            assert kit.ledger.verify()
            kit.journal.close()


ROOT = "sslmode=verify-full&sslrootcert={papers}/server.crt"
OURS = r"server's certificate is not one this URL trusts\. See its sslrootcert"
YOURS = r"wants to see a certificate of ours.*See the URL's sslcert and sslkey$"
ENTRY = r"only over TLS\. See its pg_hba.conf, and the URL's sslmode$"


@pytest.mark.parametrize(
    ("user", "host", "query", "says"),
    [
        ("owner", "127.0.0.1", "sslmode=verify-full&sslrootcert={papers}/stranger.crt", OURS),
        ("owner", "127.0.0.1", "sslmode=verify-full&sslrootcert=/nowhere/root.crt", OURS),
        ("owner", "localhost", ROOT, OURS),  # a name the certificate does not carry
        ("owner", "127.0.0.1", "sslmode=disable", ENTRY),
        ("owner", "127.0.0.1", ROOT + "&sslcert={papers}/server.crt&sslkey=/nowhere/key", YOURS),
        ("carded", "127.0.0.1", ROOT, YOURS),
        ("carded", "127.0.0.1", ROOT + "&sslcert={papers}/stranger.crt&sslkey={papers}/stranger.key", YOURS),
        ("sworn", "127.0.0.1", ROOT + "&sslcert={papers}/server.crt&sslkey={papers}/server.key", YOURS),
    ],
)
def test_what_is_wrong_with_tls_is_said_with_what_to_do(
    sealed: clusters.Cluster, papers: Path, user: str, host: str, query: str, says: str
) -> None:
    refusal(sealed.url(user=user).replace("127.0.0.1", host) + "?" + query.format(papers=papers), says)


class Pooler:
    """pgbouncer before a server, in one of its modes."""

    def __init__(self, server: clusters.Cluster, mode: str, *, size: int = 0, papers: Path | None = None) -> None:
        folder = Path(tempfile.mkdtemp(prefix="tokenkit-pooler-"))  # pytest's own is nobody else's to enter
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "users.txt").write_text(f'"owner" "{clusters.PASSWORD}"\n')
        wait = 1 if size else 30  # seconds until who waits for a connection is sent away
        size = size or (3 if mode == "transaction" else 20)  # a session has its connection for itself
        (folder / "pooler.ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = scram-sha-256\nauth_file = {folder}/users.txt\n"
            f"pool_mode = {mode}\nunix_socket_dir =\nlogfile = {folder}/log\n"
            f"default_pool_size = {size}\nmax_client_conn = 50\nquery_wait_timeout = {wait}\n"
        )
        if papers is not None:  # TLS on either side of it, and checked on its way to the server
            for file in ("server.crt", "server.key"):
                shutil.copyfile(papers / file, folder / file)
            with (folder / "pooler.ini").open("a") as more:
                more.write(
                    f"client_tls_sslmode = require\nclient_tls_cert_file = {folder}/server.crt\n"
                    f"client_tls_key_file = {folder}/server.key\n"
                    f"server_tls_sslmode = verify-full\nserver_tls_ca_file = {folder}/server.crt\n"
                )
        for one in folder.iterdir():
            one.chmod(0o600)
            if server.user is not None:
                shutil.chown(one, server.user)
        if server.user is not None:
            shutil.chown(folder, server.user)
        self.folder, self.user, self.mode = folder, server.user, mode
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(["pgbouncer", "-q", str(self.folder / "pooler.ini")], user=self.user, cwd="/")
        give_up = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < give_up, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://owner:{clusters.PASSWORD}@127.0.0.1:{self.port}/postgres"


SPEND = """
from dataclasses import replace
from tokenkit.types import Usage
books = Accounts(lambda: journal, (Budget("100000 tokens", name="all"),))
spent = 0
for number in range(60):
    call, who, one = new_id(), Who(None, "p", "p/m", None, None), receipt()
    if not books.reserve(books.rules(), who, call, Ask(1000, 0, None), lambda: one):
        tried = replace(Attempt("p/m", "p", 1), usage=Usage(900, 0))
        books.write(replace(one, id=call, attempts=(tried,), cost_nanos=0))
        spent += 900
print(spent)
"""
ANYBODY = Who(None, "p", "p/m", None, None)
pooled = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no pooler is installed: apt install pgbouncer")


@pytest.fixture
def pooler(server: clusters.Cluster, request: pytest.FixtureRequest) -> Iterator[Pooler]:
    mode, size = request.param if isinstance(request.param, tuple) else (request.param, 0)
    found = Pooler(server, mode, size=size)
    yield found
    found.remove()


def journal_at(pooler: Pooler, schema: str, patience: float = 5) -> TeamJournal:
    return TeamJournal(pooler.url, schema=schema, patience=patience)


@pooled
@pytest.mark.parametrize("pooler", ["session", "transaction"], indirect=True)
def test_through_a_pooler_receipts_are_chained_and_limits_hold(pooler: Pooler, tmp_path: Path) -> None:
    schema = f"pooled {pooler.mode}"
    journals = [journal_at(pooler, schema) for _ in range(3)]
    for number in range(60):  # more than enough for the driver to prepare its statements on several lines
        journals[number % 3].write(receipt(number))
    kernels = [process(SPEND, (pooler.url, schema)) for _ in range(2)]
    spent = sum(map(int, together(kernels)))
    # Together they ask for 108,000: what is left at the end is less than two reservations.
    assert 98_000 < spent <= 100_000
    ((held, booked),) = journals[1].ask("SELECT held, spent FROM accounts WHERE account = ?", ("all",))
    assert (held, booked) == (0, spent)
    hasty = journal_at(pooler, schema, patience=0.5)
    with journals[0].transaction() as rows:  # two kernels do not always meet; these two do
        rows.execute("SELECT 1").fetchone()
        with pytest.raises(LedgerError, match="another kernel has been holding its lock"):
            hasty.write(receipt())
    hasty.close()
    ledger = Ledger(cast("Journal", journals[0]), tmp_path / "ledger.duckdb")
    assert len(ledger.df()) == 60 + spent // 900
    books = Accounts(lambda: cast("Journal", journals[0]), (Budget("100000 tokens", name="all"),))
    pooler.stop()
    with pytest.raises(LedgerError, match="cannot be reached"):
        journals[0].head()
    with pytest.raises(LedgerError, match="cannot be reached"):
        books.reserve(books.rules(), ANYBODY, new_id(), Ask(1, 0, None), receipt)
    pooler.start()
    for journal in journals:  # each held a line that is now dead
        journal.write(receipt(99))
    assert books.reserve(books.rules(), ANYBODY, new_id(), Ask(100_001 - spent, 0, None), receipt)
    assert not books.reserve(books.rules(), ANYBODY, new_id(), Ask(100_000 - spent, 0, None), receipt)
    assert chained(journals[2])
    assert ledger.verify()
    for journal in journals:
        journal.close()


@pooled
@pytest.mark.parametrize("pooler", ["transaction"], indirect=True, ids=[""])
def test_nothing_of_ours_stays_in_a_server_process_that_others_are_lent(
    server: clusters.Cluster, pooler: Pooler
) -> None:
    left = """SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('lock_timeout'),
      current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'),
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
      (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE name <> '')"""
    journal = journal_at(pooler, "left")
    for number in range(20):
        journal.write(receipt(number))
        journal.rows()
    assert journal.ask(left) == [(0, "0", "0", '"$user", public', 0, 0, 0)]
    journal.close()
    alone = TeamJournal(server.url(), schema="left")  # where nobody is in between, statements are prepared
    for number in range(20):
        alone.write(receipt(number))
    assert alone.ask("SELECT count(*) FROM pg_prepared_statements")[0][0] > 0
    alone.close()


ASLEEP = """
    with journal.transaction() as rows:
        append(rows, receipt("half"))
        rows.execute("SELECT 1").fetchone()  # all of it has arrived in the server
        print("in the middle", flush=True)
        time.sleep(60)
"""


@pooled
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("pooler", ["transaction"], indirect=True, ids=[""])
def test_a_kernel_that_dies_or_sleeps_behind_a_pooler_holds_nobody_up(pooler: Pooler, how: signal.Signals) -> None:
    schema = f"asleep {how.name}"
    journal = journal_at(pooler, schema)
    journal.write(receipt())
    asleep = process(ASLEEP, (pooler.url, schema), patience=1)
    try:
        assert asleep.stdin is not None
        assert asleep.stdout is not None
        asleep.stdin.write("go\n")
        asleep.stdin.flush()
        assert asleep.stdout.readline() == "in the middle\n"
        asleep.send_signal(how)
        journal.write(receipt())
        assert [entry.receipt.user for entry in journal.rows()] == [None, None]
        assert chained(journal)
    finally:
        asleep.kill()
        asleep.communicate()
    journal.close()


@pooled
@pytest.mark.parametrize("pooler", [("session", 1)], indirect=True, ids=[""])
def test_a_pool_that_is_used_up_is_named_and_costs_its_holder_nothing(pooler: Pooler) -> None:
    first, second = (journal_at(pooler, "full") for _ in range(2))
    first.write(receipt())
    with pytest.raises(LedgerError, match=r"the pooler has no connection to lend\..*the pool's size") as refused:
        second.write(receipt())
    one_line_and_no_password(refused.value)
    first.write(receipt())
    first.close()
    second.write(receipt())  # what was lent has come back
    assert second.head()[0] == 3
    second.close()


@pooled
def test_tls_on_both_sides_of_a_pooler(sealed: clusters.Cluster, papers: Path) -> None:
    pooler = Pooler(sealed, "transaction", papers=papers)
    try:
        journal = TeamJournal(f"{pooler.url}?sslmode=verify-full&sslrootcert={papers}/server.crt", schema="both")
        journal.write(receipt())
        assert journal.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
        journal.close()
        refusal(f"{pooler.url}?sslmode=verify-full&sslrootcert={papers}/stranger.crt", OURS)
        refusal(f"{pooler.url}?sslmode=disable", ENTRY)
    finally:
        pooler.remove()
