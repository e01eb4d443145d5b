"""The other charts: each one question, one picture, and a title that is the answer in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenkit._html import visible
from tokenkit.analysis import answers
from tokenkit.analysis.picture import Chart
from tokenkit.analysis.tables import table
from tokenkit.analysis.theme import OTHERS, PALETTE
from tokenkit.money import show_usd

if TYPE_CHECKING:
    import pandas

WIDTH = 640  # pixels with all labels, so that at 150 % zoom nothing is cut
LABEL = 44
LINE = 64  # characters of a title that fit into it


def latency(source: Any, since: Any = None) -> Chart:
    """Draw cost against latency: a point a model, its median seconds and mean USD a call, as large as it was used."""
    frame = answers.latency(source, since)
    known = frame.dropna(subset=["p50_seconds", "mean_usd"])
    if known.empty:
        return nothing("No successful calls with a known cost yet", frame)
    fast, cheap = known.loc[known["p50_seconds"].idxmin()], known.loc[known["mean_usd"].idxmin()]
    if fast["model"] == cheap["model"]:
        each = f"{fast['p50_seconds']:.2g} s, {dollars(fast['mean_usd'])} a call"
        title = f"{label(fast['model'])} is the fastest and the cheapest: {each}"
    else:
        title = (
            f"{label(fast['model'])} is the fastest ({fast['p50_seconds']:.2g} s), "
            f"{label(cheap['model'])} the cheapest ({dollars(cheap['mean_usd'])} a call)"
        )
    alt = altair_late()
    # Names stand above their points, and to the left of those far right, so that no axis or border cuts them.
    right = known["p50_seconds"] > 0.7 * known["p50_seconds"].max()
    base = chart_of(known.assign(right=right), ["model"]).encode(
        x=alt.X(
            "p50_seconds:Q",
            scale=alt.Scale(domainMin=0, nice=True),
            axis=alt.Axis(title="median seconds until the whole answer", tickCount=5),
        ),
        y=alt.Y("mean_usd:Q", axis=alt.Axis(title="mean USD a call", tickCount=5, format="$,~r")),
    )
    points = base.mark_circle(opacity=0.85, color=PALETTE[0]).encode(
        size=alt.Size("tries:Q", legend=None, scale=alt.Scale(range=[80, 500])), tooltip=tooltip(known)
    )
    sides = [("left", 8, "!datum.right"), ("right", -8, "datum.right")]
    words = [
        base.transform_filter(which).mark_text(align=side, dx=dx, dy=-13).encode(text="model:N")
        for side, dx, which in sides
    ]
    return finished(alt.layer(points, *words), title, frame, height=260)


def compression(source: Any, since: Any = None) -> Chart:
    """Draw how compression ratios are spread, stage by stage: runs by the share of tokens they kept."""
    frame = answers.compression(source, since)
    if frame.empty:
        return nothing("Nothing was compressed yet", frame)
    saved = frame.groupby("stage")["saved_tokens"].sum().sort_values(ascending=False)
    title = (
        f"{label(saved.index[0])} saved the most: {int(saved.iloc[0]):,} tokens in {_runs(frame, saved.index[0])} runs"
    )
    alt = altair_late()
    drawn = (
        chart_of(frame.assign(kept_to=frame["kept_from"] + 0.05), ["stage"])
        .mark_rect(color=PALETTE[0])  # a bar with two ends in x would lie flat
        .encode(
            x=alt.X(
                "kept_from:Q",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(title="share of tokens kept", format="%", tickCount=10),
            ),
            x2="kept_to:Q",
            y=alt.Y("runs:Q", axis=alt.Axis(title="runs", tickCount=3)),
            y2=alt.Y2Datum(0),
            row=alt.Row(
                "stage:N",
                sort=list(saved.index),
                header=alt.Header(title=None, labelAngle=0, labelAlign="left", labelLimit=110),
            ),
            tooltip=tooltip(frame),
        )
    )
    return finished(drawn, title, frame, height=70, width=WIDTH - 170)


def cache(source: Any, since: Any = None) -> Chart:
    """Draw what providers' prompt caches saved, by model, in USD."""
    frame = answers.cache(source, since)
    if frame.empty:
        return nothing("No prompt was read from a provider's cache yet", frame)
    saved = frame["saved_usd"].dropna().sum()
    share = frame["read_tokens"].sum() / max(frame["input_tokens"].sum(), 1)
    what = (
        f"Caches saved {dollars(saved)}"
        if saved
        else f"Caches were read for {int(frame['read_tokens'].sum()):,} tokens"
    )
    title = f"{what}: {share:.0%} of these calls' input came from them"
    column = "saved_usd" if saved else "read_tokens"
    ordered = frame.sort_values(column, ascending=False, na_position="last", kind="stable")
    return _bars(ordered, "model", column, title, "USD saved" if saved else "tokens read", table_of=frame)


def counts(source: Any, since: Any = None) -> Chart:
    """Draw our count of prompts against the billed one, by model: median, and the range of nine in ten."""
    frame = answers.counts(source, since)
    if frame.empty:
        return nothing("No provider has reported what it counted yet", frame)
    worst = frame.loc[(frame["middle"] - 1).abs().idxmax()]
    off = worst["middle"] - 1
    spread = float(max((frame["high"] - 1).abs().max(), (frame["low"] - 1).abs().max()))
    if spread < 0.0005:
        title = "Counts are what was billed, in nine of ten calls to the token"
    elif abs(off) < 0.005:
        title = f"Counts are right in the middle; nine in ten are off by {spread:.1%} at most"
    else:
        title = (
            f"Counts for {label(worst['model'])} are {abs(off):.1%} {'above' if off > 0 else 'below'} what was billed"
        )
    alt = altair_late()
    x = alt.Axis(title="counted as a share of billed: median, and nine in ten calls", format=".4~p", tickCount=5)
    base = chart_of(frame, ["model"]).encode(y=alt.Y("model:N", sort="-x", axis=alt.Axis(labelLimit=260)))
    lines = base.mark_rule(color=OTHERS, strokeWidth=3).encode(
        x=alt.X("low:Q", axis=x, scale=alt.Scale(zero=False)), x2="high:Q"
    )
    points = base.mark_circle(size=90, color=PALETTE[0], opacity=1).encode(x="middle:Q", tooltip=tooltip(frame))
    return finished(alt.layer(lines, points), title, frame, height=34 * len(frame) + 10)


def escalations(source: Any, since: Any = None) -> Chart:
    """Draw the paths of calls that needed more than one try."""
    frame = answers.escalations(source, since)
    if frame.empty:
        return nothing("Every call needed a single try", frame)
    calls, answered = int(frame["calls"].sum()), int(frame["answered"].sum())
    title = f"{calls:,} calls needed another try, and {answered / calls:.0%} of them were answered"
    return _bars(frame, "path", "calls", title, "calls")


def failures(source: Any, since: Any = None) -> Chart:
    """Draw failed tries by model and kind of error."""
    frame = answers.failures(source, since)
    if frame.empty:
        return nothing("No try has failed", frame)
    top = frame.iloc[0]
    how = f"{int(top['tries']):,} times with {label(top['error_type'])} ({top['share']:.1%} of its tries)"
    title = f"{label(top['model'])} failed most: {how}"
    shown = frame.assign(what=[f"{m}: {e}" for m, e in zip(frame["model"], frame["error_type"], strict=True)])
    return _bars(shown, "what", "tries", title, "failed tries", table_of=frame)


def prompts(source: Any, since: Any = None, *, top: int = 15) -> Chart:
    """Draw the prompts that cost the most, equal ones together."""
    frame = answers.prompts(source, since, top=top)
    if frame.empty:
        return nothing("No prompt has cost anything yet", frame)
    first = frame.iloc[0]
    calls = "one call" if first["calls"] == 1 else f"{int(first['calls']):,} calls"
    title = f"The dearest prompt cost {dollars(first['usd'])} in {calls}"
    return _bars(frame, "prompt", "usd", title, "USD")


def rounds(source: Any, since: Any = None) -> Chart:
    """Draw the cost of adversarial runs by phase, the latest runs on top."""
    frame = answers.rounds(source, since)
    if frame.empty:
        return nothing("No models have argued yet", frame)
    critique = dollars(frame.loc[frame["phase"] == "critique", "usd"].sum())
    title = f"Arguments cost {dollars(frame['usd'].sum())} so far, {critique} of it for critique"
    alt = altair_late()
    runs = list(dict.fromkeys(frame["run"]))[:12]
    kept = frame[frame["run"].isin(runs)].assign(run=[str(run)[-8:] for run in frame["run"] if run in runs])
    drawn = (
        chart_of(kept.drop(columns="started_at"), ["run", "phase"])
        .mark_bar()
        .encode(
            x=alt.X("sum(usd):Q", axis=alt.Axis(title="USD a run", format="$,~r", tickCount=5)),
            y=alt.Y("run:N", sort=None, axis=alt.Axis(title="run")),
            color=alt.Color("phase:N", scale=alt.Scale(domain=["plan", "critique", "refine"], range=list(PALETTE[:3]))),
            order=alt.Order("round:Q"),
        )
    )
    return finished(drawn, title, frame, height=28 * len(runs) + 20)


# What they share.


def _bars(
    frame: pandas.DataFrame, name: str, value: str, title: str, unit: str, table_of: pandas.DataFrame | None = None
) -> Chart:
    alt = altair_late()
    shown = frame.head(15)
    drawn = (
        chart_of(shown, [name])
        .mark_bar(color=PALETTE[0], height=14)
        .encode(
            x=alt.X(f"{value}:Q", axis=alt.Axis(title=unit, tickCount=5, format="$,~r" if "USD" in unit else ",~r")),
            y=alt.Y(f"{name}:N", sort=None, axis=alt.Axis(labelLimit=280)),
            tooltip=tooltip(shown),
        )
    )
    return finished(drawn, title, frame if table_of is None else table_of, height=26 * len(shown) + 10)


def chart_of(frame: pandas.DataFrame, names: Sequence[str]) -> Any:
    """Return a chart of a frame's rows, its names made safe and short: they are drawn as text."""
    alt = altair_late()
    rows = frame.to_dict("records")
    for row in rows:
        for key, value in row.items():
            if key in names:
                row[key] = label(value)
            elif hasattr(value, "isoformat"):
                row[key] = value.isoformat()
            elif value != value:  # not a number is no JSON
                row[key] = None
    return alt.Chart(alt.Data(values=rows))


def tooltip(frame: pandas.DataFrame) -> list[Any]:
    """Return a tooltip that shows a row's every column."""
    alt = altair_late()
    return [
        alt.Tooltip(f"{name}:{'Q' if frame[name].dtype.kind in 'iuf' else 'N'}", title=name.replace("_", " "))
        for name in frame.columns
    ]


def finished(drawn: Any, title: str, frame: pandas.DataFrame, *, height: int, width: int | None = None) -> Chart:
    """Return the chart under its title, with the frame as its figures; it is fitted into WIDTH with its labels.

    ``width`` is that of the plot alone where a chart of several rows cannot be fitted.
    """
    alt = altair_late()
    made = drawn.properties(width=width or WIDTH, height=height, title=alt.TitleParams(lines(title)))
    if width is None:
        made = made.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    return Chart(made, table(title, frame))


def lines(title: str, room: int = LINE) -> str | list[str]:
    """Return a title as the lines it takes: one that runs out of its chart is cut by whatever stands beside."""
    made = textwrap.wrap(title, room, break_on_hyphens=False) or [""]
    # As even as they can be: no word stands alone on the last line.
    for narrower in range(room - 1, 20, -1):
        tried = textwrap.wrap(title, narrower, break_on_hyphens=False)
        if len(tried) > len(made):
            break
        made = tried
    return made[0] if len(made) == 1 else made


def nothing(title: str, frame: pandas.DataFrame) -> Chart:
    """Return what stands where there is nothing to draw: the sentence that says so."""
    alt = altair_late()
    empty = alt.Chart(alt.Data(values=[{"x": 0}]), width=WIDTH, height=24)
    drawn = empty.mark_rule(opacity=0.3).encode(y=alt.value(12)).properties(title=alt.TitleParams(lines(title)))
    return Chart(drawn, table(title, frame))


def altair_late() -> Any:
    """Return altair, imported when something is drawn: importing tokenkit must not import it."""
    import altair

    return altair


def label(value: object) -> str:
    """Return a name as charts show it: on one line, nothing invisible in it, cut where it is long."""
    return visible(" ".join(str(value).split()), LABEL)


def dollars(value: float) -> str:
    """Return USD in words."""
    return show_usd(round(float(value) * 10**9))


def _runs(frame: pandas.DataFrame, stage: str) -> str:
    return f"{int(frame.loc[frame['stage'] == stage, 'runs'].sum()):,}"
