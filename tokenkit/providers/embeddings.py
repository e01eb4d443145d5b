"""Texts as vectors on the wire: for each dialect one record of two pure functions, as the chat dialects have four.

Shapes from the API references of OpenAI ("Create embeddings"), Google ("batchEmbedContents") and Ollama ("Generate
embeddings"). An embedding writes no tokens: its output is 0, known.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError, UserError
from tokenkit.providers import anthropic, azure, gemini, ollama, openai
from tokenkit.providers.base import Provider
from tokenkit.providers.failures import failure
from tokenkit.providers.shapes import body_of, count, record, records
from tokenkit.types import Usage

Vectors = list[list[float]]


@dataclass(frozen=True, slots=True)
class Embedder:
    """How one dialect is asked for vectors.

    ``encode`` takes texts, provider, model and the wanted dimensions (``None``: the model's own); ``decode`` gives one
    vector for each text, in their order, and the usage of them all. ``most`` is how many texts one request may hold.
    """

    encode: Callable[[Sequence[str], Provider, str, int | None], WireRequest]
    decode: Callable[[bytes], tuple[Vectors, Usage]]
    most: int


def embedder_of(provider: Provider) -> Embedder:
    """Return how ``provider`` is asked for vectors. Raises UserError for Anthropic, which has none."""
    if provider.encode is anthropic.encode:
        raise UserError(f"{provider.name} makes no embeddings: ask a provider that does, such as openai or gemini.")
    if provider.encode is gemini.encode:
        return GEMINI
    return OLLAMA if provider.encode is ollama.encode else OPENAI


def _encode_openai(texts: Sequence[str], provider: Provider, model: str, dimensions: int | None) -> WireRequest:
    body: dict[str, Any] = {"model": model, "input": _checked(texts)}
    on_azure = provider.encode is azure.encode
    if on_azure or provider.base_url == openai.BASE_URL:
        # A quarter of the bytes, and exact; compatible servers may not know it, and are read either way.
        body["encoding_format"] = "base64"
    if dimensions is not None:
        body["dimensions"] = dimensions
    url = azure.address(provider, model, "embeddings") if on_azure else f"{provider.base_url}/embeddings"
    return _posted(url, body, provider)


def _decode_openai(body: bytes) -> tuple[Vectors, Usage]:
    data = _answer(body)
    rows = records(data.get("data"))
    if not all(isinstance(row.get("index", 0), int) for row in rows):
        raise ProtocolError("An embedding has no index that is a number.")
    places = [row.get("index", i) for i, row in enumerate(rows)]
    if sorted(places) != list(range(len(rows))):
        raise ProtocolError("The embeddings do not have the indices of the texts.")
    ordered = [row.get("embedding") for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]
    return _vectors(ordered), Usage(count(record(data.get("usage")).get("prompt_tokens")), 0)


def _encode_gemini(texts: Sequence[str], provider: Provider, model: str, dimensions: int | None) -> WireRequest:
    name = gemini.resource(model)
    settings = {} if dimensions is None else {"outputDimensionality": dimensions}
    asked = [{"model": name, "content": {"parts": [{"text": text}]}, **settings} for text in _checked(texts)]
    return _posted(f"{gemini.versioned(provider.base_url)}/{name}:batchEmbedContents", {"requests": asked}, provider)


def _decode_gemini(body: bytes) -> tuple[Vectors, Usage]:
    data = _answer(body)
    used = count(record(data.get("usageMetadata")).get("promptTokenCount"))
    return _vectors([row.get("values") for row in records(data.get("embeddings"))]), Usage(used, 0)


def _encode_ollama(texts: Sequence[str], provider: Provider, model: str, dimensions: int | None) -> WireRequest:
    # Ollama cuts a text that is too long unless told not to: a vector of half a text would be silently wrong.
    body: dict[str, Any] = {"model": model, "input": _checked(texts), "truncate": False}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return _posted(f"{ollama.address(provider.base_url)}/api/embed", body, provider)


def _decode_ollama(body: bytes) -> tuple[Vectors, Usage]:
    data = _answer(body)
    rows = data.get("embeddings")
    return _vectors(rows if isinstance(rows, list) else []), Usage(count(data.get("prompt_eval_count")), 0)


OPENAI = Embedder(_encode_openai, _decode_openai, 2048)
GEMINI = Embedder(_encode_gemini, _decode_gemini, 100)
OLLAMA = Embedder(_encode_ollama, _decode_ollama, 512)


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise UserError("Embeddings are made of a list of texts, none of them empty.")
    return list(texts)


def _posted(url: str, body: Mapping[str, Any], provider: Provider) -> WireRequest:
    headers = (("content-type", "application/json"), *provider.headers)
    return WireRequest("POST", url, openai.dumps(body), headers, provider.credentials())


def _answer(body: bytes) -> dict[str, Any]:
    data = body_of(body)
    if data.get("error"):
        raise failure(None, {}, data)
    return data


def _vectors(rows: Sequence[Any]) -> Vectors:
    found = [_vector(row) for row in rows]
    if not found or len({len(vector) for vector in found}) != 1:
        raise ProtocolError("The answer has no embeddings, or embeddings of different lengths.")
    return found


def _vector(row: Any) -> list[float]:
    """Read one vector: a list of numbers, or the base64 of little-endian 32-bit floats."""
    try:
        if isinstance(row, str):
            raw = base64.b64decode(row, validate=True)
            numbers = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        else:
            numbers = [float(n) for n in row if isinstance(n, int | float) and not isinstance(n, bool)]
            if len(numbers) != len(row):
                numbers = []
    except (TypeError, ValueError, OverflowError, binascii.Error, struct.error):
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        raise ProtocolError("An embedding is not a list of finite numbers.")
    return numbers
