"""What has changed since a text the model already has: short enough to send, plain enough to read, exact to apply.

A delta begins with one line that says what it is and how to read it. Each edit names lines of the earlier text, shows
how they begin, and gives the lines that take their place; of a very long line, only the passages that changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenkit.compress.align import Block, blocks
from tokenkit.compress.damage import damage
from tokenkit.compress.pipeline import Aim, texts_of, touchable, with_texts
from tokenkit.errors import UserError
from tokenkit.tokens import count as count_tokens
from tokenkit.types import Message

HEADER = "Earlier text edited (@lines, count)"
"""The line a delta begins with: enough to read the rest by, in eight tokens."""


Hint = Callable[[str], str]
"""What is said of an earlier line behind an edit's place."""


def delta(old: str, new: str, count: Callable[[str], int] = count_tokens) -> str:
    """Return what turns ``old`` into ``new``: edits, or ``new`` itself where edits would take as many tokens.

    :func:`apply` gives back ``new``, byte for byte, whatever the texts are. The result never has more tokens than
    ``new``, by ``count``; the one exception is a ``new`` that begins with the very line that opens a delta.
    """
    made = _edits(old, new)
    if _is_delta(new):
        return min(made, f"{HEADER}\n{_WHOLE}\n{new}", key=count)
    return made if count(made) < count(new) else new


def apply(old: str, delta: str) -> str:
    """Return the text that ``delta`` was made for. Raises UserError where it does not belong to ``old``."""
    if not _is_delta(delta):
        return delta
    lines, edits = old.split("\n"), delta.split("\n")[1:]
    if edits[:1] == [_WHOLE]:
        return "\n".join(edits[1:])
    if edits == [_NONE]:
        return old
    made: list[str] = []
    at = done = 0
    while at < len(edits):
        match = _EDIT.fullmatch(edits[at])
        if match is None:
            raise UserError(f"Line {at + 2} of these edits is none: {edits[at][:60]!r}. Were they changed on the way?")
        first, size = int(match["first"]), int(match["size"])
        start = first if match["after"] else first - 1
        end = start if match["after"] else int(match["last"] or first)
        rows = edits[at + 1 : at + 1 + size]
        fits = done <= start <= end <= len(lines) and len(rows) == size and (match["after"] or start < end)
        if not fits or (match["hint"] or "") not in lines[max(first - 1, 0)]:
            raise UserError(f"The edit {edits[at][:60]!r} does not fit: it was made for another earlier text.")
        made += lines[done:start]
        made += [_replaced(lines[start], rows)] if match["within"] else rows
        at, done = at + 1 + size, end
    return "\n".join(made + lines[done:])


def _is_delta(text: str) -> bool:
    return text.startswith(HEADER) and text[len(HEADER) : len(HEADER) + 1] in ("", "\n")


_EDIT = re.compile(
    r"@(?P<first>[0-9]+)(?:-(?P<last>[0-9]+)|(?P<after>\+)|(?P<within>/))? (?P<size>[0-9]+)(?: ~ (?P<hint>.+))?"
)
_WHOLE, _NONE = "@all", "@none"
_SPARE = 24  # characters; a shared block this short costs less to send again than another edit's line
_HINT = 16
_FEW = 2  # edits; so few are found without hints, which would make them dearer than a unified diff
_LONG_LINE = 1_000
_MOST_PASSAGES = 64


def _edits(old: str, new: str) -> str:
    lines, news = old.split("\n"), new.split("\n")
    made, hunks = [HEADER], list(_hunks(lines, news))
    hint = _hint if len(hunks) > _FEW else _unsaid
    for a, a_end, b, b_end in hunks:
        same = a_end - a == b_end - b
        if same and any(len(line) > _LONG_LINE for line in lines[a:a_end]):
            for i, j in zip(range(a, a_end), range(b, b_end), strict=True):
                made += _line(lines, i, news[j], hint)
        else:
            made += _edit(lines, a, a_end, news[b:b_end], hint)
    return "\n".join(made if len(made) > 1 else [HEADER, _NONE])


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Yield what differs: ``old[a:a_end]`` became ``new[b:b_end]``."""
    a = b = 0
    shared = blocks(old, new)
    for i, block in enumerate([*shared, Block(len(old), len(new), 0)]):
        inner = 0 < i < len(shared) and (a, b) != (block.a, block.b)
        if inner and block.size < _SPARE and sum(map(len, old[block.a : block.a + block.size])) < _SPARE:
            continue
        if (a, b) != (block.a, block.b):
            yield a, block.a, b, block.b
        a, b = block.a + block.size, block.b + block.size


def _edit(old: Sequence[str], a: int, a_end: int, rows: Sequence[str], hint: Hint) -> list[str]:
    """Write one edit: its line, then the rows that come."""
    if a == a_end:
        place, shown = f"{a}+", hint(old[a - 1]) if a else ""
    else:
        place, shown = f"{a + 1}" if a_end == a + 1 else f"{a + 1}-{a_end}", hint(old[a])
    return [f"@{place} {len(rows)}{shown}", *rows]


def _hint(line: str) -> str:
    """Show how a line begins, so that a reader need not count to find it."""
    begin = line.strip()
    if len(begin) > _HINT:
        begin = begin[:_HINT].rsplit(None, 1)[0]
    return f" ~ {begin}" if begin and begin.isprintable() else ""


def _unsaid(line: str) -> str:
    return ""


def _line(old: Sequence[str], at: int, new: str, hint: Hint) -> list[str]:
    """Write an edit of one line: of a very long one the passages that changed, else all of it."""
    line = old[at]
    if line == new:
        return []
    whole = _edit(old, at, at + 1, [new], hint)
    if len(line) <= _LONG_LINE or len(new) <= _LONG_LINE:
        return whole
    rows = _passages(line, new)
    if not rows or sum(map(len, rows)) > len(new) // 2 or _replaced(line, rows) != new:
        return whole
    return [f"@{at + 1}/ {len(rows)}{hint(line)}", *rows]


_CLAUSE = re.compile(r"[^.,;:!?]{1,200}[.,;:!?]*\s*|[.,;:!?]+\s*")


def _passages(old: str, new: str) -> list[str]:
    """Return passages of ``old``, each found there once, and what they become, in turn; nothing where that fails."""
    clauses, news = _CLAUSE.findall(old), _CLAUSE.findall(new)
    starts = [0]
    for clause in clauses:
        starts.append(starts[-1] + len(clause))
    rows: list[str] = []
    done = 0
    hunks = list(_hunks(clauses, news))
    if len(hunks) > _MOST_PASSAGES:
        return []
    for a, a_end, b, b_end in hunks:
        if a < done:
            return []
        for _ in range(4):
            passage = old[starts[a] : starts[a_end]]
            if passage.strip() and old.count(passage) == 1:
                break
            if a > done and b > 0:
                a, b = a - 1, b - 1
            if a_end < len(clauses) and b_end < len(news) and clauses[a_end] == news[b_end]:
                a_end, b_end = a_end + 1, b_end + 1
        else:
            return []
        rows += [passage, "".join(news[b:b_end])]
        done = a_end
    return rows


def _replaced(line: str, rows: Sequence[str]) -> str:
    """Put the second of each two rows in the place of the first."""
    made, done = [], 0
    for passage, instead in zip(rows[::2], rows[1::2], strict=True):
        at = line.find(passage, done)
        if at < 0:
            raise UserError(
                "A passage to be changed is not in the line: these edits were made for another earlier text."
            )
        made += [line[done:at], instead]
        done = at + len(passage)
    return "".join([*made, line[done:]])


@dataclass(frozen=True, slots=True)
class Diff:
    """The stage that sends only what has changed where the model has an earlier version in full.

    Earlier versions are the texts of ``aim.seen`` and those that stand before in the same messages. Each delta is
    applied, and taken only if it gives back the text. Put it last: what comes after it must leave deltas alone.
    """

    name: str = "diff"
    lossless: bool = True
    proves: bool = True

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        """Replace every text that may be touched by its delta, where that has fewer tokens."""
        free = touchable(messages, everything=aim.everything)
        known = [(text, _lines(text)) for text in aim.seen if len(text) >= _WORTH]
        made = []
        for message, may in zip(messages, free, strict=True):
            for text in texts_of([message]):
                new = _against(text, known, aim) if may else text
                made += [new] if may else []
                if new == text and len(text) >= _WORTH:
                    known.append((text, _lines(text)))
        return with_texts(messages, made, free)


STAGE = Diff()

_WORTH = 64  # characters; a delta of less cannot pay for its first line


def _lines(text: str) -> frozenset[str]:
    return frozenset(line for line in text.split("\n") if len(line) > 3)


def _against(text: str, known: Sequence[tuple[str, frozenset[str]]], aim: Aim) -> str:
    """Return the delta of ``text`` to the known text that shares most with it, or ``text``."""
    if len(text) < _WORTH or not known:
        return text
    mine = _lines(text)
    # The latest of equals: it is the nearest in the model's context.
    place = max(range(len(known)), key=lambda i: (sum(map(len, mine & known[i][1])), i))
    old = known[place][0]
    made = delta(old, text, aim.count)
    if made == text or apply(old, made) != text:
        return text
    if len(known) > 1:
        made = f"(Earlier text: the one that begins{_hint(old).replace(' ~', ':') or ' with a blank'})\n{made}"
    harmed = damage(text, made, aim.keep, proven=True)
    return text if harmed or aim.count(made) >= aim.count(text) else made
