"""Keeping the books: which budgets a call is under, and reserving, settling and mending for it.

A try is reserved on all its budgets in one step, at the most it can cost, or not at all; it is settled in the
transaction that writes the receipt. With the reservation goes the receipt to be filed should this process die: in
full, status ``unknown``. A sweep files it when the lease is over, ``correct`` puts it right later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tokenkit.accounts import books
from tokenkit.accounts.entries import (
    CAPS,
    IN_PROCESS,
    LOCK,
    PURSES,
    Charges,
    Hold,
    Purse,
    charging,
    missing,
    purse,
    standing_of,
)
from tokenkit.budget import Ask, Budget, Period, Who, account, period
from tokenkit.errors import LedgerError, UserError
from tokenkit.journal import Journal
from tokenkit.money import Nanos
from tokenkit.receipts import Receipt
from tokenkit.standing import Alert, Short, Standing

LEASE_SECONDS = 1200.0
"""How long a reservation outlives the last sign of life; longer than the longest silence a driver waits out."""

SWEEP_NANOS = 10**9
"""How often a process looks for calls whose lease is over."""

FRESH_SECONDS = 0.1
"""How soon a limit that another kernel sets, raises or removes is known here."""

Rules = tuple[tuple[Budget, str], ...]
"""Budgets a call is under, each with the id of its cell (``""`` for all others)."""

NO_CALLS = (0, 0, 0, 0)


@dataclass(slots=True)
class _Open:
    """A call of this process that has something held or settled, and no receipt yet."""

    holds: tuple[Hold, ...] = ()
    settled: Nanos = 0
    settled_tokens: int = 0
    shared: bool = False  # it has rows in the journal
    settled_once: bool = False
    charges: Charges = field(default_factory=dict)

    def charged(self, receipt: Receipt, charges: Charges | None = None) -> Receipt:
        """Return a receipt of this call that says what it has taken from its budgets."""
        taken = self.charges if charges is None else charges
        return replace(receipt, charges=tuple(taken.values())) if taken else receipt


class Accounts:
    """The books of one journal. ``configured`` budgets hold beside those set and kept in the journal itself.

    ``lease`` is in seconds, ``now`` gives Unix nanoseconds; ``shared``: others set its budgets too, so a journal
    that cannot be read refuses every call.
    """

    def __init__(
        self,
        journal: Callable[[], Journal],
        configured: Iterable[Budget] = (),
        *,
        lease: float = LEASE_SECONDS,
        now: Callable[[], int] = time.time_ns,
        shared: bool = False,
    ) -> None:
        self._journal, self._lease, self._now = journal, int(lease * 10**9), now
        self.configured = tuple(configured)
        self._kept: Mapping[str, tuple[str, Budget]] = {}
        self._shared, self._fresh_until, self._swept = shared, 0.0, 0
        self._open: dict[str, _Open] = {}

    # Which budgets there are.

    def budgets(self) -> tuple[Budget, ...]:
        """Return every shared budget in force; one kept in the journal replaces the configured one of its key."""
        return self._merged(self._journal().ask("SELECT key, body FROM budgets"))

    def keep(self, budget: Budget) -> None:
        """Put a budget in force for every kernel of this home, from now on; one of the same key is replaced."""
        if budget.window == "cell":
            raise UserError("A budget for a cell lives in the cell: write %%budget, or `with kit.budgets.cap(...)`.")
        body = json.dumps(budget.as_table())
        self._fresh_until = 0.0
        with self._journal().transaction() as rows:
            told = "INSERT INTO budgets VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body"
            rows.execute(told, (budget.key, body))

    def drop(self, key: str) -> bool:
        """Take a kept budget out of force; return whether there was one. What was spent stays in the books."""
        self._fresh_until = 0.0
        with self._journal().transaction() as rows:
            return bool(rows.execute("DELETE FROM budgets WHERE key = ?", (key,)).rowcount)

    def rules(self, own: Budget | None = None) -> Rules:
        """Return the budgets a call is under now; where the journal cannot be read, those known last still hold.

        What they are is read anew after ``FRESH_SECONDS``; what they have spent, at every reservation. Raises
        LedgerError where the journal is a team's and cannot be read: nobody here knows what budgets it has.
        """
        if time.monotonic() >= self._fresh_until:
            try:
                self.budgets()
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            except LedgerError:
                if self._shared:
                    raise
        shared = self._merged(None)
        if not (shared or CAPS or own):
            return ()
        mine = [] if own is None else [(own, "")]
        return (*((budget, "") for budget in shared), *((cap.budget, cap.id) for cap in tuple(CAPS)), *mine)

    def _merged(self, rows: Sequence[tuple[str, str]] | None) -> tuple[Budget, ...]:
        if rows is not None and (rows or self._kept):
            known = self._kept
            self._kept = {
                key: known[key] if key in known and known[key][0] == body else (body, Budget(**json.loads(body)))
                for key, body in rows
            }
        if not self._kept:
            return self.configured
        kept = {key: budget for key, (_, budget) in self._kept.items()}
        return (*kept.values(), *(budget for budget in self.configured if budget.key not in kept))

    # Reserving and settling.

    def stand(self, rules: Rules, caller: Who, call: str = "") -> tuple[Standing, ...]:
        """Return how every account stands that this caller's call would be charged to; nothing is reserved."""
        found = []
        for budget, name, when in self._charged(rules, caller, call):
            if budget.window in IN_PROCESS:
                at = PURSES.get((name, when.name), Purse())
                found.append(Standing(budget, name, when, at.spent, at.held, at.calls, at.violations))
            else:
                row = self._journal().ask(books.STANDS, (name, when.name))
                found.append(Standing(budget, name, when, *(row[0] if row else NO_CALLS)))
        return tuple(found)

    def reserve(
        self, rules: Rules, caller: Who, call: str, asked: Ask, lost: Callable[[], Receipt]
    ) -> tuple[Short, ...]:
        """Hold ``asked`` for ``call`` on every account it is charged to, in one step, or on none of them.

        Returns the hard budgets that it does not fit; empty: it is held. ``lost`` makes the receipt to be filed if
        this process dies meanwhile. Raises LedgerError when the journal cannot be written.
        """
        wanted = tuple(
            Hold(budget, name, when, amount)
            for budget, name, when in self._charged(rules, caller, call)
            if (amount := asked.of(budget.unit)) is not None
        )
        shared = [hold for hold in wanted if not hold.here]
        started = self._open.get(call, _Open())
        body = started.charged(lost()).to_json() if shared else ""  # before the locks: nobody need wait for JSON
        with LOCK:
            at = [(hold, purse(hold)) for hold in wanted if hold.here]
            if short := tuple(lack for hold, p in at if (lack := missing(hold, p.spent, p.held)) is not None):
                return short
            known = self._open.setdefault(call, _Open())
            # Noted before the journal changes: an interrupt in between finds what there is to let go of.
            known.holds, known.shared = wanted, known.shared or bool(shared)
            if shared:
                now = self._now()
                with self._journal().transaction() as rows:
                    if not self._swept <= now < self._swept + SWEEP_NANOS:
                        books.sweep(rows, now)
                        self._swept = now
                    again = known.settled_once
                    short = books.reserve(rows, call, shared, body, now + self._lease, again=again)
                if short:
                    known.holds = ()
                    return short
            for hold, own in at:
                own.holds[call] = hold.amount
        return ()

    def renew(self, call: str) -> None:
        """Say that somebody is still at work on ``call``. A journal that cannot be written now is tried again later."""
        if (known := self._open.get(call)) is not None and known.shared:
            try:
                with self._journal().transaction() as rows:
                    rows.execute("UPDATE asked SET lease = ? WHERE call = ?", (self._now() + self._lease, call))
            except LedgerError:
                return

    def settle(self, call: str, nanos: Nanos | None, tokens: int | None, lost: Callable[[], Receipt]) -> list[Alert]:
        """Charge a try that failed, and let go of the rest of what it held, before the next one begins.

        ``None`` is unknown: it is charged in full. Where the journal cannot be written, the hold stays there and is
        charged in full later.
        """
        known = self._open.get(call)
        if known is None or not known.holds:
            return []
        alerts: list[Alert] = []
        charges = charging(known.charges, known.holds, nanos, tokens)
        with LOCK:
            if known.shared:
                body = known.charged(lost(), charges).to_json()
                with self._journal().transaction() as rows:
                    alerts = books.settle(rows, call, known.holds, (nanos, tokens), body, self._now() + self._lease)
            alerts += _charge_here(known.holds, call, nanos, tokens)
            known.holds, known.charges, known.settled_once = (), charges, True
            known.settled += nanos or 0
            known.settled_tokens += tokens or 0
        return alerts

    def charged(self, receipt: Receipt) -> Receipt:
        """Return the receipt of a call that is over, with what it takes from each of its budgets."""
        known = self._open.get(receipt.id)
        return receipt if known is None else known.charged(receipt, _all_charges(receipt, known))

    def write(self, receipt: Receipt) -> list[Alert]:
        """Write a receipt and settle what its call still holds, in one transaction; return what there is to tell."""
        known = self._open.get(receipt.id)
        if known is None:
            self._journal().write(receipt)
            return []
        nanos, tokens = _rest(receipt, known)
        alerts: list[Alert] = []
        with LOCK:
            if known.shared:
                with self._journal().transaction() as rows:
                    alerts = books.finish(rows, receipt, known.holds, nanos, tokens)
            else:
                self._journal().write(receipt)
            self.forget(receipt, alerts)
        return alerts

    def forget(self, receipt: Receipt, alerts: list[Alert] | None = None) -> None:
        """Settle a call's purses and forget it; what it holds in the journal, where that failed, is swept later."""
        with LOCK:
            known = self._open.pop(receipt.id, None)
            if known is None:
                return
            told = _charge_here(known.holds, receipt.id, *_rest(receipt, known))
            if alerts is not None:
                alerts += told
            for hold in known.holds:
                if hold.budget.window == "request":
                    PURSES.pop((hold.account, hold.period.name), None)

    # Seeing and mending.

    def status(self) -> tuple[Standing, ...]:
        """Return every budget's account as it stands in the current period, caps of running cells included."""
        now = self._now()
        found: list[Standing] = []
        for budget in self.budgets():
            when = period(budget.window, now, budget.timezone)
            each = f"{budget.key}: "
            rows = self._journal().ask(books.EVERY, (budget.key, each, each, when.name))
            found += [Standing(budget, name, when, *rest) for name, *rest in rows or [(budget.key, *NO_CALLS)]]
        return (*found, *(standing_of(cap) for cap in tuple(CAPS)))

    def sweep(self, *, everything: bool = False) -> int:
        """File the calls whose lease is over, in full, as ``unknown``; return how many there were.

        ``everything`` does so at once, for every call under way: only where no kernel of this home is alive.
        """
        with self._journal().transaction() as rows:
            return books.sweep(rows, 2**62 if everything else self._now())

    def unknown(self) -> tuple[Receipt, ...]:
        """Return the receipts of calls whose end nobody saw, charged in full and not corrected yet."""
        return tuple(Receipt.from_json(body) for _, body in self._journal().ask(books.UNKNOWN))

    def correct(self, call: str, nanos: Nanos, tokens: int | None = None) -> Receipt:
        """Put right what the last try of an unknown call was charged; return the receipt over the difference.

        ``call`` is the id of the call or of its receipt, or how it begins; ``tokens`` None leaves budgets in tokens as
        they are. Raises UserError for an id that names none of them, or more than one.
        """
        if nanos < 0 or (tokens or 0) < 0:
            raise UserError("What a call cost is at least 0.")
        with self._journal().transaction() as rows:
            one, filed = books.one_unknown(rows, call)
            return books.correct(rows, one, filed, nanos, tokens, "reconciled")

    def _charged(self, rules: Rules, caller: Who, call: str) -> list[tuple[Budget, str, Period]]:
        now = self._now()
        return [
            (budget, name, period(budget.window, now, budget.timezone, own or call))
            for budget, own in rules
            if (name := account(budget, caller)) is not None
        ]


def _charge_here(holds: Sequence[Hold], call: str, nanos: Nanos | None, tokens: int | None) -> list[Alert]:
    told = [purse(hold).charge(hold, call, nanos, tokens) for hold in holds if hold.here]
    return [alert for alert in told if alert is not None]


def _all_charges(receipt: Receipt, known: _Open) -> Charges:
    return charging(known.charges, known.holds, *_rest(receipt, known))


def _rest(receipt: Receipt, known: _Open) -> tuple[Nanos | None, int | None]:
    """Return what the call's last try cost and used: all of its receipt, less what was settled before."""
    nanos = None if receipt.cost_nanos is None else receipt.cost_nanos - known.settled
    counts = [attempt.usage.total_tokens for attempt in receipt.attempts if attempt.usage is not None]
    tokens = None if None in counts else sum(count for count in counts if count is not None) - known.settled_tokens
    return nanos, tokens
