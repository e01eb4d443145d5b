"""Choosing pieces until the tokens are spent: the best first, what must stay before all, and the text's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenkit.compress.outline import Outline
from tokenkit.compress.spans import Span, kept


def chosen(
    made: Outline, scores: Sequence[float], target: float, count: Callable[[str], int], keep: Sequence[str] = ()
) -> str:
    """Return the best pieces, in order, in at most ``target`` of the tokens; more only for what must be kept.

    Pieces are whole or not there at all.
    """
    total = count(made.text)
    budget = int(target * total)
    pieces = made.pieces
    forced = _forced(made, kept(made.text, keep))
    order = sorted((i for i, piece in enumerate(pieces) if piece.strip()), key=lambda i: (-scores[i], i))
    order = [i for i in order if forced[i]] + [i for i in order if not forced[i]]
    must = sum(forced)
    sizes = [count(piece) for piece in pieces]
    goal, best = float(budget), ""
    # The pieces' tokens add up to a little more than those of the text they make.
    for _ in range(3):
        text = _joined(pieces, _taken(sizes, order, must, goal))
        size = count(text)
        if size > budget:
            goal *= budget / size * 0.995
            continue
        best = max(best, text, key=len)
        if size >= 0.98 * budget or not size:
            break
        goal *= budget / size
    return best or _joined(pieces, set(order[:must]))


def _forced(made: Outline, spans: Sequence[Span]) -> list[bool]:
    found = [False] * len(made.ends)
    at, start = 0, 0
    for i, end in enumerate(made.ends):
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
