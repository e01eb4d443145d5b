"""A stage that judges by meaning: the caller's vectors decide as far as they may, and their faults cost nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.compress import kept
from tokenkit.compress.semantic import semantic
from tokenkit.errors import UserError
from tokenkit.providers.simulated import lexical

TEXT = (
    "The invoice was paid in March.\n\nRain fell all week.\n\nThe committee met twice.\n\n"
    "Nobody brought any bread.\n\nA feline slept on the warm roof.\n\n`keep_me()` stays.\n"
)
MEANINGS = {"cat": (1.0, 0.0, 0.0), "feline": (1.0, 0.1, 0.0), "invoice": (0.0, 1.0, 0.0)}


def embed(texts: list[str]) -> list[tuple[float, float, float]]:
    """Know three words, as a model that has learned that a feline is a cat."""
    return [next((v for word, v in MEANINGS.items() if word in text.lower()), (0.0, 0.0, 1.0)) for text in texts]


def test_what_means_the_same_is_kept_though_no_word_is_shared() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        kit.stages = {**kit.stages, "semantic": semantic(embed)}
        by_meaning = kit.compress(TEXT, ["semantic"], query="Where is the cat?", target=0.45)
        by_words = kit.compress(TEXT, ["summarize"], query="Where is the cat?", target=0.45)
        assert "feline" in by_meaning.text
        assert "feline" not in by_words.text
        answer = kit.call(f"{TEXT}\nWhere is the cat?", compress=["semantic"], target=0.5, max_tokens=9)
        assert answer.receipt.stages[0].stage == "semantic"
        assert answer.receipt.saved_tokens > 0


def test_a_kit_s_own_embeddings_serve_and_are_paid_for_like_any_call() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        kit.stages = {**kit.stages, "semantic": semantic(lambda texts: kit.embed(texts).vectors)}
        made = kit.compress(TEXT, ["semantic"], query="Who met?", target=0.5)
        assert "committee" in made.text
        assert kit.ledger.df()["operation"].tolist() == ["embeddings"]


@pytest.mark.parametrize(
    "broken",
    [lambda texts: [], lambda texts: [[1.0]] * (len(texts) + 1), lambda texts: [[float("nan")]] * len(texts),
     lambda texts: 1 / 0, lambda texts: [[1.0] * (i + 1) for i in range(len(texts))], lambda texts: None],
)  # fmt: skip
def test_an_embedding_that_fails_leaves_the_text_alone_and_the_report_says_so(broken: Any) -> None:
    with tk.Kit.simulated(pace=0) as kit:
        made = kit.compress(TEXT, [semantic(broken)], query="cat", target=0.4)
    assert made.text == TEXT
    assert made.reports[0].skipped


def test_a_share_beyond_all_is_refused() -> None:
    with pytest.raises(UserError, match="from 0 to 1"):
        semantic(embed, share=1.5)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([*TEXT.split("\n"), "# A heading", "- a point", "```", "x = 1", ""]), max_size=25),
    st.floats(0.05, 1.0), st.none() | st.sampled_from(["cat?", "Who met?"]), st.floats(0, 1),
)  # fmt: skip
def test_it_keeps_what_every_stage_must_keep(lines: list[str], target: float, query: str | None, share: float) -> None:
    text = "\n".join([*lines, "The end."])
    stage = semantic(lambda texts: [lexical(one, 16) for one in texts], share=share)
    with tk.Kit.simulated(pace=0) as kit:
        made = kit.compress(text, [stage], query=query, target=target)
        again = kit.compress(text, [stage], query=query, target=target)
    assert made.text == again.text
    assert made.after <= made.before
    for start, end in kept(text):
        assert text[start:end] in made.text
