"""falling_back: walk down the plan until one candidate answers.

What another model may mend escalates: a provider that is down, full, out of quota or refuses the key. What it would not
mend does not: a malformed request, a refused content, a passed deadline, a budget that blocks. A context overflow goes
to the next candidate with a strictly larger window, once. After the first delta was shown nothing escalates any more.
"""

from __future__ import annotations

from dataclasses import replace

from tokenkit.effects import Call, Flow, Layer
from tokenkit.errors import (
    AllFailed,
    BadRequest,
    BudgetExceeded,
    ContentFiltered,
    ContextOverflow,
    ProviderError,
    TokenkitError,
    TransportError,
)
from tokenkit.receipts import Candidate, Trail
from tokenkit.types import Request


def falling_back() -> Layer:
    """Try the plan's eligible candidates in order; raise AllFailed with every cause when none answers."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            causes: list[tuple[str, TokenkitError]] = []
            larger_than = 0
            overflowed = False
            for candidate in request.plan.eligible if request.plan is not None else ():
                if overflowed and not _larger(candidate, larger_than):
                    continue
                try:
                    return (yield from call(_aimed(request, candidate), trail))
                except ContextOverflow as error:
                    causes.append((candidate.model, error))
                    if overflowed or trail.shown:
                        raise
                    overflowed = True
                    larger_than = max(candidate.context_window or 0, error.limit or 0)
                except BudgetExceeded as error:
                    causes.append((candidate.model, error))
                    if not error.reroute or trail.shown:
                        raise
                except (ProviderError, TransportError) as error:
                    causes.append((candidate.model, error))
                    if trail.shown or isinstance(error, BadRequest | ContentFiltered):
                        raise
            if len(causes) == 1 or (causes and all(isinstance(error, BudgetExceeded) for _, error in causes)):
                raise causes[0][1]
            raise AllFailed(causes)

        return flow

    return layer


def _aimed(request: Request, candidate: Candidate) -> Request:
    return replace(request, model=candidate.model, provider=candidate.provider)


def _larger(candidate: Candidate, window: int) -> bool:
    return candidate.context_window is not None and candidate.context_window > window
