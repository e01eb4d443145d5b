"""routed: decide before anything is sent, and put the decision on the request for the layers inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tokenkit.effects import Call, Flow, Layer
from tokenkit.errors import BudgetExceeded, NoRoute, TokenkitError
from tokenkit.receipts import Plan, Trail, Verdict
from tokenkit.standing import ADVICE, OVER_BUDGET
from tokenkit.types import Request


def routed(decide: Callable[[Request], Plan]) -> Layer:
    """Plan each request with ``decide``; raise NoRoute, naming every reason, when no candidate is eligible.

    Where it is a budget that shuts out the best of them, the error is BudgetExceeded.
    """

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            plan = trail.plan = decide(request)
            if plan.choice is None:
                raise _none(plan, trail)
            return (yield from call(replace(request, plan=plan), trail))

        return flow

    return layer


def _none(plan: Plan, trail: Trail) -> TokenkitError:
    reasons = [(c.model, c.rejected or "") for c in plan.candidates]
    over = next((why for _, why in reasons if why.startswith(OVER_BUDGET)), None)
    if over is None:
        return NoRoute("No model can take this call, so nothing was sent.", reasons)
    trail.verdicts.append(Verdict("budget", "block", over))
    others = f" ({len(reasons)} models were considered; kit.plan(...) shows them all)" if len(reasons) > 1 else ""
    return BudgetExceeded(f"Nothing was sent: {over}{others}. {ADVICE}")
