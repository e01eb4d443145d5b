"""A PostgreSQL server of our own, from the binaries of the system: for the tests and benches of a team's journal."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "not-to-be-seen"  # a URL's password, which must show nowhere


def binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``; None where no PostgreSQL is installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Cluster:
    """A server on a free port of 127.0.0.1, whose data dies with it. Refuses to run as root, so root lends it a user."""

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
