"""The server: how it is reached without the password showing anywhere, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tokenkit.errors import ConfigError, LedgerError
from tokenkit.team.tables import prepare
from tokenkit.types import Secret

if TYPE_CHECKING:
    import psycopg

CODES = {
    "42P01": "a table of it was dropped. Restore it from a backup, or name another schema (a new journal is made)",
    "42501": "this user may not do that. Ask whoever runs the server for the rights on the schema",
    "25006": "the server is read only: a standby, perhaps. Name the primary",
    "53100": "the server's disk is full. Free some space there and call again",
    "55P03": "another kernel has been holding its lock all this time. Try again; see pg_stat_activity for who has it",
    "25P03": "this kernel held the lock for longer than all others can wait, and was cut off. Nothing was written",
    "22003": "a number in it is larger than a BIGINT",
}
"""What PostgreSQL's error codes mean here: https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_OURS = ("client certificate", "certificate authentication failed", "private key", "alert unknown ca")
"""What libpq and the server say where it is the client's certificate that is missing or refused."""


class Server:
    """One journal's place: a database, and the schema in it. ``where`` names it without the password.

    ``patience`` in seconds bounds connecting, and waiting for the lock.
    """

    def __init__(self, dsn: Secret, schema: str, patience: float) -> None:
        self.schema, self.patience = schema, patience
        self.where, self._parameters = _read(dsn, patience)
        # Of the schema's name alone: every kernel of the team must come to the same number.
        self.lock = int.from_bytes(hashlib.sha256(b"tokenkit journal " + schema.encode()).digest()[:8], signed=True)

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection to a journal that is ready: made, and of this version. Raises LedgerError."""
        found = self._tried()
        if isinstance(found, str):
            # Out here, because the driver's frames, which know the password, would else be part of the traceback.
            raise LedgerError(f"Cannot open the team journal {self.where}: {found}")
        return found

    def _tried(self) -> psycopg.Connection[Any] | str:
        """Return a connection, or why there is none."""
        import psycopg
        from psycopg.conninfo import make_conninfo
        from psycopg.types.numeric import Int8Dumper

        connection = None
        try:
            line = make_conninfo(**{name: secret.reveal() for name, secret in self._parameters.items()})
            connection = psycopg.connect(line, autocommit=True, cursor_factory=psycopg.RawCursor)
            # By default small and large numbers have different types, and each mixture is a plan of its own.
            connection.adapters.register_dumper(int, Int8Dumper)
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise LedgerError(f"its database is encoded in {encoding}; a journal needs one in UTF8.")
            ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
            if pid != connection.info.backend_pid:
                # A pooler is in between (it hands out process numbers of its own), and the next transaction may be
                # another server process's, which knows nothing of statements prepared in this one.
                connection.prepare_threshold = None
            prepare(connection, self.schema, self.lock)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, psycopg.Error | LedgerError | UnicodeError):
                return str(error) if isinstance(error, LedgerError) else self._why(error)
            raise
        return connection

    def prose(self, error: BaseException, doing: str) -> str:
        """Say what went wrong and what to do about it."""
        return f"Cannot {doing} the team journal {self.where}: {self._why(error)}"

    def _why(self, error: BaseException) -> str:
        import psycopg

        code = getattr(error, "sqlstate", None)
        text = " ".join(str(error).split()) or type(error).__name__
        if code in CODES:
            why = CODES[code]
        elif "does not support SSL" in text:
            why = "the server speaks no TLS, and the URL's sslmode asks for it. Turn TLS on there, or ask for less"
        elif "no pg_hba.conf entry" in text or "SSL required" in text:
            why = "the server lets nobody in from here, or only over TLS. See its pg_hba.conf, and the URL's sslmode"
        elif any(words in text for words in _OURS):
            why = "the server wants to see a certificate of ours that it trusts. See the URL's sslcert and sslkey"
        elif "query_wait_timeout" in text or "server_login_retry" in text:  # pgbouncer's words
            why = "the pooler has no connection to lend. See that the server behind it runs, and the pool's size"
        elif "certificate" in text:
            why = "the server's certificate is not one this URL trusts. See its sslrootcert, and the host's name"
        elif "authentication failed" in text:  # libpq gives no code for what fails while connecting
            why = "the server refuses this user or password. Check the URL's user, and its password"
        elif "database" in text and "does not exist" in text:
            why = "there is no such database on the server. Make it with createdb, or name another"
        elif (code is None and isinstance(error, psycopg.OperationalError)) or str(code)[:2] in ("08", "57", "53"):
            why = "the server cannot be reached, or hung up. See that it runs, and that its URL is right"
        elif isinstance(error, psycopg.DataError | UnicodeError):
            why = "a text in it is none that PostgreSQL can hold"
        else:
            why = "PostgreSQL gave no better reason"
        return f"{why} ({text})."


def _read(dsn: Secret, patience: float) -> tuple[str, dict[str, Secret]]:
    """Return what may be shown of a URL, and all of its parameters, which may not."""
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise ConfigError("A team journal needs psycopg: pip install 'tokenkit[team]'.") from None
    found: dict[str, Any] | None
    try:
        found = conninfo_to_dict(dsn.reveal())
    except ProgrammingError:
        found = None  # the driver's message quotes the URL
    if found is None:
        raise ConfigError(
            "The team journal's address is no PostgreSQL URL: write postgresql://user:password@host:5432/database."
        )
    user, host, port = (found.get(name) for name in ("user", "host", "port"))
    place = f"{f'{user}@' if user else ''}{host or ''}{f':{port}' if port else ''}"
    # A peer that vanished (a laptop closed, a cable pulled) is noticed in seconds, not in the system's two hours.
    patient = {"connect_timeout": max(2, round(patience)), "tcp_user_timeout": max(2000, round(patience * 1000)),
               "keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3,
               "application_name": "tokenkit"}  # fmt: skip
    every = {**patient, **found, "client_encoding": "UTF8"}
    return f"postgresql://{place}/{found.get('dbname') or ''}", {name: Secret(str(v)) for name, v in every.items()}
