"""routed: decide before anything is sent, and put the decision on the request for the layers inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tokenkit.effects import Call, Flow, Layer
from tokenkit.errors import NoRoute
from tokenkit.receipts import Plan, Trail
from tokenkit.types import Request


def routed(decide: Callable[[Request], Plan]) -> Layer:
    """Plan each request with ``decide``; raise NoRoute, naming every reason, when no candidate is eligible."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            plan = trail.plan = decide(request)
            if plan.choice is None:
                reasons = [(c.model, c.rejected or "") for c in plan.candidates]
                raise NoRoute("No model can take this call, so nothing was sent.", reasons)
            return (yield from call(replace(request, plan=plan), trail))

        return flow

    return layer
