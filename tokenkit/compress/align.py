"""Which lines two versions of a text share, found by lines that occur once, in time that grows with the text."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Block(NamedTuple):
    """Lines ``old[a : a + size]`` are lines ``new[b : b + size]``."""

    a: int
    b: int
    size: int


def blocks(old_lines: Sequence[str], new_lines: Sequence[str]) -> list[Block]:
    """Return what the two share: blocks in order in both, none touching the next.

    Patience diff: lines found once on either side are matched where their order agrees, and what lies between is looked
    at again by itself. Where no line is single, the first of its kind is matched with the first, the second with the
    second. Small rests are solved exactly. Depth and rests are bounded, so that no text takes quadratic time.
    """
    # Numbers in the order of first sight: tables keyed by them are read from front to back, which memory rewards.
    number: dict[str, int] = {}
    old = [number.setdefault(line, len(number)) for line in old_lines]
    new = [number.setdefault(line, len(number)) for line in new_lines]
    pairs: list[Block] = []
    ranges = [(0, len(old), 0, len(new), 0)]
    while ranges:
        a, a_end, b, b_end, depth = ranges.pop()
        size = _common(old, new, a, a_end, b, b_end)
        if size:
            pairs.append(Block(a, b, size))
            a, b = a + size, b + size
        size = _common_end(old, new, a, a_end, b, b_end)
        if size:
            a_end, b_end = a_end - size, b_end - size
            pairs.append(Block(a_end, b_end, size))
        if a == a_end or b == b_end:
            continue
        if (a_end - a) * (b_end - b) <= _EXACT:
            pairs += _longest(old, new, a, a_end, b, b_end)
        elif depth < _DEPTH:
            last_a, last_b = a, b
            for i, j, size in _joined(_anchors(old[a:a_end], new[b:b_end])):
                ranges.append((last_a, a + i, last_b, b + j, depth + 1))
                pairs.append(Block(a + i, b + j, size))
                last_a, last_b = a + i + size, b + j + size
            if last_a > a:
                ranges.append((last_a, a_end, last_b, b_end, depth + 1))
    return list(_joined(sorted(pairs)))


_EXACT = 1024  # cells of the exact table: at most 16 for each line of a rest
_DEPTH = 6


def _common(old: Sequence[int], new: Sequence[int], a: int, a_end: int, b: int, b_end: int) -> int:
    most, size = min(a_end - a, b_end - b), 0
    while size < most and old[a + size] == new[b + size]:
        size += 1
    return size


def _common_end(old: Sequence[int], new: Sequence[int], a: int, a_end: int, b: int, b_end: int) -> int:
    most, size = min(a_end - a, b_end - b), 0
    while size < most and old[a_end - size - 1] == new[b_end - size - 1]:
        size += 1
    return size


def _anchors(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Match lines that are single on either side, or, where none is, lines by their how-manieth copy they are."""
    once, here = Counter(new), Counter(old)
    place = {line: j for j, line in enumerate(new) if once[line] == 1}
    pairs = [(i, place[line]) for i, line in enumerate(old) if here[line] == 1 and line in place]
    if not pairs:
        places: defaultdict[int, list[int]] = defaultdict(list)
        for j, line in enumerate(new):
            places[line].append(j)
        turn: Counter[int] = Counter()
        for i, line in enumerate(old):
            if turn[line] < once[line]:
                pairs.append((i, places[line][turn[line]]))
                turn[line] += 1
    return ((i, j, 1) for i, j in _rising(pairs))


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest row of pairs, already rising in the first number, that rises in the second too."""
    tops: list[int] = []  # the smallest end of a row of each length
    ends: list[int] = []  # which pair that is
    before: list[int] = []
    for at, (_, j) in enumerate(pairs):
        length = bisect_left(tops, j)
        before.append(ends[length - 1] if length else -1)
        if length == len(tops):
            tops.append(j)
            ends.append(at)
        else:
            tops[length], ends[length] = j, at
    row, at = [], ends[-1] if ends else -1
    while at >= 0:
        row.append(pairs[at])
        at = before[at]
    return row[::-1]


def _longest(old: Sequence[int], new: Sequence[int], a: int, a_end: int, b: int, b_end: int) -> Iterator[Block]:
    """Yield a longest common subsequence of two short rests, line by line, from the table of its lengths."""
    wide = b_end - b
    table = [[0] * (wide + 1) for _ in range(a_end - a + 1)]
    for i in range(a_end - a - 1, -1, -1):
        row, below, line = table[i], table[i + 1], old[a + i]
        for j in range(wide - 1, -1, -1):
            row[j] = below[j + 1] + 1 if line == new[b + j] else max(below[j], row[j + 1])
    i = j = 0
    while i < a_end - a and j < wide:
        if old[a + i] == new[b + j]:
            yield Block(a + i, b + j, 1)
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1


def _joined(pairs: Iterable[tuple[int, int, int]]) -> Iterator[Block]:
    """Yield sorted blocks, those that touch made one."""
    a = b = size = 0
    for i, j, more in pairs:
        if (a + size, b + size) != (i, j):
            if size:
                yield Block(a, b, size)
            a, b, size = i, j, 0
        size += more
    if size:
        yield Block(a, b, size)


def shared_start(old: str, new: str) -> int:
    """Return how many characters two texts begin with alike."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old.startswith(new[:middle]):
            low = middle
        else:
            high = middle - 1
    return low
