"""What a chart needs, asked of the ledger and aggregated there: a few dozen rows, however many calls there were."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from tokenkit._html import visible
from tokenkit.analysis.answers import (
    cache,
    compression,
    counts,
    daily,
    escalations,
    failures,
    latency,
    prompts,
    rounds,
)
from tokenkit.errors import UserError, did_you_mean
from tokenkit.ledger.book import BY, Ledger, since_clause
from tokenkit.money import Nanos

__all__ = [
    "Bucket", "Group", "Spend", "cache", "compression", "counts", "daily", "escalations", "failures", "latency",
    "prompts", "rounds", "spend",
]  # fmt: skip

MOST_GROUPS = 8
LONGEST_LABEL = 36

# A bucket's length and how DuckDB finds its start, in local time where a day or more is meant. The first that makes at
# most MOST_BUCKETS of the span is taken.
MOST_BUCKETS = 48
STEPS: tuple[tuple[timedelta, str, str], ...] = (
    (timedelta(seconds=1), "second", "date_trunc('second', started_at)"),
    (timedelta(seconds=10), "10 seconds", "time_bucket(INTERVAL '10 seconds', started_at)"),
    (timedelta(minutes=1), "minute", "date_trunc('minute', started_at)"),
    (timedelta(minutes=5), "5 minutes", "time_bucket(INTERVAL '5 minutes', started_at)"),
    (timedelta(minutes=15), "15 minutes", "time_bucket(INTERVAL '15 minutes', started_at)"),
    (timedelta(hours=1), "hour", "date_trunc('hour', started_at)"),
    (timedelta(days=1), "day", "date_trunc('day', started_at)"),
    (timedelta(days=7), "week", "date_trunc('week', started_at)"),
    (timedelta(days=30), "month", "date_trunc('month', started_at)"),
    (timedelta(days=365), "year", "date_trunc('year', started_at)"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that share a name (or have none): their number, tokens, cost in nano-USD, and how many have no known cost.

    ``nanos`` is ``None`` when no cost is known at all.
    """

    place: int
    label: str
    calls: int
    tokens: int
    nanos: Nanos | None
    unpriced: int
    unnamed: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """One group's calls in one stretch of time: ``start`` and ``end`` are local, cost is nano-USD."""

    place: int
    start: datetime
    end: datetime
    calls: int
    tokens: int
    nanos: Nanos


@dataclass(frozen=True, slots=True)
class Spend:
    """Spend by group, dearest first, and by group over time in buckets of one ``step`` (its name for people)."""

    by: str
    groups: tuple[Group, ...]
    buckets: tuple[Bucket, ...]
    step: str
    first: datetime | None
    last: datetime | None

    @property
    def calls(self) -> int:
        """Calls in all."""
        return sum(group.calls for group in self.groups)

    @property
    def tokens(self) -> int:
        """Tokens in all, in and out, as far as they are known."""
        return sum(group.tokens for group in self.groups)

    @property
    def unpriced(self) -> int:
        """Calls whose cost is unknown, and which ``nanos`` therefore leaves out."""
        return sum(group.unpriced for group in self.groups)

    @property
    def nanos(self) -> Nanos | None:
        """Cost in all, in nano-USD; ``None`` when no call has a known cost."""
        known = [group.nanos for group in self.groups if group.nanos is not None]
        return sum(known) if known else None


def spend(ledger: Ledger, by: str = "model", since: str | date | datetime | None = None) -> Spend:
    """Return spend by ``by`` (what ``ledger.spend`` takes) since then; groups beyond the eighth are put together.

    Raises UserError for an unknown ``by`` or ``since``.
    """
    if by not in BY:
        raise UserError(f"Spend cannot be grouped by {by!r}. {did_you_mean(by, sorted(BY))}")
    condition, parameters = since_clause(since)
    key = "'all calls'" if by in ("day", "month") else BY[by]
    ranked = _RANKED.format(key=key, condition=condition)
    groups = ledger.sql(ranked + _GROUPS, parameters).to_dict("records")
    if not groups:
        return Spend(by, (), (), "day", None, None)
    first = min(datetime.fromisoformat(row["first"]) for row in groups)
    last = max(datetime.fromisoformat(row["last"]) for row in groups)
    step, start = _step(by, last - first)
    query = ranked + _BUCKETS.format(start=start, length=_interval(step))
    rows = ledger.sql(query, parameters).to_dict("records")
    return Spend(by, _groups(groups, by), tuple(_bucket(row) for row in rows), step, first, last)


_RANKED = """
WITH chosen AS (SELECT {key} AS who, * FROM calls {condition}),
ranked AS (
  SELECT who, row_number() OVER (ORDER BY sum(cost_nanos) DESC NULLS LAST, count(*) DESC, who) AS place
  FROM chosen GROUP BY who
),
placed AS (
  SELECT chosen.*, least(place, {most}) AS place FROM chosen JOIN ranked ON chosen.who IS NOT DISTINCT FROM ranked.who
)
""".replace("{most}", str(MOST_GROUPS))

_GROUPS = """
SELECT place, any_value(who)::VARCHAR AS who, count(DISTINCT coalesce(who::VARCHAR, '')) AS names, count(*) AS calls,
       coalesce(sum(total_tokens), 0)::BIGINT AS tokens, sum(cost_nanos)::BIGINT AS nanos, count(cost_nanos) AS priced,
       strftime(min(started_at), '%Y-%m-%dT%H:%M:%S') AS first, strftime(max(started_at), '%Y-%m-%dT%H:%M:%S') AS last
FROM placed GROUP BY place ORDER BY place
"""

# Local wall-clock times without a zone: Vega reads them as local time in every renderer, so pictures agree with df().
_BUCKETS = """
SELECT place, strftime({start}, '%Y-%m-%dT%H:%M:%S') AS start,
       strftime({start} + INTERVAL '{length}', '%Y-%m-%dT%H:%M:%S') AS end,
       count(*) AS calls, coalesce(sum(total_tokens), 0)::BIGINT AS tokens,
       coalesce(sum(cost_nanos), 0)::BIGINT AS nanos
FROM placed GROUP BY ALL ORDER BY start, place
"""


def _step(by: str, span: timedelta) -> tuple[str, str]:
    """Return the name and the start of a bucket that suits the span."""
    if by in ("day", "month"):
        return next((name, start) for _, name, start in STEPS if name == by)
    return next(((name, start) for length, name, start in STEPS if span / length <= MOST_BUCKETS), STEPS[-1][1:])


def _interval(step: str) -> str:
    return step if step[0].isdigit() else f"1 {step}"


def _bucket(row: dict[str, Any]) -> Bucket:
    start, end = datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"])
    return Bucket(int(row["place"]), start, end, int(row["calls"]), int(row["tokens"]), int(row["nanos"]))


def _groups(rows: list[dict[str, Any]], by: str) -> tuple[Group, ...]:
    taken: set[str] = set()
    groups = []
    for row in rows:
        priced, calls = int(row["priced"]), int(row["calls"])
        several = int(row["names"]) > 1
        unnamed = not several and not (isinstance(row["who"], str) and row["who"])
        label = f"{int(row['names'])} others" if several else _label(row["who"], by)
        while label in taken:
            label += "′"  # two names that differ only where they are cut stay two rows
        taken.add(label)
        nanos = int(row["nanos"]) if priced else None
        groups.append(Group(int(row["place"]), label, calls, int(row["tokens"]), nanos, calls - priced, unnamed))
    return tuple(groups)


def _label(name: Any, by: str) -> str:
    """Return a name fit to be drawn: nothing invisible in it, and the middle left out where it is too long."""
    if not isinstance(name, str) or not name:
        return f"no {by.removesuffix('_name')}"
    shown = visible(" ".join(name[:1000].split()))
    half = LONGEST_LABEL // 2
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: half - 1]}…{shown[-half:]}"
