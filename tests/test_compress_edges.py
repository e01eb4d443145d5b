"""kit.compress as a user meets it: odd inputs give sane results, and mistakes are told in a line."""

from __future__ import annotations

from typing import Any

import pytest

import tokenkit as tk
from tokenkit.compress import Aim, compress
from tokenkit.errors import UserError


def test_normalize_leaves_a_question_worded_as_it_is() -> None:
    question = "How many  loaves are left ?  Say why."
    made = compress(f"Some  text.\n\n{question}", ["normalize"], Aim(query=question))
    assert made.text == f"Some text.\n\n{question}"


@pytest.mark.parametrize("wrong", [{"target": "0.5"}, {"tokens": "9"}, {"tokens": 1.5}, {"recall": "all"}])
def test_an_aim_of_another_kind_is_told_in_a_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"share above 0|at least 1 token"):
        Aim(**wrong)


def test_a_kit_compresses_nothing_to_nothing() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        assert kit.compress("", ["normalize", "summarize"]).after == 0
        with pytest.raises(UserError, match="a text, a message or a list of messages, not int"):
            kit.compress(42)  # type: ignore[arg-type]
