"""Google's Gemini API: contents of parts, the model in the address, thoughts apart from candidates.

Shapes from Google's API reference, "generateContent" and "Function calling". ``promptTokenCount`` includes what a
cache held; ``candidatesTokenCount`` is without thoughts, so our output is the sum of both. Every chunk of a stream may
carry usage so far. Both ``v1`` and ``v1beta`` answer: the address says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tokenkit.effects import WireRequest
from tokenkit.errors import AuthError, ContentFiltered, ProtocolError, ProviderError, QuotaExceeded, RateLimited
from tokenkit.providers import failures
from tokenkit.providers.base import LONGEST_WAIT, Feed, Provider
from tokenkit.providers.openai import dumps
from tokenkit.providers.shapes import arguments_of, body_of, count, record, records, schema_of, sum_of, text, word
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"

_FILTERED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}

# The words of JSON Schema that responseSchema and parameters take (Google, "Schema"); others go by the JSON fields.
_SUBSET = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "minItems", "maxItems", "properties"),
    *("required", "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "example", "anyOf"),
    *("propertyOrdering", "default", "minimum", "maximum"),
}

# Gemini 3 and later refuse a call of theirs that comes back without its signature, and a ToolCall has no place for
# one: Google documents this word for histories that lack them ("Thought signatures").
_SIGNED = re.compile(r"gemini-(?:[3-9]|\d\d)")
_UNSIGNED = "skip_thought_signature_validator"


def provider(name: str = "gemini", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect; the key goes into ``x-goog-api-key`` alone."""
    return Provider(
        name,
        base_url.rstrip("/"),
        encode,
        decode,
        feed,
        classify,
        key,
        auth=("x-goog-api-key", ""),
        key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    )


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a request to generate content. What the model does not take is left out, and noted."""
    notes: list[str] = []
    system = [m for m in request.messages if m.role in _SYSTEM]
    body: dict[str, Any] = {"contents": _contents(request, notes)}
    if system:
        body["systemInstruction"] = {"parts": [{"text": m.text} for m in system]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
    if request.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _choice(request.tool_choice)}
    # What is given as extra adds to the settings made here, and does not replace them.
    config = _config(request) | dict(record(request.extra.get("generationConfig")))
    body |= request.extra
    if config:
        body["generationConfig"] = config
    headers = (("content-type", "application/json"), *provider.headers)
    return WireRequest("POST", address(request, provider), dumps(body), headers, provider.credentials(), tuple(notes))


def address(request: Request, provider: Provider) -> str:
    """Return where to send a request for content."""
    verb = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
    return f"{versioned(provider.base_url)}/{resource(request.model)}:{verb}"


def versioned(base_url: str) -> str:
    """Return an address with its version: ``v1beta`` where it names none."""
    base = base_url.rstrip("/")
    return base if re.search(r"/v\d\w*(/|$)", base) else f"{base}/v1beta"


def resource(model: str) -> str:
    """Return a model as the address names it: ``models/NAME``, or a path of its own such as ``tunedModels/NAME``."""
    return quote(model if "/" in model else f"models/{model}", safe="/")


def decode(body: bytes) -> Response:
    """Read a whole answer. Raises what an error body says, ContentFiltered, or ProtocolError for anything else."""
    data = body_of(body)
    _raise_for(data)
    candidates = records(data.get("candidates"))
    if not candidates:
        raise ProtocolError("The answer has no candidates.")
    parts = records(record(candidates[0].get("content")).get("parts"))
    calls = [record(p["functionCall"]) for p in parts if p.get("functionCall")]
    return Response(
        _words(parts, thought=False),
        model=word(data.get("modelVersion")),
        finish_reason=_finish(candidates[0].get("finishReason"), bool(calls)),
        usage=usage_of(record(data.get("usageMetadata")), final=True),
        tool_calls=tuple(
            ToolCall(_id(call, i), text(call.get("name")), json.dumps(call.get("args") or {}))
            for i, call in enumerate(calls)
        ),
        reasoning=_words(parts, thought=True),
        id=word(data.get("responseId")),
    )


def feed() -> Feed:
    """Return a decoder of one stream; it is complete when a finish reason was seen."""
    split = events()
    called = 0
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal called, ended
        found: list[Delta] = []
        for _, payload in split(data):
            chunk = parse(payload)
            _raise_for(chunk)
            candidate = next(iter(records(chunk.get("candidates"))), {})
            parts = records(record(candidate.get("content")).get("parts"))
            calls = []
            for call in (record(p["functionCall"]) for p in parts if p.get("functionCall")):
                arguments = json.dumps(call.get("args") or {})
                calls.append(ToolCallDelta(called, _id(call, called), text(call.get("name")), arguments))
                called += 1
            finish = _finish(candidate.get("finishReason"), bool(called))
            ended = ended or finish is not None
            found.append(
                Delta(
                    _words(parts, thought=False),
                    _words(parts, thought=True),
                    tuple(calls),
                    finish,
                    usage_of(record(chunk.get("usageMetadata")), final=ended),
                    word(chunk.get("modelVersion")),
                    word(chunk.get("responseId")),
                )
            )
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas


def classify(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Turn a failure status into the error it means; the body may be an object or a list that holds one."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    data = data[0] if isinstance(data, list) and data else data
    if isinstance(data, Mapping) and record(data.get("error")):
        return _failure(status, headers, data)
    return failures.classify(status, headers, body)


def usage_of(data: Mapping[str, Any], final: bool) -> Usage | None:
    """Read Gemini's usage. What is 0 it leaves out: the total tells an answer of no tokens from an untold one."""
    if not data:
        return None
    into = sum_of(count(data.get("promptTokenCount")), count(data.get("toolUsePromptTokenCount")))
    shown, thought = count(data.get("candidatesTokenCount")), count(data.get("thoughtsTokenCount"))
    total = count(data.get("totalTokenCount"))
    out = None if shown is None and thought is None else (shown or 0) + (thought or 0)
    if out is None and final and into is not None and total is not None and total >= into:
        out = total - into
    return Usage(into, out, count(data.get("cachedContentTokenCount")), None, thought)


def _raise_for(data: Mapping[str, Any]) -> None:
    if data.get("error"):
        raise _failure(None, {}, data)
    blocked = word(record(data.get("promptFeedback")).get("blockReason"))
    if blocked:
        raise ContentFiltered(f"The prompt was refused: {failures.safe(blocked)}.", code=failures.safe(blocked))


def _failure(status: int | None, headers: Mapping[str, str], data: Mapping[str, Any]) -> ProviderError:
    """Turn an error object into the error it means, by its details: Google words every 429 as a spent quota."""
    made = failures.failure(status, headers, data)
    error = record(data.get("error"))
    details = records(error.get("details"))
    quotas = [text(v.get("quotaId")) for d in details for v in records(d.get("violations"))]
    delay = next((s for d in details if (s := _seconds(d.get("retryDelay"))) is not None), None)
    kind = type(made)
    if made.status == 429 and (quotas or delay is not None):
        # A daily quota passes, but not while one waits.
        kind = QuotaExceeded if any("PerDay" in q for q in quotas) else RateLimited
    elif any(d.get("reason") == "API_KEY_INVALID" for d in details) or "API key not valid" in str(made):
        kind = AuthError
    if kind is not type(made):
        made = kind(str(made), status=made.status, request_id=made.request_id, retry_after=made.retry_after)
    made.code = word(error.get("status")) or made.code
    made.retry_after = delay if made.retry_after is None else made.retry_after
    return made


def _seconds(duration: Any) -> float | None:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", text(duration))
    return float(match[1]) if match and float(match[1]) <= LONGEST_WAIT else None


def _words(parts: list[Mapping[str, Any]], *, thought: bool) -> str:
    return "".join(text(p.get("text")) for p in parts if bool(p.get("thought")) == thought)


def _id(call: Mapping[str, Any], place: int) -> str:
    # Most models give their calls no id; an answer is then matched by its place.
    return word(call.get("id")) or f"call_{place}"


def _finish(reason: Any, called: bool) -> str | None:
    reason = word(reason)
    if reason is None:
        return None
    return "tool_calls" if called and reason == "STOP" else _FINISH.get(reason, reason.lower())


_SYSTEM = ("system", "developer")


def _config(request: Request) -> dict[str, Any]:
    kind, schema = schema_of(request)
    found: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "responseMimeType": None if kind == "text" else "application/json",
    }
    if schema is not None:
        found["responseSchema" if _simple(schema) else "responseJsonSchema"] = schema
    return {k: v for k, v in found.items() if v is not None}


def _contents(request: Request, notes: list[str]) -> list[dict[str, Any]]:
    """Write the turns. Neighbours of one role become one turn: results of tools must come together."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in request.messages:
        if message.role in _SYSTEM:
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        parts = _answer(message, names) if message.role == "tool" else _parts(message, request.model, notes)
        role = "model" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _parts(message: Message, model: str, notes: list[str]) -> list[dict[str, Any]]:
    _note(notes, message.name is not None, "the name of a message was left out: this API has none")
    _note(notes, any(i.detail for i in message.images), "detail of an image was left out: this API does not take it")
    content = (message.content,) if isinstance(message.content, str) else message.content
    parts = [_image(part) if isinstance(part, Image) else {"text": part} for part in content if part]
    for i, call in enumerate(message.tool_calls):
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": arguments_of(call)}}
        if i == 0 and _SIGNED.search(model):
            part["thoughtSignature"] = _UNSIGNED
            _note(notes, True, "a tool call went back without the model's signature of its thoughts, which is not kept")
        parts.append(part)
    return parts


def _answer(message: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    name = message.name or names.get(message.tool_call_id or "") or message.tool_call_id or "tool"
    try:
        said = json.loads(message.text)
    except (ValueError, RecursionError):
        said = None
    response = said if isinstance(said, dict) else {"result": message.text}
    return [{"functionResponse": {"name": name, "response": response}}]


def _note(notes: list[str], happened: bool, note: str) -> None:
    if happened and note not in notes:
        notes.append(note)


def _image(image: Image) -> dict[str, Any]:
    if image.url:
        return {"fileData": {"fileUri": image.url} | ({"mimeType": image.media_type} if image.media_type else {})}
    return {"inlineData": {"mimeType": image.media_type or "image/png", "data": image.data or ""}}


def _tool(tool: Tool) -> dict[str, Any]:
    made: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters:
        schema = {"type": "object", **tool.parameters}
        made["parameters" if _simple(schema) else "parametersJsonSchema"] = schema
    return {k: v for k, v in made.items() if v}


def _simple(schema: Any) -> bool:
    """Whether a schema keeps to the words that Gemini's own schema has."""
    if not isinstance(schema, Mapping):
        return False
    inner = [*record(schema.get("properties")).values(), *(schema.get("anyOf") or ())]
    inner += [schema["items"]] if "items" in schema else []
    return schema.keys() <= _SUBSET and isinstance(schema.get("type", ""), str) and all(map(_simple, inner))


def _choice(choice: str) -> dict[str, Any]:
    known = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    return {"mode": known[choice]} if choice in known else {"mode": "ANY", "allowedFunctionNames": [choice]}
