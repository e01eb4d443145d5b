"""A team's journal over TLS that is really checked, and through a connection pooler in either of its modes."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import clusters
import pytest
from clusters import chained, process, receipt, together
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tokenkit.errors import LedgerError
from tokenkit.team import TeamJournal

pytestmark = pytest.mark.skipif(
    clusters.binaries() is None, reason="no PostgreSQL is installed: apt install postgresql"
)


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


@pytest.fixture(scope="module")
def server() -> Iterator[clusters.Cluster]:
    yield from clusters.running("fsync=off")


def test_tls_is_used_and_checked_where_the_address_says_so(server: clusters.Cluster, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="TLS") as refused:
        TeamJournal(server.url() + "?sslmode=require", schema="tls", patience=3).head()
    assert clusters.PASSWORD not in str(refused.value)
    ours, key = certificate(tmp_path, "server")
    other, _ = certificate(tmp_path, "stranger")
    for file, name in ((ours, "server.crt"), (key, "server.key")):
        placed = Path(server.data, name)
        shutil.copyfile(file, placed)
        placed.chmod(0o600)
        if server.user is not None:
            shutil.chown(placed, server.user)
    server.stop()
    server.settings = (*server.settings, "ssl=on")
    server.start()
    journal = TeamJournal(server.url() + f"?sslmode=verify-full&sslrootcert={ours}", schema="tls", patience=3)
    one = receipt()
    journal.write(one)
    assert journal.rows()[0].id == one.id
    assert journal.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
    journal.close()
    stranger = TeamJournal(server.url() + f"?sslmode=verify-full&sslrootcert={other}", schema="tls", patience=3)
    with pytest.raises(LedgerError, match="certificate") as refused:
        stranger.head()
    assert "\n" not in str(refused.value)
    assert clusters.PASSWORD not in str(refused.value)


class Pooler:
    """pgbouncer before a server, in one of its modes."""

    def __init__(self, server: clusters.Cluster, mode: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="tokenkit-pooler-"))  # pytest's own is nobody else's to enter
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.chmod(0o755)
        (folder / "users.txt").write_text(f'"owner" "{clusters.PASSWORD}"\n')
        size = 3 if mode == "transaction" else 20  # a session has its connection for itself
        (folder / "pooler.ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = scram-sha-256\nauth_file = {folder}/users.txt\n"
            f"pool_mode = {mode}\nunix_socket_dir =\nlogfile = {folder}/log\n"
            f"default_pool_size = {size}\nmax_client_conn = 50\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        for file in folder.iterdir():
            file.chmod(0o644)
        if server.user is not None:
            shutil.chown(folder, server.user)
        self.folder, self.user = folder, server.user
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
budget = Budget("100000 tokens", name="all")
books = Accounts(lambda: journal, (budget,))
spent = 0
for number in range(60):
    call = new_id()
    who = Who(None, "p", "p/m", None, None)
    one = receipt()
    if not books.reserve(books.rules(), who, call, Ask(1000, 0, None), lambda: one):
        tried = Attempt("p/m", "p", 1)
        from tokenkit.types import Usage
        from dataclasses import replace
        books.write(replace(one, id=call, attempts=(replace(tried, usage=Usage(900, 0)),), cost_nanos=0))
        spent += 900
print(spent)
"""


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no pooler is installed: apt install pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_through_a_pooler_receipts_are_chained_and_limits_hold(server: clusters.Cluster, mode: str) -> None:
    pooler = Pooler(server, mode)
    try:
        schema = f"pooled {mode}"
        journals = [TeamJournal(pooler.url, schema=schema, patience=5) for _ in range(3)]
        for number in range(60):  # more than enough for the driver to prepare its statements on several lines
            journals[number % 3].write(receipt(number))
        assert len(journals[0].rows()) == 60
        kernels = [process(SPEND, (pooler.url, schema)) for _ in range(3)]
        spent = sum(map(int, together(kernels)))
        assert spent <= 100_000
        ((held, booked),) = journals[1].ask("SELECT held, spent FROM accounts WHERE account = ?", ("all",))
        assert (held, booked) == (0, spent)
        pooler.stop()
        with pytest.raises(LedgerError, match="cannot be reached"):
            journals[0].head()
        pooler.start()
        journals[0].write(receipt(99))
        assert chained(journals[2])
        for journal in journals:
            journal.close()
    finally:
        pooler.remove()
