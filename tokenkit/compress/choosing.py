"""Choosing pieces until the tokens are spent: the best first, what must stay before all, and the text's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from tokenkit.compress.outline import Outline
from tokenkit.compress.spans import Span, kept


def chosen(
    made: Outline, scores: Sequence[float], target: float, count: Callable[[str], int], keep: Sequence[str] = ()
) -> str:
    """Return the best pieces, in order, in at most ``target`` of the tokens; more only for what must be kept.

    Pieces are whole or not there at all.
    """
    return picked(made, scores, target, count, keep, [(0, len(made.ends))])[0]


def picked(
    made: Outline,
    scores: Sequence[float],
    target: float,
    count: Callable[[str], int],
    keep: Sequence[str],
    ranges: Sequence[Span],
    instead: str = "",
) -> list[str]:
    """Return as :func:`chosen` does, for each of several texts what is chosen of it, the best of all coming first.

    ``ranges`` are the pieces of each text; one of which nothing is chosen becomes ``instead``, if that is shorter.
    """
    pieces = made.pieces
    texts = ["".join(pieces[a:b]) for a, b in ranges]
    budget = int(target * sum(map(count, texts)))
    forced = [f for (a, b), text in zip(ranges, texts, strict=True) for f in _forced(pieces[a:b], kept(text, keep))]
    order = sorted((i for i, piece in enumerate(pieces) if piece.strip()), key=lambda i: (-scores[i], i))
    order = [i for i in order if forced[i]] + [i for i in order if not forced[i]]
    must = sum(forced)
    sizes = [count(piece) for piece in pieces]
    rest = count(instead) if instead else 0

    def written(taken: set[int]) -> list[str]:
        made = [_joined(pieces[a:b], {i - a for i in range(a, b) if i in taken}) for a, b in ranges]
        return [
            one if one.strip() or not rest or not text.strip() else (instead if rest < count(text) else text)
            for one, text in zip(made, texts, strict=True)
        ]

    goal, most, best = float(budget - rest * len(ranges)), -1, [""]
    # The pieces' tokens add up to a little more than those of the text they make.
    for _ in range(3):
        tried = written(_taken(sizes, order, must, goal))
        size = sum(map(count, tried))
        if size > budget:
            goal *= budget / size * 0.995
            continue
        if size > most:
            most, best = size, tried
        if size >= 0.98 * budget or not size:
            break
        goal *= budget / size
    return best if most > 0 or (most == 0 and not must) else written(set(order[:must]))


def _forced(pieces: Sequence[str], spans: Sequence[Span]) -> list[bool]:
    found = [False] * len(pieces)
    at, start = 0, 0
    for i, end in enumerate(accumulate(map(len, pieces))):
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        found[i] = at < len(spans) and spans[at][0] < end
        start = end
    return found


def _taken(sizes: Sequence[int], order: Sequence[int], must: int, goal: float) -> set[int]:
    taken = set(order[:must])
    used = sum(sizes[i] for i in taken)
    for i in order[must:]:
        if used + sizes[i] <= goal:
            taken.add(i)
            used += sizes[i]
    return taken


def _joined(pieces: Sequence[str], taken: set[int]) -> str:
    """Join what was taken, two lines never as one; a blank piece between, where the text had any, parts passages."""
    made: list[str] = []
    ended = False
    for i, piece in enumerate(pieces):
        if i in taken or (not piece.strip() and made and made[-1].strip()):
            if ended and made and not made[-1].endswith("\n") and piece.strip():
                made.append("\n")
            made.append(piece)
            ended = False
        else:
            ended = ended or piece.endswith("\n")
    return "".join(made)
