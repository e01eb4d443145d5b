"""OpenTelemetry: OTLP/JSON as collectors write it, or one span an object as console exporters do.

Names are those of the semantic conventions for generative AI, and their predecessors (gen_ai.system,
gen_ai.usage.prompt_tokens). Spans of agents, workflows and tools hold calls, and are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenkit.ledger.imports.values import Row, first, nanos, seconds, text, when, whole

AROUND = frozenset({"create_agent", "invoke_agent", "invoke_workflow", "plan", "execute_tool"})
"""Operations whose spans hold the calls of others: counting both would count tokens twice."""


def recognised(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like a span, or an envelope of some."""
    return "resourceSpans" in record or "attributes" in record


def calls(record: Mapping[str, Any]) -> list[Row]:
    """Return the calls that a record tells of."""
    if "resourceSpans" in record:
        return [
            row
            for resource in record["resourceSpans"]
            for scope in resource.get("scopeSpans", ())
            for span in scope.get("spans", ())
            for row in _span(span, _attributes(span.get("attributes", ())))
        ]
    attributes = record.get("attributes", {})
    return _span(record, attributes if isinstance(attributes, Mapping) else _attributes(attributes))


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Any:
    kind, content = next(iter(value.items()))
    if kind == "arrayValue":
        return [_value(item) for item in content.get("values", ())]
    return int(content) if kind == "intValue" else content


def _span(span: Mapping[str, Any], said: Mapping[str, Any]) -> list[Row]:
    model = first(said, "gen_ai.request.model", "gen_ai.response.model")
    operation = first(said, "gen_ai.operation.name") or "chat"
    if model is None or operation in AROUND or "tokenkit.attempt" in said:
        return []
    context = span.get("context") or {}
    began = when(first(span, "startTimeUnixNano", "start_time"))
    provider = first(said, "gen_ai.provider.name", "gen_ai.system")
    reasons = said.get("gen_ai.response.finish_reasons") or [None]
    code = str((span.get("status") or {}).get("code", ""))
    failed = first(said, "error.type") is not None or code in ("2", "STATUS_CODE_ERROR")
    chunk = said.get("gen_ai.response.time_to_first_chunk")
    return [
        {
            "id": str(first(said, "tokenkit.receipt") or span.get("spanId") or context.get("span_id") or span["id"]),
            "started_at_ns": began,
            "seconds": seconds(began, when(first(span, "endTimeUnixNano", "end_time"))),
            "time_to_first_chunk": None if chunk is None else float(chunk),
            "status": "error" if failed else "ok",
            "operation": operation,
            "request_model": model,
            "provider": provider,
            "model": first(said, "tokenkit.model") or (f"{provider}/{model}" if provider else model),
            "response_model": said.get("gen_ai.response.model"),
            "finish_reason": reasons[0] if isinstance(reasons, list | tuple) else reasons,
            "input_tokens": whole(first(said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")),
            "output_tokens": whole(first(said, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")),
            "cache_read_input_tokens": whole(said.get("gen_ai.usage.cache_read.input_tokens")),
            "cache_creation_input_tokens": whole(said.get("gen_ai.usage.cache_creation.input_tokens")),
            "reasoning_output_tokens": whole(said.get("gen_ai.usage.reasoning.output_tokens")),
            "cost_nanos": nanos(first(said, "tokenkit.cost_usd", "gen_ai.usage.cost")),
            "error_type": str(first(said, "error.type") or "error") if failed else None,
            "cached": bool(said.get("tokenkit.cached")),
            "user": first(said, "user.id"),
            "session": first(said, "gen_ai.conversation.id"),
            "endpoint_name": first(said, "tokenkit.endpoint"),
            "prompt": text(first(said, "gen_ai.input.messages", "gen_ai.prompt")),
            "answer": text(first(said, "gen_ai.output.messages", "gen_ai.completion")),
        }
    ]
