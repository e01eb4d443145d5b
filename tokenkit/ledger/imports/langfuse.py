"""Langfuse: observations of kind GENERATION or EMBEDDING, from its export of a table, its blob export or its API.

Source: Langfuse's "Blob storage export field reference" and the types of its Python client. Exports write names in
snake case, the API in camel case; older ones have ``usage`` and ``calculatedTotalCost``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokenkit.ledger.imports.values import Row, first, nanos, seconds, table, text, when, whole

_CALLS = ("GENERATION", "EMBEDDING")
_NAMES = ("provided_model_name", "model")


def recognised(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like an observation of Langfuse's."""
    said = _snake(record)
    return "type" in said and ("trace_id" in said or "usage_details" in said) and "start_time" in said


def calls(record: Mapping[str, Any]) -> list[Row]:
    """Return the call that an observation tells of; spans and events are none."""
    said = _snake(record)
    name = first(said, *_NAMES)
    kind = str(said.get("type")).upper()
    if kind not in _CALLS or name is None:
        return []
    began, ended = when(said["start_time"]), when(said.get("end_time"))
    prefix, _, rest = str(name).partition("/")
    used = table(said.get("usage_details")) or table(said.get("usage"))
    cost = first(said, "total_cost", "calculated_total_cost")
    failed = str(said.get("level")).upper() == "ERROR"
    return [
        {
            "id": str(said["id"]),
            "started_at_ns": began,
            "seconds": seconds(began, ended),
            "time_to_first_chunk": seconds(began, when(said.get("completion_start_time"))),
            "status": "error" if failed else "ok",
            "operation": "embeddings" if kind == "EMBEDDING" else "chat",
            "request_model": str(name),
            "provider": prefix if rest else None,
            "model": str(name),
            **_used(used, said),
            "cost_nanos": nanos(table(said.get("cost_details")).get("total") if cost is None else cost),
            "error_type": "error" if failed else None,
            "error": first(said, "status_message") if failed else None,
            "user": first(said, "user_id"),
            "session": first(said, "session_id"),
            "endpoint_name": first(said, "name"),
            "prompt": text(said.get("input")),
            "answer": text(said.get("output")),
        }
    ]


def _used(used: Mapping[str, Any], said: Mapping[str, Any]) -> Row:
    """Read usage details: parts that do not overlap, so that all with ``input`` in their name make up the input."""
    counts = {str(name): whole(value) for name, value in used.items() if not isinstance(value, str)}
    return {
        "input_tokens": _summed(counts, "input", "prompt_tokens") or whole(first(said, "prompt_tokens")),
        "output_tokens": _summed(counts, "output", "completion_tokens") or whole(first(said, "completion_tokens")),
        "cache_read_input_tokens": first(counts, "input_cached_tokens", "input_cache_read", "cache_read_input_tokens"),
        "cache_creation_input_tokens": first(counts, "input_cache_creation", "cache_creation_input_tokens"),
        "reasoning_output_tokens": first(counts, "output_reasoning_tokens", "output_reasoning"),
    }


def _summed(counts: Mapping[str, int | None], side: str, older: str) -> int | None:
    found = [n for name, n in counts.items() if side in name and n is not None]
    return sum(found) if found else counts.get(older)


def _snake(record: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", str(name)).lower(): value for name, value in record.items()}
