"""The lab: a sweep's figures are those of the compressions themselves, and its chart says what it found."""

from __future__ import annotations

from typing import Any

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
    with pytest.raises(UserError, match="queries must be a list, one for each of the 2"):
        tk.lab.sweep(TEXTS, queries=["one"])
    with pytest.raises(UserError, match="list of stage lists"):
        tk.lab.sweep(TEXTS, "normalize")
    with pytest.raises(UserError, match="no compression stage"):
        tk.lab.sweep(TEXTS, [["nothing"]])


def test_a_list_of_stages_may_be_written_as_one_text() -> None:
    named = tk.lab.sweep(TEXTS, ["normalize", "normalize, summarize"], [0.5]).df()
    listed = tk.lab.sweep(TEXTS, [["normalize"], ["normalize", "summarize"]], [0.5]).df()
    assert list(named["stages"]) == list(listed["stages"])
    assert list(named["tokens_after"]) == list(listed["tokens_after"])


def test_a_model_without_a_price_saves_an_unknown_amount() -> None:
    frame = tk.lab.sweep(TEXTS, [["normalize"]], [0.5], model="house/unheard-of").df()
    assert frame["saved_usd"].isna().all()


def test_a_lone_string_is_not_read_character_by_character() -> None:
    with pytest.raises(UserError, match="list of texts"):
        tk.lab.sweep(TEXTS[0])
    with pytest.raises(UserError, match="list of passages"):
        tk.lab.sweep(TEXTS, evidence=["Basel", "Short"])
    with pytest.raises(UserError, match="queries must be a list"):
        tk.lab.sweep(TEXTS, queries="??")


def test_a_text_without_evidence_does_not_raise_the_average() -> None:
    swept = tk.lab.sweep(TEXTS, [["summarize"]], [0.3], evidence=[["words that are not in the text"], []])
    frame = swept.df()
    assert frame["evidence_kept"].tolist()[0] == 0.0
    assert frame["evidence_kept"].isna().tolist() == [False, True]
    assert swept.chart().title == "No compression here saved tokens and kept 95 % of the evidence"
    assert "nothing to compare" in tk.lab.sweep(TEXTS, [["normalize"]], [0.5], evidence=[[], []]).chart().title


def test_the_title_claims_no_evidence_and_no_saving_where_there_was_none() -> None:
    swept = tk.lab.sweep(["One sentence that stays."], [["normalize"]], [0.5])
    assert swept.df()["tokens_after"].tolist() == swept.df()["tokens_before"].tolist()
    assert swept.chart().title == "No compression here saved tokens and kept 95 % of the words that matter"


def test_seconds_are_those_of_the_compression_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def slow(*_: object) -> float:
        clock[0] += 1_000
        return 1.0

    monkeypatch.setattr("tokenkit.analysis.lab.recall", slow)
    monkeypatch.setattr("tokenkit.analysis.lab.time.perf_counter", lambda: clock[0])
    assert tk.lab.sweep(TEXTS, [["normalize"]], [0.5]).df()["seconds"].max() < 1_000


def test_stages_of_ones_own_are_called_by_their_names() -> None:
    def shorter(messages: object, aim: object) -> object:
        return messages

    assert tk.lab.sweep(TEXTS[:1], [[shorter, "normalize"]], [0.5]).df()["stages"].tolist() == ["shorter, normalize"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"texts": None}, "^texts is a list of texts, and None is none"),
        ({"texts": ["one", 5]}, "^texts is a list of texts, and 5 is none"),
        ({"stages": 5}, "^stages is a list of stage lists"),
        ({"stages": [5]}, "^Stages are a list of names"),
        ({"targets": 0.5}, "^targets is a list of shares"),
        ({"targets": "0.5"}, "^targets is a list of shares"),
        ({"targets": [True]}, "^target is a share"),
        ({"queries": ["one", 5]}, "^queries must be a list of texts"),
    ],
)
def test_what_is_of_the_wrong_kind_is_told_in_a_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tk.lab.sweep(**{"texts": TEXTS, **wrong})


def test_texts_may_come_one_by_one_and_an_empty_one_saves_nothing() -> None:
    swept = tk.lab.sweep(iter(["", ""]), ["normalize"], iter([0.5]), [None, None])  # type: ignore[arg-type]
    assert len(swept.df()) == 2
    assert swept.chart().title.startswith("No compression here saved tokens")
