"""Anthropic's Messages API: the system prompt apart, content in blocks, input without what the cache held.

Shapes from Anthropic's API reference, "Messages" and "Streaming messages". Its ``input_tokens`` exclude both kinds of
cached tokens, so ours are the sum of the three; its output includes thinking. The usage of a stream is a running
total: the last figure that is not null counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, ProviderError
from tokenkit.providers import failures
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.openai import dumps
from tokenkit.providers.shapes import arguments_of, body_of, count, record, records, schema_of, sum_of, text, word
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage

BASE_URL = "https://api.anthropic.com/v1"
VERSION = "2023-06-01"

MAX_TOKENS = 4096
"""What ``max_tokens`` is where the request has none: the API requires one, and every Claude can write as many."""

# Opus 4.7 and every model since refuse sampling of one's own; Opus 4.1, and the models of 4.5 and 4.6, take temperature
# or top_p, never both (Anthropic, "Migration guide").
_FIXED = re.compile(r"claude-(?:opus-4[-.][7-9]|[a-z]+-(?:[5-9]|\d\d))(?!\d)")
_ONE_OF_TWO = re.compile(r"claude-[a-z]+-4[-.][1-6](?!\d)")

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# The HTTP status each error type has (Anthropic, "Errors"): an error inside a stream comes without one.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def provider(name: str = "anthropic", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect; the key goes into ``x-api-key``."""
    return Provider(
        name,
        base_url.rstrip("/"),
        encode,
        decode,
        feed,
        classify,
        key,
        auth=("x-api-key", ""),
        headers=(("anthropic-version", VERSION),),
        key_env=("ANTHROPIC_API_KEY",),
        cache_field="cache_control",
    )


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a request for a message. What the model does not take is left out, and noted."""
    notes: list[str] = []
    body: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens or MAX_TOKENS}
    if not request.max_tokens:
        notes.append(f"max_tokens was set to {MAX_TOKENS}: this API requires one")
    system = [m.text for m in request.messages if m.role in _SYSTEM]
    if system:
        body["system"] = "\n\n".join(system)
        first = next((i for i, m in enumerate(request.messages) if m.role not in _SYSTEM), len(request.messages))
        if any(m.role in _SYSTEM for m in request.messages[first:]):
            notes.append("a system message from the middle of the conversation was moved to its front")
    body["messages"] = _turns(request.messages, notes)
    body |= _sampling(request, notes)
    if request.seed is not None:
        notes.append("seed was left out: this API does not take it")
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [
            {"name": t.name, **({"description": t.description} if t.description else {}), "input_schema": _schema(t)}
            for t in request.tools
        ]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    kind, schema = schema_of(request)
    if kind == "schema":
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif kind == "json":
        notes.append("response_format json_object was left out: this API takes a JSON schema or nothing")
    if request.stream:
        body["stream"] = True
    body |= request.extra
    headers = (("content-type", "application/json"), *provider.headers)
    # Anthropic's own tools write the address without the version, ours with: both are understood.
    url = f"{provider.base_url.removesuffix('/v1')}/v1/messages"
    return WireRequest("POST", url, dumps(body), headers, provider.credentials(), tuple(notes))


def _sampling(request: Request, notes: list[str]) -> dict[str, float]:
    """Return temperature and top_p, as far as the model takes them."""
    asked = {"temperature": request.temperature, "top_p": request.top_p}
    found = {field: value for field, value in asked.items() if value is not None}
    if _FIXED.search(request.model):
        notes.extend(f"{field} was left out: {request.model} does not take it" for field in found)
        return {}
    if len(found) == 2 and _ONE_OF_TWO.search(request.model):
        notes.append(f"top_p was left out: {request.model} does not take it beside temperature")
        del found["top_p"]
    return found


def decode(body: bytes) -> Response:
    """Read a whole message. Raises what an error body says, or ProtocolError for anything else."""
    data = body_of(body)
    if data.get("error"):
        raise _failure(data)
    if not isinstance(data.get("content"), list):
        raise ProtocolError("The answer has no content.")
    blocks = records(data["content"])
    return Response(
        "".join(text(b.get("text")) for b in blocks if b.get("type") == "text"),
        model=word(data.get("model")),
        finish_reason=_finish(data.get("stop_reason")),
        usage=usage_of(record(data.get("usage"))),
        tool_calls=tuple(
            ToolCall(text(b.get("id")), text(b.get("name")), json.dumps(b.get("input") or {}))
            for b in blocks
            if b.get("type") == "tool_use"
        ),
        reasoning="".join(text(b.get("thinking")) for b in blocks if b.get("type") == "thinking"),
        id=word(data.get("id")),
    )


def feed() -> Feed:
    """Return a decoder of one stream of message events. An error event fails the call; pings are passed over."""
    split = events()
    used: dict[str, Any] = {}
    unwritten: dict[int, Any] = {}
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal ended
        found: list[Delta] = []
        for name, payload in split(data):
            event = parse(payload)
            kind = word(event.get("type")) or name
            if kind == "error" or event.get("error"):
                raise _failure(event)
            if kind == "message_start":
                found.append(_start(record(event.get("message")), used))
            elif kind in _BLOCK:
                found.extend(_BLOCK[kind](count(event.get("index")) or 0, event, unwritten))
            elif kind == "message_delta":
                finish = _finish(record(event.get("delta")).get("stop_reason"))
                ended = ended or finish is not None
                used.update({k: v for k, v in record(event.get("usage")).items() if v is not None})
                found.append(Delta(finish_reason=finish, usage=usage_of(used)))
            elif kind == "message_stop":
                ended = True
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas


def classify(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Turn a failure status into the error it means; 529 is Anthropic's word for being full."""
    return failures.classify(status, headers, body)


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """Read Anthropic's usage: cache reads and creations are added to the input, which comes without them."""
    if not data:
        return None
    read, written = count(data.get("cache_read_input_tokens")), count(data.get("cache_creation_input_tokens"))
    return Usage(
        sum_of(count(data.get("input_tokens")), read, written),
        count(data.get("output_tokens")),
        read,
        written,
        count(record(data.get("output_tokens_details")).get("thinking_tokens")),
    )


def _start(message: Mapping[str, Any], used: dict[str, Any]) -> Delta:
    used.update({k: v for k, v in record(message.get("usage")).items() if v is not None})
    # The output told at the start is a placeholder of a token or so: a stream that is cut must not be billed at it.
    told = usage_of({k: v for k, v in used.items() if not k.startswith("output")})
    return Delta(usage=told, model=word(message.get("model")), id=word(message.get("id")))


def _block_start(index: int, event: Mapping[str, Any], unwritten: dict[int, Any]) -> list[Delta]:
    block = record(event.get("content_block"))
    if block.get("type") == "tool_use":
        unwritten[index] = block.get("input") or {}
        call = ToolCallDelta(index, word(block.get("id")), word(block.get("name")))
        return [Delta(tool_calls=(call,))]
    written, thought = text(block.get("text")), text(block.get("thinking"))
    return [Delta(written, thought)] if written or thought else []


def _block_delta(index: int, event: Mapping[str, Any], unwritten: dict[int, Any]) -> list[Delta]:
    delta = record(event.get("delta"))
    if delta.get("type") == "text_delta":
        return [Delta(text(delta.get("text")))]
    if delta.get("type") == "thinking_delta":
        return [Delta(reasoning=text(delta.get("thinking")))]
    if delta.get("type") == "input_json_delta" and index in unwritten and text(delta.get("partial_json")):
        unwritten[index] = None
        return [Delta(tool_calls=(ToolCallDelta(index, arguments=delta["partial_json"]),))]
    return []


def _block_stop(index: int, event: Mapping[str, Any], unwritten: dict[int, Any]) -> list[Delta]:
    # A tool without arguments streams none, where a whole answer says {}: both are to read the same.
    start = unwritten.pop(index, None)
    return [] if start is None else [Delta(tool_calls=(ToolCallDelta(index, arguments=json.dumps(start)),))]


_BLOCK = {"content_block_start": _block_start, "content_block_delta": _block_delta, "content_block_stop": _block_stop}


def _failure(data: Mapping[str, Any]) -> ProviderError:
    status = _STATUS.get(text(record(data.get("error")).get("type")))
    error = failures.failure(status, {}, data)
    error.status, error.request_id = None, word(data.get("request_id"))
    return error


def _finish(reason: Any) -> str | None:
    reason = word(reason)
    return None if reason is None else _FINISH.get(reason, reason)


_SYSTEM = ("system", "developer")


def _turns(messages: tuple[Message, ...], notes: list[str]) -> list[dict[str, Any]]:
    """Write the turns. Neighbours of one role become one turn: results of tools must come together."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in _SYSTEM:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += _blocks(message, notes)
        else:
            turns.append({"role": role, "content": _blocks(message, notes)})
    return turns


def _blocks(message: Message, notes: list[str]) -> list[dict[str, Any]]:
    _note(notes, message.name is not None, "the name of a message was left out: this API has none")
    _note(notes, any(i.detail for i in message.images), "detail of an image was left out: this API does not take it")
    parts = (message.content,) if isinstance(message.content, str) else message.content
    # An empty text block is refused by the API.
    blocks = [_image(p) if isinstance(p, Image) else {"type": "text", "text": p} for p in parts if p]
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": blocks}]
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}
        for call in message.tool_calls
    ]


def _note(notes: list[str], happened: bool, note: str) -> None:
    if happened and note not in notes:
        notes.append(note)


def _image(image: Image) -> dict[str, Any]:
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type or "image/png", "data": image.data or ""}
    return {"type": "image", "source": source}


def _schema(tool: Tool) -> dict[str, Any]:
    return {"type": "object", **tool.parameters}


def _choice(choice: str) -> dict[str, Any]:
    known = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": known[choice]} if choice in known else {"type": "tool", "name": choice}
