"""What was spent today and this month, and when it was far more than usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.analysis.tables import table
from tokenkit.errors import UserError
from tokenkit.ledger.book import Ledger, since_clause
from tokenkit.money import Nanos, show_usd

if TYPE_CHECKING:
    import pandas


def spikes(ledger: Ledger, *, by: str = "hour", z: float = 5.0, since: Any = None) -> pandas.DataFrame:
    """Return the hours or days whose spend is far above the usual, by robust z-score of at least ``z``.

    The score is in units of 1.4826 x the median absolute deviation. Only stretches in which something was spent are
    compared, and at least seven of them are needed; USD.
    """
    if by not in ("hour", "day"):
        raise UserError(f"Spikes are looked for by 'hour' or by 'day', not {by!r}.")
    where, values = since_clause(since)
    return ledger.sql(
        f"""WITH spent AS (SELECT date_trunc('{by}', started_at) AS {by}, count(*) AS calls,
              sum(cost_usd)::DOUBLE AS usd FROM calls {where} GROUP BY 1 HAVING sum(cost_usd) > 0),
            usual AS (SELECT median(usd) AS mid, count(*) AS n FROM spent),
            spread AS (SELECT greatest(median(abs(usd - mid)) * 1.4826, any_value(mid) * 0.05) AS mad FROM spent, usual)
        SELECT {by}, calls, usd, mid AS usual_usd, (usd - mid) / nullif(mad, 0) AS z FROM spent, usual, spread
        WHERE n >= 7 AND (usd - mid) / nullif(mad, 0) >= ? ORDER BY {by}""",  # noqa: S608 - one of two words
        [*values, z],
    )


@dataclass(frozen=True)
class Summary:
    """What was spent today and this month, and by whom and what: frames of the same shape as ``ledger.spend``.

    ``unusual`` is a sentence on the hours of the last week with far more spend than usual; empty where there was none.
    """

    today: Nanos
    month: Nanos
    unpriced: int
    by: Mapping[str, pandas.DataFrame]
    unusual: str = ""

    def __repr__(self) -> str:
        left = f"; {self.unpriced:,} calls of unknown price not counted" if self.unpriced else ""
        return f"Summary({show_usd(self.today)} today, {show_usd(self.month)} this month{left})"

    def _repr_html_(self) -> str:
        cards = [_html.table_card(table(f"This month by {name}", frame)) for name, frame in self.by.items()]
        said = "\n".join(line for line in (repr(self), self.unusual) if line)
        return _html.answer(said) + "".join(cards)


def summary(ledger: Ledger) -> Summary:
    """Return today's and this month's spend (local time), by provider, model, user and endpoint."""
    where, values = since_clause("month")
    month = ledger.sql(
        f"""SELECT coalesce(sum(cost_nanos), 0)::BIGINT AS month,
              coalesce(sum(cost_nanos) FILTER (started_at >= current_date), 0)::BIGINT AS today,
              count(*) FILTER (cost_nanos IS NULL) AS unpriced FROM calls {where}""",  # noqa: S608 - since_clause's own
        values,
    ).iloc[0]
    by = {name: ledger.spend(by=name, since="month") for name in ("provider", "model", "user", "endpoint")}
    return Summary(int(month["today"]), int(month["month"]), int(month["unpriced"]), by, unusual(ledger))


def unusual(ledger: Ledger) -> str:
    """Return a sentence on the hours of the last seven days in which far more was spent than usual; or nothing."""
    found = spikes(ledger, since="7d")
    if found.empty:
        return ""
    top = found.sort_values("usd", ascending=False).iloc[0]
    times = f"{top['usd'] / top['usual_usd']:,.0f} times the usual hour"
    more = f", and {len(found) - 1} more such hours" if len(found) > 1 else ""
    spent = show_usd(round(top["usd"] * 10**9))
    return f"Unusual spend in the last week: {spent} in the hour from {top['hour']:%d %b %H:%M}, {times}{more}."
