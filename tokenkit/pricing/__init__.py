"""What a model costs, as exact integers: whose word it is, which row, which tier, at what time.

Layers, strongest first: a user's override, a provider's configuration, our own rows (``ollama`` costs nothing), the
bundled data of the ``genai-prices`` package, and then nothing: an unknown price is ``None``, never 0. The data is read
as installed; nothing here goes to the network, and a price updater running elsewhere in the process does not change
what a receipt says.

Long-context tiers are cliffs: once a prompt is longer than a tier's threshold, the whole call is charged at that tier.
Left out, because token counts cannot carry them, are prices by audio, picture, video, page, character, message,
search and tool call, and of citations; ``PriceRule.left_out`` names those a model has. A cache written for an hour is
dearer than the usual five minutes: say so with ``context={"cache_ttl": "1h"}``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tokenkit.pricing import published
from tokenkit.pricing.profiles import PROFILES, Profile, profile
from tokenkit.pricing.published import provenance
from tokenkit.pricing.rules import Period, PriceRule, Rates, flat

__all__ = [
    "PROFILES",
    "Overrides",
    "Period",
    "PriceRule",
    "Profile",
    "Rates",
    "canonical",
    "context_window",
    "flat",
    "names",
    "price",
    "profile",
    "provenance",
    "resolve",
]

Overrides = Mapping[str, PriceRule]
"""Prices by ``provider/name``, by ``name``, or by ``provider/*``."""


def resolve(
    provider: str,
    model: str,
    *,
    at: int | None = None,
    overrides: Overrides | Sequence[Overrides] = (),
    context: Mapping[str, str] | None = None,
) -> PriceRule | None:
    """Return the price of ``model`` at ``provider``, or ``None`` where nobody knows it.

    ``at`` is Unix nanoseconds (now, if not given); ``overrides`` is one mapping or several, strongest first;
    ``context`` selects published variants, such as ``{"processing": "batch"}`` or ``{"service_tier": "flex"}``.
    Look-ups are remembered: asking again, while the same prices hold, gives the same object within microseconds.
    """
    for prices in (overrides,) if isinstance(overrides, Mapping) else overrides:
        for key in (f"{provider}/{model}", model, f"{provider}/*"):
            if (rule := prices.get(key)) is not None:
                return rule
    if provider == "ollama":
        return _nothing(f"ollama/{model}")
    sheet = published.sheet(canonical(provider), model, tuple(sorted((context or {}).items())))
    return None if sheet is None else sheet.rule(time.time_ns() if at is None else at)


def price(
    *,
    input: Any,  # noqa: A002 - what it is called everywhere else, tokenkit.toml included
    output: Any,
    cache_read: Any = None,
    cache_creation: Any = None,
    reasoning: Any = None,
    request: Any = 0,
) -> PriceRule:
    """Return a price of your own: USD per million tokens, and USD for each request.

    Cache and reasoning tokens cost as much as plain ones where nothing is said. Raises ConfigError for a price that is
    negative or no number.
    """
    more = {"cache_read": cache_read, "cache_creation": cache_creation, "reasoning": reasoning, "request": request}
    return flat("user", "given", input=input, output=output, **more)


def context_window(provider: str, model: str) -> int | None:
    """Return how many tokens the model can take, where the price data knows it."""
    found = published.find(canonical(provider), model)
    return None if found is None else found[0].context_window


def names(provider: str) -> tuple[str, ...]:
    """Return the models of ``provider`` that the price data lists; empty for a provider it does not know."""
    return published.names(canonical(provider))


def canonical(provider: str) -> str:
    """Return the name under which the price data lists a provider that people also call otherwise.

    Only names that mean exactly one provider are translated: a look-alike such as ``my-openai-proxy`` is not OpenAI,
    and charging OpenAI's prices for it would be a guess.
    """
    name = provider.lower()
    return _ALSO_CALLED.get(name, name)


_ALSO_CALLED = {
    "gemini": "google",
    "vertex": "google",
    "vertexai": "google",
    "xai": "x-ai",
    "grok": "x-ai",
    "bedrock": "aws",
    "azure-openai": "azure",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "together-ai": "together",
    "togetherai": "together",
    "fireworks-ai": "fireworks",
}


@lru_cache(maxsize=1024)
def _nothing(matched: str) -> PriceRule:
    return flat("ours", matched, input=0, output=0)
