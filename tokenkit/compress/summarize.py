"""summarize: keep the sentences that matter most, word for word, for a question or for the text as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenkit.compress.choosing import chosen
from tokenkit.compress.extracting import Extracting
from tokenkit.compress.outline import Outline, outline
from tokenkit.compress.relevance import Scores, along, relevance


def summarize(
    text: str, query: str | None, target: float, count: Callable[[str], int], keep: Sequence[str] = ()
) -> str:
    """Return whole sentences, lines and fences of ``text`` in at most ``target`` of its tokens (``count``), in order.

    ``query`` is what the text will be asked; what stands between ``<keep>`` marks, and every string of ``keep``, stays.
    A few-shot prompt keeps whole examples, the last one first: it is the one to be answered.
    """
    made = outline(text, keep)
    return chosen(made, _scores(made, query), target, count, keep)


def _scores(made: Outline, query: str | None) -> Scores:
    return asked_for(made, relevance(made, query, along), query)


def asked_for(made: Outline, scores: Scores, query: str | None) -> Scores:
    """Raise what must come first: the question itself, where the text has it, and a prompt's last open example."""
    top = max(scores, default=0.0) + 1.0
    wanted = (query or "").strip()
    raised = [top if wanted and wanted in piece else 0.0 for piece in made.pieces]
    if any(made.examples):
        last = max(i for i, example in enumerate(made.examples) if example)
        raised[last] = top
    return [score + more for score, more in zip(scores, raised, strict=True)]


STAGE = Extracting("summarize", lambda made, aim: _scores(made, aim.query))
