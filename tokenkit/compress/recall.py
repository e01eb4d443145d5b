"""How much of what a question needs is still there after a compression: a check that needs no model."""

from __future__ import annotations

import math
import re
from collections import Counter

from tokenkit.compress.damage import units

_STOP = frozenset(
    """a about after all also am an and any are as at be because been before being but by can could did do does doing
    down for from had has have having he her here hers him his how i if in into is it its just like me more most my no
    nor not now of off on once only or other our out over own same she should so some such than that the their them
    then there these they this those through to too under until up us very was we were what when where which while who
    whom why will with would you your""".split()  # noqa: SIM905 - as prose it can be read
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def recall(original: str, compressed: str, query: str | None = None) -> float:
    """Return the share of the evidence's content words that ``compressed`` still has, from 0 to 1.

    Evidence are the sentences of ``original`` that share most with ``query`` (at least half as much as the best does,
    rare words weighing more, at most a tenth of all, or three); without a query, all sentences. A
    word counts only in sentences made of the evidence's words for at least a half, so that common words elsewhere earn
    nothing. It is a check by words: what a paraphrase keeps, and what a question needs without sharing a word with it,
    it cannot see.
    """
    sentences = [words(original[start:end]) for start, end in units(original)]
    wanted = Counter(word for sentence in _evidence(sentences, query) for word in sentence)
    if not wanted:
        return 1.0
    got: Counter[str] = Counter()
    for start, end in units(compressed):
        sentence = words(compressed[start:end])
        if sentence and sum(word in wanted for word in sentence) * 2 >= len(sentence):
            got.update(sentence)
    return sum(min(count, got[word]) for word, count in wanted.items()) / wanted.total()


def words(text: str) -> list[str]:
    """Return the content words of ``text``, in lower case, in order."""
    return [word for word in map(str.lower, _WORD.findall(text)) if len(word) > 1 and word not in _STOP]


def _evidence(sentences: list[list[str]], query: str | None) -> list[list[str]]:
    asked = set(words(query or ""))
    found = [(asked.intersection(sentence), sentence) for sentence in sentences] if asked else []
    often = Counter(word for shared, _ in found for word in shared)
    scores = [sum(math.log(1 + len(sentences) / often[word]) for word in sorted(shared)) for shared, _ in found]
    best = max(scores, default=0.0)
    if best == 0:
        return sentences
    ranked = sorted((-score, place) for place, score in enumerate(scores) if score >= best / 2)
    return [sentences[place] for _, place in ranked[: max(3, len(sentences) // 10)]]
