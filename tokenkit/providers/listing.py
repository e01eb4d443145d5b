"""Which models a provider says it has: for each dialect the address to ask, and where its answer holds the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenkit.effects import WireRequest
from tokenkit.errors import ProtocolError
from tokenkit.providers import anthropic, azure, gemini, ollama, openai
from tokenkit.providers.base import Provider
from tokenkit.providers.failures import failure
from tokenkit.providers.shapes import body_of, records, word


def encode(provider: Provider) -> WireRequest:
    """Write the request for the list of models. One page is asked for, of the size each vendor allows."""
    return WireRequest("GET", _address(provider), b"", provider.headers, provider.credentials())


def decode(body: bytes) -> tuple[str, ...]:
    """Read the names out of any dialect's list, as a request names them, in the provider's order.

    Raises what an error body says, or ProtocolError where there is no list.
    """
    data = body_of(body)
    if data.get("error"):
        raise failure(None, {}, data)
    rows = data.get("data", data.get("models"))
    if not isinstance(rows, list):
        raise ProtocolError("The answer has no list of models.")
    return tuple(dict.fromkeys(name for row in records(rows) if (name := _name(row))))


def _name(row: Mapping[str, Any]) -> str | None:
    # OpenAI and Anthropic call it id; Gemini and Ollama name, which Gemini writes as models/NAME.
    name = word(row.get("id")) or word(row.get("name")) or word(row.get("model"))
    return name.removeprefix("models/") if name else None


def _address(provider: Provider) -> str:
    if provider.encode is anthropic.encode:
        return f"{provider.base_url.removesuffix('/v1')}/v1/models?limit=1000"
    if provider.encode is gemini.encode:
        return f"{gemini.versioned(provider.base_url)}/models?pageSize=1000"
    if provider.encode is ollama.encode:
        return f"{ollama.address(provider.base_url)}/api/tags"
    if provider.encode is azure.encode:
        return azure.models(provider)
    return f"{provider.base_url or openai.BASE_URL}/models"
