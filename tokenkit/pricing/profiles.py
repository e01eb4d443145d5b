"""The seeds' prices: a named, dated table that applies only where somebody asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from tokenkit.errors import UnknownModel
from tokenkit.pricing.rules import PriceRule, flat


class Profile(Mapping[str, PriceRule]):
    """A named, dated price table, in which a model is found under any of its spellings.

    ``claude-3.5-sonnet``, ``claude-3-5-sonnet-20241022`` and ``anthropic/claude-3-5-sonnet`` are one row.
    """

    def __init__(self, name: str, dated: str, rows: Mapping[str, tuple[str, str]]) -> None:
        self.name, self.dated, self.models = name, dated, tuple(rows)
        self._rows = {_plain(key): flat(name, key, input=i, output=o, version=dated) for key, (i, o) in rows.items()}

    def __getitem__(self, name: str) -> PriceRule:
        return self._rows[_plain(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        return f"Profile({self.name}, {len(self)} models, prices of {self.dated})"


def _plain(name: str) -> str:
    bare = name.rpartition("/")[2].lower().replace(".", "-")
    return re.sub(r"-(?:20[0-9]{6}|20[0-9]{2}-[0-9]{2}-[0-9]{2}|latest)$", "", bare)


# USD per million tokens in and out, "as of 2024": the figures of MODEL_PRICING in isaacmorgado/komplete-kontrol-cli,
# src/core/providers/advanced/cost-tracker.ts (January 2026, per thousand tokens there). Of its 24 rows these nine are
# OpenAI's and Anthropic's models, each once: without the second spellings, the wide-window variants of GPT-4 and
# GPT-3.5, the models Groq hosts, and Ollama's, which are free anyway.
_SEED_2024 = {
    "gpt-4o": ("5", "15"),
    "gpt-4o-mini": ("0.15", "0.6"),
    "gpt-4-turbo": ("10", "30"),
    "gpt-4": ("30", "60"),
    "gpt-3.5-turbo": ("0.5", "1.5"),
    "claude-3-5-sonnet": ("3", "15"),
    "claude-3-opus": ("15", "75"),
    "claude-3-sonnet": ("3", "15"),
    "claude-3-haiku": ("0.25", "1.25"),
}

PROFILES = ("seed-2024",)
"""The price tables that ``profile`` knows."""


@cache
def profile(name: str) -> Profile:
    """Return a named table of old prices: ``seed-2024``, the nine models the first cost trackers knew.

    It applies only where it is asked for, by handing it to ``resolve`` as an override. Raises UnknownModel.
    """
    if name not in PROFILES:
        raise UnknownModel(name, PROFILES, what="price profile")
    return Profile(name, "2024", _SEED_2024)
