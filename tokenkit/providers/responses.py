"""OpenAI's Responses API: turns, calls and results as items of one list, events that say which item they belong to.

Shapes from OpenAI's API reference, "Create a model response" and "Streaming events". Usage counts cached tokens within
the input and reasoning within the output, as ours does. Nothing is kept at the provider: ``store`` is off, unless
``extra`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, ProviderError
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.failures import classify, failure
from tokenkit.providers.openai import BASE_URL, dumps, reasons_at
from tokenkit.providers.shapes import body_of, count, record, records, schema_of, text, word
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage


def provider(name: str = "responses", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect."""
    return Provider(name, base_url.rstrip("/"), encode, decode, feed, classify, key, key_env=("OPENAI_API_KEY",))


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a request for a response. What the model does not take is left out, and noted."""
    notes: list[str] = []
    body: dict[str, Any] = {"model": request.model, "store": False}
    body["input"] = [item for message in request.messages for item in _items(message, notes)]
    fixed = reasons_at(provider.base_url, request.model)
    for field in ("temperature", "top_p"):
        value = getattr(request, field)
        if value is not None and fixed:
            notes.append(f"{field} was left out: {request.model} does not take it")
        elif value is not None:
            body[field] = value
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.stop:
        notes.append("stop was left out: the Responses API does not take it")
    if request.seed is not None:
        notes.append("seed was left out: the Responses API does not take it")
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        plain = request.tool_choice in ("auto", "none", "required")
        body["tool_choice"] = request.tool_choice if plain else {"type": "function", "name": request.tool_choice}
    if request.response_format is not None:
        body["text"] = {"format": _format(request)}
    if request.stream:
        body["stream"] = True
    body |= request.extra
    headers = (("content-type", "application/json"), *provider.headers)
    url = f"{provider.base_url}/responses"
    return WireRequest("POST", url, dumps(body), headers, provider.credentials(), tuple(notes))


def decode(body: bytes) -> Response:
    """Read a whole response. Raises what an error body says, or ProtocolError for anything else."""
    data = body_of(body)
    _raise_for(data)
    if not isinstance(data.get("output"), list):
        raise ProtocolError("The answer has no output.")
    items = records(data["output"])
    parts = [p for item in items if item.get("type") == "message" for p in records(item.get("content"))]
    calls = tuple(
        ToolCall(text(item.get("call_id")), text(item.get("name")), text(item.get("arguments")))
        for item in items
        if item.get("type") == "function_call"
    )
    thoughts = [
        text(part.get("text"))
        for item in items
        if item.get("type") == "reasoning"
        for part in (*records(item.get("summary")), *records(item.get("content")))
    ]
    return Response(
        "".join(text(p.get("text")) or text(p.get("refusal")) for p in parts),
        model=word(data.get("model")),
        finish_reason=_finish(data, bool(calls)),
        usage=usage_of(data.get("usage")),
        tool_calls=calls,
        reasoning="".join(thoughts),
        id=word(data.get("id")),
    )


def feed() -> Feed:
    """Return a decoder of one stream of response events; it is complete when the response itself came at the end."""
    split = events()
    calls: dict[int, bool] = {}
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal ended
        found: list[Delta] = []
        for name, payload in split(data):
            if payload == b"[DONE]":  # some compatible servers close with it, here too
                continue
            event = parse(payload)
            kind = word(event.get("type")) or name
            if kind == "error":
                raise _failure(event)
            whole = record(event.get("response"))
            _raise_for(whole)
            if kind in _LAST:
                ended = True
                finish = _finish(whole, bool(calls))
                found.append(
                    Delta(
                        finish_reason=finish,
                        usage=usage_of(whole.get("usage")),
                        model=word(whole.get("model")),
                        id=word(whole.get("id")),
                    )
                )
            else:
                found.extend(_delta(kind, event, calls))
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas


_LAST = ("response.completed", "response.incomplete")
_TEXTS = ("response.output_text.delta", "response.refusal.delta")
_THOUGHTS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


def _delta(kind: str, event: Mapping[str, Any], calls: dict[int, bool]) -> list[Delta]:
    """Read one event in the middle; ``calls`` says of each tool call whether arguments of it have come."""
    place, item = count(event.get("output_index")) or 0, record(event.get("item"))
    if kind in _TEXTS:
        return [Delta(text(event.get("delta")))]
    if kind in _THOUGHTS:
        return [Delta(reasoning=text(event.get("delta")))]
    if kind == "response.function_call_arguments.delta" and place in calls:
        calls[place] = True
        return [Delta(tool_calls=(ToolCallDelta(place, arguments=text(event.get("delta"))),))]
    if kind == "response.output_item.added" and item.get("type") == "function_call":
        calls[place] = False
        return [Delta(tool_calls=(ToolCallDelta(place, word(item.get("call_id")), word(item.get("name"))),))]
    # Some compatible servers tell the arguments only when the item is done.
    if kind == "response.output_item.done" and item.get("type") == "function_call" and not calls.get(place):
        calls[place] = True
        told = ToolCallDelta(place, word(item.get("call_id")), word(item.get("name")), text(item.get("arguments")))
        return [Delta(tool_calls=(told,))]
    return []


def usage_of(data: Any) -> Usage | None:
    """Read the usage of a response; a figure that is not there stays unknown."""
    used = record(data)
    if not used:
        return None
    return Usage(
        count(used.get("input_tokens")),
        count(used.get("output_tokens")),
        count(record(used.get("input_tokens_details")).get("cached_tokens")),
        None,
        count(record(used.get("output_tokens_details")).get("reasoning_tokens")),
    )


def _raise_for(data: Mapping[str, Any]) -> None:
    if data.get("error") or data.get("status") == "failed":
        raise failure(None, {}, data)


def _failure(event: Mapping[str, Any]) -> ProviderError:
    # The event of an error holds it flat, or under its own name.
    flat = {k: v for k, v in event.items() if k != "type"}
    return failure(None, {}, event if record(event.get("error")) else {"error": flat})


def _finish(data: Mapping[str, Any], called: bool) -> str | None:
    if data.get("status") == "completed":
        return "tool_calls" if called else "stop"
    reason = word(record(data.get("incomplete_details")).get("reason"))
    return "length" if reason == "max_output_tokens" else reason or word(data.get("status"))


def _items(message: Message, notes: list[str]) -> list[dict[str, Any]]:
    if message.name is not None and message.role != "tool":
        note = "the name of a message was left out: the Responses API has none"
        notes.extend([] if note in notes else [note])
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id or "", "output": message.text}]
    items: list[dict[str, Any]] = []
    if message.content or not message.tool_calls:
        items.append({"role": message.role, "content": _content(message)})
    return items + [
        {"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.arguments or "{}"}
        for c in message.tool_calls
    ]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str) or message.role == "assistant":
        return message.text
    return [_image(p) if isinstance(p, Image) else {"type": "input_text", "text": p} for p in message.content]


def _image(image: Image) -> dict[str, Any]:
    url = image.url or f"data:{image.media_type or 'image/png'};base64,{image.data}"
    return {"type": "input_image", "image_url": url, "detail": image.detail or "auto"}


def _tool(tool: Tool) -> dict[str, Any]:
    # This API makes tools strict unless told not to; chat completions does not, and one request means one thing.
    made: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": dict(tool.parameters), "strict": False}
    return made | ({"description": tool.description} if tool.description else {})


def _format(request: Request) -> dict[str, Any]:
    kind, schema = schema_of(request)
    if kind != "schema":
        return {"type": "text" if kind == "text" else "json_object"}
    asked = record(request.response_format)
    inner = record(asked.get("json_schema")) or asked
    kept = {k: inner[k] for k in ("description", "strict") if k in inner}
    return {"type": "json_schema", "name": text(inner.get("name")) or "answer", "schema": schema, **kept}
