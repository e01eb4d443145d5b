"""The command-line tool ``llm``: its ``logs.db``, a SQLite file with a row a call.

Older versions keep ``responses``; since 0.36 ``turns``, with the texts in ``turn_search``. Both are read.
Source: the schema that llm 0.36 makes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tokenkit.errors import UserError
from tokenkit.ledger.imports.values import Row, first, table, text, when, whole

_QUERIES = {
    "responses": "SELECT *, conversation_id AS thread FROM responses",
    "turns": "SELECT t.*, t.thread_id AS thread, s.prompt, s.response FROM turns t"
    " LEFT JOIN turn_search s ON s.turn_id = t.id",
}
# The tool names models without their maker; these are the makers whose names tell.
_MAKERS = {"gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai",
           "claude-": "anthropic", "gemini-": "google", "mistral-": "mistral", "deepseek-": "deepseek"}  # fmt: skip


def recognised(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like a row of ``llm``'s log."""
    return "datetime_utc" in record and "duration_ms" in record


def rows_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a ``logs.db``, which is only read. Raises UserError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            file.row_factory = sqlite3.Row
            there = {row[0] for row in file.execute("SELECT name FROM sqlite_master")}
            wanted = [query for name, query in _QUERIES.items() if name in there]
            if not wanted:
                raise UserError(f"{path} has no calls of llm's: it has neither a table responses nor turns.")
            for query in wanted:
                yield from map(dict, file.execute(query))
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read as SQLite: {error}.") from None


def calls(record: Mapping[str, Any]) -> list[Row]:
    """Return the call of a row."""
    name = str(first(record, "resolved_model", "model") or record["model"])
    prefix, _, rest = name.partition("/")
    provider = prefix if rest else next((maker for start, maker in _MAKERS.items() if name.startswith(start)), None)
    details = table(record.get("token_details"))
    took = first(record, "duration_ms")
    asked = [part for part in (text(record.get("system")), text(record.get("prompt"))) if part]
    return [
        {
            "id": str(record["id"]),
            "started_at_ns": when(record["datetime_utc"]),
            "seconds": None if took is None else float(took) / 1000,
            "status": "ok",
            "operation": "chat",
            "request_model": str(record.get("model") or name),
            "provider": provider,
            "model": name if rest or provider is None else f"{provider}/{name}",
            "response_model": first(record, "resolved_model"),
            "input_tokens": whole(record.get("input_tokens")),
            "output_tokens": whole(record.get("output_tokens")),
            "cache_read_input_tokens": whole(table(details.get("prompt_tokens_details")).get("cached_tokens")),
            "reasoning_output_tokens": whole(table(details.get("completion_tokens_details")).get("reasoning_tokens")),
            "session": first(record, "thread", "conversation_id", "thread_id"),
            "prompt": "\n\n".join(asked) or None,
            "answer": text(record.get("response")),
        }
    ]
