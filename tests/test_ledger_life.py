"""A history from elsewhere, taken in once; given out by month and as spans; and let go of when it is old."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit import Kit
from tokenkit.errors import UserError
from tokenkit.ledger.files import create_tables, section
from tokenkit.ledger.imports import read

LITELLM = {
    "request_id": "chatcmpl-1", "call_type": "acompletion", "spend": 0.00123, "total_tokens": 30, "prompt_tokens": 20,
    "completion_tokens": 10, "startTime": "2026-05-01T10:00:00Z", "endTime": "2026-05-01T10:00:02.5Z",
    "completionStartTime": "2026-05-01T10:00:01Z", "model": "gpt-4o", "custom_llm_provider": "openai", "user": "alice",
    "end_user": "",
    "metadata": '{"usage_object": {"prompt_tokens_details": {"cached_tokens": 8}}}', "cache_hit": "False",
    "session_id": "s1", "status": "success", "messages": "{}", "response": "{}",
}  # fmt: skip


def attribute(key: str, value: Any) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "arrayValue" if isinstance(value, list) else "stringValue"
    shown = {"values": [{"stringValue": v} for v in value]} if kind == "arrayValue" else str(value)
    return {"key": key, "value": {kind: shown}}


OTEL = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "a" * 32, "spanId": "b" * 16, "name": "chat gpt-4o",
                            "startTimeUnixNano": "1777629600000000000", "endTimeUnixNano": "1777629601000000000",
                            "attributes": [
                                attribute("gen_ai.operation.name", "chat"), attribute("gen_ai.provider.name", "openai"),
                                attribute("gen_ai.request.model", "gpt-4o"),
                                attribute("gen_ai.usage.input_tokens", 100),
                                attribute("gen_ai.usage.output_tokens", 10),
                                attribute("gen_ai.response.finish_reasons", ["stop"]),
                            ],
                            "status": {"code": 1},
                        },
                        {"traceId": "a" * 32, "spanId": "c" * 16, "name": "GET /", "attributes": [],
                         "startTimeUnixNano": "1", "endTimeUnixNano": "2"},
                    ]
                }
            ]
        }
    ]
}  # fmt: skip


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit.simulated(pace=0) as made:
        yield made


def test_litellms_spend_logs_are_a_history(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "logs.json"
    file.write_text(json.dumps([LITELLM, {**LITELLM, "request_id": "2", "status": "failure", "spend": 0}]))
    done = kit.ledger.import_(file)
    assert (done.rows, done.known, done.faults) == (2, 0, ())
    assert kit.ledger.import_(file).rows == 0
    kit.call("Hello", max_tokens=5)
    row = kit.ledger.sql("select * from calls where id = 'chatcmpl-1'").iloc[0]
    assert (row["model"], row["user"], row["imported"]) == ("openai/gpt-4o", "alice", "litellm")
    assert (row["cost_nanos"], row["cache_read_input_tokens"], row["seconds"]) == (1_230_000, 8, 2.5)
    assert row["started_at_ns"] == int(datetime(2026, 5, 1, 10, tzinfo=UTC).timestamp()) * 10**9
    assert row["prompt"] is None
    assert len(kit.ledger.df()) == 3
    assert kit.ledger.sql("select count(*) as n, count(distinct seq) as d from calls").iloc[0].tolist() == [3, 3]
    assert kit.ledger.spend(by="user").set_index("user").loc["alice", "failed_calls"] == 1
    assert kit.ledger.verify()


def test_otel_spans_are_a_history_priced_by_their_day(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    flat = {
        "name": "chat", "context": {"span_id": "0xdead"}, "start_time": "2026-05-01T10:00:00Z",
        "end_time": "2026-05-01T10:00:01Z", "status": {"status_code": "ERROR"},
        "attributes": {"gen_ai.system": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5",
                       "error.type": "timeout"},
    }  # fmt: skip
    file.write_text(json.dumps(OTEL) + "\n" + json.dumps(flat) + "\nnot json\n")
    done = kit.ledger.import_(file)
    assert done.rows == 2
    assert done.faults == ("spans.jsonl, line 3: it is no JSON",)
    rows = kit.ledger.sql("select * from calls order by id").set_index("id")
    assert rows.loc["b" * 16, "cost_nanos"] == 100 * 2_500 + 10 * 10_000
    assert rows.loc["b" * 16, "finish_reason"] == "stop"
    assert rows.loc["0xdead", "status"] == "error"
    assert rows.loc["0xdead", "error_type"] == "timeout"


def test_our_own_spans_and_tables_come_back(kit: Kit, tmp_path: Path) -> None:
    for n in range(3):
        kit.call(f"Say {n}", user="bob", session="s", max_tokens=9)
    kit.ledger.export(tmp_path / "spans.jsonl", form="otel")
    kit.ledger.export(tmp_path / "calls.csv")
    for file, same in (("spans.jsonl", "input_tokens"), ("calls.csv", "cost_nanos")):
        with Kit.simulated(pace=0) as other:
            assert other.ledger.import_(tmp_path / file).rows == 3
            ours, theirs = (k.ledger.sql(f"select sum({same}) as n from calls").iloc[0]["n"] for k in (kit, other))
            assert ours == theirs > 0
            assert other.ledger.sql("select distinct session from calls")["session"].tolist() == ["s"]


def test_parquet_by_month_is_one_table(kit: Kit, tmp_path: Path) -> None:
    rows = [{"id": str(n), "started_at": f"2026-0{1 + n % 3}-05", "model": "p/m", "input_tokens": n} for n in range(9)]
    kit.ledger.import_(rows)
    kit.ledger.export(tmp_path / "history")
    assert sorted(p.name for p in (tmp_path / "history" / "year=2026").iterdir()) == ["month=1", "month=2", "month=3"]
    found = duckdb.sql(f"select count(*), sum(input_tokens) from '{tmp_path}/history/**/*.parquet'").fetchall()
    assert found == [(9, 36)]
    with pytest.raises(UserError, match="or a folder"):
        kit.ledger.export(tmp_path / "calls.xlsx")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "1"}], "It is not clear"),
        ([{"id": "1", "model": "m"}], "it has no 'started_at'"),
        ([{"id": "1", "model": "m", "started_at": "yesterday"}], "Invalid isoformat"),
        ([{"id": "1", "model": "m", "started_at": 1, "input_tokens": -4}], "no whole number"),
        ([{"id": "1", "model": "m", "started_at": 1, "cost_usd": "much"}], "'much' is no amount of USD"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_taken_in(kit: Kit, rows: list[Any], said: str) -> None:
    good = {"id": "good", "model": "m", "started_at": "2026-05-01"}
    if said.startswith("It is not"):
        with pytest.raises(UserError, match=said):
            kit.ledger.import_(rows)
        return
    done = kit.ledger.import_([*rows, good])
    assert done.rows == 1
    assert len(done.faults) == 1
    assert said in done.faults[0]
    assert "rows left out" in repr(done)


def test_an_import_from_nowhere_is_one_sentence(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        kit.ledger.import_(tmp_path / "none.json")
    with pytest.raises(UserError, match="no import format 'litelm'"):
        kit.ledger.import_([LITELLM], "litelm")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(), st.lists, max_leaves=4)
)
def test_no_value_of_a_log_breaks_an_import(value: Any) -> None:
    for form, row, keys in (("litellm", LITELLM, list(LITELLM)), ("otel", OTEL, ["resourceSpans"])):
        for key in keys:
            if form == "otel" and not isinstance(value, list):
                continue
            faults: list[str] = []
            rows = [row for batch in read([{**row, key: value}], form, faults) for row in batch]
            assert rows or faults or form == "otel"


def test_what_is_old_is_dropped_or_loses_its_texts_and_the_file_shrinks(kit: Kit) -> None:
    now = datetime.now(UTC)
    old = [
        {"id": f"old-{n}", "started_at": (now - timedelta(days=90)).isoformat(), "model": "p/m", "prompt": "x" * 2000}
        for n in range(4000)
    ]
    kit.ledger.import_(old)
    answer = kit.call("Hello", max_tokens=5)
    kit.rate(answer, 1)
    done = kit.ledger.retain(30, texts_only=True)
    assert done.calls == 4000
    assert kit.ledger.sql("select count(prompt) as n from calls where id like 'old%'").iloc[0]["n"] == 0
    assert kit.ledger.retain(30).calls == 4000
    assert kit.ledger.df().shape[0] == 1
    assert kit.ledger.sql("select count(*) as n from attempts").iloc[0]["n"] == 1
    assert len(kit.ledger.sql("select * from rated_calls")) == 1
    before = kit.ledger.path.stat().st_size
    freed = kit.ledger.compact()
    assert kit.ledger.path.stat().st_size < before
    assert freed >= before - kit.ledger.path.stat().st_size
    assert kit.ledger.path.stat().st_mode & 0o777 == 0o600
    kit.call("Again", max_tokens=5)
    assert kit.ledger.df().shape[0] == 2
    assert kit.ledger.verify()
    with pytest.raises(UserError, match="at least 0"):
        kit.ledger.retain(-1)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"])
def test_days_are_those_of_the_calendar_in_every_zone(zone: str) -> None:
    chance = random.Random(zone)
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = '{zone}'")
        create_tables(connection)
        connection.execute(section("views"))
        for seq in range(400):  # around midnights, and the nights on which clocks are changed
            day = datetime(2026, chance.choice((3, 4, 10, 11)), chance.randrange(1, 9), tzinfo=UTC).timestamp()
            began = int(day * 10**9) + chance.randrange(-86_400, 86_400) * 10**9 + chance.randrange(10**9)
            connection.execute(
                "INSERT INTO calls BY NAME SELECT ? AS seq, 'x' AS id, make_timestamp(? // 1000) AT TIME ZONE 'UTC' AS "
                "started_at, ? AS started_at_ns, 'ok' AS status, 'm' AS model, 7 AS cost_nanos, 1 AS tries, "
                "false AS cached, false AS streamed",
                [seq, began, began],
            )
        plainly = "SELECT CAST(started_at AS DATE) AS day, count(*), sum(cost_usd) FROM calls GROUP BY 1 ORDER BY 1"
        found = connection.execute("SELECT day, calls, cost_usd FROM spend_daily").fetchall()
        assert found == connection.execute(plainly).fetchall()
        assert len(found) > 10
