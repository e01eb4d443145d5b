"""Stages that shorten by choosing: all texts are judged together, so that the budget goes where the evidence is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from tokenkit.compress.choosing import picked
from tokenkit.compress.outline import Outline, joined, outline
from tokenkit.compress.pipeline import Aim, texts_of, touchable, with_texts
from tokenkit.types import Message

Scoring = Callable[[Outline, Aim], Sequence[float]]
"""From an outline and the aim to one score for each piece, higher is better."""

GONE = "…"
"""What a message says of which nothing was chosen: a provider refuses an empty one, and roles must go on in turn."""


@dataclass(frozen=True, slots=True)
class Extracting:
    """A stage that keeps the best pieces of all texts it may touch, whole and in order, by the scores of ``judge``."""

    name: str
    judge: Scoring = field(repr=False)
    lossless: bool = False

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        """Choose from one outline of all texts; a text stays as it is where that would not make it shorter."""
        free = touchable(messages, everything=aim.everything)
        texts = list(texts_of(messages, free))
        outlines = [outline(text, aim.keep) for text in texts]
        made = joined(outlines)
        starts = list(accumulate((len(one.ends) for one in outlines), initial=0))
        ranges = list(pairwise(starts))
        several = len(texts) > 1
        scores = self.judge(made, aim)
        new = picked(made, scores, aim.target, aim.count, aim.keep, ranges, instead=GONE if several else "")
        shorter = [
            one if one.strip() and aim.count(one) < aim.count(text) else text
            for text, one in zip(texts, new, strict=True)
        ]
        return with_texts(messages, shorter, free)
