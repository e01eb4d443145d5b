"""Routing as one pure function: a request, models, a policy and health go in; a plan that explains itself comes out.

The default score is the seed's, ``weight - 10 * cost_per_1k`` (weight on a scale of 0 to 10, cost in USD per thousand
tokens), and every strategy is a score made of named terms, so a plan can be read, logged and recomputed. A candidate
is either eligible and scored, or rejected with its reason; nothing is ever silently left out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenkit.catalog import Model, is_weight
from tokenkit.errors import ConfigError, did_you_mean
from tokenkit.receipts import Candidate, Plan
from tokenkit.types import Request, TokenCount

Terms = tuple[tuple[str, float], ...]
Score = Callable[[Request, Model, "Health"], float]
"""A strategy of the caller's own: higher is better; ``-inf`` keeps the model as a last resort."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a model now: ``seconds`` of observed latency, calls ``in_flight``, why it is ``barred``."""

    seconds: float | None = None
    in_flight: int = 0
    barred: str | None = None


HEALTHY = Health()


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose: a strategy (a name of ``STRATEGIES`` or a function), and how much to explore.

    ``temperature`` above 0 explores by softmax over scores; ``weights`` override the catalog's by model id or name.
    """

    strategy: str | Score = "score"
    temperature: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.strategy, str) and self.strategy not in STRATEGIES:
            raise ConfigError(
                f"There is no routing strategy {self.strategy!r}. {did_you_mean(self.strategy, sorted(STRATEGIES))}"
            )
        if not self.temperature >= 0 or math.isinf(self.temperature):
            raise ConfigError(f"temperature must be a finite number of at least 0, not {self.temperature!r}.")
        wrong = [name for name, weight in self.weights.items() if not is_weight(weight)]
        if wrong:
            raise ConfigError(
                f"The weight of {wrong[0]} must be a finite number of at least 0, not {self.weights[wrong[0]]!r}."
            )

    @property
    def name(self) -> str:
        """The strategy's name as plans and the ledger store it."""
        return self.strategy if isinstance(self.strategy, str) else getattr(self.strategy, "__name__", "custom")


def plan(
    request: Request,
    models: Sequence[Model],
    *,
    count: Callable[[Model], TokenCount],
    policy: Policy | None = None,
    health: Mapping[str, Health] | None = None,
    seed: int = 0,
) -> Plan:
    """Rank ``models`` for ``request`` without sending anything.

    ``count`` gives the prompt's tokens for a model; ``health`` maps model id to its state; ``seed`` drives exploration,
    ``random``, ``weighted`` and ``round-robin``, so equal arguments always give an equal plan.
    Eligible candidates come first, best first; then the rejected ones, each with its reason.
    """
    policy, health = policy or Policy(), health or {}
    terms_of = STRATEGIES[policy.strategy] if isinstance(policy.strategy, str) else _custom(policy.strategy)
    alone = len(models) == 1
    eligible: list[Candidate] = []
    rejected: list[Candidate] = []
    for model in models:
        tokens = count(model)
        state = health.get(model.id, HEALTHY)
        why = _barred(request, model, tokens, state)
        if why is None and model.price is None and policy.strategy in PRICED and not alone:
            why = (
                "no known price: give it one under [[model]] price in tokenkit.toml, or name the model to use it anyway"
            )
        bound = _bound(request, model, tokens)
        if why is not None:
            rejected.append(
                Candidate(model.id, model.provider, None, (), 0.0, tokens, model.context_window, bound, why)
            )
            continue
        weight = (
            policy.weights.get(model.id, policy.weights.get(model.name, model.weight))
            if policy.weights
            else model.weight
        )
        terms = terms_of(request, model, state, weight)
        score = sum([value for _, value in terms])
        eligible.append(
            Candidate(model.id, model.provider, score, terms, 0.0, tokens, model.context_window, bound, None)
        )
    ordered = _ordered(eligible, policy, seed)
    return Plan((*ordered, *rejected), policy.name, request.max_tokens, seed if _draws(policy) else None)


def longest_answer(request: Request, model: Model, tokens: TokenCount) -> int | None:
    """Return the most tokens the answer can have: as asked for, else what model or window allow; None if unknown."""
    if request.max_tokens is not None:
        return request.max_tokens
    if model.max_output_tokens is not None:
        return model.max_output_tokens
    return None if model.context_window is None else max(model.context_window - tokens.tokens, 0)


def _bound(request: Request, model: Model, tokens: TokenCount) -> int | None:
    size = longest_answer(request, model, tokens)
    return None if model.price is None or size is None else model.price.bound(tokens.upper_bound, size)


def _barred(request: Request, model: Model, tokens: TokenCount, state: Health) -> str | None:
    """Return why this model must not be tried, or None. These are hard constraints: no score outweighs them."""
    if request.provider is not None and model.provider != request.provider:
        return f"provider is {model.provider}, and only {request.provider} was asked for"
    if state.barred is not None:
        return state.barred
    wants = request.max_tokens
    if wants is not None and model.max_output_tokens is not None and wants > model.max_output_tokens:
        return f"max_tokens {wants:,} is more than the {model.max_output_tokens:,} it can answer"
    if model.context_window is not None and tokens.tokens + (wants or 1) > model.context_window:
        return f"{tokens.tokens:,} tokens in and {wants or 1:,} out do not fit its window of {model.context_window:,}"
    if not model.capabilities & ANSWERS:
        return "it does not chat"
    missing = _needs(request) - model.capabilities
    if missing:
        return f"it cannot do {', '.join(sorted(missing))}"
    return None


_NOTHING: frozenset[str] = frozenset()
ANSWERS = frozenset({"chat", "completion"})
"""The capabilities that make a model answer a prompt."""


def _needs(request: Request) -> frozenset[str]:
    """Return the capabilities beyond plain chat that this request asks for."""
    if not request.tools and request.response_format is None and all(type(m.content) is str for m in request.messages):
        return _NOTHING
    needs = {"tools"} if request.tools else set()
    if request.response_format is not None:
        needs.add("json")
    if any(message.images for message in request.messages):
        needs.add("vision")
    return frozenset(needs)


def _by_score(request: Request, model: Model, state: Health, weight: float) -> Terms:
    if model.price is None:
        return (("weight", weight),)
    return ("weight", weight), ("cost", -10 * model.price.cost_per_1k)


def _by_price(request: Request, model: Model, state: Health, weight: float) -> Terms:
    return (("cost", -model.price.cost_per_1k if model.price is not None else 0.0),)


def _by_speed(request: Request, model: Model, state: Health, weight: float) -> Terms:
    # A model never seen counts as instant, so that it is tried once and then known.
    return (("seconds", -(state.seconds or 0.0)),)


def _by_load(request: Request, model: Model, state: Health, weight: float) -> Terms:
    return (("in_flight", -float(state.in_flight)),)


def _by_weight(request: Request, model: Model, state: Health, weight: float) -> Terms:
    return (("weight", weight),)


def _by_chance(request: Request, model: Model, state: Health, weight: float) -> Terms:
    return (("chance", 0.0),)


def _custom(score: Score) -> Callable[[Request, Model, Health, float], Terms]:
    def terms(request: Request, model: Model, state: Health, weight: float) -> Terms:
        value = float(score(request, model, state))
        if math.isnan(value):
            raise ConfigError(f"The routing function gave NaN for {model.id}; it must give a number.")
        return (("custom", value),)

    return terms


STRATEGIES: Mapping[str, Callable[[Request, Model, Health, float], Terms]] = {
    "score": _by_score,
    "cheapest": _by_price,
    "fastest": _by_speed,
    "least-busy": _by_load,
    "weighted": _by_weight,
    "random": _by_chance,
    "round-robin": _by_chance,
}
PRICED = ("score", "cheapest")


def _draws(policy: Policy) -> bool:
    return policy.temperature > 0 or policy.strategy in ("random", "weighted", "round-robin")


def _ordered(eligible: list[Candidate], policy: Policy, seed: int) -> list[Candidate]:
    """Order candidates and give each its propensity: the closed-form probability of having come first."""
    if not eligible:
        return []
    if policy.strategy == "round-robin":
        turn = seed % len(eligible)
        turned = eligible[turn:] + eligible[:turn]
        return [turned[0]._replace(propensity=1.0), *turned[1:]]
    if not _draws(policy):
        # sorted() is stable: equal scores keep the catalog's order, so a plan never depends on chance.
        ranked = sorted(eligible, key=_score, reverse=True)
        return [ranked[0]._replace(propensity=1.0), *ranked[1:]]
    logits = _logits(eligible, policy)
    shares = softmax(logits)
    # Gumbel noise on the logits draws a whole ranking whose first place has exactly the softmax probability.
    chance = random.Random(seed)
    noisy = [logit - math.log(-math.log(chance.random() or 5e-324)) for logit in logits]
    order = sorted(range(len(eligible)), key=noisy.__getitem__, reverse=True)
    return [eligible[i]._replace(propensity=shares[i]) for i in order]


def _logits(eligible: list[Candidate], policy: Policy) -> list[float]:
    if policy.strategy == "random":
        return [0.0] * len(eligible)
    if policy.strategy == "weighted":
        return [math.log(w) if (w := _score(c)) > 0 else -math.inf for c in eligible]
    return [_score(c) / policy.temperature for c in eligible]


def softmax(logits: Sequence[float]) -> list[float]:
    """Return probabilities proportional to ``exp(logit)``, summing to 1; all ``-inf`` means all equal."""
    top = max(logits)
    if top == -math.inf:
        return [1 / len(logits)] * len(logits)
    powers = [math.exp(logit - top) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _score(candidate: Candidate) -> float:
    return candidate.score if candidate.score is not None else -math.inf
