"""hyperbolic: relevance shared by distance in the text's outline, which is a tree, and so a hyperbolic space.

Pieces are leaves; the way up to where two of them meet, and down again, is how far apart they are. A tree is the metric
space whose triangles are thinnest (0-hyperbolic: Gromov, "Hyperbolic groups", 1987). Its twins are the Poincaré
half-plane, the straight line along the text, and no sharing at all; the ablation is in the benchmark. As measured, the
tree and the line are equally good and both far better than no sharing on long transcripts; the half-plane, which lets
far pieces share more, is worse there than either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from tokenkit.compress.choosing import chosen
from tokenkit.compress.extracting import Extracting
from tokenkit.compress.outline import BLANK, SECTION, Outline, outline
from tokenkit.compress.relevance import STEPS, Scores, Spread, along, distances, relevance, spread_along
from tokenkit.compress.summarize import asked_for

Geometry = Literal["tree", "poincare", "euclidean", "flat"]

HEIGHT = 0.25
"""How high above the line of text pieces lie in the half-plane: the distance below which two are as one."""

REACH = 12.0
"""Distances along the text beyond which the half-plane's share is neither felt nor counted."""

PASSAGE_HEIGHT = SECTION_HEIGHT = 1.5
"""How far it is from a piece up to where its passage, and its section, come together."""

APART = 5.0
"""A distance beyond which hardly anything is shared: two passages meet only above."""


def hyperbolic(
    text: str,
    query: str | None,
    target: float,
    count: Callable[[str], int],
    keep: Sequence[str] = (),
    *,
    geometry: Geometry = "tree",
) -> str:
    """Return whole pieces of ``text`` in at most ``target`` of its tokens, as ``summarize`` does, by another distance.

    ``geometry`` says which: the outline's ``tree``, the ``poincare`` half-plane, ``euclidean`` along the text, ``flat``
    for no sharing between neighbours.
    """
    made = outline(text, keep)
    return chosen(made, _scores(made, query, geometry), target, count, keep)


def _scores(made: Outline, query: str | None, geometry: Geometry) -> Scores:
    return asked_for(made, relevance(made, query, GEOMETRIES[geometry]), query)


def in_tree(scores: Scores, made: Outline, sizes: Sequence[int]) -> Scores:
    """Share scores by the way through the outline: along a passage's lines, or up to where two passages meet and down.

    A passage's lines hang from it one after the other, as far apart as there is text between them; passages hang from
    sections. Every inner node gathers its leaves' scores and gives them back, faded by its height.
    """
    shared = spread_along(scores, made, sizes, {**STEPS, BLANK: APART, SECTION: APART})
    for height, nodes in ((PASSAGE_HEIGHT, made.passages), (SECTION_HEIGHT, made.sections)):
        gathered = [0.0] * (max(nodes, default=0) + 1)
        for node, score in zip(nodes, scores, strict=True):
            gathered[node] += score
        fade = math.exp(-2 * height)
        shared = [score + fade * gathered[node] for score, node in zip(shared, nodes, strict=True)]
    return shared


def in_half_plane(scores: Scores, made: Outline, sizes: Sequence[int]) -> Scores:
    """Share scores by geodesic distance between points at one height in the Poincaré half-plane.

    ``cosh d = 1 + x² / 2h²``: near pieces are about as far as along the text, far ones only logarithmically so.
    """
    places = _places(made, sizes)
    shared = []
    low = 0
    for i, here in enumerate(places):
        while here - places[low] > REACH:
            low += 1
        total = 0.0
        high = i
        while high < len(places) and places[high] - here <= REACH:
            high += 1
        for j in range(low, high):
            if scores[j]:
                apart = (places[j] - here) / HEIGHT
                total += scores[j] * math.exp(-math.acosh(1 + apart * apart / 2))
        shared.append(total)
    return shared


def _places(made: Outline, sizes: Sequence[int]) -> list[float]:
    return list(accumulate(distances(made, sizes, STEPS), initial=0.0))


def unshared(scores: Scores, made: Outline, sizes: Sequence[int]) -> Scores:
    """Leave every piece its own score."""
    return scores


GEOMETRIES: Mapping[str, Spread] = {
    "tree": in_tree,
    "poincare": in_half_plane,
    "euclidean": along,
    "flat": unshared,
}


STAGE = Extracting("hyperbolic", lambda made, aim: _scores(made, aim.query, "tree"))
