"""A newcomer's first day: the logs of other tools, in the shapes in which they write them, become one history."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tokenkit import Kit
from tokenkit.errors import UserError
from tokenkit.ledger import synthetic

# Names and nesting as LiteLLM 1.110 hands them to a callback, under kwargs["standard_logging_object"].
CALLBACK: dict[str, Any] = {
    "id": "chatcmpl-9", "trace_id": "t", "litellm_call_id": "u", "call_type": "completion", "response_cost": 0.0021,
    "status": "success", "custom_llm_provider": "anthropic", "total_tokens": 340, "prompt_tokens": 300,
    "completion_tokens": 40, "startTime": 1777629600.25, "endTime": 1777629602.5, "completionStartTime": 1777629601.0,
    "model": "claude-sonnet-4-5", "model_group": "smart", "cache_hit": False, "end_user": "alice",
    "metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 100},
                                  "completion_tokens_details": {"reasoning_tokens": 7}}},
    "messages": [{"role": "user", "content": "Hi"}], "response": {"choices": []}, "error_str": None,
}  # fmt: skip
# Names as in Langfuse's blob export (snake case) and its API (camel case).
EXPORTED: dict[str, Any] = {
    "id": "obs-1", "trace_id": "t", "type": "GENERATION", "name": "answer", "start_time": "2026-05-01 10:00:00.250000",
    "end_time": "2026-05-01 10:00:02.500000", "completion_start_time": "2026-05-01 10:00:01.000000", "level": "DEFAULT",
    "provided_model_name": "openai/gpt-4o", "usage_details": {"input": 60, "input_cached_tokens": 40, "output": 20,
                                                              "output_reasoning_tokens": 5, "total": 125},
    "cost_details": {"input": 0.0002, "output": 0.0003, "total": 0.0005}, "total_cost": 0.0005, "user_id": "alice",
    "session_id": "s", "input": [{"role": "user", "content": "Hi"}], "output": "Hello",
}  # fmt: skip
ASKED: dict[str, Any] = {
    "id": "obs-2", "traceId": "t", "type": "GENERATION", "name": "answer", "startTime": "2026-05-01T10:00:00.250Z",
    "endTime": "2026-05-01T10:00:02.500Z", "model": "gpt-4o", "level": "ERROR", "statusMessage": "overloaded",
    "usage": {"input": 10, "output": 0, "total": 10}, "calculatedTotalCost": 0.1, "userId": "bob",
}  # fmt: skip


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit.simulated(pace=0) as made:
        yield made


def only(kit: Kit, columns: str) -> list[Any]:
    rows = kit.ledger.sql(f"select {columns} from calls order by id")
    assert len(rows) == 1
    return rows.iloc[0].tolist()


def test_what_litellm_gives_its_callbacks_is_a_history(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text(json.dumps({"standard_logging_object": CALLBACK}) + "\n")
    assert kit.ledger.import_(tmp_path / "calls.jsonl", "litellm").rows == 1
    assert kit.ledger.import_([CALLBACK]).known == 1, "the same call, guessed and without its wrapper"
    assert only(kit, "id, model, request_model, user, cost_nanos") == [
        "chatcmpl-9", "anthropic/claude-sonnet-4-5", "smart", "alice", 2_100_000
    ]  # fmt: skip
    assert only(kit, "input_tokens, cache_read_input_tokens, reasoning_output_tokens") == [300, 100, 7]
    assert only(kit, "seconds, time_to_first_chunk") == [2.25, 0.75]


def test_a_failure_in_litellms_log_says_which(kit: Kit) -> None:
    wrong = {"status": "failure", "error_str": "Too many", "error_information": {"error_class": "RateLimitError"}}
    kit.ledger.import_([{**CALLBACK, **wrong}])
    assert only(kit, "status, error_type, error") == ["error", "RateLimitError", "Too many"]


@pytest.mark.parametrize("form", ["langfuse", None])
def test_langfuses_export_is_a_history(kit: Kit, tmp_path: Path, form: str | None) -> None:
    span = {**EXPORTED, "id": "s", "type": "SPAN"}
    with gzip.open(tmp_path / "0.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in (span, EXPORTED)))
    done = kit.ledger.import_(tmp_path / "0.jsonl.gz", form)
    assert (done.rows, done.faults) == (1, ())
    assert only(kit, "id, model, provider, user, session, endpoint_name, imported") == [
        "obs-1", "openai/gpt-4o", "openai", "alice", "s", "answer", "langfuse"
    ]  # fmt: skip
    assert only(kit, "input_tokens, cache_read_input_tokens, output_tokens, reasoning_output_tokens") == [
        100,
        40,
        25,
        5,
    ]
    assert only(kit, "seconds, time_to_first_chunk, cost_nanos") == [2.25, 0.75, 500_000]


def test_langfuses_export_as_a_table_has_json_in_its_cells(kit: Kit, tmp_path: Path) -> None:
    with (tmp_path / "observations.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, EXPORTED)
        table.writeheader()
        table.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in EXPORTED.items()})
    assert kit.ledger.import_(tmp_path / "observations.csv").rows == 1
    assert only(kit, "input_tokens, output_tokens, prompt") == [100, 25, '[{"role": "user", "content": "Hi"}]']


def test_what_langfuses_api_answers_is_a_history(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"data": [ASKED], "meta": {"page": 1}}))
    assert kit.ledger.import_(tmp_path / "answer.json").rows == 1
    assert only(kit, "status, error, user, input_tokens, cost_nanos") == [
        "error", "overloaded", "bob", 10, 100_000_000
    ]  # fmt: skip


# The columns that llm 0.36 makes, without those that nobody reads here.
LLM = """
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, response TEXT,
  conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT, input_tokens INTEGER, output_tokens INTEGER,
  token_details TEXT, resolved_model TEXT);
INSERT INTO responses VALUES ('r1', 'gpt-4o', 'Hi', 'Be brief.', 'Hello', 'c1', 1500, '2026-05-01T10:00:00.250000',
  100, 10, '{"prompt_tokens_details": {"cached_tokens": 40}}', NULL);
CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, model TEXT, resolved_model TEXT, input_tokens INTEGER,
  output_tokens INTEGER, token_details TEXT, duration_ms INTEGER, datetime_utc TEXT, response_json TEXT);
CREATE TABLE turn_search (id INTEGER PRIMARY KEY, turn_id TEXT, prompt TEXT, response TEXT);
INSERT INTO turns VALUES ('t1', 'th', 'gpt-4o', 'gpt-4o-2024-08-06', 100, 10, NULL, 500, '2026-05-02T10:00:00', NULL);
INSERT INTO turn_search VALUES (1, 't1', 'And now?', 'Now, too.');
INSERT INTO turns VALUES ('t2', 'th', 'orca-mini', NULL, NULL, NULL, NULL, 900, '2026-05-03T10:00:00', NULL);
"""


def test_the_log_of_llm_is_a_history_priced_by_its_day(kit: Kit, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "logs.db")) as file:
        file.executescript(LLM)
    assert kit.ledger.import_(tmp_path / "logs.db").rows == 3
    rows = kit.ledger.sql("select * from calls").set_index("id")
    assert rows.loc["r1", ["model", "session", "prompt", "answer"]].tolist() == [
        "openai/gpt-4o", "c1", "Be brief.\n\nHi", "Hello"
    ]  # fmt: skip
    assert rows.loc["r1", "cost_nanos"] == 60 * 2_500 + 40 * 1_250 + 10 * 10_000
    assert rows.loc["t1", ["session", "prompt", "response_model"]].tolist() == ["th", "And now?", "gpt-4o-2024-08-06"]
    assert rows.loc["t1", "cost_nanos"] == 100 * 2_500 + 10 * 10_000
    assert pd.isna(rows.loc["t2", "cost_nanos"]), "a local model of no known price is unknown, not free"
    assert kit.ledger.import_(tmp_path / "logs.db").known == 3


def test_a_database_of_something_else_is_one_sentence(kit: Kit, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        file.execute("CREATE TABLE t (x)")
    with pytest.raises(UserError, match="neither a table responses nor turns"):
        kit.ledger.import_(tmp_path / "other.db")
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be read as one" * 50)
    with pytest.raises(UserError, match="cannot be read as SQLite: file is not a database"):
        kit.ledger.import_(tmp_path / "text.sqlite")


def test_spans_that_hold_other_calls_are_not_counted_beside_them(kit: Kit) -> None:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 9}
    chat = {**agent, "gen_ai.operation.name": "chat"}
    spans = [
        {"spanId": str(n), "startTimeUnixNano": 10**18, "attributes": said}
        for n, said in enumerate((agent, chat, {**chat, "tokenkit.attempt": 1}))
    ]
    assert kit.ledger.import_(spans).rows == 1
    assert only(kit, "id") == ["1"]


def test_spans_exported_from_a_home_are_known_there(kit: Kit, tmp_path: Path) -> None:
    kit.call("Hello", endpoint_name="greeting", max_tokens=5)
    kit.ledger.export(tmp_path / "spans.jsonl", form="otel")
    assert kit.ledger.import_(tmp_path / "spans.jsonl").known == 1
    with Kit.simulated(pace=0) as other:
        other.ledger.import_(tmp_path / "spans.jsonl")
        for column in ("id", "model", "cost_nanos", "endpoint_name", "started_at_ns"):
            assert only(other, column) == only(kit, column)


SAME = """id, started_at_ns, status, model, provider, request_model, response_model, finish_reason, input_tokens,
  output_tokens, cost_nanos, saved_tokens, usage_source, cached, streamed, "user", "session", endpoint_name, prompt,
  answer, prompt_sha256, seconds, time_to_first_chunk"""


@pytest.mark.parametrize("name", ["history", "calls.parquet", "calls.csv", "calls.jsonl"])
def test_what_was_exported_comes_back_as_it_was(kit: Kit, tmp_path: Path, name: str) -> None:
    for n in range(3):
        kit.call(f'Say "{n}",\nplease', user="bob", session="s", max_tokens=9, compress=["normalize"])
    kit.ledger.import_([{"id": "old", "model": "p/m", "started_at": "2025-12-31"}])
    kit.ledger.export(tmp_path / name)
    with Kit.simulated(pace=0) as other:
        done = other.ledger.import_(tmp_path / name)
        assert (done.rows, done.faults) == (4, ())
        ours, theirs = (k.ledger.sql(f"select {SAME} from calls order by started_at_ns") for k in (kit, other))
        pd.testing.assert_frame_equal(ours, theirs)
        assert other.ledger.df()["id"].tolist() == kit.ledger.df()["id"].tolist()


def test_what_is_synthetic_stays_so(kit: Kit, tmp_path: Path) -> None:
    synthetic.write_history(tmp_path / "home", 50)
    with Kit.simulated(pace=0, home=tmp_path / "home") as other:
        other.ledger.export(tmp_path / "calls.parquet")
    assert kit.ledger.import_(tmp_path / "calls.parquet").rows == 50
    assert kit.ledger.sql("select distinct imported from calls")["imported"].tolist() == ["synthetic"]


def test_a_data_frame_is_a_table(kit: Kit) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "model": ["p/m"] * 2, "started_at": pd.to_datetime(["2026-05-01"] * 2),
                          "input_tokens": [5, None], "user": ["alice", None]})  # fmt: skip
    assert kit.ledger.import_(frame).rows == 2
    rows = kit.ledger.sql("select * from calls").set_index("id")
    assert rows.loc["a", "input_tokens"] == 5
    assert pd.isna(rows.loc["b", "input_tokens"])
    assert pd.isna(rows.loc["b", "user"])
    assert str(rows.loc["a", "started_at"].tz_convert("UTC")) == "2026-05-01 00:00:00+00:00"


def test_a_long_log_comes_in_the_order_of_time_whatever_its_batches(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenkit.ledger.imports.AT_ONCE", 7)
    rows = [{"id": f"{n:03}", "model": "p/m", "started_at_ns": 10**18 + n} for n in range(50)]
    rows[30]["started_at_ns"] = "never"
    done = kit.ledger.import_([*rows, rows[0]])
    assert (done.rows, done.known) == (49, 0)
    assert done.faults == ("the rows, row 31: 'never' is no whole number",)
    assert kit.ledger.df()["id"].tolist() == [f"{n:03}" for n in range(50) if n != 30]


def test_a_file_that_breaks_off_leaves_nothing_behind(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkit.ledger.imports.AT_ONCE", 1000)
    lines = "".join(json.dumps({"id": str(n), "model": "m", "started_at": 1}) + "\n" for n in range(9_000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut.jsonl.gz cannot be read"):
        kit.ledger.import_(tmp_path / "cut.jsonl.gz")
    assert len(kit.ledger.df()) == 0
    (tmp_path / "cut.jsonl.gz").write_bytes(whole)
    assert kit.ledger.import_(tmp_path / "cut.jsonl.gz").rows == 9_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.json", b"[]", "empty.json is empty"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("none.jsonl", b"hello\nworld\n", "has no records: it is no JSON"),
        ("what.json", b'[{"colour": "red"}]', "It is not clear what what.json is. Say form='otel' or"),
        ("bytes.json", b"\xff\xfe\x00{", "cannot be read"),
        ("torn.parquet", b"PAR1 torn", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_taken_in_is_one_sentence(
    kit: Kit, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        kit.ledger.import_(tmp_path / name)
    assert "\n" not in str(error.value)
    assert len(kit.ledger.df()) == 0
