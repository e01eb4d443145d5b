"""A PostgreSQL server of our own, and kernels at work on it: for the tests and benches of a team's journal."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tokenkit.receipts import Receipt, new_id
from tokenkit.team import TeamJournal

PASSWORD = "not-to-be-seen"  # a URL's password, which must show nowhere


def binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``; None where no PostgreSQL is installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Cluster:
    """A server on a free port of 127.0.0.1, whose data dies with it. It refuses to run as root, who lends a user."""

    def __init__(self, *settings: str) -> None:
        self.bin, self.settings = binaries(), settings
        assert self.bin is not None
        self.folder = Path(tempfile.mkdtemp(prefix="tokenkit-pg-"))
        self.user: str | None = None
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self.folder, self.user)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self.data, "-U", "owner", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
                  "--locale=C", "-N")  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def data(self) -> str:
        """Where the server keeps its files."""
        return str(self.folder / "data")

    def url(self, database: str = "postgres", user: str = "owner", password: str = PASSWORD) -> str:
        """Return the address, password included."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self.bin is not None
        options = [f"-c{setting}" for setting in (f"port={self.port}", "listen_addresses=127.0.0.1",
                   f"unix_socket_directories={self.folder}", "max_connections=60", *self.settings)]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, *options], stdout=log, stderr=log, user=self.user, cwd="/"
            )
        give_up = time.monotonic() + 30
        while subprocess.run([self.bin / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)], capture_output=True,
                             check=False).returncode:  # fmt: skip
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT hangs up on everybody, SIGQUIT does not even write what is in memory."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def _run(self, name: str, *arguments: str) -> None:
        assert self.bin is not None
        command: Sequence[str] = [str(self.bin / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self.user, cwd="/", timeout=60)


Place = tuple[str, str]
"""A journal's URL and schema."""


NEEDED = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL is installed: apt install postgresql")
"""The mark of tests that need a server."""


def serving() -> Iterator[Cluster]:
    """Yield a server, and remove it; without fsync: what these tests kill is processes, not the machine."""
    found = Cluster("fsync=off")
    yield found
    found.remove()


_numbers = count()


def unused(server: Cluster) -> Place:
    """Return the URL of the server, and a schema nobody has used."""
    return server.url(), f"team {next(_numbers)}"


def opened(place: Place) -> Iterator[TeamJournal]:
    """Yield a journal there, and close it."""
    found = TeamJournal(place[0], schema=place[1], patience=5)
    yield found
    found.close()


def receipt(number: int = 0, **more: Any) -> Receipt:
    return Receipt(new_id(), 10**18 + number, 0.5, "ok", "auto", **more)


def process(code: str, place: Place, patience: int = 30) -> subprocess.Popen[str]:
    """Start a kernel of its own: ``journal`` is there, and it is let go on by a line on its stdin."""
    begin = """
        import os, sys, threading, time
        from tokenkit.accounts import Accounts
        from tokenkit.budget import Ask, Budget, Who
        from tokenkit.errors import LedgerError
        from tokenkit.journal import append
        from tokenkit.receipts import Attempt, Receipt, new_id
        from tokenkit.sharing import SharedBucket
        from tokenkit.team import TeamJournal
        journal = TeamJournal(sys.argv[1], schema=sys.argv[2], patience=int(sys.argv[3]))
        def receipt(user="", **more): return Receipt(new_id(), 10**18, 0.5, "ok", "auto", user=user, **more)
        sys.stdin.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(code), *place, str(patience)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shell(place: Place, *statements: str) -> None:
    """Change the database behind the journal's back, as its owner."""
    with psycopg.connect(place[0], autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{place[1]}"')
        for statement in statements:
            connection.execute(statement)


def together(kernels: list[subprocess.Popen[str]]) -> list[str]:
    for one in kernels:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate(timeout=60) for one in kernels]
    assert [errors for _, errors in said] == [""] * len(kernels)
    return [output for output, _ in said]
