"""Text completions, the endpoint before chat: for models that can do nothing else, on any OpenAI-compatible server.

Shape from OpenAI's API reference, "Create completion". A chat is written out as a transcript that ends where the
assistant would go on, and the receipt says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, UserError
from tokenkit.providers import openai
from tokenkit.providers.base import Feed, Provider
from tokenkit.providers.failures import failure
from tokenkit.providers.shapes import body_of, record, records, text, word
from tokenkit.providers.sse import events, parse
from tokenkit.types import Delta, Request, Response


def completing(provider: Provider) -> Provider:
    """Return ``provider`` asked by its completions endpoint. Raises UserError where its dialect has none."""
    if not provider.encode.__module__.endswith((".openai", ".compatible")):
        raise UserError(f"{provider.name} has no text completions: only OpenAI-compatible servers do.")
    return replace(provider, encode=encode, decode=decode, feed=feed)


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a completion request. What only chat can carry is refused."""
    if request.tools or request.response_format is not None or any(m.images for m in request.messages):
        raise UserError(f"{request.model} completes text: it takes no tools, pictures or schemas.")
    notes: tuple[str, ...] = ()
    if len(request.messages) == 1 and request.messages[0].role == "user":
        prompt = request.messages[0].text
    else:
        prompt = "\n\n".join(f"{m.role}: {m.text}" for m in request.messages) + "\n\nassistant:"
        notes = (f"the chat was written out as one text: {request.model} completes text",)
    body: dict[str, Any] = {"model": request.model, "prompt": prompt}
    for field in ("max_tokens", "temperature", "top_p", "seed"):
        if getattr(request, field) is not None:
            body[field] = getattr(request, field)
    if request.stop:
        body["stop"] = list(request.stop)
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = (("content-type", "application/json"), *provider.headers)
    url = f"{provider.base_url or openai.BASE_URL}/completions"
    return WireRequest("POST", url, openai.dumps(body | dict(request.extra)), headers, provider.credentials(), notes)


def decode(body: bytes) -> Response:
    """Read a whole completion."""
    data = body_of(body)
    if data.get("error"):
        raise failure(None, {}, data)
    choices = records(data.get("choices"))
    if not choices:
        raise ProtocolError("The answer has no choices.")
    usage = openai.usage_of(record(data.get("usage")) or None)
    finish = word(choices[0].get("finish_reason"))
    return Response(text(choices[0].get("text")), word(data.get("model")), None, finish, usage, id=word(data.get("id")))


def feed() -> Feed:
    """Return a decoder of one stream of completion chunks, complete as a chat's is."""
    split = events()
    ended = False

    def deltas(data: bytes) -> list[Delta]:
        nonlocal ended
        found: list[Delta] = []
        for _, piece in split(data):
            if piece == b"[DONE]":
                ended = True
                continue
            chunk = parse(piece)
            if chunk.get("error"):
                raise failure(None, {}, chunk)
            choice = next(iter(records(chunk.get("choices"))), {})
            finish = word(choice.get("finish_reason"))
            usage = openai.usage_of(record(chunk.get("usage")) or None)
            ended = ended or finish is not None
            found.append(
                Delta(text(choice.get("text")), finish_reason=finish, usage=usage, model=word(chunk.get("model")))
            )
        if not data and not ended:
            raise ProtocolError("The stream ended before the answer did.")
        return found

    return deltas
