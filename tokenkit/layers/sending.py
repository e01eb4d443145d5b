"""send: the innermost call. Encode, open, drain, decode, and leave exactly one attempt on the trail.

Whatever ends the try, a settled attempt says what it used: as reported by the provider, or, where nothing was
reported, counted by us and marked ``estimated``. A try that certainly never left, or that the provider refused with
an error status, is not billed and costs 0; every other one costs at least its input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from tokenkit.catalog import Model
from tokenkit.effects import Call, Drain, Effect, Flow, Open, Reply, Show
from tokenkit.errors import ProviderError, TokenkitError, TransportError
from tokenkit.providers.base import Provider, gather
from tokenkit.providers.masking import hide_key, without_key
from tokenkit.receipts import Attempt, Trail
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Delta, Request, Response, Usage

Target = tuple[Provider, Model]


@dataclass(slots=True)
class _Try:
    """What one try has seen so far."""

    request: Request
    provider: Provider
    model: Model
    started_at: int
    began: float
    opened: bool = False
    reply: Reply | None = None
    first_chunk: float | None = None
    deltas: list[Delta] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def send(
    target: Callable[[Request], Target],
    *,
    now: Callable[[], int] = time.time_ns,
    clock: Callable[[], float] = time.perf_counter,
) -> Call:
    """Return the call that really asks a provider; ``target`` finds provider and model for an aimed request."""

    def flow(request: Request, trail: Trail) -> Flow:
        provider, model = target(request)
        attempt = _Try(request, provider, model, now(), clock())
        try:
            wire = provider.encode(replace(request, model=model.name), provider)
            attempt.notes = wire.notes
            # Should a stop land while this try is being settled, the receipt settles it instead.
            trail.pending = lambda: _failed(attempt, trail, KeyboardInterrupt(), clock())
            attempt.opened = True
            attempt.reply = reply = yield Open(wire, trail.deadline)
            if not 200 <= reply.status < 300:
                body = without_key((yield Drain(reply.source, whole=True)), provider.key)
                raise provider.classify(reply.status, reply.headers, body)
            if request.stream:
                yield from _streamed(attempt, reply, trail, clock)
                response = gather(attempt.deltas)
            else:
                body = yield Drain(reply.source, whole=True)
                attempt.first_chunk = clock() - attempt.began
                response = provider.decode(body)
        except BaseException as stop:
            if isinstance(stop, ProviderError):
                hide_key(stop, provider.key)
                stop.provider, stop.model = stop.provider or provider.name, stop.model or model.id
            trail.attempts.append(_failed(attempt, trail, stop, clock()))
            trail.pending, trail.waited = None, 0.0
            raise
        response = replace(response, provider=provider.name, usage=_complete(response, attempt))
        trail.attempts.append(_answered(attempt, trail, response, clock()))
        trail.pending, trail.waited = None, 0.0
        return response

    return flow


def _streamed(attempt: _Try, reply: Reply, trail: Trail, clock: Callable[[], float]) -> Generator[Effect, Any, None]:
    """Drain a stream through the dialect's decoder, showing each delta as it comes."""
    feed = attempt.provider.feed()
    while True:
        data = yield Drain(reply.source)
        for delta in feed(data):
            if attempt.first_chunk is None:
                attempt.first_chunk = clock() - attempt.began
            attempt.deltas.append(delta)
            if delta.text or delta.reasoning or delta.tool_calls:
                trail.shown += 1
                yield Show(delta)
        if not data:
            return


def _complete(response: Response, attempt: _Try) -> Usage:
    """Return the reported usage, with what the provider left out counted by us and marked as an estimate."""
    usage = response.usage or Usage()
    if not usage.input_tokens:
        # No prompt is 0 tokens: a server that says so has not counted, and its 0 for the answer means nothing either.
        usage = replace(usage, input_tokens=None, output_tokens=usage.output_tokens or None)
    if usage.input_tokens is not None and usage.output_tokens is not None:
        return usage
    return replace(
        usage,
        input_tokens=_counted_input(attempt) if usage.input_tokens is None else usage.input_tokens,
        output_tokens=_counted_output(response, attempt.model) if usage.output_tokens is None else usage.output_tokens,
        source="estimated",
    )


def _counted_input(attempt: _Try) -> int:
    request, model = attempt.request, attempt.model
    for candidate in request.plan.candidates if request.plan is not None else ():
        if candidate.model == model.id and candidate.input_tokens is not None:
            return candidate.input_tokens.tokens
    return count_messages(request.messages, model.encoding or model.id, request.tools).tokens


def _counted_output(response: Response, model: Model) -> int:
    written = response.text + response.reasoning + "".join(c.name + c.arguments for c in response.tool_calls)
    return count_text(written, model.encoding or model.id).tokens


def _answered(attempt: _Try, trail: Trail, response: Response, ended: float) -> Attempt:
    usage = response.usage or Usage()
    price = None if attempt.model.price is None else attempt.model.price.receipt(usage.input_tokens, attempt.started_at)
    return Attempt(
        attempt.model.id,
        attempt.provider.name,
        attempt.started_at,
        seconds=ended - attempt.began,
        first_chunk=attempt.first_chunk,
        waited=trail.waited,
        http_status=attempt.reply.status if attempt.reply is not None else None,
        request_id=_request_id(attempt.reply),
        response_model=response.model,
        finish_reason=response.finish_reason,
        usage=usage,
        cost_nanos=None if price is None else price.cost(usage),
        price=price,
        notes=attempt.notes,
    )


def _failed(attempt: _Try, trail: Trail, stop: BaseException, ended: float) -> Attempt:
    """Settle a try that did not end well: free where it cannot have been billed, else at what was counted."""
    usage = None if _unbilled(attempt, stop) else _seen(attempt)
    model, reply = attempt.model, attempt.reply
    price = None if model.price is None else model.price.receipt(usage.input_tokens if usage else 0, attempt.started_at)
    known = isinstance(stop, TokenkitError)
    return Attempt(
        model.id,
        attempt.provider.name,
        attempt.started_at,
        seconds=ended - attempt.began,
        first_chunk=attempt.first_chunk,
        waited=trail.waited,
        status="error" if isinstance(stop, Exception) else "cancelled",
        http_status=reply.status if reply is not None else None,
        error_type=stop.kind if isinstance(stop, TokenkitError) else type(stop).__name__,
        error=str(stop) if known else type(stop).__name__,
        request_id=_request_id(reply) or (stop.request_id if isinstance(stop, ProviderError) else None),
        usage=usage,
        cost_nanos=0 if usage is None else None if price is None else price.cost(usage),
        price=None if usage is None else price,
        notes=attempt.notes,
    )


def _unbilled(attempt: _Try, stop: BaseException) -> bool:
    if not attempt.opened or (isinstance(stop, TransportError) and not stop.sent):
        return True
    return attempt.reply is not None and not 200 <= attempt.reply.status < 300


def _seen(attempt: _Try) -> Usage:
    """Return the usage of an interrupted try: what the stream reported so far, else what can be counted."""
    partial = gather(attempt.deltas)
    return replace(_complete(replace(partial, usage=partial.usage), attempt), source="estimated")


def _request_id(reply: Reply | None) -> str | None:
    return None if reply is None else reply.headers.get("x-request-id") or reply.headers.get("request-id")
