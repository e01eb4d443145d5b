"""Ledgers of earlier versions are brought forward, with every row they had; ratings are kept beside the calls."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tokenkit import Kit
from tokenkit.errors import LedgerError, UserError
from tokenkit.ledger import files


def made_by_version(path: Path, version: int) -> None:
    """Make a ledger file as that version made it, with one call and its plan in it."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS ledger (STORAGE_VERSION 'v1.5.0')")
        connection.execute("USE ledger")
        for step in range(1, version + 1):
            connection.execute(files.section(f"version {step}"))
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        connection.execute("INSERT INTO schema_version VALUES (?)", [version])
        connection.execute(
            "INSERT INTO calls BY NAME SELECT 1 AS seq, 'old' AS id, now() AS started_at, 5 AS started_at_ns,"
            " 'ok' AS status, 1 AS tries, false AS cached, false AS streamed, 42 AS cost_nanos, 7 AS candidate_set"
        )
        connection.execute(
            "INSERT INTO plans BY NAME SELECT 1 AS seq, 'score' AS strategy, 7 AS candidate_set, [1] AS ranks,"
            " [8.5::DOUBLE] AS scores, [1.0::DOUBLE] AS propensities, [9::BIGINT] AS input_tokens,"
            " [3::BIGINT] AS bounds, [NULL::VARCHAR] AS rejected"
        )
        connection.execute("INSERT INTO candidate_sets SELECT 7, ['p/m']")


@pytest.mark.parametrize("version", range(1, files.VERSION))
def test_a_ledger_of_every_earlier_version_is_brought_forward(tmp_path: Path, version: int) -> None:
    made_by_version(tmp_path / "ledger.duckdb", version)
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        kit.call("Hello", max_tokens=5)
        found = kit.ledger.sql("select id, cost_nanos from calls order by seq")
        assert found["id"].tolist()[0] == "old"
        assert found["cost_nanos"].tolist()[0] == 42
        assert len(found) == 2
        rows = kit.ledger.sql("select seq, model, score, term_names from candidates order by seq, position")
        assert rows["model"].tolist()[0] == "p/m"
        assert rows["term_names"].isna().tolist()[0]
        assert len(rows) == 5
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'ledger.duckdb'}' AS ledger (READ_ONLY)")
        assert connection.execute("SELECT version FROM ledger.schema_version").fetchall() == [(files.VERSION,)]


def test_a_newer_ledger_is_refused_with_a_sentence_and_the_answer_is_not_lost(tmp_path: Path) -> None:
    made_by_version(tmp_path / "ledger.duckdb", files.VERSION)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'ledger.duckdb'}' AS ledger")
        connection.execute("UPDATE ledger.schema_version SET version = 99")
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        assert kit.call("Hello", max_tokens=5).text
        with pytest.raises(LedgerError, match=r"newer tokenkit \(ledger version 99"):
            kit.ledger.df()


def test_a_decision_recomputes_bit_exactly_from_its_row(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        for prompt in ("Hello", "What is the capital of France?", "word " * 3000):
            kit.call(prompt, max_tokens=5)
        rows = kit.ledger.sql("select * from candidates where rejected is null")
        for row in rows.itertuples():
            assert sum(row.term_values) == row.score
        first = kit.ledger.sql(
            "select c.model as chosen, arg_max(k.model, k.score) as best from calls c join candidates k using (seq) "
            "where k.rejected is null group by c.seq, c.model"
        )
        assert (first["chosen"] == first["best"]).all()


def test_ratings_are_kept_once_and_the_last_one_counts(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit, Kit.simulated(pace=0, home=tmp_path) as other:
        answer = kit.call("Hello", max_tokens=5)
        kit.rate(answer, 0.2, "<b>meh</b>")
        other.rate(answer.receipt, 1)
        other.rate(answer.receipt.id[-8:], 0.5)
        assert len(kit.ledger.df()) == 1
        assert kit.receipt().id == answer.receipt.id
        rated = kit.ledger.sql("select id, rating from rated_calls")
        assert rated.values.tolist() == [[answer.receipt.id, 0.5]]
        assert len(other.ledger.sql("select * from ratings")) == 3
        assert kit.ledger.verify()
        for bad in (-0.1, 1.1, True, "good", float("nan")):
            with pytest.raises(UserError, match="from 0"):
                kit.rate(answer, bad)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="no call"):
            kit.rate("zzz", 1)
