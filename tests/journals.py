"""What the tests of journals and of the ledgers over them share: whether a chain holds, and a ledger to ask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenkit.journal import GENESIS, Journal
from tokenkit.ledger import Ledger


def chained(journal: Any) -> bool:
    prev = GENESIS
    for number, entry in enumerate(journal.rows(0, 1_000_000), 1):
        if (entry.seq, entry.prev, entry.hash) != (number, prev, hashlib.sha256(prev + entry.body).digest()):
            return False
        prev = entry.hash
    return True


def opened(tmp_path: Path) -> Iterator[Ledger]:
    """Yield a ledger over an empty journal, and close the journal."""
    journal = Journal(tmp_path / "journal.sqlite3")
    yield Ledger(journal, tmp_path / "ledger.duckdb")
    journal.close()
