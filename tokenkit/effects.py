"""The few things a flow may ask of the world, and the shape of a flow itself.

A flow is a generator. It yields an effect and is sent what came of it:

    reply = yield Open(wire)            # Reply: status and headers have arrived
    data  = yield Drain(reply.source)   # bytes of the body; b"" when it has ended
    yield Sleep(0.5, "rate limited")    # None, half a second later
    yield Show(delta)                   # None; the caller has seen the delta, so no retry may follow

Two drivers (sync, async) answer effects; nothing else does I/O. A driver throws what went wrong into the flow:
``TransportError`` and ``DeadlineExceeded`` for the wire, and any ``BaseException`` that stopped it (Ctrl-C, cancel).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenkit.receipts import Trail
from tokenkit.types import Delta, Request, Response, Secret


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request as pure data. The key is named apart from the headers and never shown.

    ``auth`` is ``(header name, prefix, secret)``; the driver writes the header at the last moment. ``notes`` say what
    of the request the encoder left out, for the receipt.
    """

    method: str
    url: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    auth: tuple[str, str, Secret] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and headers (lower-case names) of an answer; ``source`` is what ``Drain`` reads from."""

    status: int
    headers: Mapping[str, str]
    source: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """An answer made inside this process: ``seconds`` until its headers, then ``(seconds, bytes)`` for each chunk."""

    status: int
    headers: Mapping[str, str]
    seconds: float
    chunks: Iterable[tuple[float, bytes]]


LocalCall = Callable[[WireRequest], LocalAnswer]


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request and wait for its headers; ``deadline`` is a ``time.monotonic()`` instant for the whole of it."""

    wire: WireRequest
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Read from a source: its next bytes, or, with ``whole``, everything that is left (``b""`` ends a stream)."""

    source: object
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let time pass: ``seconds``, and why, which the notebook shows while it waits."""

    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Show:
    """Hand a delta to whoever listens. After the first one the call can be neither retried nor rerouted."""

    delta: Delta


Effect = Open | Drain | Sleep | Show
Flow = Generator[Effect, Any, Response]
Call = Callable[[Request, Trail], Flow]
"""Ask: a request and the trail to note things on; answer: a flow that ends in a response."""

Layer = Callable[[Call], Call]
"""A feature: it takes a call and returns a call."""


def compose(*layers: Layer) -> Layer:
    """Stack layers, outermost first, into one: ``compose(recorded(j), routed(c), retrying(3))(send)``."""

    def stacked(call: Call) -> Call:
        for layer in reversed(layers):
            call = layer(call)
        return call

    return stacked
