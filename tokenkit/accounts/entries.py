"""Holds, and purses: the accounts that live in this process alone because they belong to one request or one cell."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tokenkit.budget import Budget, Period, Unit
from tokenkit.money import Nanos
from tokenkit.receipts import Charge, new_id
from tokenkit.standing import Alert, Short, Standing, level

IN_PROCESS = ("request", "cell")
"""Windows whose accounts are purses."""


class Hold(NamedTuple):
    """What one call holds on one account."""

    budget: Budget
    account: str
    period: Period
    amount: int

    @property
    def here(self) -> bool:
        """Whether its account is a purse."""
        return self.budget.window in IN_PROCESS

    def actual(self, nanos: Nanos | None, tokens: int | None) -> int:
        """Return what to charge for a cost and a use; unknown is charged in full."""
        return actual(self.budget.unit, self.amount, nanos, tokens)


Charges = dict[tuple[str, str], Charge]
"""What a call has taken so far, by account and period."""


def charging(before: Charges, holds: Iterable[Hold], nanos: Nanos | None, tokens: int | None) -> Charges:
    """Return ``before`` with one more try on it, which held ``holds``, cost ``nanos`` and took ``tokens``."""
    after = dict(before)
    for hold in holds:
        place = (hold.account, hold.period.name)
        so_far = after[place].charged if place in after else 0
        after[place] = Charge(*place, hold.budget.unit, hold.amount, so_far + hold.actual(nanos, tokens))
    return after


def missing(hold: Hold, spent: int, held: int) -> Short | None:
    """Return what a hold falls short of on an account that stands so; None where it fits, or need not."""
    if not hold.budget.hard or 0 < hold.budget.amount >= spent + held + hold.amount:
        return None  # a limit of 0 lets nothing through, not even what is free
    return Short(Standing(hold.budget, hold.account, hold.period, spent, held), hold.amount)


def actual(unit: str | Unit, amount: int, nanos: Nanos | None, tokens: int | None) -> int:
    """Return what to charge a hold of ``amount``: the cost or the tokens, or all of it where that is unknown."""
    known = nanos if unit == "usd" else tokens
    return amount if known is None else known


@dataclass(slots=True)
class Purse:
    """An account within this process: ``holds`` by call, so that letting go twice changes nothing."""

    spent: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    violations: int = 0
    noticed: int = 0

    @property
    def held(self) -> int:
        """What calls under way hold."""
        return sum(self.holds.values())

    def charge(self, hold: Hold, call: str, nanos: Nanos | None, tokens: int | None) -> Alert | None:
        """Settle what ``call`` holds here, if it does; return the notice that is due."""
        if self.holds.pop(call, None) is None:
            return None
        cost = hold.actual(nanos, tokens)
        self.spent += cost
        self.calls += 1
        self.violations += cost > hold.amount
        stands = Standing(hold.budget, hold.account, hold.period, self.spent, self.held)
        if hold.budget.window == "request" or level(stands) <= self.noticed:
            return None
        self.noticed = level(stands)
        return Alert(stands)


PURSES: dict[tuple[str, str], Purse] = {}
CAPS: list[Cap] = []
LOCK = threading.RLock()
"""Held by whoever changes a purse, or reserves: the purses of all kits of this process are one book."""


def purse(hold: Hold) -> Purse:
    """Return the purse that a hold belongs to."""
    return PURSES.setdefault((hold.account, hold.period.name), Purse())


@dataclass(frozen=True, slots=True)
class Cap:
    """A budget on everything that is called while it is in force, in any thread and by any kit of this process."""

    budget: Budget
    id: str = field(default_factory=new_id)


@contextmanager
def capped(budget: Budget) -> Iterator[Cap]:
    """Cap everything called in the block, by any kit, in any thread; caps nest, and each must hold."""
    cap = Cap(replace(budget, window="cell", name=budget.name or "this cell"))
    with LOCK:
        CAPS.append(cap)
    try:
        yield cap
    finally:
        with LOCK:
            CAPS.remove(cap)


def standing_of(cap: Cap) -> Standing:
    """Return how a cap stands, also after its block has ended."""
    found = PURSES.get((cap.budget.key, cap.id), Purse())
    return Standing(cap.budget, cap.budget.key, Period(cap.id), found.spent, found.held, found.calls, found.violations)
