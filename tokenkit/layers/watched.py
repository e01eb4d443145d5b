"""watched: keep what is known of each model's health, for plans to read: latency, calls in flight, breaker, limits.

One Watch belongs to one kit. It remembers only models that were asked.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from threading import Lock

from tokenkit.breaker import Breaker
from tokenkit.effects import Call, Flow, Layer
from tokenkit.layers.limited import Limits
from tokenkit.limits import RetryBudget
from tokenkit.receipts import Trail
from tokenkit.route import Health
from tokenkit.types import Request

SMOOTHING = 0.2
"""The weight of the newest latency in the running mean: about the last ten calls count."""


class Watch:
    """The health of every model that was asked. ``limits`` gives a model's limits when it is first asked."""

    def __init__(self, limits: Callable[[str], Limits] = lambda model: Limits()) -> None:
        self.breakers: defaultdict[str, Breaker] = defaultdict(Breaker)
        self.retries: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)
        self._new_limits, self._limits = limits, dict[str, Limits]()
        self._seconds: dict[str, float] = {}
        self._in_flight: defaultdict[str, int] = defaultdict(int)
        self._lock = Lock()

    def breaker(self, model: str) -> Breaker:
        """Return the breaker of a model id."""
        return self.breakers[model]

    def limits(self, model: str) -> Limits:
        """Return the limits of a model id."""
        with self._lock:
            if model not in self._limits:
                self._limits[model] = self._new_limits(model)
            return self._limits[model]

    def retry_budget(self, request: Request) -> RetryBudget:
        """Return the retry budget of the provider a request is aimed at."""
        return self.retries[request.provider or ""]

    def health(self, now: float) -> Mapping[str, Health]:
        """Return what a plan needs to know of each model that was asked, at ``now`` (monotonic seconds)."""
        return {
            model: Health(self._seconds.get(model), self._in_flight[model], self.breakers[model].barred(now))
            for model in tuple(self._in_flight)
        }

    def began(self, model: str) -> None:
        """A call to a model begins."""
        with self._lock:
            self._in_flight[model] += 1

    def ended(self, model: str, seconds: float | None) -> None:
        """A call ended; ``seconds`` is how long it took, ``None`` when it failed."""
        with self._lock:
            self._in_flight[model] -= 1
            if seconds is not None:
                before = self._seconds.get(model, seconds)
                self._seconds[model] = before + SMOOTHING * (seconds - before)


def watched(watch: Watch, clock: Callable[[], float] = time.monotonic) -> Layer:
    """Tell ``watch`` when each call begins, and how it ends."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            began, seconds = clock(), None
            watch.began(request.model)
            try:
                response = yield from call(request, trail)
                seconds = clock() - began
                return response
            finally:
                watch.ended(request.model, seconds)

        return flow

    return layer
