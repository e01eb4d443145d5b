"""The cache: answers by the digest of their request, in one SQLite file that every kernel of a home shares.

It is a convenience, never a truth: what cannot be read or written is passed over, and the oldest answers go when it
grows beyond its bound. The file is opened for each look, so that nothing is held across a fork or between calls.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokenkit.errors import LedgerError
from tokenkit.journal import make_private
from tokenkit.layers.cached import Remembered
from tokenkit.types import Response, ToolCall

MOST_BYTES = 256 * 2**20
"""How much text is kept."""

_TABLE = """CREATE TABLE IF NOT EXISTS answers (
  key     BLOB PRIMARY KEY,
  body    TEXT NOT NULL,
  bytes   INTEGER NOT NULL,
  at      REAL NOT NULL,     -- Unix seconds when it was given
  used_at REAL NOT NULL
) STRICT, WITHOUT ROWID"""
_KEEP = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)"
_OLDEST = """DELETE FROM answers WHERE used_at <= (
  SELECT used_at FROM (SELECT used_at, sum(bytes) OVER (ORDER BY used_at DESC) AS total FROM answers) WHERE total > ?
  ORDER BY used_at DESC LIMIT 1)"""


class Cache:
    """Answers in the file ``path``, at most about ``most`` bytes of them; ``len`` counts them."""

    def __init__(self, path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> None:
        self.path, self.most = Path(path).expanduser().resolve(), most

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r}, {len(self):,} answers)"

    def __len__(self) -> int:
        if not self.path.exists():
            return 0
        with suppress(sqlite3.Error, OSError), self._opened() as rows:
            return int(rows.execute("SELECT count(*) FROM answers").fetchone()[0])
        return 0

    def find(self, key: bytes, since: float) -> Remembered | None:
        """Return the answer of this key if it was given after ``since`` (Unix seconds); None also where none can be."""
        if not self.path.exists():
            return None
        with suppress(sqlite3.Error, OSError, ValueError, LookupError, TypeError), self._opened() as rows:
            found = rows.execute("SELECT body, at FROM answers WHERE key = ? AND at > ?", (key, since)).fetchone()
            if found is None:
                return None
            rows.execute("UPDATE answers SET used_at = ? WHERE key = ?", (time.time(), key))
            return _remembered(json.loads(found[0]), found[1])
        return None

    def keep(self, key: bytes, found: Remembered) -> None:
        """Keep an answer in the place of any earlier one of its key; let the least used go when there is no room."""
        response = found.response
        body = json.dumps(
            {
                "text": response.text, "model": response.model, "provider": response.provider,
                "finish_reason": response.finish_reason, "reasoning": response.reasoning, "id": response.id,
                "tool_calls": [[call.id, call.name, call.arguments] for call in response.tool_calls],
                "receipt": found.receipt, "by": found.model, "cost_nanos": found.cost_nanos,
            }
        )  # fmt: skip
        with suppress(sqlite3.Error, OSError), self._opened() as rows:
            rows.execute(_KEEP, (key, body, len(body), found.at, time.time()))
            if rows.execute("SELECT sum(bytes) FROM answers").fetchone()[0] > self.most:
                rows.execute(_OLDEST, (self.most,))

    def clear(self) -> int:
        """Forget every answer, and return how many there were. Raises LedgerError where the file cannot be written."""
        count = len(self)
        try:
            for leftover in (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise LedgerError(f"Cannot clear the cache {self.path}: {error.strerror}.") from error
        return count

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        make_private(self.path.parent)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, timeout=1, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # an answer lost in a crash is asked for again
            connection.execute(_TABLE)
            yield connection
        finally:
            connection.close()


def _remembered(body: dict[str, object], at: float) -> Remembered:
    calls = body["tool_calls"]
    response = Response(
        str(body["text"]),
        _text(body["model"]),
        _text(body["provider"]),
        _text(body["finish_reason"]),
        tool_calls=tuple(ToolCall(*map(str, call)) for call in calls) if isinstance(calls, list) else (),
        reasoning=str(body["reasoning"]),
        id=_text(body["id"]),
    )
    cost = body["cost_nanos"]
    return Remembered(response, str(body["receipt"]), _text(body["by"]), cost if isinstance(cost, int) else None, at)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
