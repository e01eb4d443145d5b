"""cached: an answer that was given before to the very same request is given again, at no cost, and the receipt says so.

Only requests that ask for it look here, since a model's second answer may well be meant to differ from its first.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from tokenkit.effects import Call, Flow, Layer, Show
from tokenkit.layers.recorded import total_cost
from tokenkit.money import Nanos, show_usd
from tokenkit.receipts import Trail
from tokenkit.types import Delta, Request, Response, ToolCallDelta

FINISHED = frozenset({"stop", "length", "tool_calls"})
"""How an answer ends that is worth keeping: filtered and broken ones may come out better next time."""


class Remembered(NamedTuple):
    """An answer and where it came from: the receipt's id, our model id, what it cost, and when (Unix seconds)."""

    response: Response
    receipt: str
    model: str | None
    cost_nanos: Nanos | None
    at: float


class Store(Protocol):
    """Where answers are kept; ``tokenkit.cache`` keeps them. Neither method raises: a cache must not cost an answer."""

    def find(self, key: bytes, since: float) -> Remembered | None: ...
    def keep(self, key: bytes, found: Remembered) -> None: ...


def cached(store: Store, context: Callable[[Request], str] = str, *, now: Callable[[], float] = time.time) -> Layer:
    """Answer requests that say ``cache`` from the store; ``context`` is what else decides an answer: the routing."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            if request.cache is None:
                return (yield from call(request, trail))
            key = key_of(request, context(request))
            found = store.find(key, now() - request.cache)
            if found is not None:
                return (yield from _again(found, request, trail, now()))
            response = yield from call(request, trail)
            if response.finish_reason in FINISHED and trail.attempts:
                last = trail.attempts[-1]
                cost = total_cost(tuple(trail.attempts))
                bare = replace(response, receipt=None, provider=last.provider)
                store.keep(key, Remembered(bare, trail.id, last.model, cost, now()))
            return response

        return flow

    return layer


def remembered(request: Request, store: Store, context: str = "", *, now: float | None = None) -> str:
    """Return what to tell of an answer that would come from the store; nothing where none would."""
    at = time.time() if now is None else now
    found = None if request.cache is None else store.find(key_of(request, context), at - request.cache)
    return "" if found is None else f"nothing would be sent: {_whence(found, at)}"


def key_of(request: Request, context: str = "") -> bytes:
    """Return the SHA-256 of all that decides an answer: not who asks, nor for what, nor whether it is streamed."""
    decides = [
        [[m.role, m.content if isinstance(m.content, str) else repr(m.content), m.name, m.tool_calls, m.tool_call_id]
         for m in request.messages],
        request.model, request.provider, request.max_tokens, request.temperature, request.top_p, request.stop,
        request.seed, [[tool.name, tool.description, tool.parameters] for tool in request.tools], request.tool_choice,
        request.response_format, request.extra, repr(request.compress), context,
    ]  # fmt: skip
    text = json.dumps(decides, sort_keys=True, default=repr, ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


def _again(found: Remembered, request: Request, trail: Trail, now: float) -> Flow:
    response = found.response
    trail.cached, trail.cached_from = True, found.receipt
    trail.answered = (found.model, response.provider)
    trail.notes.append(_whence(found, now))
    if request.stream:
        calls = tuple(ToolCallDelta(i, c.id, c.name, c.arguments) for i, c in enumerate(response.tool_calls))
        trail.shown += 1
        yield Show(Delta(response.text, response.reasoning, calls, response.finish_reason, model=response.model))
    return replace(response, usage=None)


def _whence(found: Remembered, now: float) -> str:
    paid = "" if found.cost_nanos is None else f"; it cost {show_usd(found.cost_nanos)} then"
    return f"from the cache: the answer given {_ago(now - found.at)}{paid}"


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "a moment ago"
