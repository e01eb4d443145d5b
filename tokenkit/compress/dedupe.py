"""Say once what was said before: later copies of passages, word for word or nearly so, become a short pointer.

Two rows of sentences are copies when they are the same word for word; two paragraphs also when nearly all their word
triples are shared and the later one has no number, name, negation or protected span that the earlier one lacks.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice

from tokenkit.compress.damage import units
from tokenkit.compress.pipeline import Aim, texts_of, touchable, with_texts
from tokenkit.compress.spans import Span, kept, merged, protected
from tokenkit.types import Message


@dataclass(frozen=True, slots=True)
class Dedupe:
    """The stage that takes away later copies of passages, in the same text or across turns.

    The first copy stays where it is, also in a message that may not be touched; what is marked to be kept stays too.
    """

    name: str = "dedupe"
    lossless: bool = False
    aims: bool = False

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        """Replace each later copy of at least ``_LEAST`` characters by a pointer."""
        free = touchable(messages, everything=aim.everything)
        texts = [
            _Text(text, aim.keep, may)
            for message, may in zip(messages, free, strict=True)
            for text in texts_of([message])
        ]
        _copies(texts)
        _likenesses(texts)
        return with_texts(messages, [text.shortened() for text in texts if text.free], free)


STAGE = Dedupe()

_LEAST = 160  # characters; a pointer and the reader's way back cost more than a shorter copy
_ALIKE = 0.8  # share of word triples of either paragraph that both have
_SKETCH = 4  # smallest triples by which a paragraph is found again
_ASKED = 4  # earlier paragraphs kept in mind for one triple


class _Text:
    """One text, in pieces none of which cuts a protected span, and what of it is to go."""

    def __init__(self, text: str, keep: Sequence[str], free: bool) -> None:
        self.text, self.free = text, free
        self.spans = protected(text, keep)
        self.kept = kept(text, keep)
        self.pieces = merged([*units(text), *self.spans])
        self.gone: list[Span] = []

    def may_go(self, start: int, end: int) -> bool:
        return self.free and not _touches(self.kept, start, end) and not _touches(self.gone, start, end)

    def shortened(self) -> str:
        made, done, last = [], 0, ""
        for start, end in sorted(self.gone):
            between, pointer = self.text[done:start], _pointer(self.text[start:end])
            if pointer != last or between.strip():  # one copy after another needs but one pointer
                made += [between, pointer]
            done, last = end, pointer
        return "".join([*made, self.text[done:]])


def _touches(spans: Sequence[Span], start: int, end: int) -> bool:
    """Say whether one of sorted spans has something in common with ``start`` to ``end``."""
    at = bisect_right(spans, start, key=lambda span: span[0]) - 1
    return (at >= 0 and spans[at][1] > start) or (at + 1 < len(spans) and spans[at + 1][0] < end)


def _pointer(passage: str) -> str:
    """Name the passage by the first words of it that stand together without numbers or signs, so that it is found."""
    best: list[str] = []
    words: list[str] = []
    for word in islice(passage.split(), 24):
        words = [*words, word] if word.isalpha() else []
        best = words if len(words) > len(best) else best
        if len(best) == 5:
            break
    return f"[repeated: {' '.join(best)} …]" if best else "[repeated]"


def _copies(texts: Sequence[_Text]) -> None:
    """Mark rows of pieces that stand earlier in the same order, word for word."""
    places = [(text, piece) for text in texts for piece in text.pieces]
    words = [" ".join(text.text[slice(*piece)].split()) for text, piece in places]
    first: dict[str, int] = {}
    i = 0
    while i < len(words):
        j = first.setdefault(words[i], i)
        size, text = 0, places[i][0]
        while (
            j + size < i
            and i + size < len(words)
            and places[i + size][0] is text
            and words[j + size] == words[i + size]
        ):
            if not text.may_go(*places[i + size][1]):
                break
            size += 1
        start, end = places[i][1][0], places[i + max(size, 1) - 1][1][1]
        if size and end - start >= _LEAST:
            text.gone.append((start, end))
            i += size
        else:
            # Pieces of a row that is too short are looked at again, each for a row of its own: the rows that fail
            # are shorter than _LEAST, so that this stays linear.
            i += 1


_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_NEGATIONS = frozenset("no not never none nor neither without cannot nothing nobody except unless".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class _Passage:
    triples: frozenset[int]
    facts: tuple[str, ...]
    spans: frozenset[str]


def _likenesses(texts: Sequence[_Text]) -> None:
    """Mark paragraphs that nearly repeat an earlier one and add no fact to it."""
    known: dict[int, list[_Passage]] = {}
    for text in texts:
        alike: list[Span] = []
        # No paragraph ends within a protected span.
        for start, end in merged([*(match.span() for match in _PARAGRAPH.finditer(text.text)), *text.spans]):
            if end - start < _LEAST or _touches(text.gone, start, end):
                continue
            passage = _passage(text, start, end)
            sketch = nsmallest(_SKETCH, passage.triples)
            earlier = (other for triple in sketch for other in known.get(triple, ()))
            if any(_adds_nothing(passage, other) for other in earlier) and text.may_go(start, end):
                alike.append((start, end))
                continue
            for triple in sketch:
                if len(others := known.setdefault(triple, [])) < _ASKED:
                    others.append(passage)
        text.gone = merged([*text.gone, *alike])


def _passage(text: _Text, start: int, end: int) -> _Passage:
    words = _WORD.findall(text.text[start:end])
    # crc32 and not hash(): the same in every process.
    codes = [zlib.crc32(word.lower().encode("utf-8", "surrogatepass")) for word in words]
    triples = frozenset(
        (a * 0x9E3779B1 ^ b * 0x85EBCA6B ^ c * 0xC2B2AE35) & 0xFFFFFFFF
        for a, b, c in zip(codes, codes[1:], codes[2:], strict=False)
    )
    at = bisect_right(text.spans, start, key=lambda span: span[1])
    inside = []
    while at < len(text.spans) and text.spans[at][0] < end:
        inside.append(text.text[slice(*text.spans[at])])
        at += 1
    return _Passage(triples, tuple(filter(_is_fact, words)), frozenset(inside))


def _is_fact(word: str) -> bool:
    return word[0].isupper() or _negates(word) or any(map(str.isdigit, word))


def _negates(word: str) -> bool:
    return word.lower() in _NEGATIONS or word.lower().endswith(("n't", "n’t"))


def _adds_nothing(later: _Passage, earlier: _Passage) -> bool:
    shared = len(later.triples & earlier.triples)
    if (
        not shared
        or shared < _ALIKE * max(len(later.triples), len(earlier.triples))
        or not later.spans <= earlier.spans
    ):
        return False
    if list(filter(_negates, later.facts)) != list(filter(_negates, earlier.facts)):
        return False
    left = iter(earlier.facts)
    return all(fact in left for fact in later.facts)
