"""The lab: a sweep's figures are those of the compressions themselves, and its chart says what it found."""

from __future__ import annotations

import pytest

import tokenkit as tk
from tokenkit.errors import UserError

TEXTS = ["The Danube flows through ten countries. It rained a lot. Ships reach Basel on the Rhine. " * 2, "Short text."]


def test_a_sweep_is_the_compressions_it_names() -> None:
    queries = ["Where do ships go?", None]
    swept = tk.lab.sweep(
        TEXTS, [["normalize"], ["normalize", "summarize"]], [0.6, 0.3], queries, evidence=[["Basel"], []]
    )
    frame = swept.df()
    assert len(frame) == 2 * 2 * 2
    with tk.Kit.simulated(pace=0) as kit:
        made = kit.compress(TEXTS[0], ["normalize", "summarize"], query=queries[0], target=0.3)
    row = frame[(frame["text"] == 0) & (frame["stages"] == "normalize, summarize") & (frame["target"] == 0.3)].iloc[0]
    assert (row["tokens_before"], row["tokens_after"]) == (made.before, made.after)
    assert row["evidence_kept"] == float("Basel" in made.text)
    assert row["saved_usd"] == pytest.approx(made.saved * 2.5e-6)
    chart = swept.chart()
    assert "saves" in chart.title or "No compression" in chart.title
    assert chart.png()[:4] == b"\x89PNG"
    assert "Sweep(8 compressions" in repr(swept)


def test_an_empty_sweep_and_mistakes_are_told() -> None:
    assert tk.lab.sweep([]).chart().title == "Nothing was compressed"
    with pytest.raises(UserError, match="queries must be as many"):
        tk.lab.sweep(TEXTS, queries=["one"])
    with pytest.raises(UserError, match="list of stage lists"):
        tk.lab.sweep(TEXTS, ["normalize"])
    with pytest.raises(UserError, match="no compression stage"):
        tk.lab.sweep(TEXTS, [["nothing"]])


def test_a_model_without_a_price_saves_an_unknown_amount() -> None:
    frame = tk.lab.sweep(TEXTS, [["normalize"]], [0.5], model="house/unheard-of").df()
    assert frame["saved_usd"].isna().all()
