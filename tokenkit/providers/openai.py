"""OpenAI's chat completions, which half the field speaks; any base URL that does can be given.

Shapes from OpenAI's API reference, "Create chat completion" and "chat.completion.chunk". Usage there counts cached
tokens within ``prompt_tokens`` and reasoning within ``completion_tokens``, as ours does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, ProviderError
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.failures import classify, failure
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage

BASE_URL = "https://api.openai.com/v1"

# Reasoning models refuse max_tokens and fixed sampling (OpenAI, "Reasoning models").
_REASONS = re.compile(r"^(o\d|gpt-5)")


def provider(name: str = "openai", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect."""
    return Provider(name, base_url.rstrip("/"), encode, decode, feed, classify, key, key_env=("OPENAI_API_KEY",))


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a chat completion request. What the model does not take is left out, and noted."""
    notes: list[str] = []
    body: dict[str, Any] = {"model": request.model, "messages": [_message(m) for m in request.messages]}
    reasons = provider.base_url == BASE_URL and bool(_REASONS.match(request.model))
    for field in ("temperature", "top_p", "seed"):
        value = getattr(request, field)
        if value is not None and reasons and field != "seed":
            notes.append(f"{field} was left out: {request.model} does not take it")
        elif value is not None:
            body[field] = value
    if request.max_tokens is not None:
        body["max_completion_tokens" if reasons else "max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= request.extra
    headers = (("content-type", "application/json"), *provider.headers)
    url = f"{provider.base_url}/chat/completions"
    return WireRequest("POST", url, dumps(body), headers, provider.credentials(), tuple(notes))


def dumps(body: Mapping[str, Any]) -> bytes:
    """Write JSON as compact UTF-8; a lone surrogate goes out as an escape rather than breaking the request."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


def decode(body: bytes) -> Response:
    """Read a whole chat completion. Raises what an error body says, or ProtocolError for anything else."""
    if not body.strip():
        raise ProtocolError("The answer was empty.")
    data = parse(body, "the answer")
    if data.get("error"):
        raise failure(None, {}, data)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ProtocolError("The answer has no choices.")
    message = choices[0].get("message") or {}
    return Response(
        _text(message.get("content")) or _text(message.get("refusal")),
        model=data.get("model"),
        finish_reason=choices[0].get("finish_reason"),
        usage=usage_of(data.get("usage")),
        tool_calls=tuple(_call(c) for c in message.get("tool_calls") or ()),
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
        id=data.get("id"),
    )


def feed() -> Feed:
    """Return a decoder of one stream of chat completion chunks.

    An error event fails the call. The end of the stream is complete when ``[DONE]`` came, or a finish reason was seen.
    """
    split = events()
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal ended
        found: list[Delta] = []
        for _, text in split(data):
            if text == b"[DONE]":
                ended = True
                continue
            chunk = parse(text)
            if chunk.get("error"):
                raise failure(None, {}, chunk)
            delta = _delta(chunk)
            ended = ended or delta.finish_reason is not None
            found.append(delta)
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas


def usage_of(data: Mapping[str, Any] | None) -> Usage | None:
    """Read OpenAI's usage; a figure that is not there stays unknown."""
    if not isinstance(data, Mapping):
        return None
    into, out = data.get("prompt_tokens_details") or {}, data.get("completion_tokens_details") or {}
    cached = into.get("cached_tokens")
    if cached is None:
        cached = data.get("prompt_cache_hit_tokens")  # DeepSeek's word for it
    return Usage(
        data.get("prompt_tokens"),
        data.get("completion_tokens"),
        cached,
        into.get("cache_write_tokens"),
        out.get("reasoning_tokens"),
    )


def _delta(chunk: Mapping[str, Any]) -> Delta:
    choice: Mapping[str, Any] = (chunk.get("choices") or ({},))[0]
    delta = choice.get("delta") or {}
    calls = delta.get("tool_calls")
    return Delta(
        _text(delta.get("content")) or _text(delta.get("refusal")),
        _text(delta.get("reasoning_content") or delta.get("reasoning")),
        tuple(_fragment(i, c) for i, c in enumerate(calls)) if calls else (),
        choice.get("finish_reason"),
        usage_of(chunk.get("usage")),
        chunk.get("model"),
        chunk.get("id"),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return ""


def _fragment(place: int, call: Mapping[str, Any]) -> ToolCallDelta:
    function = call.get("function") or {}
    index = call.get("index")
    return ToolCallDelta(
        place if index is None else index, call.get("id"), function.get("name"), function.get("arguments") or ""
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    return ToolCall(call.get("id") or "", function.get("name") or "", function.get("arguments") or "")


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.name is not None:
        made["name"] = message.name
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
        made["content"] = made["content"] or None
    return made


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return [{"type": "text", "text": part} if isinstance(part, str) else _image(part) for part in message.content]


def _image(image: Image) -> dict[str, Any]:
    url = image.url or f"data:{image.media_type or 'image/png'};base64,{image.data}"
    link: dict[str, Any] = {"url": url} if image.detail is None else {"url": url, "detail": image.detail}
    return {"type": "image_url", "image_url": link}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": {k: v for k, v in function.items() if v}}


def _choice(choice: str) -> str | dict[str, Any]:
    plain = choice in ("auto", "none", "required")
    return choice if plain else {"type": "function", "function": {"name": choice}}


def error_of(error: ProviderError) -> dict[str, Any]:
    """Write an error as this dialect words it: what the simulated provider answers with."""
    return {"error": {"message": str(error), "type": error.kind, "code": error.code}}
