"""LiteLLM: rows of its proxy's ``LiteLLM_SpendLogs``, and what its callbacks are given, ``StandardLoggingPayload``.

Source: LiteLLM's documentation ("Spend Tracking", "StandardLoggingPayload Specification") and its Prisma schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenkit.ledger.imports.values import Row, first, nanos, seconds, table, text, when, whole


def recognised(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like LiteLLM's."""
    return ("request_id" in record and ("spend" in record or "startTime" in record)) or (
        "call_type" in record and "response_cost" in record
    )


def calls(record: Mapping[str, Any]) -> list[Row]:
    """Return the call that a record tells of."""
    record = table(record.get("standard_logging_object")) or record
    began, ended = when(record["startTime"]), when(record.get("endTime"))
    chunk = when(record.get("completionStartTime"))
    name = str(record.get("model") or record["model_group"])
    prefix, _, rest = name.partition("/")
    provider = record.get("custom_llm_provider") or (prefix if rest else None)
    failed = str(record.get("status") or "").lower() in ("failure", "failed", "error")
    metadata = table(record.get("metadata"))
    usage = table(metadata.get("usage_object"))
    details = table(usage.get("prompt_tokens_details"))
    error = table(record.get("error_information"))
    return [
        {
            "id": str(first(record, "request_id", "id") or record["litellm_call_id"]),
            "started_at_ns": began,
            "seconds": seconds(began, ended),
            "time_to_first_chunk": None if chunk == ended else seconds(began, chunk),
            "status": "error" if failed else "ok",
            "operation": "embeddings" if "embedding" in str(record.get("call_type")) else "chat",
            "request_model": str(record.get("model_group") or name),
            "provider": provider,
            "model": name if rest and prefix == provider else f"{provider}/{name}" if provider else name,
            "input_tokens": whole(record.get("prompt_tokens")),
            "output_tokens": whole(record.get("completion_tokens")),
            "cache_read_input_tokens": whole(details.get("cached_tokens")),
            "cache_creation_input_tokens": whole(usage.get("cache_creation_input_tokens")),
            "reasoning_output_tokens": whole(table(usage.get("completion_tokens_details")).get("reasoning_tokens")),
            "cost_nanos": nanos(first(record, "spend", "response_cost")),
            "error_type": (first(error, "error_class") or "error") if failed else None,
            "error": first(record, "error_str") if failed else None,
            "cached": str(record.get("cache_hit")).lower() == "true",
            "user": first(record, "end_user", "user") or first(metadata, "user_api_key_user_id"),
            "session": first(record, "session_id"),
            "prompt": text(record.get("messages")),
            "answer": text(record.get("response")),
        }
    ]
