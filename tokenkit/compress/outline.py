"""A text as an outline: the smallest pieces that may be kept or left out, and the sections and passages they belong to.

Pieces are sentences, lines, whole code fences and whole worked examples; joined in order they are the text again, byte
for byte. A protected span is never in two pieces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tokenkit.compress.spans import Span, fences, protected

INLINE, LINE, BLANK, SECTION = range(4)
"""What separates a piece from the one before it: nothing, a line end, a blank line, a heading."""

LONGEST_PIECE = 1_500
"""Characters: a piece longer than this, with nothing else to cut at, is cut between words."""

LONGEST_TITLE = 80


@dataclass(frozen=True, slots=True)
class Outline:
    """The pieces of a text (``ends`` are their ends), and for each its separator, passage and section.

    ``parents`` and ``titles`` are by section, ``subjects`` by passage: its title line, or the name it begins with.
    ``examples`` says which pieces are worked examples, of which a prompt shows several in a row.
    """

    text: str
    ends: tuple[int, ...]
    separators: tuple[int, ...]
    passages: tuple[int, ...]
    sections: tuple[int, ...]
    parents: tuple[int, ...]
    titles: tuple[str, ...]
    subjects: tuple[str, ...]
    examples: tuple[bool, ...]

    @property
    def pieces(self) -> list[str]:
        """The pieces themselves."""
        starts = (0, *self.ends)[: len(self.ends)]
        return [self.text[start:end] for start, end in zip(starts, self.ends, strict=True)]


def outline(text: str, keep: Sequence[str] = ()) -> Outline:
    """Read the outline of a text. Time is linear in its length."""
    code = fences(text)
    shots = _examples(text)
    cuts = _cuts(text, code, protected(text, keep), shots)
    ends = (*cuts[1:], len(text)) if text else ()
    return _arranged(text, tuple(ends), [start for start, _ in code], {start for start, _ in shots})


_END = re.compile(r"\n|(?<=[.!?])[ \t]+(?=[A-Z\"'(\[“‘«])")
_HEADING = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(\S.*)")
_LABEL = re.compile(r"(?m)^(?:#{1,6} +|\*\*)?([A-Z][A-Za-z]{0,14})(?: *\d{1,3})?(?:\*\*)?:(?=\s)")
_NAME = re.compile(r"(?:[A-Z][\w'’.-]*\s+(?:(?:of|the|de|von|van|di|da)\s+)*){0,4}[A-Z][\w'’-]*")
_ASIDE = re.compile(r"\s*\([^()]*\)")


def _cuts(text: str, code: Sequence[Span], spans: Sequence[Span], shots: Sequence[Span]) -> list[int]:
    """Return where pieces begin: at lines and sentences, but nowhere within what must stay whole."""
    whole = sorted([*code, *spans, *shots])  # three sorted runs, merged in linear time
    places = sorted({0, *(m.end() for m in _END.finditer(text)), *(s for s, _ in shots), *(s for s, _ in code)})
    found: list[int] = []
    at, until = 0, 0
    for place in [*places, len(text)]:
        while at < len(whole) and whole[at][0] < place:
            until = max(until, whole[at][1])
            at += 1
        if place < until:
            continue
        if found and place - found[-1] > LONGEST_PIECE and not _inside(found[-1], place, shots):
            found += _between_words(text, found[-1], place, spans)
        found.append(place)
    return found[:-1] if len(found) > 1 else found


def _inside(start: int, end: int, shots: Sequence[Span]) -> bool:
    return any(start >= a and end <= b for a, b in shots)


def _between_words(text: str, start: int, end: int, spans: Sequence[Span]) -> list[int]:
    """Cut a stretch without sentences into pieces of bounded length, between words and outside protected spans."""
    if any(a < end and b > start for a, b in _near(spans, start, end)):
        return []
    found = []
    place = start + LONGEST_PIECE
    while place < end:
        cut = max(text.rfind(" ", start, place), text.rfind("\t", start, place)) + 1
        if cut <= start:
            cut = place
        found.append(cut)
        start, place = cut, cut + LONGEST_PIECE
    return found


def _near(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    from bisect import bisect_left

    low = bisect_left(spans, (start, 0))
    return spans[max(low - 1, 0) : bisect_left(spans, (end, 0))]


def _examples(text: str) -> list[Span]:
    """Return where worked examples are: at least three blocks that begin with the same label after a blank line."""
    starts = [m for m in _LABEL.finditer(text) if m.start() == 0 or text[max(m.start() - 2, 0) : m.start()] == "\n\n"]
    label, count = next(iter(Counter(m[1] for m in starts).most_common(1)), ("", 0))
    if count < 3:
        return []
    begins = [m.start() for m in starts if m[1] == label]
    return list(zip(begins, [*begins[1:], len(text)], strict=True))


def _arranged(text: str, ends: tuple[int, ...], code: Sequence[int], shots: set[int]) -> Outline:
    separators: list[int] = []
    passages: list[int] = []
    sections: list[int] = []
    examples: list[bool] = []
    parents, titles = [0], [""]
    subjects: list[str] = []
    stack = [(0, 0)]
    start, fenced = 0, set(code)
    for end in ends:
        piece = text[start:end]
        before = text[max(start - 2, 0) : start]
        heading = _HEADING.match(piece) if start not in fenced and (not before or before[-1] == "\n") else None
        if heading is not None:
            while stack[-1][0] >= len(heading[1]):
                stack.pop()
            parents.append(stack[-1][1])
            titles.append(heading[2].strip())
            stack.append((len(heading[1]), len(titles) - 1))
            kind = SECTION
        elif not before or _blank_before(text, start) or start in shots:
            kind = BLANK
        else:
            kind = LINE if before[-1] == "\n" else INLINE
        if kind >= BLANK or not subjects:
            subjects.append(_subject(piece, heading))
        separators.append(kind)
        passages.append(len(subjects) - 1)
        sections.append(stack[-1][1])
        examples.append(start in shots)
        start = end
    return Outline(
        text, ends, tuple(separators), tuple(passages), tuple(sections), tuple(parents), tuple(titles),
        tuple(subjects), tuple(examples),
    )  # fmt: skip


_BLANK_BEFORE = re.compile(r"\n[ \t]*\r?\n[ \t]*$")


def _blank_before(text: str, start: int) -> bool:
    return _BLANK_BEFORE.search(text[max(start - 40, 0) : start]) is not None


def _subject(piece: str, heading: re.Match[str] | None) -> str:
    """Return what a passage is about: its title line, or the name that its first sentence begins with."""
    line = (heading[2] if heading is not None else piece).strip()
    if not line or len(line) > LONGEST_TITLE or line.endswith((".", "!", "?", ":", ";", ",")):
        name = _NAME.match(line[: 2 * LONGEST_TITLE])
        line = name[0] if name is not None else ""
    return _ASIDE.sub("", line).strip()
