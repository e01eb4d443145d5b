"""The models one may call: each with weight, price, window and capabilities, found by name or by a near miss of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tokenkit.errors import ConfigError, UnknownModel
from tokenkit.pricing import Overrides, PriceRule, canonical, context_window, resolve

CHAT = frozenset({"chat", "stream"})
TOOLS = CHAT | {"tools", "json"}
EVERYTHING = TOOLS | {"vision"}
CAPABILITIES = EVERYTHING | {"completion", "embed", "reasoning"}
"""Every word a model's capabilities may be made of."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model at one provider.

    ``weight`` says how much one would like it to answer, on the seed's scale of 0 to 10; ``price`` is ``None`` where
    unknown; ``context_window`` and ``max_output_tokens`` are tokens; ``encoding`` names the tokenizer where the name of
    the model does not. Raises ConfigError, naming everything that is wrong at once.
    """

    provider: str
    name: str
    weight: float = 1.0
    price: PriceRule | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = CHAT
    encoding: str | None = None

    def __post_init__(self) -> None:
        wrong = []
        if not self.provider or "/" in self.provider or any(c.isspace() for c in self.provider):
            wrong.append(f"provider {self.provider!r} must be a word without spaces and slashes")
        if not self.name or any(c.isspace() for c in self.name):
            wrong.append(f"name {self.name!r} must be a word without spaces")
        if not is_weight(self.weight):
            wrong.append(f"weight {self.weight!r} must be a finite number of at least 0")
        for what, tokens in (
            ("context_window", self.context_window),
            ("max_output_tokens", self.max_output_tokens),
        ):
            if tokens is not None and tokens <= 0:
                wrong.append(f"{what} {tokens!r} must be a number of tokens above 0")
        if wrong:
            raise ConfigError(f"Model {self.id}: {problem}." for problem in wrong)

    @property
    def id(self) -> str:
        """``provider/name``, unique in a catalog; a name may contain slashes itself."""
        return f"{self.provider}/{self.name}"


def is_weight(value: float) -> bool:
    """Return whether ``value`` can be a weight: a finite number, not negative."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf


class Catalog:
    """Models by id and by name, in the order given; it never changes, ``with_...`` makes a new one.

    Raises ConfigError when an id comes twice.
    """

    __slots__ = ("_by_id", "_by_name", "_by_provider", "models")

    def __init__(self, models: Iterable[Model] = ()) -> None:
        self.models: tuple[Model, ...] = tuple(models)
        self._by_id: dict[str, Model] = {}
        self._by_name: dict[str, list[Model]] = {}
        self._by_provider: dict[str, list[Model]] = {}
        twice: dict[str, None] = {}
        for model in self.models:
            if model.id in self._by_id:
                twice[model.id] = None
            self._by_id[model.id] = model
            self._by_name.setdefault(model.name, []).append(model)
            self._by_provider.setdefault(model.provider, []).append(model)
        if twice:
            raise ConfigError(f"{culprit} is in the catalog twice: leave one of the two away." for culprit in twice)

    @property
    def providers(self) -> tuple[str, ...]:
        """The names of the providers that have a model here."""
        return tuple(self._by_provider)

    def get(self, id: str) -> Model:  # noqa: A002 - the word for it everywhere else
        """Return the model with exactly this ``provider/name``. Raises UnknownModel."""
        model = self._by_id.get(id)
        if model is None:
            raise UnknownModel(id, tuple(self._by_id))
        return model

    def find(self, name: str, provider: str | None = None) -> tuple[Model, ...]:
        """Return the models that ``name`` may mean: all for ``auto``, one for ``provider/name``, else all so called.

        With ``provider`` only that provider's. Raises UnknownModel, saying what was probably meant.
        """
        if provider is not None and provider not in self._by_provider:
            raise UnknownModel(provider, self.providers, what="provider")
        if name == "auto":
            return self.models if provider is None else tuple(self._by_provider[provider])
        exact = self._by_id.get(name)
        if exact is not None and provider in (None, exact.provider):
            return (exact,)
        # A name with a slash may be a reseller's: openrouter calls its models anthropic/claude-… and the like.
        found = tuple(m for m in self._by_name.get(name, ()) if provider in (None, m.provider))
        if not found:
            near = self.models if provider is None else self._by_provider[provider]
            raise UnknownModel(name, [m.id if "/" in name else m.name for m in near])
        return found

    def with_models(self, models: Iterable[Model]) -> Catalog:
        """Return a catalog with these models too; one whose id is known already takes the place of the old."""
        new = Catalog(models)
        return Catalog({**self._by_id, **new._by_id}.values())

    def with_weights(self, weights: Mapping[str, float]) -> Catalog:
        """Return a catalog with other weights, given by id or by name; an id outdoes a name.

        Raises UnknownModel for a model that is not here, ConfigError for a negative or non-finite weight.
        """
        for name in weights:
            if name not in self._by_id and name not in self._by_name:
                raise UnknownModel(name, [*self._by_id, *self._by_name])
        return Catalog(replace(m, weight=weights.get(m.id, weights.get(m.name, m.weight))) for m in self.models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __contains__(self, id: object) -> bool:  # noqa: A002 - as in get
        return id in self._by_id

    def __repr__(self) -> str:
        return f"Catalog({len(self.models)} models of {', '.join(self._by_provider) or 'no provider'})"


def from_genai(
    provider: str,
    names: Iterable[str] | Mapping[str, float],
    *,
    at: int | None = None,
    overrides: Overrides | Sequence[Overrides] = (),
) -> tuple[Model, ...]:
    """Return models by name (a mapping gives their weights), each with what the price data knows: price and window.

    ``at`` (Unix nanoseconds) and ``overrides`` as in ``pricing.resolve``. A model the data does not know is unpriced.
    """
    weights = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    bare = (Model(provider, name, weight, capabilities=capabilities_of(name)) for name, weight in weights.items())
    return tuple(filled(model, at=at, overrides=overrides) for model in bare)


def filled(model: Model, *, at: int | None = None, overrides: Overrides | Sequence[Overrides] = ()) -> Model:
    """Return ``model`` with price and window looked up where it has none of its own."""
    price, window = model.price, model.context_window
    if price is not None and window is not None:
        return model
    if price is None:
        price = resolve(model.provider, model.name, at=at, overrides=overrides)
    return replace(model, price=price, context_window=window or context_window(model.provider, model.name))


def defaults(
    provider: str, *, at: int | None = None, overrides: Overrides | Sequence[Overrides] = ()
) -> tuple[Model, ...]:
    """Return the handful of models that stand for a provider of which only the key is known; none for a stranger."""
    return from_genai(provider, DEFAULTS.get(canonical(provider), {}), at=at, overrides=overrides)


def capabilities_of(name: str) -> frozenset[str]:
    """Return what a model of this name can do, judged by its family; plain chat for a family we do not know."""
    bare = name.rpartition("/")[2].lower()
    return next((able for prefix, able in _FAMILIES if bare.startswith(prefix)), CHAT)


# What each family can do, its newest members assumed to have unlearned nothing; the first prefix that fits counts.
_FAMILIES: tuple[tuple[str, frozenset[str]], ...] = (
    ("text-embedding", frozenset({"embed"})),
    ("gemini-embedding", frozenset({"embed"})),
    ("mistral-embed", frozenset({"embed"})),
    ("gpt-3.5-turbo-instruct", frozenset({"completion", "stream"})),
    ("gpt-3.5", TOOLS),
    ("gpt-4o", EVERYTHING),
    ("gpt-4.", EVERYTHING),
    ("gpt-4-turbo", EVERYTHING),
    ("gpt-4", TOOLS),
    ("gpt-oss", TOOLS | {"reasoning"}),
    ("gpt-", EVERYTHING | {"reasoning"}),
    ("o1-mini", CHAT | {"reasoning"}),
    ("o1-preview", CHAT | {"reasoning"}),
    ("o3-mini", TOOLS | {"reasoning"}),
    ("o1", EVERYTHING | {"reasoning"}),
    ("o3", EVERYTHING | {"reasoning"}),
    ("o4", EVERYTHING | {"reasoning"}),
    ("claude-2", CHAT),
    ("claude-", EVERYTHING),
    ("gemini-", EVERYTHING),
    ("grok-4", EVERYTHING),
    ("grok-", TOOLS),
    ("deepseek-", TOOLS),
    ("mistral-", TOOLS),
    ("ministral-", TOOLS),
    ("codestral", TOOLS),
    ("magistral-", TOOLS | {"reasoning"}),
    ("llama-3", TOOLS),
    ("qwen", TOOLS),
)

# What a bare key gives. The weights are our own opinion of November 2026, on the seed's scale of 0 to 10: how gladly
# one would send an everyday prompt there. At today's prices the seed's score takes a tenth of a point off a dear model
# and a thousandth off a cheap one, so the weights alone must keep the frontier models, several times as dear and hardly
# better at everyday prompts, behind the workhorses. Set your own under [routing.weights] in tokenkit.toml.
DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "openai": {
            "gpt-6.1-terra": 8.5,
            "gpt-6.1-sol": 8.0,
            "gpt-6-luna": 7.0,
            "gpt-6-astra": 6.5,
            "gpt-4o": 4.5,
            "gpt-4o-mini": 4.0,
        },
        "anthropic": {
            "claude-sonnet-5-5": 8.5,
            "claude-opus-5-5": 8.0,
            "claude-haiku-5-5": 7.5,
            "claude-fable-5-2": 6.5,
        },
        "google": {
            "gemini-3.8-flash": 8.0,
            "gemini-4-argon": 7.5,
            "gemini-3.5-flash-lite": 6.5,
            "gemini-2.5-flash": 5.5,
        },
        "deepseek": {"deepseek-v4-pro": 7.5, "deepseek-flash": 7.0},
        "mistral": {"mistral-large-4": 7.5, "mistral-medium-2604": 7.0, "mistral-small-2603": 6.0},
        "groq": {"qwen/qwen3.8-27b": 6.5, "openai/gpt-oss-120b": 6.5, "openai/gpt-oss-20b": 5.0},
        "x-ai": {"grok-4.7": 7.5, "grok-4-1-fast-non-reasoning": 6.0},
        "openrouter": {
            "openai/gpt-6.1-terra": 8.0,
            "anthropic/claude-sonnet-5.5": 8.0,
            "google/gemini-3.8-flash": 7.5,
            "deepseek/deepseek-v4.1-flash": 6.5,
            "qwen/qwen3.8-flash": 6.0,
        },
    }
)
