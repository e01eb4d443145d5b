"""The statements that move amounts: each works within one transaction of the journal, so money and log cannot disagree.

For every account of a hard budget, after each of them, ``spent + held <= limit``, unless a provider billed more than it
can have, which is counted as a violation. The SQL is what SQLite and PostgreSQL both understand; transactions must come
one after another, as both kinds of journal see to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenkit.accounts.entries import Hold, actual, missing
from tokenkit.errors import UserError
from tokenkit.journal import append
from tokenkit.money import Nanos
from tokenkit.receipts import Charge, Receipt, new_id
from tokenkit.standing import Alert, Short, Standing, level

if TYPE_CHECKING:
    from sqlite3 import Connection

STANDS = "SELECT spent, held, calls, violations FROM accounts WHERE account = ? AND period = ?"
EVERY = """SELECT account, spent, held, calls, violations FROM accounts
           WHERE (account = ? OR substr(account, 1, length(?)) = ?) AND period = ? ORDER BY account"""
UNKNOWN = "SELECT call, body FROM asked WHERE state = 'unknown' ORDER BY call"
_OVERDUE = "SELECT call, state, body FROM asked WHERE state IN ('held', 'settled') AND lease < ?"
_HOLD = """INSERT INTO accounts VALUES (?, ?, 0, ?, 0, 0, 0)
           ON CONFLICT (account, period) DO UPDATE SET held = accounts.held + excluded.held"""
_ASKED = """INSERT INTO asked VALUES (?, ?, ?, ?) ON CONFLICT (call)
            DO UPDATE SET state = excluded.state, lease = excluded.lease, body = excluded.body"""
_CHARGE = """UPDATE accounts SET held = held - ?, spent = spent + ?, calls = calls + 1, violations = violations + ?
             WHERE account = ? AND period = ? RETURNING spent, held, calls, violations, noticed"""


def reserve(
    rows: Connection, call: str, holds: list[Hold], body: str, until: int, *, again: bool = False
) -> tuple[Short, ...]:
    """Hold all or none; ``body`` is the receipt to file if nobody comes back until ``until`` (Unix nanoseconds).

    ``again``: the call has settled a try before.
    """
    short = []
    for hold in holds:
        row = rows.execute(STANDS, (hold.account, hold.period.name)).fetchone() or (0, 0)
        if (lack := missing(hold, row[0], row[1])) is not None:
            short.append(lack)
    if short:
        return tuple(short)
    if again:
        _come_back(rows, call, None, None)
    rows.execute(_ASKED, (call, "held", until, body))
    for hold in holds:
        rows.execute(_HOLD, (hold.account, hold.period.name, hold.amount))
        place = (call, hold.account, hold.period.name, hold.amount, hold.budget.unit)
        rows.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", place)
    return ()


def settle(
    rows: Connection, call: str, holds: Iterable[Hold], cost: tuple[Nanos | None, int | None], body: str, lease: int
) -> list[Alert]:
    """Charge a try that failed; its call goes on, and ``body`` is what to file if it does not."""
    alerts: list[Alert] = []
    if not _come_back(rows, call, *cost):
        alerts = _charge(rows, call, holds, *cost)
    rows.execute(_ASKED, (call, "settled", lease, body))
    return alerts


def finish(
    rows: Connection, receipt: Receipt, holds: Iterable[Hold], nanos: Nanos | None, tokens: int | None
) -> list[Alert]:
    """Write a receipt and charge what its call still holds; ``nanos`` and ``tokens`` are its last try's."""
    row = rows.execute("SELECT state FROM asked WHERE call = ?", (receipt.id,)).fetchone()
    alerts: list[Alert] = []
    if row is not None and row[0] not in ("held", "settled"):
        _come_back(rows, receipt.id, nanos, tokens)
    else:
        alerts = _charge(rows, receipt.id, holds, nanos, tokens) if row is not None and row[0] == "held" else []
        rows.execute("DELETE FROM asked WHERE call = ?", (receipt.id,))
    append(rows, receipt)
    return alerts


def _come_back(rows: Connection, call: str, nanos: Nanos | None, tokens: int | None) -> bool:
    """Take back what was filed for a call that was thought dead; its last try cost ``nanos`` and took ``tokens``.

    Its machine slept through the lease, say. From now on the call's own receipt holds what it cost.
    """
    row = rows.execute("SELECT state, body FROM asked WHERE call = ?", (call,)).fetchone()
    if row is None or row[0] in ("held", "settled"):
        return False
    correct(rows, call, Receipt.from_json(row[1]), nanos, tokens, "corrected", moved=True)
    return True


def sweep(rows: Connection, now: int) -> int:
    """File the calls whose lease was over at ``now``: what they held is spent, in full, until somebody knows better."""
    overdue = rows.execute(_OVERDUE, (now,)).fetchall()
    for call, state, body in overdue:
        receipt = Receipt.from_json(body)
        # Held: a try was under way, and may have been billed in full. Else it died between two tries.
        held = rows.execute("SELECT account, period, amount, unit FROM holds WHERE call = ?", (call,)).fetchall()
        full = ((name, when, unit, amount, amount) for name, when, amount, unit in held)
        beside = _beside(call, "unknown" if state == "held" else "stopped")
        receipt = replace(receipt, id=beside, charges=_summed(receipt.charges, full))
        append(rows, receipt)
        for name, when, amount, _ in held:
            rows.execute(_CHARGE, (amount, amount, 0, name, when)).fetchone()
        now_is = ("unknown" if state == "held" else "stopped", receipt.to_json(), call)
        rows.execute("UPDATE asked SET state = ?, body = ? WHERE call = ?", now_is)
    return len(overdue)


def correct(
    rows: Connection,
    call: str,
    filed: Receipt,
    nanos: Nanos | None,
    tokens: int | None,
    why: str,
    *,
    moved: bool = False,
) -> Receipt:
    """Charge an unknown call's last try what it really cost, and write a receipt over the difference.

    ``moved``: the call has a receipt of its own by now, so this one takes back all that was filed.
    """
    held = rows.execute("SELECT account, period, amount, unit FROM holds WHERE call = ?", (call,)).fetchall()
    changes = [(name, when, unit, 0, actual(unit, amount, nanos, tokens) - amount) for name, when, amount, unit in held]
    for name, when, _, _, change in changes:
        told = "UPDATE accounts SET spent = spent + ? WHERE account = ? AND period = ?"
        rows.execute(told, (change, name, when))
    charged = filed.cost_nanos or 0
    last = filed.attempts[-1].cost_nanos or 0 if filed.attempts else 0
    difference = -charged if moved else 0 if nanos is None else nanos - last
    if moved:
        rows.execute("DELETE FROM holds WHERE call = ?", (call,))
        rows.execute("DELETE FROM asked WHERE call = ?", (call,))
    else:
        # Kept as it stands now, for a process that may yet come back.
        for name, when, amount, unit in held:
            told = "UPDATE holds SET amount = ? WHERE call = ? AND account = ? AND period = ?"
            rows.execute(told, (actual(unit, amount, nanos, tokens), call, name, when))
        stands = replace(filed, cost_nanos=charged + difference, charges=_summed(filed.charges, changes))
        rows.execute("UPDATE asked SET state = 'reconciled', body = ? WHERE call = ?", (stands.to_json(), call))
    receipt = replace(
        filed,
        id=_beside(call, why),
        started_at=time.time_ns(),
        seconds=0.0,
        status="ok",
        operation="correction",
        usage=None,
        cost_nanos=difference,
        charges=tuple(c._replace(charged=-c.charged) for c in filed.charges) if moved else _summed((), changes),
        attempts=(),
        plan=None,
        notes=(f"puts right the {charged} nano-USD charged by {filed.id}",),
        error=None,
        error_type=None,
    )
    append(rows, receipt)
    return receipt


def one_unknown(rows: Connection, part: str) -> tuple[str, Receipt]:
    """Return the unknown call that ``part`` begins, or whose receipt it names. Raises UserError."""
    found = rows.execute(UNKNOWN).fetchall()
    matching = [(call, body) for call, body in found if part and (call.startswith(part) or part.startswith(call))]
    if len(matching) != 1:
        what = "no call" if not matching else f"{len(matching)} calls"
        raise UserError(f"{part!r} names {what} whose cost is unknown. See `tokenkit budget reconcile`.")
    call, body = matching[0]
    return call, Receipt.from_json(body)


def _summed(before: tuple[Charge, ...], more: Iterable[tuple[str, str, str, int, int]]) -> tuple[Charge, ...]:
    """Return charges with more rows of ``(account, period, unit, held, charged)`` added to them."""
    found = {charge[:2]: charge for charge in before}
    for account, when, unit, held, charged in more:
        so_far = found[account, when].charged if (account, when) in found else 0
        found[account, when] = Charge(account, when, unit, held, so_far + charged)
    return tuple(found.values())


def _beside(call: str, what: str) -> str:
    """Return an id for a receipt about a call; a call that sleeps often may have several of a kind."""
    return f"{call}-{what}-{new_id()[-6:]}"


def _charge(rows: Connection, call: str, holds: Iterable[Hold], nanos: Nanos | None, tokens: int | None) -> list[Alert]:
    alerts = []
    for hold in holds:
        if hold.here:
            continue
        cost, place = hold.actual(nanos, tokens), (hold.account, hold.period.name)
        row = rows.execute(_CHARGE, (hold.amount, cost, int(cost > hold.amount), *place)).fetchone()
        *stand, noticed = row
        stands = Standing(hold.budget, hold.account, hold.period, *stand)
        if level(stands) > noticed:
            told = "UPDATE accounts SET noticed = ? WHERE account = ? AND period = ?"
            rows.execute(told, (level(stands), *place))
            alerts.append(Alert(stands))
    rows.execute("DELETE FROM holds WHERE call = ?", (call,))
    return alerts
