"""Letting go of old rows: what is left is still one chain, and says in a row of its own where it now begins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenkit.journal.chained import GENESIS, append
from tokenkit.receipts import Receipt, new_id

if TYPE_CHECKING:
    from tokenkit.journal.chained import Entry, Journal

OPERATION = "retention"
AT_ONCE = 5_000
"""Rows deleted in one transaction, so that calls of other kernels come in between."""

_FIRST_KEPT = "SELECT min(seq) FROM receipts WHERE started_at >= ?"
_MARK = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


def beginning(journal: Journal) -> tuple[int, bytes]:
    """Return the number and hash of the last row that was let go, which the chain now follows; ``(0, GENESIS)``."""
    seq, digest = journal.meta("let_go_seq"), journal.meta("let_go_hash")
    return (seq, digest) if isinstance(seq, int) and isinstance(digest, bytes) else (0, GENESIS)


def let_go(journal: Journal, before: int, upto: int, told: Callable[[], object] = lambda: None) -> int:
    """Delete the rows up to number ``upto`` that come before the first one from ``before`` (Unix ns) or later.

    That they are gone is itself written to the chain, first, so a crash half-way leaves nothing in doubt; ``told`` is
    called in between, for whoever must see that row before the others go. Returns how many were deleted. Raises
    LedgerError; what was let go until then is counted by the next call.
    """
    ((first,),) = journal.ask(_FIRST_KEPT, (before,))
    head, _ = journal.head()
    last = min(upto, head if first is None else first - 1)
    found = journal.ask("SELECT hash FROM receipts WHERE seq = ?", (last,))
    if found and last > beginning(journal)[0]:
        digest: bytes = found[0][0]
        said = (f"rows up to {last} were let go", digest.hex())
        receipt = Receipt(new_id(), time.time_ns(), 0.0, "ok", "", operation=OPERATION, notes=said)
        with journal.transaction() as rows:
            append(rows, receipt)
            rows.executemany(_MARK, (("let_go_seq", last), ("let_go_hash", digest)))
        told()
    last, deleted = beginning(journal)[0], 0
    while True:
        with journal.transaction() as rows:
            ((until,),) = rows.execute("SELECT min(seq) + ? FROM receipts", (AT_ONCE,)).fetchall()
            gone = rows.execute("DELETE FROM receipts WHERE seq <= ?", (min(until or 0, last),)).rowcount
        deleted += gone
        if not gone:
            return deleted


def vouched(entry: Entry) -> bytes | None:
    """Return the hash that a row says was the last one let go; None for every other row."""
    if b'"operation":"retention"' not in entry.body:
        return None
    try:
        said = json.loads(entry.body)
        return bytes.fromhex(said["notes"][1]) if said["operation"] == OPERATION else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
