"""broken_off: do not ask a model that keeps failing, until a probe shows it is well again.

Only what the provider is to blame for counts: a refused key, a bad request, a cancelled call say nothing about health.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tokenkit.breaker import Breaker
from tokenkit.effects import Call, Flow, Layer
from tokenkit.errors import BrokenOff, Overloaded, ProtocolError, ServerError, TransportError
from tokenkit.receipts import Trail
from tokenkit.types import Request


def broken_off(breaker_of: Callable[[str], Breaker], clock: Callable[[], float] = time.monotonic) -> Layer:
    """Pass calls through the breaker of the model they are aimed at; while it is open raise BrokenOff, send nothing."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            breaker = breaker_of(request.model)
            if not breaker.admit(clock()):
                why = breaker.barred(clock()) or "its breaker was open a moment ago"
                trail.notes.append(f"{request.model} was not asked: {why}")
                raise BrokenOff(
                    f"{request.model} was not asked: {why}.", provider=request.provider, model=request.model
                )
            try:
                response = yield from call(request, trail)
            except (ServerError, Overloaded, ProtocolError, TransportError):
                breaker.failed(clock())
                raise
            except BaseException:
                breaker.released()
                raise
            breaker.succeeded()
            return response

        return flow

    return layer
