"""Plain tables with our own column names: an export of a ledger, a data frame, or what somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenkit.ledger.imports.values import Row, first, nanos, number, text, when, whole

TEXTS = (
    "operation", "request_model", "response_model", "finish_reason", "usage_source", "error_type", "error", "user",
    "session", "endpoint_name", "parent", "cached_from", "prompt", "answer", "prompt_sha256", "imported",
)  # fmt: skip
TOKENS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "reasoning_output_tokens", "saved_tokens",
)  # fmt: skip


def recognised(record: Mapping[str, Any]) -> bool:
    """Whether a record has our columns."""
    return "started_at" in record or "started_at_ns" in record or "model" in record


def calls(record: Mapping[str, Any]) -> list[Row]:
    """Return the call of a row."""
    began, cost = whole(record.get("started_at_ns")), whole(record.get("cost_nanos"))
    model = str(record["model"])
    return [
        {
            **{name: text(record.get(name)) for name in TEXTS},
            **{name: whole(record.get(name)) for name in TOKENS},
            "id": str(record["id"]),
            "started_at_ns": when(record["started_at"]) if began is None else began,
            "seconds": number(record.get("seconds")),
            "time_to_first_chunk": number(record.get("time_to_first_chunk")),
            "status": first(record, "status") or "ok",
            "model": model,
            "provider": first(record, "provider") or model.partition("/")[0],
            "cost_nanos": nanos(record.get("cost_usd")) if cost is None else cost,
            "cached": str(record.get("cached")).lower() == "true",
            "streamed": str(record.get("streamed")).lower() == "true",
        }
    ]
