"""limited: stay within requests per minute, tokens per minute and calls at once; wait, or let another model answer.

A wait shows in the cell. A wait longer than ``patience``, or past the call's deadline, is not begun: the next candidate
is tried instead. Tokens are taken as the prompt plus the largest answer, and what was not used is given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from tokenkit.effects import Call, Flow, Layer, Sleep
from tokenkit.errors import BrokenOff
from tokenkit.limits import Bucket
from tokenkit.receipts import Trail
from tokenkit.types import Request, Response


@dataclass(slots=True)
class Limits:
    """The limits of one model; ``None`` means none. ``at_once`` bounds calls in flight."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    at_once: int | None = None
    in_flight: int = 0
    lock: Lock = field(default_factory=Lock, repr=False)

    def enter(self) -> bool:
        """Count a call in, unless as many as may be are in flight."""
        with self.lock:
            if self.at_once is not None and self.in_flight >= self.at_once:
                return False
            self.in_flight += 1
            return True

    def leave(self) -> None:
        """Count a call out."""
        with self.lock:
            self.in_flight -= 1


def limited(
    limits_of: Callable[[str], Limits],
    *,
    patience: float = 60.0,
    poll: float = 0.02,
    clock: Callable[[], float] = time.monotonic,
) -> Layer:
    """Hold each call to the limits of the model it is aimed at. ``patience`` and ``poll`` are seconds."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            limits = limits_of(request.model)
            began = clock()
            asked = _expected(request)
            while not limits.enter():
                yield _pause(request, trail, poll, clock() - began, patience, clock(), "calls at once")
            response: Response | None = None
            try:
                for bucket, amount, what in ((limits.requests, 1.0, "requests"), (limits.tokens, asked, "tokens")):
                    while bucket is not None and (wait := bucket.take(amount, clock())) > 0:
                        waited = clock() - began + wait
                        yield _pause(request, trail, wait, waited, patience, clock(), f"{what} per minute")
                response = yield from call(request, trail)
            finally:
                limits.leave()
                if limits.tokens is not None and response is not None and response.usage is not None:
                    limits.tokens.give_back(asked - (response.usage.total_tokens or asked))
            return response

        return flow

    return layer


def _pause(
    request: Request, trail: Trail, seconds: float, waited: float, patience: float, now: float, what: str
) -> Sleep:
    """Return the pause to make, or raise BrokenOff when it would be too long."""
    if waited > patience or (trail.deadline is not None and now + seconds >= trail.deadline):
        why = f"{request.model} was not asked: its limit of {what} would keep this call waiting {waited:.1f} s"
        trail.notes.append(why)
        raise BrokenOff(f"{why}.", provider=request.provider, model=request.model, retry_after=seconds)
    trail.waited += seconds
    return Sleep(seconds, f"{request.model}: limit of {what}")


def _expected(request: Request) -> float:
    """Return the tokens this call may take: its prompt as planned, and the largest answer asked for."""
    for candidate in request.plan.candidates if request.plan is not None else ():
        if candidate.model == request.model and candidate.input_tokens is not None:
            return float(candidate.input_tokens.tokens + (request.max_tokens or 0))
    return float(request.max_tokens or 0)
