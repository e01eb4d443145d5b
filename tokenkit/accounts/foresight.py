"""Foresight: which models a call could not afford, and why, before anything is sent or held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tokenkit.accounts.keeping import Accounts, Rules
from tokenkit.budget import SHORTEST_ANSWER, Action, affordable, ask, who
from tokenkit.catalog import Model
from tokenkit.receipts import Candidate, Plan
from tokenkit.standing import OVER_BUDGET, Short, Standing
from tokenkit.types import Request, TokenCount

Shut = Mapping[str, tuple[Action, str]]
"""By model: the action of the budget that shuts it out, and the reason."""


def shut(
    accounts: Accounts,
    rules: Rules,
    request: Request,
    models: Sequence[Model],
    count: Callable[[Model], TokenCount],
    now: int,
) -> Shut:
    """Return the models that ``request`` could not afford as its budgets stand at ``now`` (Unix nanoseconds).

    A budget that shortens or waits shuts out only what not even that would help.
    """
    found: dict[str, tuple[Action, str]] = {}
    known: dict[object, tuple[Standing, ...]] = {}
    hard = tuple((budget, own) for budget, own in rules if budget.hard)
    by_model = any(budget.model or budget.provider for budget, _ in hard)
    for model in models:
        caller = who(request, model.id, model.provider)
        key = model.id if by_model else None
        if key not in known:
            known[key] = accounts.stand(hard, caller)
        tokens = count(model)
        asked = ask(request, model, tokens, now)
        for stands in known[key]:
            amount = None if asked is None else asked.of(stands.budget.unit)
            if amount is None and stands.budget.unit == "usd" and model.price is None:
                found[model.id] = (
                    stands.budget.action,
                    f"{OVER_BUDGET}{stands.account!r} is in USD and it has no price",
                )
            elif amount is not None and (amount > stands.free or stands.budget.amount == 0):
                short = Short(stands, amount)
                if not _helped(request, model, tokens, short, now):
                    found[model.id] = (stands.budget.action, str(short))
    return found


def _helped(request: Request, model: Model, tokens: TokenCount, short: Short, now: int) -> bool:
    budget = short.standing.budget
    if short.waiting_helps:
        return True
    if request.max_tokens is not None and budget.action != "shrink":
        return False
    return affordable(request, model, tokens, short.standing.free, budget.unit, now) >= SHORTEST_ANSWER


def after(plan: Plan, closed: Shut) -> Plan:
    """Return the plan as its budgets leave it: one that blocks the first choice blocks the call, and takes no other."""
    first = plan.choice
    if first is None or first.model not in closed:
        return plan
    budget = closed[first.model][1].split(" has ")[0].split(" is in ")[0]

    def barred(candidate: Candidate) -> Candidate:
        if candidate.rejected is not None:
            return candidate
        why = closed[candidate.model][1] if candidate.model in closed else f"{budget} blocks rather than reroutes"
        return candidate._replace(rejected=why, propensity=0.0)

    return replace(plan, candidates=tuple(barred(candidate) for candidate in plan.candidates))
