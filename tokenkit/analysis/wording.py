"""What a prompt looks like to a linear model: its words and pairs of words, hashed, and a few plain measures."""

from __future__ import annotations

import math
import re
import zlib
from itertools import pairwise

Features = tuple[list[int], list[float], list[float]]
"""Places among the hashed features, the values there (of unit length together), and the dense measures."""

# A letter of a script written without spaces is a word of its own.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+|\d|[^\w\s]|_")
_CODE = frozenset("{}()[]<>=;+*/\\^$_|&#@`~")

READ_AT_EACH_END = 2000
"""Characters read at the start and at the end of a long prompt, where instructions stand: routing must stay quick."""

DENSE = 8


def features_of(prompt: str, dim: int) -> Features:
    """Return the features of ``prompt`` for ``dim`` hashed places; the same in every process and version of Python."""
    text = prompt
    if len(text) > 2 * READ_AT_EACH_END:
        text = f"{text[:READ_AT_EACH_END]} {text[-READ_AT_EACH_END:]}"
    words = _WORD.findall(text.lower())
    counts: dict[str, int] = {}
    for gram in (*words, *(f"{a} {b}" for a, b in pairwise(words))):
        counts[gram] = counts.get(gram, 0) + 1
    places: dict[int, float] = {}
    for gram, count in counts.items():
        # crc32, since Python's own hash of a text differs from process to process.
        place = zlib.crc32(gram.encode("utf-8", "surrogatepass")) % dim
        places[place] = places.get(place, 0.0) + 1 + math.log(count)
    length = math.sqrt(math.fsum(value * value for value in places.values())) or 1.0
    return list(places), [value / length for value in places.values()], _measures(prompt, text, words)


def _measures(prompt: str, text: str, words: list[str]) -> list[float]:
    size, count = max(len(text), 1), max(len(words), 1)
    digits = sum(character.isdigit() for character in text)
    return [
        math.log1p(len(prompt)),
        math.log1p(len(words)),
        math.log1p(digits),
        digits / size,
        sum(character in _CODE for character in text) / size,
        sum(character.isupper() for character in text) / size,
        sum(map(len, words)) / count,
        text.count("\n") / count,
    ]
