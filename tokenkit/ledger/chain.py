"""Is the journal what was written? Each row's hash is checked, and its link to the row before.

A chain shows the first row that was edited, deleted or moved. It cannot show that the newest rows were cut off, except
against a hash kept elsewhere: the ledger's watermark, or a ``head`` somebody wrote down. Nor is it a signature: who
can write the file can also write a new chain from some row on, which then differs from such a hash. Rows that were let
go on purpose are vouched for by a row of the chain itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tokenkit.errors import LedgerError, UserError
from tokenkit.journal import GENESIS, Entry, Journal, beginning, vouched

PAGE = 500  # rows read at a time

Fault = Literal["edited", "deleted", "reordered", "cut", "unreadable"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` found. True when nothing is wrong; printed, it is one sentence.

    ``rows`` is how many rows were good before ``seq``, the first bad one; ``head`` the last good row's hash in hex;
    ``let_go`` how many rows were dropped by retention, which nobody can check any more.
    """

    rows: int
    head: str
    fault: Fault | None = None
    seq: int | None = None
    message: str = ""
    let_go: int = 0

    def __bool__(self) -> bool:
        return self.fault is None

    def __str__(self) -> str:
        if self.fault is None:
            gone = f" ({self.let_go:,} older rows were let go)" if self.let_go else ""
            what = "The one receipt is as it was" if self.rows == 1 else f"All {self.rows:,} receipts are as they were"
            return f"{what} written{'' if self.rows == 1 else ', in order'}{gone}. Head {self.head[:16]}…"
        return self.message


def verify(journal: Journal, known: Iterable[tuple[int, bytes]] = (), head: str | None = None) -> Verification:
    """Check the whole journal, and that it still has the rows ``known`` from elsewhere as ``(seq, hash)``.

    ``head`` is a hash in hex that some row must have. Raises UserError where it is none.
    """
    wanted = None if head is None else _digest(head)
    verdict = _walked(journal, known)
    if not verdict or wanted is None or wanted == GENESIS or journal.find(wanted) is not None:
        return verdict
    message = (
        f"No row has the head {wanted.hex()[:16]}… that was noted: rows up to it were cut off, let go or written anew, "
        "or it is another journal's."
    )
    return Verification(verdict.rows, verdict.head, "cut", None, message, verdict.let_go)


def _digest(head: str) -> bytes:
    try:
        digest = bytes.fromhex(head)
    except ValueError:
        digest = b""
    if len(digest) != len(GENESIS):
        raise UserError(f"A head has 64 hex digits, as verify().head gives them; {head!r} is none.")
    return digest


def _walked(journal: Journal, known: Iterable[tuple[int, bytes]]) -> Verification:
    heads = {seq: digest for seq, digest in known if seq}
    first, seq, rows, prev = 0, 0, 0, GENESIS
    unvouched: bytes | None = None
    try:
        first, prev = beginning(journal)
        seq, unvouched = first, prev if first else None
        while page := journal.rows(seq, PAGE):
            for entry in page:
                fault = _fault(entry, seq, prev, journal) or _differs(entry, heads)
                if fault is not None:
                    return Verification(rows, prev.hex(), fault[0], entry.seq, fault[1])
                seq, prev, rows = entry.seq, entry.hash, rows + 1
                if unvouched is not None and vouched(entry) == unvouched:
                    unvouched = None
    except LedgerError as error:
        return Verification(rows, prev.hex(), "unreadable", seq + 1, f"Row {seq + 1} cannot be read. {error}")
    if unvouched is not None:
        message = f"Rows 1 to {first:,} were deleted: no row of the chain says that they were let go."
        return Verification(rows, prev.hex(), "deleted", first, message)
    lost = sorted(missing for missing in heads if missing > seq)
    if lost:
        message = f"Rows {seq + 1:,} to {lost[-1]:,} were cut off the end of the journal: the ledger has seen them."
        return Verification(rows, prev.hex(), "cut", seq + 1, message)
    return Verification(rows, prev.hex(), let_go=first)


def _fault(entry: Entry, seq: int, prev: bytes, journal: Journal) -> tuple[Fault, str] | None:
    """Compare a row with the one before it, whose number and hash are ``seq`` and ``prev``."""
    at = f"Row {entry.seq:,} (receipt {entry.id})"
    if entry.seq != seq + 1:
        gone = f"Row {seq + 1:,} was" if entry.seq == seq + 2 else f"Rows {seq + 1:,} to {entry.seq - 1:,} were"
        return "deleted", f"{gone} deleted: row {entry.seq:,} (receipt {entry.id}) follows row {seq:,}."
    if hashlib.sha256(entry.prev + entry.body).digest() != entry.hash:
        return "edited", f"{at} was edited: its hash is not that of its content."
    if not _labelled(entry):
        return "edited", f"{at} was edited: its id or time is not the one in the receipt itself."
    if entry.prev == prev:
        return None
    if entry.prev == GENESIS:
        return "reordered", f"{at} was moved: it was written first of all."
    before = journal.find(entry.prev)
    if before is not None:
        return "reordered", f"{at} was moved: the row it was written after is now row {before:,}."
    return "edited", f"{at} does not follow row {seq:,}: that row was edited or replaced, or rows between were deleted."


def _differs(entry: Entry, heads: dict[int, bytes]) -> tuple[Fault, str] | None:
    if heads.get(entry.seq, entry.hash) == entry.hash:
        return None
    return (
        "edited",
        f"Row {entry.seq:,} (receipt {entry.id}) is not the row the ledger copied: up to it, rows were rewritten.",
    )


def _labelled(entry: Entry) -> bool:
    """Say whether the columns beside the body repeat what the body says."""
    if entry.body.startswith(b'{"id":"%s","started_at":%d,' % (entry.id.encode(), entry.started_at)):
        return True  # as to_json writes it; parsing every body would make this ten times slower
    try:
        said = json.loads(entry.body)
        return bool(said["id"] == entry.id and said["started_at"] == entry.started_at)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
