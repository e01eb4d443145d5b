"""verify names the first row that was edited, deleted, moved or cut, for any such change anywhere."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.errors import UserError
from tokenkit.journal import GENESIS, Journal
from tokenkit.ledger import Ledger
from tokenkit.ledger.chain import verify
from tokenkit.receipts import Receipt, new_id

ROWS = 12


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """A journal of twelve receipts: each test spoils a copy of its own."""
    journal = Journal(tmp_path_factory.mktemp("image") / "journal.sqlite3")
    for number in range(ROWS):
        journal.write(Receipt(new_id(), 10**18 + number, 0.5, "ok", "auto", user=f"user {number}", cost_nanos=number))
    journal.close()  # the last to close folds the write-ahead log into the file
    return journal.path


def copy_of(image: Path | bytes, folder: Path) -> Journal:
    (folder / "journal.sqlite3").write_bytes(image if isinstance(image, bytes) else image.read_bytes())
    return Journal(folder / "journal.sqlite3")


def spoil(journal: Journal, *statements: tuple[str, tuple[object, ...]]) -> None:
    """Change the file as somebody with a SQLite shell would."""
    journal.close()
    connection = sqlite3.connect(journal.path)
    for statement, parameters in statements:
        connection.execute(statement, parameters)
    connection.commit()
    connection.close()


def rechain(journal: Journal, first: int) -> None:
    """Forge: recompute every hash from a row on, as somebody who knows the scheme could."""
    journal.close()
    connection = sqlite3.connect(journal.path)
    row = connection.execute("SELECT hash FROM receipts WHERE seq = ?", (first - 1,)).fetchone()
    prev = row[0] if row else GENESIS
    for seq, body in connection.execute(
        "SELECT seq, body FROM receipts WHERE seq >= ? ORDER BY seq", (first,)
    ).fetchall():
        digest = hashlib.sha256(prev + body.encode()).digest()
        connection.execute("UPDATE receipts SET prev = ?, hash = ? WHERE seq = ?", (prev, digest, seq))
        prev = digest
    connection.commit()
    connection.close()


def test_an_untouched_journal_is_whole(image, tmp_path):
    journal = copy_of(image, tmp_path)
    found = verify(journal, [journal.head(), (3, journal.rows(2)[0].hash)])
    assert found
    assert (found.rows, found.fault, found.head) == (ROWS, None, journal.head()[1].hex())
    assert str(found).startswith("All 12 receipts are as they were written, in order. Head ")
    journal.close()


def test_an_empty_journal_is_whole(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    assert str(verify(journal)).startswith("All 0 receipts")
    journal.close()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, ROWS), st.sampled_from(["body", "id", "started_at", "prev", "hash"]))
def test_an_edit_of_any_column_of_any_row_is_named(image, tmp_path_factory, seq, column):
    journal = copy_of(image, tmp_path_factory.mktemp("edit"))
    change = {
        "body": 'replace(body, \'"user":"user\', \'"user":"loser\')',
        "id": "'other' || id",
        "started_at": "started_at + 1",
        "prev": "randomblob(32)",
        "hash": "randomblob(32)",
    }[column]
    spoil(journal, (f"UPDATE receipts SET {column} = {change} WHERE seq = ?", (seq,)))
    found = verify(journal)
    assert (bool(found), found.fault, found.seq, found.rows) == (False, "edited", seq, seq - 1)
    assert f"Row {seq} " in str(found)
    journal.close()


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, ROWS - 1), min_size=1, max_size=5))
def test_the_first_deleted_row_is_named(image, tmp_path_factory, gone):
    journal = copy_of(image, tmp_path_factory.mktemp("delete"))
    spoil(journal, *(("DELETE FROM receipts WHERE seq = ?", (seq,)) for seq in gone))
    found = verify(journal)
    assert (found.fault, found.rows) == ("deleted", min(gone) - 1)
    assert f"{min(gone)}" in str(found).split(" deleted")[0]
    journal.close()


def test_a_deletion_hidden_by_renumbering_is_found(image, tmp_path):
    journal = copy_of(image, tmp_path)
    spoil(
        journal,
        ("DELETE FROM receipts WHERE seq = 5", ()),
        *(("UPDATE receipts SET seq = seq - 1 WHERE seq = ?", (seq,)) for seq in range(6, ROWS + 1)),
    )
    found = verify(journal)
    assert (found.fault, found.seq) == ("edited", 5)
    assert "rows between were deleted" in str(found)
    journal.close()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(1, ROWS + 1)).filter(lambda order: order != sorted(order)))
def test_rows_in_another_order_are_found_at_the_first_that_moved(image, tmp_path_factory, order):
    journal = copy_of(image, tmp_path_factory.mktemp("order"))
    spoil(
        journal,
        ("UPDATE receipts SET seq = -seq", ()),
        *(("UPDATE receipts SET seq = ? WHERE seq = ?", (new, -old)) for new, old in enumerate(order, 1)),
    )
    first = next(place for place, old in enumerate(order, 1) if old != place)
    found = verify(journal)
    assert (found.fault, found.seq, found.rows) == ("reordered", first, first - 1)
    moved = order[first - 1]  # the row it was written after is where that one is now
    said = "first of all." if moved == 1 else f"now row {order.index(moved - 1) + 1}."
    assert str(found).endswith(said)
    journal.close()


def test_a_cut_tail_is_invisible_in_the_chain_and_visible_to_the_ledger(image, tmp_path):
    journal = copy_of(image, tmp_path)
    ledger = Ledger(journal, tmp_path / "ledger.duckdb")
    assert len(ledger.df()) == ROWS
    spoil(journal, ("DELETE FROM receipts WHERE seq > 9", ()))
    assert verify(journal), "documented: a chain alone cannot show this"
    found = ledger.verify()
    assert (found.fault, found.seq) == ("cut", 10)
    assert "Rows 10 to 12 were cut off the end" in str(found)
    journal.close()


def test_a_forged_chain_is_visible_to_the_ledger(image, tmp_path):
    journal = copy_of(image, tmp_path)
    ledger = Ledger(journal, tmp_path / "ledger.duckdb")
    ledger.ingest()
    spoil(journal, ("UPDATE receipts SET body = replace(body, 'user 3', 'user X') WHERE seq = 4", ()))
    assert ledger.verify().seq == 4
    rechain(journal, 4)
    assert verify(journal), "documented: who can write the file can write a chain"
    found = ledger.verify()
    assert (found.fault, found.seq) == ("edited", ROWS)
    assert "is not the row the ledger copied" in str(found)
    journal.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_never_answered_with_a_wrong_yes(image, tmp_path_factory, data):
    """A flip anywhere in the file: verify names a row or says it cannot read, or the rows are all still equal."""
    place = data.draw(st.integers(0, image.stat().st_size - 1))
    flipped = bytearray(image.read_bytes())
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    journal = copy_of(bytes(flipped), tmp_path_factory.mktemp("flip"))
    intact = copy_of(image, tmp_path_factory.mktemp("intact"))
    found = verify(journal, [intact.head()])
    if found:
        assert journal.rows() == intact.rows()
    else:
        assert "\n" not in str(found)
        assert found.seq >= 1
    journal.close()
    intact.close()


def test_a_head_noted_elsewhere_shows_a_cut_end_and_a_chain_written_anew(image: Path, tmp_path: Path) -> None:
    journal = copy_of(image, tmp_path)
    noted = verify(journal).head
    assert verify(journal, head=noted)
    journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto"))
    assert verify(journal, head=noted), "rows that came later are no fault"
    spoil(journal, ("DELETE FROM receipts WHERE seq >= ?", (ROWS,)))
    assert verify(journal), "a chain alone cannot know its end"
    found = verify(journal, head=noted)
    assert (found.fault, bool(found)) == ("cut", False)
    assert noted[:16] in str(found)
    journal.write(Receipt(new_id(), 10**18, 0.5, "ok", "auto"))
    assert not verify(journal, head=noted), "another row in its place is not that row"


def test_the_head_of_an_empty_journal_is_in_every_journal(image: Path, tmp_path: Path) -> None:
    assert verify(copy_of(image, tmp_path), head=GENESIS.hex())


@pytest.mark.parametrize("head", ["", "abc", "xyz", "00" * 31])
def test_what_is_no_head_is_one_sentence(image: Path, tmp_path: Path, head: str) -> None:
    with pytest.raises(UserError, match="64 hex digits"):
        verify(copy_of(image, tmp_path), head=head)
