"""Take away what carries no meaning: spare blanks and empty lines, padding of tables, blanks of JSON, repeated notices.

What may not be altered stays, and so do lines whose blanks mean something: indented code, and columns set with blanks.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tokenkit.compress.damage import minified
from tokenkit.compress.outline import examples
from tokenkit.compress.pipeline import Aim, Rewriting
from tokenkit.compress.spans import Span, kept, merged, objects, protected


def normalize(text: str, keep: Sequence[str] = ()) -> str:
    """Return ``text`` without blanks, empty lines, padding and notices that only repeat; a second pass changes nothing.

    Line ends become ``\\n``; runs of blanks between words become one; of several empty lines one stays. Markdown tables
    lose their padding, bare JSON its blanks (values, order and the way numbers are written stay). A line of 24 to 200
    letters, beside an empty line, that stands there for the third time or more is a notice of some template: only
    its first copy stays. Nothing is done to worked examples, which show how an answer is to be set.
    """
    spans = merged([*protected(text, keep), *examples(text)])
    tables, swaps = _tables(text, spans)
    wanted = kept(text, keep)
    for start, end in spans:
        if text[start] in "{[" and _BLANK.search(text, start, end) and objects(text, start, end) == [(start, end)]:
            swaps[start, end] = text[start:end] if _overlaps(wanted, start, end) else minified(text[start:end])
    blocked = merged([*spans, *tables])
    still = merged([*_code(text), *_columns(text, blocked)])
    swaps.update(dict.fromkeys(_notices(text, merged([*blocked, *still])), ""))
    fixed = merged([*spans, *(span for span in still if not _within(tables, span[0])), *swaps])
    return _cleaned(text, fixed, swaps, tables)


def _change(text: str, aim: Aim) -> str:
    # A question within the text is not to be worded anew: what shows where it stands may be looking for it.
    asked = (aim.query or "").strip()
    return normalize(text, (*aim.keep, asked) if asked and asked != text.strip() else aim.keep)


STAGE = Rewriting("normalize", True, _change)

_HIDDEN = "\u200b\u2060\ufeff\u00ad\r"  # zero-width space, word joiner, byte order mark, soft hyphen
_BLANK = re.compile(r"\s")
_ODD = re.compile("[\u200b\u2060\ufeff\u00ad\r\u00a0]")
_EMPTY = re.compile(r"\n{3,}")
_RUN = re.compile(r"  +")
_CELL = re.compile(r"(?<!\\)[ \t]*+\|[ \t]*+")


def _cleaned(text: str, fixed: Sequence[Span], swaps: Mapping[Span, str], tables: Sequence[Span]) -> str:
    """Put the text together again: fixed spans as they are or swapped, and between them without spare blanks."""
    made: list[str] = []
    edges = [edge for span in tables for edge in span]
    at = 0
    for start, end in [*fixed, (len(text), len(text))]:
        cuts = [at, *edges[bisect_right(edges, at) : bisect_left(edges, start)], start] if start > at else ()
        for left, right in pairwise(cuts):
            piece = _tidy(text[left:right], begins=left == 0 or text[left - 1] == "\n", ends=right == len(text))
            made.append(_CELL.sub("|", piece) if bisect_right(edges, left) % 2 else piece)  # odd: within a table
        made.append(swaps.get((start, end), text[start:end]))
        at = end
    whole = "".join(made)
    return whole.lstrip("\n") if not fixed or fixed[0][0] > 0 else whole


def _tidy(piece: str, *, begins: bool, ends: bool) -> str:
    """Clean what stands between two fixed spans; ``begins`` a line, ``ends`` the text."""
    if "\r" in piece or (not piece.isascii() and _ODD.search(piece)):
        piece = piece.replace("\u00a0", " ")
        for sign in _HIDDEN:
            piece = piece.replace(sign, "")
    if not begins and piece[:2] == "  ":  # behind a span, where no letter shows that the line has begun
        piece = " " + piece.lstrip(" ")
    if ends:
        piece = piece.rstrip()
    if " \n" in piece or "\t\n" in piece:
        *lines, last = piece.split("\n")
        piece = "\n".join([*(line.rstrip(" \t") for line in lines), last])
    if "\n\n\n" in piece:
        piece = _EMPTY.sub("\n\n", piece)
    if "  " not in piece:
        return piece
    # Not those a line begins with. Looking behind is left to Python: so the search can skip to the next two blanks.
    return _RUN.sub(lambda run: run[0] if piece[run.start() - 1 : run.start()].strip() == "" else " ", piece)


def _within(spans: Sequence[Span], place: int, end: int = 0) -> bool:
    """Say whether a place, or what reaches from it to ``end``, is within one of the spans."""
    at = bisect_right(spans, (place, sys.maxsize)) - 1
    return at >= 0 and max(place + 1, end) <= spans[at][1]


_DELIMITER = re.compile(r"^[ \t]*+\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)++\|?[ \t\r]*+$", re.MULTILINE)
_DASHES = re.compile(r"-+")


def _tables(text: str, spans: Sequence[Span]) -> tuple[list[Span], dict[Span, str]]:
    """Find Markdown tables, and what their lines of dashes become."""
    tables: list[Span] = []
    swaps: dict[Span, str] = {}
    done = 0
    for match in _DELIMITER.finditer(text) if "|" in text else ():
        begin = text.rfind("\n", done, max(match.start() - 1, done)) + 1 or done
        if match.start() < max(done, 1) or "|" not in text[begin : match.start()] or _within(spans, match.start()):
            continue
        end = match.end()
        while end < len(text):
            stop = text.find("\n", end + 1)
            stop = len(text) if stop < 0 else stop
            if "|" not in text[end:stop]:
                break
            end = stop
        tables.append((begin, end))
        indent = match[0][: len(match[0]) - len(match[0].lstrip())]
        swaps[match.span()] = indent + _DASHES.sub("-", "".join(match[0].split()))
        done = end
    return tables, swaps


_INDENTED = re.compile(r"^(?: {4}|\t)[ \t]*+[^\s][^\n]*+", re.MULTILINE)
_GAP = re.compile(r"   (?<=\S...)( *+)(?=(\S++))")


def _code(text: str) -> list[Span]:
    if "\n    " not in text and "\n\t" not in text and text[:1] not in ("\t", " "):
        return []
    return [match.span() for match in _INDENTED.finditer(text)]


def _columns(text: str, blocked: Sequence[Span]) -> list[Span]:
    """Find neighbouring lines with gaps of three blanks or more whose words begin, or end, one above the other.

    Not within what is ``blocked``: tables, and what stays as it is anyway.
    """
    if "   " not in text:
        return []
    found: list[Span] = []
    last, edges = (-1, -1), frozenset[int]()
    for start, end in _lines_with(text, "   "):
        if _within(blocked, start, end):
            continue
        line = text[start:end]
        wide = list(_GAP.finditer(line))
        here = frozenset(place for match in wide for place in (match.end(1), -match.end(2)))
        if here & edges and last[1] + 1 == start:
            found += [last, (start, end)]
        last, edges = (start, end), here
    return merged(set(found))


def _lines_with(text: str, sign: str) -> Iterator[Span]:
    at = text.find(sign)
    while at >= 0:
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield start, end
        at = text.find(sign, end)


_CODE_SIGNS = frozenset("{}=<>;|\\`#*")
_LETTERS, _LONGEST = 24, 200  # a longer line is a passage: that is for dedupe


def _notices(text: str, blocked: Sequence[Span]) -> list[Span]:
    """Find the later copies of lines that stand beside an empty line three times or more, line ends included."""
    lines = text.split("\n")
    often = Counter(lines)
    repeated = {
        line for line, times in often.items()
        if times > 2
        and _LETTERS <= len(line.strip()) <= _LONGEST and line.count(" ") > 2 and not _CODE_SIGNS & set(line)
        and line[0].isalnum()
    }  # fmt: skip
    if not repeated:
        return []
    found, seen, start = [], set[str](), 0
    for i, line in enumerate(lines):
        if line in repeated:
            end = min(start + len(line) + 1, len(text))
            above, below = i == 0 or not lines[i - 1].strip(), i + 1 == len(lines) or not lines[i + 1].strip()
            if (above or below) and not _overlaps(blocked, start, end):
                # With an empty line on either side, one of them goes too.
                spare = len(lines[i + 1]) + 1 if above and below and i + 1 < len(lines) else 0
                if line in seen:
                    found.append((start, min(end + spare, len(text))))
                seen.add(line)
        start += len(line) + 1
    return found if len(found) > 1 else []


def _overlaps(spans: Sequence[Span], start: int, end: int) -> bool:
    at = bisect_right(spans, (start, sys.maxsize)) - 1
    return (at >= 0 and spans[at][1] > start) or (at + 1 < len(spans) and spans[at + 1][0] < end)
