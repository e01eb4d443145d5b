"""lab: many texts through many compressions, what each saved against what of the evidence it kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenkit.analysis.drawings import altair_late, chart_of, finished, nothing, tooltip
from tokenkit.analysis.picture import Chart
from tokenkit.analysis.theme import PALETTE
from tokenkit.compress import Aim, compress, recall
from tokenkit.compress.asked import asked
from tokenkit.errors import UserError
from tokenkit.pricing import PriceRule, resolve
from tokenkit.tokens import count_text

if TYPE_CHECKING:
    import pandas

DEFAULT = (("normalize", "dedupe"), ("summarize",), ("normalize", "dedupe", "hyperbolic"))


@dataclass(frozen=True)
class Sweep:
    """What every compression did to every text: ``df()`` has a row for each, ``chart()`` draws saved against kept."""

    rows: pandas.DataFrame

    def df(self) -> pandas.DataFrame:
        """Return one row a text, stage list and target; tokens, shares, seconds, USD saved at the model's price."""
        return self.rows

    def chart(self) -> Chart:
        """Draw tokens saved against evidence kept, a line for each list of stages, a point for each target."""
        given = "evidence_kept" in self.rows
        column, what = ("evidence_kept", "evidence") if given else ("recall", "words that matter")
        if self.rows.empty:
            return nothing("Nothing was compressed", self.rows)
        totals = (
            self.rows.groupby(["stages", "target"], as_index=False)
            .agg(
                before=("tokens_before", "sum"),
                after=("tokens_after", "sum"),
                kept=(column, "mean"),
                seconds=("seconds", "sum"),
            )
            .dropna(subset=["kept"])
        )
        if totals.empty:
            return nothing("No text came with evidence, so there is nothing to compare", self.rows)
        totals["saved"] = (totals["before"] - totals["after"]) / totals["before"].clip(lower=1)
        title = _finding(totals, what)
        alt = altair_late()
        base = chart_of(totals, ["stages"]).encode(
            x=alt.X("saved:Q", axis=alt.Axis(title="tokens saved", format="%", tickCount=6)),
            y=alt.Y(
                "kept:Q", axis=alt.Axis(title=f"{what} kept", format="%", tickCount=5), scale=alt.Scale(zero=False)
            ),
            color=alt.Color("stages:N", scale=alt.Scale(range=list(PALETTE))),
        )
        drawn = alt.layer(base.mark_line(), base.mark_circle(size=70, opacity=1).encode(tooltip=tooltip(totals)))
        return finished(drawn, title, totals, height=260)

    def __repr__(self) -> str:
        return f"Sweep({len(self.rows)} compressions; {self.chart().title})"


def _finding(totals: pandas.DataFrame, what: str) -> str:
    """Return the most that was saved while 95 % of what matters was kept, in words."""
    best = totals[(totals["kept"] >= 0.95) & (totals["saved"] > 0)]
    if best.empty:
        return f"No compression here saved tokens and kept 95 % of the {what}"
    top = best.loc[best["saved"].idxmax()]
    return f"{top['stages']} saves {top['saved']:.0%} of the tokens and keeps {top['kept']:.0%} of the {what}"


def sweep(
    texts: Sequence[str],
    stages: Sequence[str | Sequence[Any]] = DEFAULT,
    targets: Sequence[float] = (0.7, 0.5, 0.35, 0.2),
    queries: Sequence[str | None] | None = None,
    *,
    evidence: Sequence[Sequence[str]] | None = None,
    model: str = "gpt-4o",
    price: PriceRule | None = None,
) -> Sweep:
    """Compress every text with every list of stages to every target; nothing is sent.

    A list of stages may also be written as one text: ``"normalize, summarize"``.

    ``queries`` and ``evidence`` (for each text the passages that matter) run beside ``texts``; without evidence, recall
    by words stands for it, and a text with no passages has none to keep. ``seconds`` are those of the compression
    alone. ``price`` is what a token costs, by default ``model``'s published price. Raises UserError.
    """
    import pandas  # heavy: only where a frame is made

    texts, targets = _texts(texts), _targets(targets)
    for name, beside in (("queries", queries), ("evidence", evidence)):
        if isinstance(beside, str) or (beside is not None and len(beside) != len(texts)):
            raise UserError(f"{name} must be a list, one for each of the {len(texts)} texts, not {len(beside)}.")
    if evidence is not None and any(isinstance(passages, str) for passages in evidence):
        raise UserError("evidence is for each text a list of passages, such as [['Ships reach Basel.'], []].")
    if any(query is not None and not isinstance(query, str) for query in queries or ()):
        raise UserError("queries must be a list of texts; None stands for a text that nothing is asked of.")
    if isinstance(stages, str) or not isinstance(stages, Iterable):
        raise UserError("stages is a list of stage lists, such as ['summarize', 'normalize, summarize'].")
    lists = [asked(one) for one in stages]
    provider, _, name = model.rpartition("/")
    rule = price or resolve(provider or "openai", name)
    rows = []
    for place, text in enumerate(texts):
        query = queries[place] if queries is not None else None
        for steps in (one.stages for one in lists if one is not None):
            for target in targets:
                aim = Aim(target=target, query=query, model=model, count=lambda t: count_text(t, model).tokens)
                began = time.perf_counter()
                made = compress(text, steps, aim)
                seconds = time.perf_counter() - began
                row: dict[str, Any] = {
                    "text": place, "stages": ", ".join(map(_named, steps)), "target": target,
                    "tokens_before": made.before, "tokens_after": made.after, "kept": made.ratio,
                    "recall": recall(text, made.text, query), "seconds": seconds,
                    "saved_usd": None if rule is None else made.saved * rule.receipt(made.before).input / 1e15,
                }  # fmt: skip
                if evidence is not None:
                    wanted = [passage for passage in evidence[place] if passage.strip()]
                    row["evidence_kept"] = sum(p in made.text for p in wanted) / len(wanted) if wanted else None
                rows.append(row)
    return Sweep(pandas.DataFrame(rows))


def _texts(texts: Any) -> list[str]:
    if isinstance(texts, str):
        raise UserError("texts is a list of texts: put a lone text into brackets, as in sweep([text]).")
    listed = list(texts) if isinstance(texts, Iterable) else [texts]
    for text in listed:
        if not isinstance(text, str):
            raise UserError(f"texts is a list of texts, and {text!r} is none.")
    return listed


def _targets(targets: Any) -> list[float]:
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise UserError(f"targets is a list of shares to keep, such as [0.5, 0.2], not {targets!r}.")
    return list(targets)


def _named(stage: Any) -> str:
    return stage if isinstance(stage, str) else str(getattr(stage, "name", getattr(stage, "__name__", stage)))
