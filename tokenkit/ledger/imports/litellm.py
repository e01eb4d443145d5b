"""Calls that were logged elsewhere: LiteLLM's spend logs, OpenTelemetry GenAI spans, and plain tables.

Each row becomes a call with one try, says where it comes from in ``imported``, and is known by its id, so that reading
a file twice changes nothing. A cost that is not in the log is charged by the published prices of its day, and left
unknown where there are none. A row that cannot be read is named by its line; the others are taken in.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tokenkit import pricing
from tokenkit.errors import UserError, did_you_mean
from tokenkit.types import Usage

Row = dict[str, Any]

COLUMNS = (
    "id", "started_at_ns", "seconds", "time_to_first_chunk", "status", "operation", "request_model", "model",
    "provider", "response_model", "finish_reason", "input_tokens", "output_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "reasoning_output_tokens", "cost_nanos", "error_type", "error", "cached", "user",
    "session", "endpoint_name", "prompt", "answer", "imported",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: calls taken in, calls that were there already, and the faults of rows left out."""

    rows: int
    known: int
    faults: tuple[str, ...] = ()

    def __repr__(self) -> str:
        known = f", {self.known:,} were there already" if self.known else ""
        faults = f"; {len(self.faults):,} rows left out, such as {self.faults[0]}" if self.faults else ""
        return f"Imported({self.rows:,} calls{known}{faults})"


def read(source: str | Path | Iterable[Mapping[str, Any]], form: str | None) -> tuple[list[Row], list[str]]:
    """Return the calls of a file or of rows, and what is wrong with those that are left out. Raises UserError."""
    name, found = _records(source)
    form = form or _guess(name, found)
    if form not in FORMS:
        raise UserError(f"There is no import format {form!r}. {did_you_mean(form, sorted(FORMS))}")
    rows: list[Row] = []
    faults: list[str] = []
    for place, record in found:
        if isinstance(record, str):
            faults.append(f"{name}, {place}: {record}")
            continue
        try:
            rows += FORMS[form](record)
        except (KeyError, ValueError, TypeError, InvalidOperation, AttributeError, OverflowError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            faults.append(f"{name}, {place}: {what}")
    for row in rows:
        row["imported"] = form
        _priced(row)
    return rows, faults


# Reading records from files.

Records = list[tuple[str, Any]]


def _records(source: str | Path | Iterable[Mapping[str, Any]]) -> tuple[str, Records]:
    if not isinstance(source, str | Path):
        return "the rows", [(f"row {n}", dict(row)) for n, row in enumerate(source, 1)]
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        table = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return path.name, [(f"line {n}", row) for n, row in enumerate(table, 2)]
    try:
        whole = json.loads(text)
    except ValueError:
        return path.name, list(_lines(text))
    if isinstance(whole, dict):
        for key in ("data", "logs", "spend_logs", "results"):
            if isinstance(whole.get(key), list):
                whole = whole[key]
                break
    records = whole if isinstance(whole, list) else [whole]
    return path.name, [(f"row {n}", record) for n, record in enumerate(records, 1)]


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    for n, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield f"line {n}", json.loads(line)
            except ValueError:
                yield f"line {n}", "it is no JSON"


def _guess(name: str, records: Records) -> str:
    first = next((record for _, record in records if isinstance(record, dict)), {})
    if "resourceSpans" in first or "attributes" in first:
        return "otel"
    if "request_id" in first and ("spend" in first or "startTime" in first):
        return "litellm"
    if "started_at" in first or "started_at_ns" in first or "model" in first:
        return "table"
    raise UserError(f"It is not clear what {name} is. Say format='litellm', 'otel' or 'table'.")


# LiteLLM: the rows of its proxy's LiteLLM_SpendLogs (docs.litellm.ai, "Spend Tracking" and its Prisma schema).


def _litellm(record: Mapping[str, Any]) -> list[Row]:
    began, ended = _when(record["startTime"]), _when(record.get("endTime"))
    first = _when(record.get("completionStartTime"))
    name = str(record.get("model") or record["model_group"])
    prefix, _, rest = name.partition("/")
    provider = record.get("custom_llm_provider") or (prefix if rest else None)
    failed = str(record.get("status") or "").lower() in ("failure", "failed", "error")
    metadata = record.get("metadata")
    metadata = json.loads(metadata) if isinstance(metadata, str) and metadata.startswith("{") else metadata
    usage = (metadata or {}).get("usage_object") or {} if isinstance(metadata, Mapping) else {}
    details = usage.get("prompt_tokens_details") or {}
    return [
        {
            "id": str(record["request_id"]),
            "started_at_ns": began,
            "seconds": None if ended is None or began is None else max(ended - began, 0) / 10**9,
            "time_to_first_chunk": None
            if first is None or began is None or first == ended
            else (first - began) / 10**9,
            "status": "error" if failed else "ok",
            "operation": _operation(str(record.get("call_type") or "completion")),
            "request_model": str(record.get("model_group") or name),
            "provider": provider,
            "model": name if rest and prefix == provider else f"{provider}/{name}" if provider else name,
            "input_tokens": _whole(record.get("prompt_tokens")),
            "output_tokens": _whole(record.get("completion_tokens")),
            "cache_read_input_tokens": _whole(details.get("cached_tokens")),
            "cost_nanos": _nanos(record.get("spend")),
            "error_type": "error" if failed else None,
            "cached": str(record.get("cache_hit")).lower() == "true",
            "user": record.get("end_user") or record.get("user") or None,
            "session": record.get("session_id") or None,
            "prompt": _text(record.get("messages")),
            "answer": _text(record.get("response")),
        }
    ]


def _operation(call_type: str) -> str:
    return "embeddings" if "embedding" in call_type else "chat"


# OpenTelemetry: OTLP/JSON as collectors write it, or one span an object as console exporters do. Names are those of
# the semantic conventions for generative AI, and their predecessors (gen_ai.system, gen_ai.usage.prompt_tokens).


def _otel(record: Mapping[str, Any]) -> list[Row]:
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
    model = said.get("gen_ai.request.model") or said.get("gen_ai.response.model")
    if model is None:
        return []  # a span of something else
    context = span.get("context") or {}
    began = _when(span.get("startTimeUnixNano") or span.get("start_time"))
    ended = _when(span.get("endTimeUnixNano") or span.get("end_time"))
    provider = said.get("gen_ai.provider.name") or said.get("gen_ai.system")
    reasons = said.get("gen_ai.response.finish_reasons") or [None]
    failed = said.get("error.type") or str((span.get("status") or {}).get("code", "")) in ("2", "STATUS_CODE_ERROR")
    return [
        {
            "id": str(span.get("spanId") or context.get("span_id") or span["id"]),
            "started_at_ns": began,
            "seconds": None if ended is None or began is None else max(ended - began, 0) / 10**9,
            "status": "error" if failed else "ok",
            "operation": said.get("gen_ai.operation.name") or "chat",
            "request_model": model,
            "provider": provider,
            "model": f"{provider}/{model}" if provider else model,
            "response_model": said.get("gen_ai.response.model"),
            "finish_reason": reasons[0] if isinstance(reasons, list | tuple) else reasons,
            "input_tokens": _whole(_first(said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")),
            "output_tokens": _whole(_first(said, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")),
            "cache_read_input_tokens": _whole(said.get("gen_ai.usage.cache_read.input_tokens")),
            "cache_creation_input_tokens": _whole(said.get("gen_ai.usage.cache_creation.input_tokens")),
            "reasoning_output_tokens": _whole(said.get("gen_ai.usage.reasoning.output_tokens")),
            "cost_nanos": _nanos(said.get("gen_ai.usage.cost")),
            "error_type": str(said.get("error.type") or "error") if failed else None,
            "user": said.get("user.id"),
            "session": said.get("gen_ai.conversation.id"),
            "prompt": _text(_first(said, "gen_ai.input.messages", "gen_ai.prompt")),
            "answer": _text(_first(said, "gen_ai.output.messages", "gen_ai.completion")),
        }
    ]


# A table with our own names: an export of a ledger, or what somebody wrote by hand.


def _table(record: Mapping[str, Any]) -> list[Row]:
    row: Row = {name: record.get(name) or None for name in COLUMNS}
    row["started_at_ns"] = _whole(record.get("started_at_ns")) or _when(record["started_at"])
    row["id"] = str(record["id"])
    for name in COLUMNS:
        if name.endswith("_tokens"):
            row[name] = _whole(record.get(name))
    row["cost_nanos"] = _whole(record.get("cost_nanos"))
    if row["cost_nanos"] is None:
        row["cost_nanos"] = _nanos(record.get("cost_usd"))
    row["seconds"] = None if record.get("seconds") in (None, "") else float(record["seconds"])
    row["model"] = str(record["model"])
    row["provider"] = record.get("provider") or row["model"].partition("/")[0]
    row["cached"] = str(record.get("cached")).lower() == "true"
    row["status"] = record.get("status") or "ok"
    return [row]


FORMS: Mapping[str, Callable[[Mapping[str, Any]], list[Row]]] = {"litellm": _litellm, "otel": _otel, "table": _table}


# Values.


def _first(said: Mapping[str, Any], *names: str) -> Any:
    return next((said[name] for name in names if said.get(name) is not None), None)


def _whole(value: Any) -> int | None:
    if value is None or value == "":
        return None
    number = Decimal(str(value))
    if number != number.to_integral_value() or not 0 <= number < 2**62:
        raise ValueError(f"{value!r} is no number of tokens")
    return int(number)


def _nanos(value: Any) -> int | None:
    if value is None or value == "":
        return None
    amount = Decimal(str(value)) * 10**9
    if not amount.is_finite() or not 0 <= amount < 2**62:
        raise ValueError(f"{value!r} is no amount of USD")
    return int(amount.to_integral_value())


def _when(value: Any) -> int | None:
    """Read a time as Unix nanoseconds: ISO 8601 (without a zone: UTC), or Unix seconds, milliseconds, … by its size."""
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        moment = datetime.fromisoformat(str(value).replace(" UTC", "+00:00"))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 10**6) * 1000
    scale = next((n for limit, n in ((10**11, 9), (10**14, 6), (10**17, 3)) if abs(number) < limit), 0)
    return int(number * 10**scale)


def _text(value: Any) -> str | None:
    if value in (None, "", {}, [], "{}", "[]"):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _priced(row: Row) -> None:
    """Fill a cost that is not in the log, by the published prices of its day."""
    if row.get("cost_nanos") is not None or row.get("cached") or row.get("status") == "error":
        return
    if row.get("input_tokens") is None or row.get("output_tokens") is None or not row.get("provider"):
        return
    name = str(row["model"]).removeprefix(f"{row['provider']}/")
    rule = pricing.resolve(str(row["provider"]), name, at=row.get("started_at_ns"))
    if rule is not None:
        usage = Usage(
            row["input_tokens"], row["output_tokens"], row.get("cache_read_input_tokens"),
            row.get("cache_creation_input_tokens"), row.get("reasoning_output_tokens"),
        )  # fmt: skip
        row["cost_nanos"] = rule.receipt(usage.input_tokens, row.get("started_at_ns")).cost(usage)
