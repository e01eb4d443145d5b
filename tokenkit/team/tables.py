"""The journal's tables in PostgreSQL, by version, and how the SQL of SQLite's journal is said there."""

from __future__ import annotations

import re
import secrets
import time
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from tokenkit.errors import LedgerError

if TYPE_CHECKING:
    import psycopg

# One entry a version, as in the SQLite journal; meta keeps the count. An entry, once released, is never edited.
# Text is compared byte by byte (COLLATE "C"), as SQLite does, whatever language the database speaks.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE receipts (
             seq        BIGINT PRIMARY KEY,               -- 1, 2, 3, ... without gaps
             id         TEXT COLLATE "C" NOT NULL UNIQUE, -- Receipt.id
             started_at BIGINT NOT NULL,                  -- Unix nanoseconds
             body       TEXT NOT NULL,                    -- Receipt.to_json(): not JSONB, whose bytes differ from it
             prev       BYTEA NOT NULL,                   -- hash of row seq - 1; 32 zero bytes for the first
             hash       BYTEA NOT NULL                    -- sha256(prev || body)
           )""",
        """CREATE TABLE meta (key TEXT COLLATE "C" PRIMARY KEY, value JSONB)""",
        """CREATE TABLE buckets (
             name TEXT COLLATE "C" PRIMARY KEY, level DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL
           ) WITH (fillfactor = 50)""",  # half of a page is left free, so that an update stays on it
        """CREATE TABLE budgets (key TEXT COLLATE "C" PRIMARY KEY, body TEXT NOT NULL)""",
        """CREATE TABLE accounts (
             account    TEXT COLLATE "C" NOT NULL,
             period     TEXT COLLATE "C" NOT NULL,
             spent      BIGINT NOT NULL,
             held       BIGINT NOT NULL,
             calls      BIGINT NOT NULL,
             violations BIGINT NOT NULL,
             noticed    BIGINT NOT NULL,
             PRIMARY KEY (account, period)
           ) WITH (fillfactor = 50)""",
        """CREATE TABLE asked (
             call TEXT COLLATE "C" PRIMARY KEY, state TEXT COLLATE "C" NOT NULL, lease BIGINT NOT NULL,
             body TEXT NOT NULL
           )""",
        # Every reservation asks whose lease is over; what was swept long ago must not be read for it.
        "CREATE INDEX asked_under_way ON asked (lease) WHERE state IN ('held', 'settled')",
        """CREATE TABLE holds (
             call TEXT COLLATE "C" NOT NULL, account TEXT COLLATE "C" NOT NULL, period TEXT COLLATE "C" NOT NULL,
             amount BIGINT NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (call, account)
           )""",
    ),
)

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
"""By name, whatever the database's defaults are: each statement must see what was committed before it had the lock."""

TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", " ".join(text for entry in MIGRATIONS for text in entry)))

_NAMED = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN|TABLE|ON) ({'|'.join(TABLES)})\b")
_ASKED_FOR = re.compile(r"'[^']*'|\?")
_KEPT = re.compile(r"INSERT OR REPLACE INTO budgets (VALUES .*)", re.DOTALL)


@lru_cache(maxsize=256)
def said(sql: str, schema: str) -> str:
    """Return SQLite's SQL as PostgreSQL understands it: ``$1`` for ``?``, and every table by its full name.

    By its full name, because a search path would belong to the session, and poolers share those out by transaction.
    """
    number = count(1)
    text = _ASKED_FOR.sub(lambda found: f"${next(number)}" if found[0] == "?" else found[0], sql)
    text = _KEPT.sub(r"INSERT INTO budgets \1 ON CONFLICT (key) DO UPDATE SET body = excluded.body", text)
    if text.startswith("INSERT INTO receipts") and "ON CONFLICT" not in text:
        # A receipt that is there already is left alone. SQLite says so by an error that the journal catches; here an
        # error would end the transaction.
        text += " ON CONFLICT (id) DO NOTHING"
    return _NAMED.sub(lambda found: f"{found[1]} {quoted(schema)}.{found[2]}", text)


def quoted(name: str) -> str:
    """Return a name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def prepare(connection: psycopg.Connection[Any], schema: str, lock: int) -> None:
    """Make or migrate the tables where need be; whoever may only use them needs no right to create any.

    Raises LedgerError where the schema is somebody else's, or written by a newer tokenkit.
    """
    if _version(connection, schema) == len(MIGRATIONS):
        return
    connection.execute(BEGIN)
    try:
        connection.execute("SELECT pg_advisory_xact_lock($1)", (lock,))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
        if _one(connection, held) == 0:
            # Some engines that speak PostgreSQL's protocol accept the call and lock nothing: budgets would not hold.
            raise LedgerError("this database server has no advisory locks, which the budgets of a team stand on.")
        version = _version(connection, schema)  # again, now that nobody else can change it
        if _one(connection, "SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema) == 0:
            connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(said(statement, schema))
        fact = said("INSERT INTO meta VALUES (?, to_jsonb(?::text)) ON CONFLICT (key) DO NOTHING", schema)
        connection.execute(fact, ("journal_id", secrets.token_hex(16)))
        number = said("INSERT INTO meta VALUES (?, to_jsonb(?::bigint)) ON CONFLICT (key) DO {}", schema)
        connection.execute(number.format("NOTHING"), ("created_at", time.time_ns()))
        connection.execute(number.format("UPDATE SET value = excluded.value"), ("journal_version", len(MIGRATIONS)))
        connection.execute("COMMIT")
    except BaseException:
        connection.close()  # the server rolls back
        raise


def _version(connection: psycopg.Connection[Any], schema: str) -> int:
    there = {
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')",
            (schema,),
        )
    }
    if not there:
        return 0
    columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname IN ('key', 'value')"
    ours = "meta" in there and _one(connection, columns, f"{quoted(schema)}.meta") == 2
    version = _one(connection, said("SELECT value FROM meta WHERE key = 'journal_version'", schema)) if ours else None
    if not isinstance(version, int):
        raise LedgerError(
            f"the schema {schema!r} holds tables, but no tokenkit journal. Name another schema for the journal."
        )
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"it was written by a newer tokenkit (journal version {version}; this one knows {len(MIGRATIONS)}). "
            "Upgrade tokenkit, or name another schema for the journal."
        )
    return version


def _one(connection: psycopg.Connection[Any], query: str, *parameters: object) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]
