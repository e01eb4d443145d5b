"""retrying: ask again after a failure that time may heal, obeying Retry-After, else with full jitter.

Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): sleep a uniform share of
``base * 2**n`` seconds, which spreads a crowd of callers best.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random

from tokenkit.effects import Call, Flow, Layer, Sleep
from tokenkit.errors import ProviderError, TokenkitError
from tokenkit.limits import RetryBudget
from tokenkit.receipts import Trail
from tokenkit.types import Request


def retrying(
    attempts: int = 3,
    *,
    base: float = 0.5,
    longest: float = 30.0,
    chance: Callable[[], float] = random,
    clock: Callable[[], float] = time.monotonic,
    budget: Callable[[Request], RetryBudget] | None = None,
) -> Layer:
    """Try up to ``attempts`` times in all, while the failure is transient and nothing was shown.

    ``budget`` gives the retry budget of the provider a request is aimed at: where it is spent, nothing is retried.

    ``base`` and ``longest`` bound each pause in seconds; a Retry-After longer than ``longest``, or a pause that would
    pass the call's deadline, gives up at once so that another model can be tried.
    """

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            allowance = budget(request) if budget is not None else None
            if allowance is not None:
                allowance.called()
            for n in range(attempts):
                try:
                    return (yield from call(request, trail))
                except TokenkitError as error:
                    if not error.transient or trail.shown or n == attempts - 1:
                        raise
                    pause = _pause(error, n, base, longest, chance)
                    late = trail.deadline is not None and clock() + (pause or 0.0) >= trail.deadline
                    if pause is None or late or (allowance is not None and not allowance.spend()):
                        raise
                    reason = f"{request.model}: {type(error).__name__}, asking again"
                yield Sleep(pause, reason)
                trail.waited += pause
            raise AssertionError("unreachable: the last attempt returns or raises")

        return flow

    return layer


def _pause(error: TokenkitError, n: int, base: float, longest: float, chance: Callable[[], float]) -> float | None:
    """Return the seconds to wait before the next try, or None when the provider asks for longer than we wait."""
    told = error.retry_after if isinstance(error, ProviderError) else None
    if told is not None:
        return told if told <= longest else None
    return chance() * min(longest, base * 2.0**n)
