"""Charts of the ledger: each says its finding in its title, and draws only what DuckDB has already added up."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tokenkit._html import Table
from tokenkit.analysis import frames
from tokenkit.analysis.burning import burn_down
from tokenkit.analysis.drawings import (
    cache,
    compression,
    counts,
    escalations,
    failures,
    latency,
    lines,
    prompts,
    rounds,
)
from tokenkit.analysis.frames import Bucket, Group, Spend
from tokenkit.analysis.picture import Chart
from tokenkit.analysis.theme import colours
from tokenkit.money import NANOS_PER_USD, show_usd

if TYPE_CHECKING:
    from tokenkit.kit import Kit

__all__ = [
    "burn_down", "cache", "compression", "counts", "escalations", "failures", "latency", "prompts", "rounds", "spend",
]  # fmt: skip

WIDTH = 590  # pixels of the plot: with long figures beside it the whole still fits at 150 % zoom
LEAST_BUCKETS = 12  # the time axis is at least this many buckets wide, so that a single call is a bar and not a wall

_DID = {"user": "spent", "session": "spent", "provider": "was paid", "status": "calls took"}
_CLOCK = {
    "second": "%H:%M:%S",
    "10 seconds": "%H:%M:%S",
    "day": "%-d %b",
    "week": "%-d %b",
    "month": "%b %Y",
    "year": "%Y",
}


def spend(kit: Kit, by: str = "model", since: str | date | datetime | None = None) -> Chart:
    """Draw what calls cost over time and by ``by``: model, provider, user, session, endpoint, status, day or month.

    ``since`` is what ``kit.ledger.spend`` takes: ``"today"``, ``"7d"``, a date. Where nothing has cost anything yet,
    calls are drawn instead. Raises UserError for an unknown ``by`` or ``since``.
    """
    found = frames.spend(kit.ledger, by, since)
    table = _table(found, since)
    if not found.groups:
        return Chart(_nothing(table.title), table)
    money = bool(found.nanos)
    parts = [_over_time(found, money)]
    if len(found.groups) > 1 or by not in ("day", "month"):
        parts.append(_by_group(found, money))
    import altair as alt  # late: importing tokenkit must not import it

    heading = alt.TitleParams(lines(table.title), subtitle=_subtitle(found, since))
    chart = alt.vconcat(*parts, spacing=22).resolve_scale(color="independent").properties(title=heading)
    return Chart(chart, table)


def _over_time(found: Spend, money: bool) -> Any:
    import altair as alt  # as in spend

    low, high = _span(found)
    clock = _CLOCK.get(found.step, "%H:%M" if high.date() == low.date() else "%-d %b %H:%M")
    x = alt.X(
        "start:T",
        scale=alt.Scale(domain=[_instant(low), _instant(high)], nice=False),
        axis=alt.Axis(format=clock, labelOverlap=True, tickCount=6),
    )
    y = alt.Y("bottom:Q", axis=alt.Axis(format=_format(found, money), tickCount=4))
    tooltip = [
        alt.Tooltip("name:N", title=found.by),
        alt.Tooltip("start:T", title="from", format="%Y-%m-%d %H:%M:%S"),
        alt.Tooltip("cost:N", title="cost"),
        alt.Tooltip("calls:Q", title="calls", format=","),
    ]
    return (
        alt.Chart(alt.Data(values=_stacked(found, money)), width=WIDTH, height=170)
        .mark_rect()
        .encode(x=x, x2="end:T", y=y, y2="top:Q", color=_colour(found), tooltip=tooltip)
    )


def _stacked(found: Spend, money: bool) -> list[dict[str, Any]]:
    """Return the bars over time, each on top of the dearer groups' bars of its bucket, with a gap after it."""
    names = {group.place: group.label for group in found.groups}
    heights: dict[datetime, float] = {}
    bars = []
    for bucket in found.buckets:
        bottom = heights.get(bucket.start, 0.0)
        top = bottom + (bucket.nanos / NANOS_PER_USD if money else bucket.calls)
        heights[bucket.start] = top
        end = bucket.start + (bucket.end - bucket.start) * 0.92
        bars.append({
            "name": names[bucket.place], "start": bucket.start.isoformat(), "end": end.isoformat(), "bottom": bottom,
            "top": top, "cost": show_usd(bucket.nanos), "calls": bucket.calls,
        })  # fmt: skip
    return bars


def _by_group(found: Spend, money: bool) -> Any:
    """One row a group: its name and figures in words, and beneath them a bar as long as its share.

    The words are axis labels, because only those take the renderer's own ink, be its paper light or dark.
    """
    import altair as alt  # as in spend

    values = [
        {
            "name": group.label,
            "place": i,
            "value": (group.nanos or 0) / NANOS_PER_USD if money else group.calls,
            "figures": _figures(group, found),
        }
        for i, group in enumerate(found.groups)
    ]
    order = [group.label for group in found.groups]
    words = {"labelPadding": 0, "labelOffset": -7, "labelLimit": 0, "labelFontSize": 12, "grid": False}
    base = alt.Chart(alt.Data(values=values), width=WIDTH, height=36 * len(order)).encode(
        x=alt.X("value:Q", axis=None, scale=alt.Scale(nice=False, zero=True))
    )
    bars = base.mark_bar(height=9, yOffset=9).encode(
        y=alt.Y("name:N", sort=order, axis=alt.Axis(labelAlign="left", **words)),
        color=_colour(found),
        tooltip=[alt.Tooltip("name:N", title=found.by), alt.Tooltip("figures:N", title="spent")],
    )
    # The expression holds figures of our making alone: names never become part of one.
    figures = json.dumps([row["figures"] for row in values], ensure_ascii=False)
    label = f"{figures}[datum.value]"
    unseen = base.mark_point(opacity=0, tooltip=None).encode(
        y=alt.Y("place:O", axis=alt.Axis(orient="right", labelAlign="right", labelExpr=label, **words))
    )
    return alt.layer(bars, unseen).resolve_scale(y="independent")


def _colour(found: Spend) -> Any:
    import altair as alt  # as in spend

    labels = [group.label for group in found.groups]
    several = labels[-1].endswith(" others") and len(labels) == frames.MOST_GROUPS
    return alt.Color("name:N", scale=alt.Scale(domain=labels, range=colours(len(labels), several)), legend=None)


def _nothing(title: str) -> Any:
    import altair as alt  # as in spend

    heading = alt.TitleParams(lines(title), subtitle="Ask something, with %%route or kit.call, and draw this again.")
    empty = alt.Chart(alt.Data(values=[{"x": 0}]), width=WIDTH, height=24)
    return empty.mark_rule(opacity=0.3).encode(y=alt.value(12)).properties(title=heading)


def _span(found: Spend) -> tuple[datetime, datetime]:
    """Return the ends of the time axis: all buckets, and at least so many that one bar does not fill it."""
    low, high = min(b.start for b in found.buckets), max(b.end for b in found.buckets)
    bucket = found.buckets[0].end - found.buckets[0].start
    missing = LEAST_BUCKETS - (high - low) / bucket
    pad: timedelta = bucket * math.ceil(missing / 2) if missing > 0 else timedelta(0)
    return low - pad, high + pad


def _instant(when: datetime) -> Any:
    import altair as alt  # as in spend

    return alt.DateTime(
        year=when.year, month=when.month, date=when.day, hours=when.hour, minutes=when.minute, seconds=when.second
    )


def _format(found: Spend, money: bool) -> str:
    """Return a d3 number format with just the decimals that the axis's steps need."""
    if not money:
        return ",d"
    stacks: dict[datetime, int] = {}
    for bucket in found.buckets:
        stacks[bucket.start] = stacks.get(bucket.start, 0) + bucket.nanos
    step = max(stacks.values()) / NANOS_PER_USD / 4
    places = max(0, -math.floor(math.log10(step))) if step > 0 else 2
    return f"$,.{max(2, places) if step < 1 else 0}f"


# What a chart says in words.


def _table(found: Spend, since: object) -> Table:
    parts: list[tuple[str, Group | Bucket]] = [(group.label, group) for group in found.groups]
    if found.by in ("day", "month"):
        parts = [(_when(found.by, bucket.start), bucket) for bucket in found.buckets]
    rows = tuple(
        (name, f"{part.calls:,}", f"{part.tokens:,}", show_usd(part.nanos), _share(part.nanos, found.nanos))
        for name, part in parts
    )
    columns = (found.by, "calls", "tokens", "cost", "share")
    return Table(_finding(found, since), columns, rows, frozenset({1, 2, 3, 4}))


def _finding(found: Spend, since: object) -> str:
    """Say what the picture shows, in one sentence."""
    if not found.groups:
        return "No calls yet" if since is None else f"No calls since {since}"
    calls = _counted(found.calls, "call")
    if found.nanos is None:
        return f"{calls}, none with a known price"
    if found.nanos == 0:
        return f"{calls}, all free" if not found.unpriced else f"{calls}, none that is known to have cost anything"
    total = show_usd(found.nanos)
    if found.by in ("day", "month"):
        dearest = max(found.buckets, key=lambda bucket: bucket.nanos)
        when = _when(found.by, dearest.start)
        share = _share(dearest.nanos, found.nanos)
        return (
            f"All of {total} was spent on {when}"
            if share == "100%"
            else f"The dearest {found.by}, {when}, made {share} of {total}"
        )
    top = found.groups[0]
    who = f"Calls with {top.label} made" if top.unnamed else f"{top.label} {_DID.get(found.by, 'made')}"
    share = _share(top.nanos, found.nanos)
    return f"{who} {'all' if share == '100%' else share} of {total}"


def _subtitle(found: Spend, since: object) -> str:
    assert found.first is not None and found.last is not None  # noqa: S101, PT018 - there are groups, so there are calls
    same = found.first.date() == found.last.date()
    days = f"on {_day(found.first)}" if same else f"from {_day(found.first)} to {_day(found.last)}"
    parts = [f"{_counted(found.calls, 'call')} and {_counted(found.tokens, 'token')} {days}, by {found.step}"]
    if found.unpriced and found.nanos is not None:
        parts.append(f"{_counted(found.unpriced, 'call')} of unknown cost left out")
    return "; ".join(parts)


def _figures(group: Group, found: Spend) -> str:
    parts = [show_usd(group.nanos) if group.nanos is not None else "cost unknown"]
    if found.nanos and group.nanos:
        parts.append(_share(group.nanos, found.nanos))
    return " · ".join([*parts, _counted(group.calls, "call"), _counted(group.tokens, "token")])


def _share(part: int | None, whole: int | None) -> str:
    if not whole or part is None:
        return ""
    if part == whole:
        return "100%"
    share = part / whole
    # Rounding must not say all of what is not all, nor nothing of what is something.
    return "over 99%" if share > 0.99 else "under 1%" if 0 < share < 0.01 else f"{share:.0%}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _when(by: str, start: datetime) -> str:
    return f"{start:%B %Y}" if by == "month" else _day(start)


def _day(when: datetime) -> str:
    return f"{when.day} {when:%B %Y}"
