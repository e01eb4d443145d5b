"""semantic: relevance by meaning as well as by words, from an embedding model of the caller's own.

    from sentence_transformers import SentenceTransformer          # any model that turns texts into vectors
    kit.stages = {**kit.stages, "semantic": semantic(SentenceTransformer("path/to/model").encode)}

Nothing is downloaded here and no model comes with the kit. Words stay half of the judgement by default: on meetings,
small sentence models by themselves find less than words do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import mul

from tokenkit.compress.extracting import Extracting
from tokenkit.compress.outline import Outline
from tokenkit.compress.pipeline import Aim
from tokenkit.compress.relevance import NEARBY, OWN, Scores, along, relevance, scaled
from tokenkit.compress.summarize import asked_for
from tokenkit.errors import UserError

Embed = Callable[[list[str]], Sequence[Sequence[float]]]
"""One vector for each text, in their order."""


def semantic(embed: Embed, *, share: float = 0.5, name: str = "semantic") -> Extracting:
    """Return a stage that keeps the pieces nearest to the question by meaning (``share``) and by words (the rest).

    Without a question, near is what lies close to the whole text's mean. Texts go to ``embed`` a stage at a time, all
    pieces together. Raises UserError for a share outside 0 to 1; the stage is skipped, and says so, where ``embed``
    fails or gives something other than one vector a text.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share is how much meaning counts, from 0 to 1, not {share!r}.")

    def judged(made: Outline, aim: Aim) -> Scores:
        places = [place for place, piece in enumerate(made.pieces) if piece.strip()]
        asked = [aim.query] if aim.query and aim.query.strip() else []
        vectors = _vectors(embed, [*asked, *(made.pieces[place].strip() for place in places)])
        wanted = vectors.pop(0) if asked else [sum(column) for column in zip(*vectors, strict=True)]
        near = [0.0] * len(made.pieces)
        for place, vector in zip(places, vectors, strict=True):
            near[place] = max(_cosine(wanted, vector), 0.0)
        sizes = [len(piece) for piece in made.pieces]
        low = min((near[place] for place in places), default=0.0)  # of one language, all texts are somewhat alike
        meaning = scaled([max(score - low, 0.0) for score in near])
        nearby = scaled(along(meaning, made, sizes))
        meaning = scaled([OWN * a + NEARBY * b for a, b in zip(meaning, nearby, strict=True)])
        words = scaled(relevance(made, aim.query, along))
        both = [share * a + (1 - share) * b for a, b in zip(meaning, words, strict=True)]
        return asked_for(made, both, aim.query)

    return Extracting(name, judged)


def _vectors(embed: Embed, texts: list[str]) -> list[list[float]]:
    vectors = [[float(value) for value in vector] for vector in embed(texts)]
    if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) > 1:
        raise UserError(
            f"the embedding gave {len(vectors)} vectors for {len(texts)} texts, or vectors of unequal length"
        )
    if not all(math.isfinite(value) for vector in vectors for value in vector):
        raise UserError("the embedding gave vectors with values that are no numbers")
    return vectors


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return sum(map(mul, a, b)) / length if length else 0.0
