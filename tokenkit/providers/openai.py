"""OpenAI's chat completions, which half the field speaks; any base URL that does can be given.

Shapes from OpenAI's API reference, "Create chat completion" and "chat.completion.chunk". Usage there counts cached
tokens within ``prompt_tokens`` and reasoning within ``completion_tokens``, as ours does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, ProviderError, UserError
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.failures import classify, failure
from tokenkit.providers.masking import sound
from tokenkit.providers.shapes import body_of, count, raw, record, records, text, word
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Image, Message, Request, Response, Secret, Tool, ToolCall, ToolCallDelta, Usage

BASE_URL = "https://api.openai.com/v1"

# Reasoning models refuse max_tokens, sampling of one's own and stop sequences (OpenAI, "Reasoning models"; "stop").
_REASONS = re.compile(r"(?:ft:)?(?:o\d|gpt-5(?!-chat))")


def provider(name: str = "openai", base_url: str = BASE_URL, key: Secret | None = None) -> Provider:
    """Return the record of a provider that speaks this dialect."""
    return Provider(name, base_url.rstrip("/"), encode, decode, feed, classify, key, key_env=("OPENAI_API_KEY",))


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a chat completion request. What the model does not take is left out, and noted."""
    notes: list[str] = []
    body: dict[str, Any] = {"model": request.model, "messages": [_message(m) for m in request.messages]}
    reasons = reasons_at(provider.base_url, request.model)
    wanted = {"temperature": request.temperature, "top_p": request.top_p, "stop": list(request.stop) or None}
    for field, value in wanted.items():
        if value is not None and reasons:
            notes.append(f"{field} was left out: {request.model} does not take it")
        elif value is not None:
            body[field] = value
    if request.seed is not None:
        body["seed"] = request.seed
    if request.max_tokens is not None:
        body["max_completion_tokens" if reasons else "max_tokens"] = request.max_tokens
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
    """Write JSON as compact UTF-8; a lone surrogate goes out as an escape rather than breaking the request.

    Raises UserError for what JSON cannot hold, which only the caller's own schema or ``extra`` can bring.
    """
    try:
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except UnicodeEncodeError:
            return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"The request cannot be written as JSON: {error}.") from error


def decode(body: bytes) -> Response:
    """Read a whole chat completion. Raises what an error body says, or ProtocolError for anything else."""
    data = body_of(body)
    choice = _choice_of(data)
    if not choice:
        raise ProtocolError("The answer has no choices.")
    message = record(choice.get("message"))
    return Response(
        sound(_text(message.get("content")) or _text(message.get("refusal"))),
        model=word(data.get("model")),
        finish_reason=word(choice.get("finish_reason")),
        usage=usage_of(data.get("usage")),
        tool_calls=tuple(_call(call) for call in records(message.get("tool_calls"))),
        reasoning=_thoughts(message),
        id=word(data.get("id")),
    )


def feed() -> Feed:
    """Return a decoder of one stream of chat completion chunks.

    An error event fails the call. The end of the stream is complete when ``[DONE]`` came, or a finish reason was seen.
    A server that ignores the wish for a stream and sends one whole answer is understood.
    """
    split = events()
    ended = False
    whole: list[bytes] | None = None
    begun = False
    shown: Any = None  # the number of the choice that is read: extra may ask for several, which come in turns
    placed = _placing()
    half = ""  # the first half of a character, where a server that counts in UTF-16 cut one in two

    def deltas(data: bytes) -> list[Delta]:
        nonlocal ended, whole, begun, shown, half
        if not begun and data.strip():
            begun, whole = True, [] if data.lstrip().startswith(b"{") else None
        if whole is not None:
            whole.append(data)
            return [] if data else [_at_once(decode(b"".join(whole)))]
        found: list[Delta] = []
        for name, event in split(data):
            if event.strip() == b"[DONE]":
                ended = True
                continue
            try:
                chunk = parse(event)
            except ProtocolError:
                if ended and not data:  # what was cut is no part of the answer: at most its usage
                    continue
                raise
            if name == "error" and not chunk.get("error"):
                raise failure(None, {}, chunk)
            choice = _choice_of(chunk, shown)
            shown = choice.get("index") if shown is None else shown
            delta = _delta(chunk, choice, placed)
            ended = ended or delta.finish_reason is not None
            if half or not delta.text.isascii():
                said = half + delta.text
                half = said[-1:] if "\ud800" <= said[-1:] <= "\udbff" else ""
                delta = replace(delta, text=sound(said[: len(said) - len(half)]))
            found.append(delta)
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        if not data and half:
            found.append(Delta(sound(half)))
        return found

    return deltas


def usage_of(data: Any) -> Usage | None:
    """Read OpenAI's usage; a figure that is not there, or is no count, stays unknown."""
    data = record(data)
    if not data:
        return None
    into, out = record(data.get("prompt_tokens_details")), record(data.get("completion_tokens_details"))
    cached = count(into.get("cached_tokens"))
    if cached is None:
        cached = count(data.get("prompt_cache_hit_tokens"))  # DeepSeek's word for it
    read, written, thought = (
        count(data.get("prompt_tokens")),
        count(data.get("completion_tokens")),
        count(out.get("reasoning_tokens")),
    )
    if read is not None and written is not None and thought and data.get("total_tokens") == read + written + thought:
        written += thought  # xAI leaves reasoning out of completion_tokens, and has it in the total only
    usage = Usage(read, written, cached, count(into.get("cache_write_tokens")), thought)
    return None if usage == Usage() else usage


def _choice_of(data: Mapping[str, Any], number: Any = None) -> Mapping[str, Any]:
    """Return the first choice, or that of a number; empty where there is none. Raises what an error in there says."""
    choices = records(data.get("choices"))
    choice = next((c for c in choices if number is None or c.get("index") in (None, number)), {})
    if data.get("error"):
        raise failure(None, {}, data)
    if data.get("object") == "error":  # vLLM has the error at the top
        raise failure(None, {}, {"error": data})
    if choice.get("error"):  # OpenRouter has that of the model behind it here
        raise failure(None, {}, choice)
    return choice


def _delta(
    chunk: Mapping[str, Any], choice: Mapping[str, Any], placed: Callable[[ToolCallDelta], ToolCallDelta]
) -> Delta:
    delta = record(choice.get("delta"))
    # Groq used to tell its usage under a name of its own.
    usage = usage_of(chunk.get("usage")) or usage_of(record(chunk.get("x_groq")).get("usage"))
    return Delta(
        _text(delta.get("content")) or _text(delta.get("refusal")),
        _thoughts(delta),
        tuple(placed(_fragment(place, call)) for place, call in enumerate(records(delta.get("tool_calls")))),
        word(choice.get("finish_reason")),
        usage,
        word(chunk.get("model")),
        word(chunk.get("id")),
    )


def _at_once(response: Response) -> Delta:
    calls = tuple(ToolCallDelta(i, c.id, c.name, c.arguments) for i, c in enumerate(response.tool_calls))
    return Delta(
        response.text,
        response.reasoning,
        calls,
        response.finish_reason,
        response.usage,
        response.model,
        response.id,
    )


def _text(content: Any) -> str:
    return raw(content) or "".join(raw(part.get("text")) for part in records(content))


def _thoughts(message: Mapping[str, Any]) -> str:
    """Return the reasoning, by whichever name: DeepSeek's, OpenRouter's, or Mistral's parts of type ``thinking``."""
    told = raw(message.get("reasoning_content")) or raw(message.get("reasoning"))
    return sound(told or "".join(_text(part.get("thinking")) for part in records(message.get("content"))))


def _placing() -> Callable[[ToolCallDelta], ToolCallDelta]:
    """Return what gives each call of a stream a number of its own.

    Some compatible servers (Ollama, SGLang, translators of Gemini) number all of them 0: another id that comes with a
    name begins another call. An id alone does not, for vLLM used to invent one for every fragment.
    """
    ours: dict[int, int] = {}
    begun: dict[int, str | None] = {}
    last = -1

    def placed(part: ToolCallDelta) -> ToolCallDelta:
        nonlocal last
        place = ours.get(part.index)
        if place is None or (part.id and part.name and begun[place] not in (None, part.id)):
            place = part.index if part.index not in begun else last + 1
            last = max(last, place)
            ours[part.index], begun[place] = place, part.id
        elif begun[place] is None:
            begun[place] = part.id
        return part if place == part.index else replace(part, index=place)

    return placed


def _fragment(place: int, call: Mapping[str, Any]) -> ToolCallDelta:
    function, index = record(call.get("function")), count(call.get("index"))
    return ToolCallDelta(
        place if index is None else index, word(call.get("id")), word(function.get("name")), _arguments(function)
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = record(call.get("function"))
    return ToolCall(text(call.get("id")), text(function.get("name")), _arguments(function))


def _arguments(function: Mapping[str, Any]) -> str:
    given = function.get("arguments")
    return json.dumps(given) if isinstance(given, Mapping) else text(given)  # some servers send the object itself


def reasons_at(base_url: str, model: str) -> bool:
    """Whether a model is one of OpenAI's own that reason: at its regional addresses too, and never elsewhere."""
    host = urlsplit(base_url).hostname or ""
    return (host == "api.openai.com" or host.endswith(".api.openai.com")) and bool(_REASONS.match(model))


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
