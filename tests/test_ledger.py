"""The ledger answers truly: every field in its column, unknown as NULL, money and time exact, user SQL powerless."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import opened

from tokenkit.errors import LedgerError, UserError
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger, copying
from tokenkit.receipts import Attempt, Candidate, Charge, Plan, PriceReceipt, Receipt, StageReport, Verdict, new_id
from tokenkit.types import TokenCount, Usage

PRICE = PriceReceipt("genai-prices", "gpt-4o", 2_500_000_000, 10_000_000_000, 1_250_000_000, at="2026-01-02T03:04:05Z")
USAGE = Usage(120, 80, cache_read_input_tokens=20)


def attempt(**fields: object) -> Attempt:
    return Attempt(**{"model": "a/one", "provider": "a", "started_at": 5, "seconds": 0.5, "first_chunk": 0.1,
                      "usage": USAGE, "cost_nanos": 1_125_000, "price": PRICE} | fields)  # fmt: skip


def receipt(**fields: object) -> Receipt:
    return Receipt(**{"id": new_id(), "started_at": 1_700_000_000_123_456_789, "seconds": 0.75, "status": "ok",
                      "requested_model": "auto"} | fields)  # fmt: skip


def full(**fields: object) -> Receipt:
    candidates = (
        Candidate("b/two", "b", 3.5, (("weight", 3.5),), 0.75, TokenCount(100, True, "o200k_base"), 8000, 5_000),
        Candidate("a/one", "a", 2.5, (("weight", 2.5),), 0.25, TokenCount(110, False, "chars"), None, 7_000),
        Candidate("c/three", "c", None, (), 0.0, None, 10, None, "does not fit"),
    )
    failed = attempt(model="b/two", provider="b", status="error", http_status=503, error_type="overloaded",
                     error="full", usage=None, cost_nanos=None, price=None)  # fmt: skip
    return receipt(**{
        "model": "a/one", "provider": "a", "usage": USAGE, "cost_nanos": 1_125_000, "price": PRICE,
        "plan": Plan(candidates, "score", 200, 7),
        "attempts": (failed, attempt(waited=0.25, response_model="one-2026")),
        "stages": (StageReport("dedupe", 300, 200, 0.01, True), StageReport("summarize", 200, 200, 0.0, False, False,
                                                                           "does not pay")),
        "verdicts": (Verdict("daily", "warn", "80 %"),),
        "charges": (Charge("daily", "2026-11-21", "usd", 2_000_000, 1_125_000), Charge("alice", "total", "tokens")),
        "notes": ("fell back",), "user": "alice", "session": "s1",
        "endpoint_name": "demo", "prompt": "Why?", "answer": "Because.", "finish_reason": "stop", "streamed": True,
    } | fields)  # fmt: skip


ledger = pytest.fixture(opened)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A ledger of one call that no test may change."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "secret.csv").write_text("a\n1\n")
    journal = Journal(folder / "journal.sqlite3")
    journal.write(full())
    yield Ledger(journal, folder / "ledger.duckdb")
    journal.close()


def write(ledger: Ledger, *receipts: Receipt) -> None:
    for one in receipts:
        ledger.journal.write(one)


def row(ledger: Ledger, query: str) -> dict[str, object]:
    found = ledger.sql(query).to_dict("records")
    assert len(found) == 1, found
    return {name: None if value is pandas.NA or value != value else value for name, value in found[0].items()}


def test_an_empty_ledger_has_every_column_and_no_row(ledger):
    frame = ledger.df()
    assert len(frame) == 0
    assert list(frame.columns[:11]) == ["started_at", "model", "provider", "status", "input_tokens", "output_tokens",
                                        "cost_usd", "seconds", "endpoint_name", "user", "session"]  # fmt: skip
    assert len(ledger.spend()) == 0
    assert bool(ledger.verify())


def test_a_call_is_one_row_with_every_field_in_its_column(ledger):
    write(ledger, one := full())
    call = ledger.df().to_dict("records")[0]
    expected = {
        "seq": 1, "id": one.id, "started_at_ns": one.started_at, "seconds": 0.75, "time_to_first_chunk": 0.1,
        "status": "ok", "operation": "chat", "request_model": "auto", "model": "a/one", "provider": "a",
        "response_model": "one-2026", "finish_reason": "stop", "input_tokens": 120, "output_tokens": 80,
        "cache_read_input_tokens": 20, "usage_source": "reported", "saved_tokens": 100, "cost_nanos": 1_125_000,
        "tries": 2, "cached": False, "streamed": True, "user": "alice", "session": "s1", "endpoint_name": "demo",
        "prompt": "Why?", "answer": "Because.", "total_tokens": 200,
    }  # fmt: skip
    assert {name: call[name] for name in expected} == expected
    assert list(call["notes"]) == ["fell back"]
    assert call["started_at"].value == one.started_at // 1000 * 1000, "a TIMESTAMPTZ is exact to the microsecond"
    assert call["priced_at"] == pandas.Timestamp("2026-01-02T03:04:05Z")


def test_what_is_unknown_is_null_and_not_zero(ledger):
    write(ledger, receipt())
    call = row(ledger, "SELECT * FROM calls")
    known = {name for name, value in call.items() if value is not None}
    assert known == {"seq", "id", "started_at", "started_at_ns", "seconds", "status", "operation", "request_model",
                     "tries", "cached", "streamed"}  # fmt: skip


def test_attempts_stages_verdicts_and_candidates_are_rows(ledger):
    write(ledger, receipt(), full(), full())
    attempts = ledger.sql("SELECT * FROM attempts ORDER BY seq, position")
    assert attempts[["seq", "position"]].values.tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert attempts.loc[0, ["status", "http_status", "error_type", "error"]].tolist() == [
        "error", 503, "overloaded", "full"]  # fmt: skip
    assert attempts["counted_input_tokens"].tolist() == [100, 110, 100, 110]
    assert attempts["count_exact"].tolist() == [True, False] * 2
    assert attempts["cost_nanos"].isna().tolist() == [True, False] * 2
    stages = ledger.sql("SELECT stage, tokens_before, tokens_after, exact, skipped FROM stages WHERE seq = 3")
    assert stages.iloc[0].tolist()[:4] == ["dedupe", 300, 200, True]
    assert stages.iloc[1].tolist() == ["summarize", 200, 200, False, "does not pay"]
    assert ledger.sql("SELECT seq, policy, outcome, message FROM verdicts").values.tolist() == [
        [2, "daily", "warn", "80 %"], [3, "daily", "warn", "80 %"]]  # fmt: skip
    candidates = ledger.sql("SELECT * FROM candidates WHERE seq = 2")
    assert candidates["model"].tolist() == ["b/two", "a/one", "c/three"], "best first"
    assert candidates["score"].tolist()[:2] == [3.5, 2.5]
    assert candidates["input_tokens"].tolist()[:2] == [100, 110]
    assert candidates["rejected"].tolist()[2] == "does not fit"
    assert ledger.sql("SELECT count(*) FROM candidate_sets").iat[0, 0] == 1, "the same models are one set"
    assert ledger.sql("SELECT count(*) FROM prices").iat[0, 0] == 1, "the same price is one row"
    assert ledger.sql("SELECT models FROM candidate_sets").iat[0, 0].tolist() == ["a/one", "b/two", "c/three"]
    assert ledger.sql("SELECT candidate_mask FROM calls WHERE seq = 2").iat[0, 0] == 0b011


@pytest.mark.parametrize("size", [1, 63, 64, 65])
def test_the_mask_has_a_bit_for_each_of_up_to_64_models(ledger, size):
    shut = {0, size // 2, size - 1}
    candidates = tuple(
        Candidate(f"p/{n:03d}", "p", 1.0, rejected="no" if n in shut else None) for n in reversed(range(size))
    )
    write(ledger, receipt(plan=Plan(candidates, "score")))
    mask = row(ledger, "SELECT CAST(candidate_mask AS VARCHAR) AS mask FROM calls")["mask"]
    assert mask == (None if size > 64 else str(sum(1 << n for n in range(size) if n not in shut)))
    rejected = ledger.sql("SELECT rejected FROM plans").iat[0, 0]
    assert [n for n, why in enumerate(rejected) if why == "no"] == sorted(shut)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.none() | st.integers(0, 9 * 10**17), min_size=1, max_size=100))
def test_money_is_exact_to_the_nano_dollar(tmp_path_factory, costs):
    folder = tmp_path_factory.mktemp("money")
    ledger = Ledger(Journal(folder / "journal.sqlite3"), folder / "ledger.duckdb")
    write(ledger, *(receipt(cost_nanos=cost) for cost in costs))
    told = ledger.sql("SELECT CAST(cost_usd AS VARCHAR) AS usd FROM calls ORDER BY seq")["usd"].tolist()
    assert [None if usd != usd or usd is None else Decimal(usd) for usd in told] == [
        None if cost is None else Decimal(cost) / 10**9 for cost in costs
    ]
    ledger.journal.close()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30), min_size=1, max_size=60))
def test_any_text_arrives(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("text")
    ledger = Ledger(Journal(folder / "journal.sqlite3"), folder / "ledger.duckdb")
    write(ledger, *(receipt(prompt=text, user=text) for text in texts))
    expected = [text.encode(errors="replace").decode() for text in texts]  # half a surrogate pair is no text
    assert ledger.df()["prompt"].tolist() == expected
    assert ledger.df()["user"].tolist() == expected
    ledger.journal.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"null", b'{"status": "ok"', b"\xff\xfe", b'{"attempts": 5, "usage": [1], "plan": "x"}',
     b'{"status":"ok","cost_nanos":1e99,"seconds":NaN,"attempts":[{"usage":3}],"plan":{"candidates":[7]}}'],
)  # fmt: skip
def test_a_damaged_row_is_still_a_call(ledger, body):
    write(ledger, receipt(), receipt(), receipt())
    with ledger.journal.transaction() as connection:
        connection.execute("UPDATE receipts SET body = CAST(? AS TEXT) WHERE seq = 2", (body,))
    frame = ledger.df()
    assert frame["seq"].tolist() == [1, 2, 3]
    assert frame["status"].tolist()[::2] == ["ok", "ok"]
    assert frame["status"][1] in ("ok", "unreadable")
    assert ledger.note is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
DAMAGED = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("seconds", "status", "cost_nanos", "notes", "price", "model", "cached"), JSON)
    | {
        "usage": JSON | st.fixed_dictionaries({}, optional={"input_tokens": JSON, "output_tokens": JSON}),
        "plan": JSON | st.fixed_dictionaries({"candidates": st.lists(JSON | st.fixed_dictionaries(
            {"model": JSON}, optional={"input_tokens": JSON, "bound": JSON, "score": JSON, "rejected": JSON}),
            max_size=3)}),
        "attempts": st.lists(JSON | st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("started_at", "price", "usage", "model"), JSON)), max_size=3),
        "stages": st.lists(JSON | st.fixed_dictionaries({"before": JSON, "after": JSON}), max_size=3),
        "verdicts": st.lists(JSON, max_size=3),
        "charges": st.lists(JSON | st.fixed_dictionaries({"account": JSON, "held": JSON, "charged": JSON}), max_size=3),
    },
)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.lists(DAMAGED, min_size=1, max_size=40))
def test_whatever_the_journal_holds_every_row_is_a_call_and_the_ledger_readable(tmp_path_factory, bodies):
    folder = tmp_path_factory.mktemp("damaged")
    ledger = Ledger(Journal(folder / "journal.sqlite3"), folder / "ledger.duckdb")
    for number, body in enumerate(bodies, 1):
        write(ledger, receipt())
        with ledger.journal.transaction() as connection:
            connection.execute("UPDATE receipts SET body = ? WHERE seq = ?", (json.dumps(body), number))
    assert ledger.df()["seq"].tolist() == list(range(1, len(bodies) + 1))
    assert ledger.note is None
    for view in ("attempts", "stages", "verdicts", "charges", "budgets_touched", "candidates", "prices",
                 "spend_daily", "latency_by_provider",
                 "compression_by_stage", "count_error_by_model", "otel_calls"):  # fmt: skip
        ledger.sql(f"SELECT * FROM {view}")
    ledger.journal.close()


def test_a_row_that_no_column_can_hold_keeps_nobody_else_out(ledger, monkeypatch):
    """Should ingest ever meet a row it cannot copy, that row alone stays empty: here, because the SQL is made to."""
    sql = copying.text("ingest.sql")
    monkeypatch.setattr(copying, "text", lambda name: sql.replace("r.status,", "CAST(CAST(r.user AS INT) AS VARCHAR),"))
    write(ledger, *(receipt(user="poison" if number in (3, 17) else "1", status="1") for number in range(20)))
    frame = ledger.df()
    assert frame["seq"].tolist() == list(range(1, 21))
    assert frame["seq"][frame["status"] == "unreadable"].tolist() == [4, 18]
    assert ledger.note is None


def test_spend_groups_and_counts_what_failed_or_has_no_price(ledger):
    write(
        ledger,
        full(user="alice"), full(user="alice", status="error"), full(user="bob", cost_nanos=9_000_000),
        receipt(user="bob"),
    )  # fmt: skip
    spend = ledger.spend(by="user")
    assert spend["user"].tolist() == ["bob", "alice"], "dearest first"
    assert spend["calls"].tolist() == [2, 2]
    assert spend["failed_calls"].tolist() == [0, 1]
    assert spend["unpriced_calls"].tolist() == [1, 0]
    assert spend["cost_usd"].tolist() == [0.009, 0.00225]
    assert spend["tokens"].tolist() == [200, 400]
    both = ledger.spend(by=["day", "provider"])
    assert list(both.columns[:2]) == ["day", "provider"]
    for by in ("model", "provider", "session", "endpoint", "status", "month", "day"):
        assert ledger.spend(by=by)["calls"].sum() == 4
    with pytest.raises(UserError, match="Did you mean 'model'"):
        ledger.spend(by="modell")
    with pytest.raises(UserError, match="Known here"):
        ledger.spend(by=[])


def test_spend_since(ledger):
    now = time.time_ns()
    hour = 3600 * 10**9
    for age in (0, 2 * hour, 30 * hour, 24 * 40 * hour):
        write(ledger, receipt(started_at=now - age, cost_nanos=1))
    moment = datetime.now(UTC)

    def calls(since: object) -> int:
        return int(ledger.spend(by="status", since=since)["calls"].sum())

    assert [calls(s) for s in ("1h", "30 m", "3h", "2d", "1w", None)] == [1, 1, 2, 3, 3, 4]
    assert calls(moment - timedelta(hours=3)) == 2
    assert calls((moment - timedelta(hours=3)).astimezone(ZoneInfo("Asia/Tokyo"))) == 2
    assert calls((moment - timedelta(days=60)).date()) == 4
    assert calls(date.today() + timedelta(days=2)) == 0
    assert 1 <= calls("today") <= 2
    assert 1 <= calls("month") <= 3
    assert calls((moment - timedelta(days=60)).strftime("%Y-%m-%d")) == 4
    with pytest.raises(UserError, match="'today', 'month', '7d'"):
        ledger.spend(since="yesterday-ish")


def test_the_friendly_views(ledger):
    write(ledger, full(), full(), full(status="error"), receipt())
    daily = ledger.sql("SELECT * FROM spend_daily WHERE model = 'a/one'")
    assert daily[["calls", "failed_calls", "input_tokens"]].values.tolist() == [[3, 1, 360]]
    assert daily["cost_usd"].tolist() == [0.003375]
    stages = ledger.sql("SELECT * FROM compression_by_stage").set_index("stage")
    assert stages.loc["dedupe", ["runs", "skips", "saved_tokens"]].tolist() == [3, 0, 300]
    assert stages.loc["dedupe", "kept"] == pytest.approx(2 / 3)
    assert stages.loc["summarize", ["runs", "skips"]].tolist() == [0, 3]
    latency = ledger.sql("SELECT * FROM latency_by_provider").set_index("provider")
    assert latency.loc["b", ["tries", "failed_tries"]].tolist() == [3, 3]
    assert latency.loc["a", "p95_seconds"] == 0.5
    assert latency.filter(like="p").loc["b"].isna().all(), "nothing is known of what never answered"
    error = row(ledger, "SELECT * FROM count_error_by_model")
    assert (error["model"], error["encoding"], error["exact"]) == ("a/one", "chars", False)
    assert error["mean_error"] == pytest.approx(-10 / 120)
    assert row(ledger, "SELECT * FROM failures_by_model")["last_error"] == "full"
    otel = ledger.sql("SELECT * FROM otel_calls")
    assert otel["gen_ai_usage_input_tokens"].tolist()[:3] == [120, 120, 120]


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM calls", "DROP TABLE calls", "DROP VIEW spend_daily", "UPDATE calls SET cost_nanos = 0",
     "INSERT INTO verdicts VALUES (1, 1, 'a', 'b', 'c')", "CREATE TABLE mine (a INT)",
     "ALTER TABLE calls ADD COLUMN x INT",
     "ATTACH '{folder}/ledger.duckdb' AS again", "COPY calls TO '{folder}/out.csv'", "FROM '{folder}/secret.csv'",
     "SELECT * FROM read_text('{folder}/secret.csv')", "SET enable_external_access = true", "SET threads = 1",
     "RESET lock_configuration", "INSTALL httpfs", "LOAD httpfs", "EXPORT DATABASE '{folder}/all'",
     "DETACH ledger; ATTACH '{folder}/ledger.duckdb' AS ledger; DELETE FROM ledger.calls",
     "COMMIT; DELETE FROM calls", "DELETE FROM calls; SELECT 1", "PRAGMA database_list; DROP TABLE attempts",
     "USE memory; DETACH ledger; ATTACH '{folder}/ledger.duckdb' AS ledger; DELETE FROM ledger.calls",
     "COPY (SELECT 1) TO '{folder}/ledger.duckdb' (FORMAT csv, USE_TMP_FILE false)", "CREATE TYPE t AS ENUM ('a')",
     "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/ledger.duckdb' (FORMAT csv, USE_TMP_FILE false)",
     "EXPLAIN ANALYZE DELETE FROM calls", "IMPORT DATABASE '{folder}'", "COPY FROM DATABASE ledger TO memory",
     "CREATE PERSISTENT SECRET s (TYPE http)", "CALL pragma_version()", "CHECKPOINT", "FORCE CHECKPOINT ledger"],
)  # fmt: skip
def test_user_sql_can_change_nothing_and_reach_nothing(filled, query):
    folder = filled.path.parent
    with pytest.raises(LedgerError) as caught:
        filled.sql(query.format(folder=folder))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("The ledger ")
    assert len(filled.sql("SELECT * FROM calls JOIN attempts USING (seq)")) == 2
    assert sorted(p.name for p in folder.iterdir()) == [
        "journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal", "ledger.duckdb", "ledger.duckdb.lock",
        "secret.csv"]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "says"),
    [("SELEC 1", 'syntax error at or near "SELEC"'), ("SELECT * FROM nope", "nope does not exist"),
     ("SELECT nope FROM calls", 'column "nope" not found'), ("", "There is no query"), ("  \n ", "There is no query"),
     ("-- only a comment", "There is no query"), ("SELECT ?", "arameter"), ("SELECT 1/'x'", "x")],
)  # fmt: skip
def test_bad_sql_is_one_clear_line(filled, query, says):
    with pytest.raises(LedgerError, match=says) as caught:
        filled.sql(query)
    assert "\n" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    ["FROM calls", "PIVOT attempts ON status USING count(*)",
     "WITH p AS (PIVOT attempts ON status USING count(*)) FROM p",
     "SHOW TABLES", "DESCRIBE calls", "SUMMARIZE calls", "EXPLAIN SELECT * FROM calls", "TABLE calls",
     "EXPLAIN ANALYZE SELECT 1", "SELECT 1; SELECT seq FROM calls"],
)  # fmt: skip
def test_every_kind_of_question_is_answered(filled, query):
    assert len(filled.sql(query)) > 0


def test_parameters(ledger):
    write(ledger, full(user="a'; DROP TABLE calls; --"), full(user="bob"))
    assert ledger.sql("SELECT user FROM calls WHERE user = ?", ["bob"])["user"].tolist() == ["bob"]
    assert len(ledger.sql("SELECT * FROM calls WHERE user = $who", {"who": "a'; DROP TABLE calls; --"})) == 1
    assert ledger.df(last=1)["user"].tolist() == ["bob"]
    assert len(ledger.df(last=5)) == 2


def test_export_and_read_back(ledger, tmp_path):
    write(ledger, full(), receipt(prompt='comma, "quote"\nand line'))
    for name in ("calls.parquet", "calls.csv", "calls.jsonl"):
        path = ledger.export(tmp_path / name)
        assert path.stat().st_mode & 0o777 == 0o600
        back = duckdb.sql(f"SELECT id, cost_nanos, prompt FROM '{path}'").fetchall()
        assert back == [tuple(None if v is pandas.NA else v for v in r) for r in
                        ledger.sql("SELECT id, cost_nanos, prompt FROM calls").itertuples(index=False)]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2]
    with pytest.raises(UserError, match=r"\.parquet, \.csv, \.jsonl"):
        ledger.export(tmp_path / "calls.xlsx")
    with pytest.raises(UserError, match="Cannot export"):
        ledger.export(tmp_path / "nowhere" / "calls.csv")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "a draft was left behind"


def test_it_shows_itself_small_and_escaped(tmp_path):
    journal = Journal(tmp_path / "<b>&journal.sqlite3")
    ledger = Ledger(journal, tmp_path / "<script>.duckdb")
    write(ledger, full())
    html = ledger._repr_html_()
    assert "<script>" not in html
    assert "1 call, $0.0011" in html
    assert len(html) < 600
    assert repr(ledger) == f"Ledger({str(tmp_path / '<script>.duckdb')!r})"
    journal.close()


def test_nothing_is_rewritten_when_nothing_waits(ledger):
    write(ledger, full())
    ledger.df()
    before = ledger.path.stat().st_mtime_ns
    ledger.df()
    ledger.spend()
    assert ledger.path.stat().st_mtime_ns == before


def test_the_budgets_a_call_touched_are_told_with_amounts(ledger):
    write(ledger, full(), full())
    rows = ledger.sql("SELECT * EXCLUDE (seq) FROM charges WHERE seq = 1 ORDER BY position").to_numpy().tolist()
    assert rows == [[1, "daily", "2026-11-21", "usd", 2_000_000, 1_125_000], [2, "alice", "total", "tokens", 0, 0]]
    touched = ledger.sql("SELECT account, calls, charged FROM budgets_touched").to_numpy().tolist()
    assert touched == [["alice", 0, 0], ["daily", 2, 2_250_000]]
