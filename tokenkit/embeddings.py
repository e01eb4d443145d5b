"""Texts as vectors, with a receipt for each request, and the nearest texts to a query."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from operator import mul
from typing import Any, NamedTuple

from tokenkit.catalog import Model
from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError
from tokenkit.money import show_usd, usd
from tokenkit.providers.base import Provider
from tokenkit.providers.embeddings import Embedder, embedder_of
from tokenkit.receipts import Receipt
from tokenkit.types import Message, Request, Response

Vector = list[float]


@dataclass(frozen=True, slots=True)
class Embeddings(Sequence[Vector]):
    """One vector for each text, in their order, and the receipts of the requests it took."""

    model: str
    vectors: tuple[Vector, ...] = field(repr=False)
    receipts: tuple[Receipt, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, place: Any) -> Any:
        return self.vectors[place]

    def __iter__(self) -> Iterator[Vector]:
        return iter(self.vectors)

    @property
    def dimensions(self) -> int:
        """How long each vector is; 0 where there is none."""
        return len(self.vectors[0]) if self.vectors else 0

    @property
    def cost(self) -> Decimal | None:
        """What they cost in USD; ``None`` when the price is unknown."""
        costs = [receipt.cost_nanos for receipt in self.receipts]
        return None if None in costs else usd(sum(cost for cost in costs if cost is not None))

    def __repr__(self) -> str:
        spent = "unknown" if self.cost is None else show_usd(int(self.cost * 10**9))
        return f"Embeddings({len(self)} x {self.dimensions} by {self.model}, {spent})"


class Near(NamedTuple):
    """One text near a query: its cosine similarity (-1 to 1), itself, and its place among the candidates."""

    score: float
    text: str
    place: int


def embed_all(
    texts: str | Sequence[str],
    model: Model,
    provider: Provider,
    dimensions: int | None,
    ask: Callable[[Provider, tuple[Message, ...]], Response],
) -> Embeddings:
    """Embed texts in as few requests as the provider allows; ``ask`` makes one. Raises ProtocolError for odd counts."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    embedder, vectors, receipts = embedder_of(provider), list[Vector](), list[Receipt]()
    for start in range(0, len(texts), embedder.most):
        part = tuple(Message("user", text) for text in texts[start : start + embedder.most])
        found: list[Vector] = []
        response = ask(vectorising(provider, embedder, dimensions, found), part)
        if len(found) != len(part):
            raise ProtocolError(f"{model.id} gave {len(found)} vectors for {len(part)} texts.")
        vectors.extend(found)
        if response.receipt is not None:
            receipts.append(response.receipt)
    return Embeddings(model.id, tuple(vectors), tuple(receipts))


def vectorising(provider: Provider, embedder: Embedder, dimensions: int | None, found: list[Vector]) -> Provider:
    """Return ``provider`` so that a request's messages are embedded, each one text, and the vectors put in ``found``.

    With it an embedding is a call like any other: the same layers retry, record and price it.
    """

    def encode(request: Request, to: Provider) -> WireRequest:
        found.clear()
        return embedder.encode([message.text for message in request.messages], to, request.model, dimensions)

    def decode(body: bytes) -> Response:
        vectors, usage = embedder.decode(body)
        found[:] = vectors
        return Response("", finish_reason="stop", usage=usage)

    return replace(provider, encode=encode, decode=decode)


def cosine(a: Vector, b: Vector) -> float:
    """Return the cosine similarity of two vectors; 0 where one has no length. Raises ProtocolError if sizes differ."""
    if len(a) != len(b):
        raise ProtocolError(f"Vectors of {len(a)} and {len(b)} dimensions cannot be compared: they are of two models.")
    length = math.hypot(*a) * math.hypot(*b)
    return sum(map(mul, a, b)) / length if length else 0.0


def nearest(query: Vector, candidates: Sequence[Vector], texts: Sequence[str], top: int) -> tuple[Near, ...]:
    """Return the ``top`` candidates nearest to ``query``, nearest first; equals keep their order."""
    pairs = enumerate(zip(candidates, texts, strict=True))
    scored = [Near(cosine(query, vector), text, place) for place, (vector, text) in pairs]
    return tuple(sorted(scored, key=lambda near: -near.score)[:top])
