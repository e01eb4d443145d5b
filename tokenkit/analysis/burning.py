"""A budget over its period: what was spent call by call, where its limit lies, and where this pace leads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tokenkit.analysis.drawings import altair_late, chart_of, dollars, finished, label
from tokenkit.analysis.picture import Chart
from tokenkit.analysis.theme import PALETTE
from tokenkit.errors import UserError
from tokenkit.standing import Standing

if TYPE_CHECKING:
    import pandas

STEPS = 240
"""Points of the line at most: more would fall on the same pixels."""

EARLY = 0.02
"""The share of its period before which a budget's pace says nothing yet."""

_CHARGED = """
SELECT (c.started_at_ns - ?) // ? AS step, sum(h.charged)::DOUBLE / 1e9 AS usd
FROM charges h JOIN calls c USING (seq)
WHERE h.account = ? AND h.period = ? AND h.unit = 'usd' AND c.started_at_ns <= ? GROUP BY step ORDER BY step"""


def burn_down(source: Any, standing: Standing | None = None, *, now: datetime | None = None) -> Chart:
    """Draw a budget in USD over its period: what was spent so far, its limit, and where it leads at this pace.

    ``standing`` is one of ``kit.budgets.status()``; by default the first in USD whose period has an end. The forecast
    goes on as fast as it went since the period began. Raises UserError where there is no such budget.
    """
    if standing is None:
        known = source.budgets.status() if hasattr(source, "budgets") else ()
        standing = next((one for one in known if one.budget.unit == "usd" and one.period.end is not None), None)
    if (
        standing is None
        or standing.period.start is None
        or standing.period.end is None
        or standing.budget.unit != "usd"
    ):
        raise UserError("There is no budget in USD with a period to draw: set one by hour, day or month.")
    start, end = standing.period.start, standing.period.end
    moment = min(max(round((now or datetime.now(UTC)).timestamp() * 1e9), start), end)
    passed = (moment - start) / (end - start)
    spent = standing.spent / 10**9
    forecast = spent / passed if passed >= EARLY or (passed > 0 and not spent) else None
    frame = _frame(source, standing, moment, forecast)
    return finished(_drawn(frame, standing), _title(standing, forecast), frame, height=220)


def _frame(source: Any, standing: Standing, moment: int, forecast: float | None) -> pandas.DataFrame:
    """Return cumulative USD at each step of the period, in the budget's own time; the forecast is the last row."""
    import pandas  # heavy: only where a frame is made

    start, end = standing.period.start or 0, standing.period.end or 0
    width = max((end - start) // STEPS, 1)
    values = [start, width, standing.account, standing.period.name, moment]
    rows = source.ledger.sql(_CHARGED, values)
    points = [(start, 0.0)]
    for step, usd in rows.itertuples(index=False):
        points.append((min(start + (int(step) + 1) * width, moment), points[-1][1] + float(usd)))
    points.append((moment, standing.spent / 10**9))  # the books know more than this ledger: other machines, lost calls
    made = [(at, usd, "spent") for at, usd in points]
    if forecast is not None:
        made.append((end, forecast, "forecast"))
    zone = ZoneInfo(standing.budget.timezone)
    times = [datetime.fromtimestamp(at / 10**9, zone).replace(tzinfo=None).isoformat() for at, _, _ in made]
    return pandas.DataFrame({"at": times, "usd": [usd for _, usd, _ in made], "what": [what for _, _, what in made]})


def _drawn(frame: pandas.DataFrame, standing: Standing) -> Any:
    import pandas  # as in _frame

    alt = altair_late()
    zone, limit = ZoneInfo(standing.budget.timezone), standing.budget.amount / 10**9
    ends = [
        datetime.fromtimestamp((at or 0) / 10**9, zone).replace(tzinfo=None)
        for at in (standing.period.start, standing.period.end)
    ]
    clock = "%H:%M" if (ends[1] - ends[0]).days < 2 else "%-d %b"
    domain = [
        alt.DateTime(year=t.year, month=t.month, date=t.day, hours=t.hour, minutes=t.minute, seconds=t.second)
        for t in ends
    ]
    x = alt.X(
        "at:T",
        scale=alt.Scale(domain=domain, nice=False),
        axis=alt.Axis(tickCount=6, format=clock, title=f"time, {standing.budget.timezone}", grid=False),
    )
    y = alt.Y("usd:Q", axis=alt.Axis(title="USD", format="$,~r", tickCount=5), scale=alt.Scale(zero=True))
    spent, ahead = frame[frame["what"] == "spent"], frame.tail(2 if (frame["what"] == "forecast").any() else 0)
    words = [(ends[1].isoformat(), limit, f"limit {dollars(limit)}")]
    if len(ahead) and abs(ahead["usd"].iloc[-1] - limit) > 0.12 * limit:  # else the two would stand on each other
        words.append((ends[1].isoformat(), ahead["usd"].iloc[-1], f"at this pace {dollars(ahead['usd'].iloc[-1])}"))
    said = pandas.DataFrame(words, columns=["at", "usd", "text"])
    layers = [
        chart_of(pandas.DataFrame({"usd": [limit]}), []).mark_rule(color=PALETTE[1], strokeWidth=2).encode(y=y),
        chart_of(spent, []).mark_line(color=PALETTE[0], strokeWidth=3, interpolate="step-after").encode(x=x, y=y),
        chart_of(spent.tail(1), []).mark_circle(color=PALETTE[0], size=70, opacity=1).encode(x=x, y=y),
        chart_of(said, []).mark_text(align="right", dy=-9).encode(x=x, y=y, text="text:N"),
    ]
    if len(ahead):
        dashed = chart_of(ahead, []).mark_line(color=PALETTE[0], strokeWidth=2, strokeDash=[6, 4])
        layers.insert(1, dashed.encode(x=x, y=y))
    return alt.layer(*layers)


def _title(standing: Standing, forecast: float | None) -> str:
    start, end = standing.period.start or 0, standing.period.end or 0
    limit, spent = standing.budget.amount / 10**9, standing.spent / 10**9
    who = label(standing.account)
    if spent >= limit:
        return f"{who}: all of {dollars(limit)} is spent"
    if forecast is None:
        return f"{who}: {dollars(spent)} of {dollars(limit)} is spent, too early to say where it leads"
    if forecast <= limit:
        return f"{who}: at this pace {dollars(forecast)} of {dollars(limit)} will be spent"
    out = datetime.fromtimestamp((start + (end - start) * limit / forecast) / 10**9, ZoneInfo(standing.budget.timezone))
    return f"{who}: at this pace {dollars(limit)} is spent by {out:%Y-%m-%d %H:%M} {standing.budget.timezone}"
