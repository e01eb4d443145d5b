"""Whether a stage has harmed a text: lost what was to be kept, cut a protected span, or made up a number or link."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tokenkit.compress.spans import Span, kept, protected


def damage(before: str, after: str, keep: Sequence[str] = (), *, lossless: bool = False, proven: bool = False) -> str:
    """Say in a sentence how ``after`` harms ``before``, or return an empty text.

    Marked text and ``keep`` always survive. A lossless stage keeps every protected span, in order (JSON may lose blanks
    outside its strings); a lossy one keeps or drops each as a whole, and adds neither numbers nor links. With
    ``proven`` only the first holds: the stage has shown by itself that the text comes back.
    """
    for literal in keep:
        if literal and literal in before and literal not in after:
            return f"it would have lost {_short(literal)}, which was to be kept"
    place = 0
    for start, end in kept(before):
        found = after.find(before[start:end], place)
        if found < 0:
            return f"it would have lost {_short(before[start:end])}, which was marked to be kept"
        place = found + end - start
    if proven:
        return ""
    return _missing(before, after) if lossless else _cut(before, after) or _invented(before, after)


def minified(json_text: str) -> str:
    """Take the blanks outside strings from valid JSON; nothing else changes, not even how a number is written."""
    return _BLANKS.sub(lambda match: match[0] if match[0][0] == '"' else "", json_text)


def units(text: str) -> Iterator[Span]:
    """Yield where the lines and sentences of ``text`` are, blanks around them left out."""
    start = 0
    for end, following in [*((_break(match), match.end()) for match in _SPLIT.finditer(text)), (len(text), 0)]:
        piece = text[start:end].lstrip()
        if piece:
            start = end - len(piece)
            yield start, start + len(piece.rstrip())
        start = following


_BLANKS = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|[ \t\r\n]++")
_BEGINS = r"A-ZÀ-ÖØ-ÞΑ-ΩЀ-Я\u0590-\u1fff\u2e80-\U0003ffff\"'(\[“‘«"
"""What a sentence begins with, for a pattern: a capital, a letter of a script that has none, or an opening sign."""


def breaks(blank: str) -> re.Pattern[str]:
    """Compile what ends a line, or a sentence with its last sign and ``blank`` signs behind it.

    It begins with what ends, and looks behind from there, so that the search can skip to the next such sign.
    """
    sentence = rf"(?<=[.!?؟۔।]){blank}++(?=[{_BEGINS}])|(?<=[。！？])(?![\n。！？”’」』）])"
    return re.compile(rf"[\n.!?؟۔।。！？](?:(?<=\n)|{sentence})")


_SPLIT = breaks(r"[^\S\n]")
_NUMBER = re.compile(r"[0-9](?<![\w.].)[0-9]*+(?:,[0-9]++)*+(?:\.[0-9]++)?")
_LINK = re.compile(r"https?://[^\s)>\]\"'`]++")
_FAR = 200  # searches to the end of the text
_LONG = 12  # characters; a shorter line ("}", "else:") may stand anywhere


def _break(match: re.Match[str]) -> int:
    """Return where a line or sentence ends: before the line end, or behind the sign."""
    return match.start() + (match[0] != "\n")


def _missing(before: str, after: str) -> str:
    """Find a span of ``before`` that is not in ``after``, behind the one before it."""
    place = last = far = 0
    for start, end in protected(before):
        span = before[start:end]
        # What stands between two spans only shrinks, so the next is near; if not, it is searched to the end.
        near = place + start - last + len(span)
        if span[0] not in "{[":
            at, length = after.find(span, place, near), len(span)
        else:
            at, length = _first(after, {span, minified(span)}, place, near)
        if at < 0:
            far += 1
            at, length = _first(after, {span, minified(span)} if span[0] in "{[" else {span}, place, len(after))
        if at < 0:
            return f"it would have changed {_short(span)}"
        if far > _FAR:
            return "it would have moved too much to be checked"
        place, last = at + length, end
    return ""


def _first(text: str, forms: Iterable[str], start: int, end: int) -> Span:
    """Return where the first of the forms is, and how long that one is; (-1, 0) where none is."""
    return min(((at, len(form)) for form in forms if (at := text.find(form, start, end)) >= 0), default=(-1, 0))


def _cut(before: str, after: str) -> str:
    """Find a span over several lines or sentences of which some are left, and not all."""
    spans = [span for span in protected(before) if _several(before, span)]
    if not spans:
        return ""
    pieces = [(start, end, before[start:end]) for start, end in units(before)]
    often = Counter(piece for _, _, piece in pieces)
    left = {after[start:end] for start, end in units(after)}
    whole = {after[start:end] for start, end in protected(after)}
    at = 0
    for start, end in spans:
        while at < len(pieces) and pieces[at][1] <= start:
            at += 1
        here = at
        touched = False
        while here < len(pieces) and pieces[here][0] < end:
            piece = pieces[here][2]
            touched = touched or (len(piece) > _LONG and often[piece] == 1 and piece in left)
            here += 1
        if touched and here - at > 1 and before[start:end] not in whole and before[start:end] not in after:
            return f"it would have cut {_short(before[start:end])}"
    return ""


def _several(text: str, span: Span) -> bool:
    # A sentence may end right before the span, which then begins with the blanks behind it.
    return any(_break(match) >= span[0] for match in _SPLIT.finditer(text, max(span[0] - 1, 0), span[1]))


def _invented(before: str, after: str) -> str:
    for pattern, what in ((_NUMBER, "number"), (_LINK, "link")):
        new = set(pattern.findall(after)) - set(pattern.findall(before))
        if new and (really := sorted(item for item in new if item.rstrip(".,") not in before)):
            return f"it would have made up the {what} {_short(really[0])}"
    return ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
