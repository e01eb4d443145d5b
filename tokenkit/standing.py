"""How budgets stand: what is spent and held, what a call falls short of, and the notice or error that says so."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from tokenkit.budget import Budget, Period
from tokenkit.errors import BudgetExceeded

OVER_BUDGET = "budget "
"""How every reason begins for which a budget shuts out a model."""

ADVICE = "Ask for a shorter answer (max_tokens) or a cheaper model, or raise the limit."


class Standing(NamedTuple):
    """How one account stands, in its budget's unit: nano-USD or tokens."""

    budget: Budget
    account: str
    period: Period
    spent: int = 0
    held: int = 0
    calls: int = 0
    violations: int = 0

    @property
    def free(self) -> int:
        """What can still be reserved."""
        return self.budget.amount - self.spent - self.held

    @property
    def share(self) -> float:
        """Spent and held, as a share of the limit; 1 for a limit of 0."""
        return (self.spent + self.held) / self.budget.amount if self.budget.amount else 1.0

    def __repr__(self) -> str:
        show = self.budget.show
        held = f", {show(self.held)} held" if self.held else ""
        return f"Standing({self.account}, {show(self.spent)} of {show(self.budget.amount)}{held})"


class Short(NamedTuple):
    """One budget that a try does not fit: how it stands, and what was asked of it."""

    standing: Standing
    asked: int

    @property
    def waiting_helps(self) -> bool:
        """Whether it would fit if every running call gave back all that it holds."""
        return self.standing.held > 0 and self.standing.spent + self.asked <= self.standing.budget.amount

    def __str__(self) -> str:
        budget, held = self.standing.budget, self.standing.held
        running = f" ({budget.show(held)} is held by calls still running)" if held else ""
        return (
            f"{OVER_BUDGET}{self.standing.account!r} has {budget.show(max(self.standing.free, 0))} left of "
            f"{budget.show(budget.amount)}{running}, and this call could take {budget.show(self.asked)}"
        )


class Alert(NamedTuple):
    """One notice: an account has reached the share of its limit at which to warn, or all of it."""

    standing: Standing

    def __str__(self) -> str:
        one, budget = self.standing, self.standing.budget
        when = f" ({one.period.name})" if one.period.start is not None else ""
        share = f": {one.spent / budget.amount:.0%}" if budget.amount else ""
        return (
            f"Budget {one.account!r}{when} has spent {budget.show(one.spent)} of {budget.show(budget.amount)}{share}."
        )


def level(stands: Standing) -> int:
    """Return how much there is to tell: 2 when the limit is spent, 1 from the budget's warning on, else 0."""
    if stands.spent >= stands.budget.amount:
        return 2
    return int(stands.spent >= stands.budget.warn_at * stands.budget.amount)


def refused(shorts: Iterable[Short]) -> BudgetExceeded:
    """Return the error that names every budget a call did not fit, and what to do."""
    shorts = tuple(shorts)
    reasons = "; ".join(str(short) for short in shorts)
    return BudgetExceeded(f"Nothing was sent: {reasons}. {_advice(shorts)}")


def _advice(shorts: tuple[Short, ...]) -> str:
    if any(short.waiting_helps for short in shorts):
        return "Ask again when they have ended, or give the budget action='throttle' to wait for them."
    ends = [short.standing.period.end for short in shorts]
    known = [end for end in ends if end is not None]
    if len(known) == len(ends):
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(known) // 10**9))
        return f"Ask for a shorter answer or a cheaper model, raise the limit, or wait until {when} UTC."
    return ADVICE
