"""``kit.budgets``: set limits, see how they stand, hear when one is nearly spent, and settle what nobody saw end."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

from tokenkit import drivers
from tokenkit.accounts import Accounts, Cap, capped, standing_of
from tokenkit.budget import Budget, Window
from tokenkit.effects import Drain, Flow, Open, WireRequest
from tokenkit.errors import TokenkitError, UserError, did_you_mean
from tokenkit.money import parse_usd
from tokenkit.receipts import Receipt
from tokenkit.standing import Alert, Standing
from tokenkit.types import Response

Listener = Callable[[Alert], None]
"""Told of each notice once: an account has reached its warning, or its limit."""


class Standings(tuple[Standing, ...]):
    """How every budget stands, with a bar for each in a notebook."""

    __slots__ = ()

    def __str__(self) -> str:
        from tokenkit.bars import standings_text

        return standings_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from tokenkit.bars import standings_card

        return standings_card(self)


class Budgets:
    """The budgets of a kit's home: shared by every kernel that uses it, and durable.

    Iterating gives the budgets in force; ``status()`` how they stand. ``listeners`` are told when one reaches its
    warning or its limit (by default a line on stderr); ``webhook`` is a URL that is sent the same as JSON.
    """

    def __init__(self, accounts: Accounts, *, webhook: str | None = None, world: drivers.World | None = None) -> None:
        self.accounts, self.webhook, self._world = accounts, webhook, world
        self.listeners: list[Listener] = [_say]

    def set(self, budget: Budget | str | int | float | Decimal, **fields: Any) -> Budget:
        """Put a budget in force: ``set(Budget(...))`` or ``set("5 USD", window="day", user="alice")``.

        One of the same window, unit and scope (or name) is replaced; what was spent stays. Raises ConfigError.
        """
        made = budget if isinstance(budget, Budget) else Budget(budget, **_known(fields))
        self.accounts.keep(made)
        return made

    def remove(self, budget: Budget | str) -> None:
        """Take a budget out of force, by itself or by its key. Raises UserError for one that is not there."""
        key = budget.key if isinstance(budget, Budget) else budget
        if self.accounts.drop(key):
            return
        keys = [one.key for one in self]
        if key in keys:
            raise UserError(f"Budget {key!r} stands in tokenkit.toml: take it out there.")
        raise UserError(f"There is no budget {key!r}. {did_you_mean(key, keys)}")

    def status(self) -> Standings:
        """Return how each budget stands now: spent, held by running calls, free, calls, violations."""
        return Standings(self.accounts.status())

    def cap(self, limit: Budget | str | int | float | Decimal, **fields: Any) -> AbstractContextManager[Cap]:
        """Cap everything called within a ``with`` block, in any thread and by any kit of this process."""
        budget = limit if isinstance(limit, Budget) else Budget(limit, **_known(fields))
        return capped(budget)

    def standing(self, cap: Cap) -> Standing:
        """Return how the cap of a block stands, also after the block."""
        return standing_of(cap)

    def sweep(self, *, everything: bool = False) -> int:
        """Charge in full the calls of kernels that died, and return how many; it happens by itself when leases end.

        ``everything`` does so at once for all calls under way: only where no kernel of this home is alive.
        """
        return self.accounts.sweep(everything=everything)

    def unknown(self) -> tuple[Receipt, ...]:
        """Return the calls whose end nobody saw: charged in full, until ``reconcile`` says what they cost."""
        return self.accounts.unknown()

    def reconcile(self, call: str, cost: str | int | float | Decimal, tokens: int | None = None) -> Receipt:
        """Say what an unknown call really cost in USD; return the receipt over the difference."""
        return self.accounts.correct(call, parse_usd(cost, where="cost"), tokens)

    def tell(self, alerts: Sequence[Alert]) -> None:
        """Pass notices on. A listener or a webhook that fails never costs a call its answer."""
        for alert in alerts:
            for listener in tuple(self.listeners):
                try:
                    listener(alert)
                except Exception as error:
                    print(f"A budget listener failed: {type(error).__name__}: {error}", file=sys.stderr)
            if self.webhook is not None and self._world is not None:
                # A slow receiver must not keep the call waiting; one that is down is not asked again.
                threading.Thread(target=self._post, args=(alert, self.webhook, self._world), daemon=True).start()

    def _post(self, alert: Alert, url: str, world: drivers.World) -> None:
        try:
            drivers.drive(_posting(url, alert), world)
        except TokenkitError as error:
            print(f"The budget webhook could not be told: {error}", file=sys.stderr)

    def __iter__(self) -> Iterator[Budget]:
        return iter(self.accounts.budgets())

    def __len__(self) -> int:
        return len(self.accounts.budgets())

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "No budgets: kit.budgets.set('5 USD', window='day') sets one."


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    names = [name for name, one in Budget.__dataclass_fields__.items() if one.init and name != "limit"]
    for name in fields:
        if name not in names:
            raise UserError(f"A budget has no {name!r}. {did_you_mean(name, names)}")
    return fields


def _say(alert: Alert) -> None:
    print(alert, file=sys.stderr)


def _posting(url: str, alert: Alert) -> Flow:
    one = alert.standing
    told = {
        "text": str(alert),
        "budget": one.budget.as_table(),
        "account": one.account,
        "period": one.period.name,
        "spent": one.spent,
        "limit": one.budget.amount,
        "unit": "nano-USD" if one.budget.unit == "usd" else "tokens",
    }
    reply = yield Open(WireRequest("POST", url, json.dumps(told).encode()))
    yield Drain(reply.source, whole=True)
    return Response("")


_WINDOWS: Mapping[str, Window] = {"hourly": "hour", "daily": "day", "monthly": "month", "total": "total"}
LIMITS = {f"{when}_{unit}": (window, unit) for when, window in _WINDOWS.items() for unit in ("tokens", "usd")}
"""Short ways of saying limit and window in one: ``daily_tokens``, ``monthly_usd`` …"""


def from_options(said: Mapping[str, Any]) -> list[Budget]:
    """Return the budgets that options of a magic or a command say, one for each limit; None is not said."""
    fields = {name: value for name, value in said.items() if value is not None and name not in LIMITS}
    made = []
    for name, (window, unit) in LIMITS.items():
        if said.get(name) is not None:
            if "limit" in fields or "window" in fields:
                raise UserError(f"--{name.replace('_', '-')} says limit and window already: leave the others out.")
            made.append(Budget(f"{said[name]} {'USD' if unit == 'usd' else unit}", window=window, **_known(fields)))
    if made:
        return made
    if "limit" not in fields:
        raise UserError("How much? Say a limit, such as '5 USD' or '10000 tokens', or --daily-tokens 10000.")
    return [Budget(fields.pop("limit"), **_known(fields))]
