"""A text as an outline: the smallest pieces that may be kept or left out, and the sections and passages they belong to.

Pieces are sentences, lines, whole code fences and whole worked examples; joined in order they are the text again, byte
for byte. A protected span is never in two pieces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenkit.compress.damage import breaks
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
    labels, passages = _labelled(text)
    shots = _examples(labels, len(text))
    headings = _headings(text)
    turns = _spoken(text, headings) | (set() if shots else _turns(labels, passages))
    whole = sorted([*code, *protected(text, keep), *shots, *((start, end) for start, (end, _, _) in headings.items())])
    cuts = _cuts(text, whole, code, shots)
    ends = (*cuts[1:], len(text)) if text else ()
    for start, _ in code:
        headings.pop(start, None)
    return _arranged(text, tuple(ends), headings, {start for start, _ in shots}, turns)


def examples(text: str) -> list[Span]:
    """Return where a prompt's worked examples are; none where there are fewer than three alike."""
    return _examples(_labelled(text)[0], len(text))


def joined(outlines: Sequence[Outline]) -> Outline:
    """Return several texts as one outline: each a section, or, where they are short on the whole, turns of one talk."""
    if len(outlines) == 1:
        return outlines[0]
    lengths = sorted(len(one.text) for one in outlines if one.text.strip())
    talk = bool(lengths) and lengths[len(lengths) // 2] < TURN
    ends: list[int] = []
    separators: list[int] = []
    passages: list[int] = []
    sections: list[int] = []
    parents, titles, subjects = [0], [""], [""]
    for one in outlines:
        at, below, first = ends[-1] if ends else 0, len(titles) - 1, len(subjects)
        if talk and separators and one.ends:  # its first passage goes on with the one before it
            first -= 1
        ends += [at + end for end in one.ends]
        separators += [LINE if talk else SECTION, *one.separators[1:]][: len(one.ends)]
        passages += [first + passage for passage in one.passages]
        subjects += one.subjects[1:] if first < len(subjects) else one.subjects
        sections += [below + section if section else 0 for section in one.sections]
        parents += [below + parent if parent else 0 for parent in one.parents[1:]]
        titles += one.titles[1:]
    return Outline(
        "".join(one.text for one in outlines), tuple(ends), tuple(separators), tuple(passages), tuple(sections),
        tuple(parents), tuple(titles), tuple(subjects), tuple(e for one in outlines for e in one.examples),
    )  # fmt: skip


TURN = 250
"""Characters: messages of which half are shorter than this are the turns of a talk, and not documents."""


_END = breaks(r"[ \t]")
_HEADING = re.compile(
    r"^(?:[ ]{0,3}(?P<signs>#{1,6})[ \t]++(?P<title>\S.*)"
    # Underlined, as Markdown and reStructuredText have it, or a line in bold type, either behind an empty line.
    r"|(?:(?<=\n\n)|(?<![\s\S]))(?P<over>(?P<rule>[=~^\"*+-])(?P=rule){2,}\n)?"
    r"(?P<above>[^\s|>][^\n|]{0,79})\n(?P<line>(?P<sign>[=~^\"*+-])(?P=sign){2,})[ \t]*$"
    r"|(?:(?<=\n\n)|(?<![\s\S]))(?P<bold>\*\*[^*\n]{1,79}\*\*|__[^_\n]{1,79}__)[ \t]*$)",
    re.MULTILINE,
)
_BOLD = 7  # the level of a line in bold type: below all signs
_LABEL = re.compile(
    r"(?:#{1,6} +|[*_]{2}|(?:> ?)?\[[^\]\n]{1,30}\] ?)?(?P<name>[^\W\d_][^:\n]{0,30}?)(?: *\d{1,3})?(?:[*_]{2})?"
    r":(?=[*\s])"
)
_FAR = 100  # characters within which a label's colon is
_SHORT = re.compile(r"[A-Z][A-Za-z]{0,14}")
_NAME = re.compile(r"(?:[A-Z][\w'’.-]*\s+(?:(?:of|the|de|von|van|di|da)\s+)*){0,4}[A-Z][\w'’-]*")
_APART = re.compile(r"\n[^\S\n]*+\n\s*+")
_BLANKS = re.compile(r"\s*")
_OFTEN = 3
_ALIKE = 0.9  # share of the blocks; the last one may be open
_ASIDE = re.compile(r"\s*\([^()]*\)")


def _headings(text: str) -> dict[int, tuple[int, int, str]]:
    """Return headings by where they begin: where they end, their level from 1, their words."""
    found: dict[int, tuple[int, int, str]] = {}
    signs: dict[tuple[str, bool], int] = {}  # reStructuredText: levels are in the order of first use
    for match in _HEADING.finditer(text):
        if match["signs"]:
            level, title = len(match["signs"]), match["title"]
        elif match["bold"]:
            level, title = _BOLD, match["bold"].strip("*_")
        else:
            if match["over"] and match["over"].strip() != match["line"]:
                continue
            level = signs.setdefault((match["sign"], bool(match["over"])), len(signs) + 1)
            title = match["above"]
        found[match.start()] = (match.end(), level, title.strip())
    return found


def _spoken(text: str, headings: dict[int, tuple[int, int, str]]) -> set[int]:
    """Take out of ``headings`` those that recur among their siblings, and return where they and their texts begin.

    Nobody gives three sections beside one another the same title: it is the name of who speaks.
    """
    stack: list[tuple[int, int]] = [(0, -1)]
    beside: dict[tuple[int, int, str], list[int]] = {}
    for start, (_, level, title) in headings.items():
        while stack[-1][0] >= level:
            stack.pop()
        beside.setdefault((stack[-1][1], level, title), []).append(start)
        stack.append((level, start))
    begins: set[int] = set()
    for start in (start for starts in beside.values() if len(starts) >= _OFTEN for start in starts):
        behind = _BLANKS.match(text, headings.pop(start)[0])
        begins |= {start, behind.end()} if behind else {start}
    return begins


def _labelled(text: str) -> tuple[list[re.Match[str]], int]:
    """Return the names with a colon that passages begin with, and how many passages there are."""
    starts = [0, *(match.end() for match in _APART.finditer(text))]
    near = (start for start in starts if text.find(":", start, start + _FAR) >= 0)
    return [match for start in near if (match := _LABEL.match(text, start))], len(starts)


def _turns(labels: Sequence[re.Match[str]], passages: int) -> set[int]:
    """Return where turns of a conversation begin, if it is one: few names, over and over, before most passages."""
    few = _OFTEN * len({match["name"] for match in labels}) <= len(labels)
    return {match.start() for match in labels} if few and 2 * len(labels) >= passages else set()


def _examples(labels: Sequence[re.Match[str]], end: int) -> list[Span]:
    """Return where worked examples are: at least three blocks that begin with the same short label.

    Examples are alike: most have the same labels in the same order. The turns of a conversation do not.
    """
    names = Counter(match["name"] for match in labels if _SHORT.fullmatch(match["name"]))
    label, count = next(iter(names.most_common(1)), ("", 0))
    if count < _OFTEN:
        return []
    begins: list[int] = []
    forms: list[tuple[str, ...]] = []
    for match in labels:
        if match["name"] == label:
            begins.append(match.start())
            forms.append(())
        elif forms:
            forms[-1] += (match["name"],)
    if Counter(forms[:-1]).most_common(1)[0][1] < _ALIKE * len(forms[:-1]):
        return []
    return list(zip(begins, [*begins[1:], end], strict=True))


def _cuts(text: str, whole: Sequence[Span], code: Sequence[Span], shots: Sequence[Span]) -> list[int]:
    """Return where pieces begin: at lines and sentences, nowhere within what must stay ``whole`` (sorted)."""
    places = sorted(
        {0, len(text), *(m.end() for m in _END.finditer(text)), *(s for s, _ in shots), *(s for s, _ in code)}
    )
    found: list[int] = []
    at, until = 0, 0
    for place in places:
        while at < len(whole) and whole[at][0] < place:
            until = max(until, whole[at][1])
            at += 1
        if place < until:
            continue
        if found and place - found[-1] > LONGEST_PIECE and not _inside(found[-1], place, shots):
            found += _between_words(text, found[-1], place, whole)
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


def _arranged(
    text: str,
    ends: tuple[int, ...],
    headings: Mapping[int, tuple[int, int, str]],
    shots: set[int],
    turns: set[int],
) -> Outline:
    separators: list[int] = []
    passages: list[int] = []
    sections: list[int] = []
    examples: list[bool] = []
    parents, titles = [0], [""]
    subjects: list[str] = []
    stack = [(0, 0)]
    start = 0
    for end in ends:
        heading = headings.get(start)
        if heading is not None:
            _, level, title = heading
            while stack[-1][0] >= level:
                stack.pop()
            parents.append(stack[-1][1])
            titles.append(title)
            stack.append((level, len(titles) - 1))
            kind = SECTION
        else:
            kind = _separator(text, start, start in shots, start in turns)
        if kind >= BLANK or not subjects:
            subjects.append(_subject(text[start:end], heading[2] if heading else None))
        separators.append(kind)
        passages.append(len(subjects) - 1)
        sections.append(stack[-1][1])
        examples.append(start in shots)
        start = end
    return Outline(
        text, ends, tuple(separators), tuple(passages), tuple(sections), tuple(parents), tuple(titles),
        tuple(subjects), tuple(examples),
    )  # fmt: skip


def _separator(text: str, start: int, shot: bool, turn: bool) -> int:
    before = text[max(start - 40, 0) : start]
    if turn and start:
        return LINE
    if not before or shot or _BLANK_BEFORE.search(before):
        return BLANK
    return LINE if before[-1] == "\n" else INLINE


_BLANK_BEFORE = re.compile(r"\n[ \t]*\r?\n[ \t]*$")


def _subject(piece: str, heading: str | None) -> str:
    """Return what a passage is about: its title line, or the name that its first sentence begins with."""
    line = (piece if heading is None else heading).strip()
    if not line or len(line) > LONGEST_TITLE or line.endswith((".", "!", "?", ":", ";", ",")):
        name = _NAME.match(line[: 2 * LONGEST_TITLE])
        line = name[0] if name is not None else ""
    return _ASIDE.sub("", line).strip()
