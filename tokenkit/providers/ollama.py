"""Ollama's own chat API: lines of JSON instead of events, settings under options, counts in the last line alone.

Shapes from Ollama's API documentation, "Generate a chat message". A prompt that was already in its cache comes back
without ``prompt_eval_count``: that count is unknown then, never 0. What was cached or thought is not told in tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, UserError
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.failures import classify, failure
from tokenkit.providers.openai import dumps
from tokenkit.providers.shapes import arguments_of, body_of, count, record, records, schema_of, text, word
from tokenkit.providers.sse import lines, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage

BASE_URL = "http://127.0.0.1:11434"
PORT = 11434


def provider(name: str = "ollama", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect; a server of one's own needs no key."""
    return Provider(name, address(base_url), encode, decode, feed, classify, key, key_env=("OLLAMA_API_KEY",))


def address(said: str) -> str:
    """Return the base URL that ``OLLAMA_HOST`` or ``OLLAMA_BASE_URL`` means, in any way Ollama lets one write it.

    ``0.0.0.0``, which a server listens on, is no place to ask at; it becomes this machine.
    """
    base = said.strip().rstrip("/")
    for ending in ("/api", "/v1"):
        base = base.removesuffix(ending)
    if "://" not in base:
        host, _, path = base.partition("/")
        host = f"127.0.0.1{host}" if host.startswith(":") or not host else host
        ported = host.rpartition("]")[2].count(":") == 1
        base = f"http://{host}{'' if ported else f':{PORT}'}{'/' + path if path else ''}"
    scheme, _, rest = base.partition("://")
    for everywhere in ("0.0.0.0", "[::]"):  # noqa: S104  (replaced, not listened on)
        if rest == everywhere or rest.startswith((f"{everywhere}:", f"{everywhere}/")):
            rest = "127.0.0.1" + rest.removeprefix(everywhere)
    return f"{scheme}://{rest}"


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a chat request. What Ollama does not take is left out, and noted; a picture by address is refused."""
    notes: list[str] = []
    # Ollama streams unless told not to.
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, notes),
        "stream": request.stream,
    }
    if request.tools and request.tool_choice == "none":
        notes.append("the tools were left out: tool_choice was none, and Ollama has no such setting")
    elif request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice not in (None, "auto", "none"):
        notes.append("tool_choice was left out: Ollama always leaves the choice to the model")
    kind, schema = schema_of(request)
    if kind != "text":
        body["format"] = "json" if schema is None else schema
    options = _options(request) | dict(record(request.extra.get("options")))
    body |= request.extra
    if options:
        body["options"] = options
    headers = (("content-type", "application/json"), *provider.headers)
    url = f"{address(provider.base_url)}/api/chat"
    return WireRequest("POST", url, dumps(body), headers, provider.credentials(), tuple(notes))


def decode(body: bytes) -> Response:
    """Read a whole answer. Raises what an error body says, or ProtocolError for anything else."""
    data = body_of(body)
    if data.get("error"):
        raise failure(None, {}, data)
    if not isinstance(data.get("message"), Mapping):
        raise ProtocolError("The answer has no message.")
    message = record(data["message"])
    calls = records(message.get("tool_calls"))
    return Response(
        text(message.get("content")),
        model=word(data.get("model")),
        finish_reason=_finish(data, bool(calls)),
        usage=usage_of(data),
        tool_calls=tuple(_call(call, i) for i, call in enumerate(calls)),
        reasoning=text(message.get("thinking")),
    )


def feed() -> Feed:
    """Return a decoder of one stream of JSON lines; it is complete when a line said ``done``."""
    split = lines()
    called = 0
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal called, ended
        found: list[Delta] = []
        for line in split(data):
            if not line.strip():
                continue
            chunk = parse(line)
            if chunk.get("error"):
                raise failure(None, {}, chunk)
            message = record(chunk.get("message"))
            calls = [_call(call, called + i) for i, call in enumerate(records(message.get("tool_calls")))]
            parts = tuple(ToolCallDelta(called + i, c.id, c.name, c.arguments) for i, c in enumerate(calls))
            called += len(calls)
            ended = ended or chunk.get("done") is True
            found.append(
                Delta(
                    text(message.get("content")),
                    text(message.get("thinking")),
                    parts,
                    _finish(chunk, bool(called)),
                    usage_of(chunk),
                    word(chunk.get("model")),
                )
            )
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """Read Ollama's counts; one that it left out stays unknown."""
    into, out = count(data.get("prompt_eval_count")), count(data.get("eval_count"))
    return None if into is None and out is None else Usage(into, out)


def _finish(data: Mapping[str, Any], called: bool) -> str | None:
    if data.get("done") is not True:
        return None
    reason = word(data.get("done_reason")) or "stop"
    return "tool_calls" if called and reason == "stop" else reason


def _call(call: Mapping[str, Any], place: int) -> ToolCall:
    function = record(call.get("function"))
    # Older versions give calls no id; an answer is then matched by its place.
    return ToolCall(
        word(call.get("id")) or f"call_{place}",
        text(function.get("name")),
        json.dumps(function.get("arguments") or {}),
    )


def _options(request: Request) -> dict[str, Any]:
    found = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "num_predict": request.max_tokens,
        "stop": list(request.stop) or None,
        "seed": request.seed,
    }
    return {k: v for k, v in found.items() if v is not None}


def _messages(messages: tuple[Message, ...], notes: list[str]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    made = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        one: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
        one["content"] = message.text
        if message.images:
            one["images"] = [_picture(image, notes) for image in message.images]
        if message.tool_calls:
            one["tool_calls"] = [
                {"id": c.id, "function": {"name": c.name, "arguments": arguments_of(c)}} for c in message.tool_calls
            ]
        if message.role == "tool":
            one["tool_name"] = message.name or names.get(message.tool_call_id or "") or message.tool_call_id or ""
        elif message.name is not None:
            _note(notes, "the name of a message was left out: Ollama does not take it")
        made.append(one)
    return made


def _picture(image: Image, notes: list[str]) -> str:
    if image.data is None:
        raise UserError(f"Ollama takes pictures as base64 data, not by address: {image.url!r}.")
    if image.detail:
        _note(notes, "detail of an image was left out: Ollama does not take it")
    return image.data


def _note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, **tool.parameters}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
