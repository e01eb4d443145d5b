"""plan(): hard constraints hold, scores are the seed's, propensities are probabilities, equal inputs plan equally."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.catalog import Model
from tokenkit.errors import ConfigError
from tokenkit.money import rate_per_million
from tokenkit.pricing import PriceRule
from tokenkit.receipts import Plan
from tokenkit.route import STRATEGIES, Health, Policy, plan, softmax
from tokenkit.types import Image, Message, Request, TokenCount, Tool

ASKED = Request((Message("user", "hello"),))


def priced(dollars_in: float, dollars_out: float) -> PriceRule:
    rates = (rate_per_million(dollars_in), rate_per_million(dollars_out))
    return PriceRule("user", "m", ((0, *rates, None, None, None),))


def model(name: str = "m", provider: str = "p", **fields: object) -> Model:
    return Model(provider, name, **{"weight": 5.0, "price": priced(1, 2), **fields})  # type: ignore[arg-type]


def decide(request: Request = ASKED, *models: Model, tokens: int = 10, **more: object) -> Plan:
    return plan(request, models, count=lambda m: TokenCount(tokens, True, "o200k_base"), **more)  # type: ignore[arg-type]


names = st.sampled_from("abcdefgh")
models = st.lists(
    st.builds(
        lambda name, provider, weight, window, out, price, can: Model(
            provider, name, weight, price and priced(*price), window, out, frozenset({"chat", "stream"} | can)
        ),
        names,
        st.sampled_from(["p", "q"]),
        st.floats(0, 10),
        st.none() | st.integers(1, 200_000),
        st.none() | st.integers(1, 20_000),
        st.none() | st.tuples(st.floats(0, 100), st.floats(0, 100)),
        st.sets(st.sampled_from(["tools", "vision", "json"])),
    ),
    max_size=8,
    unique_by=lambda m: m.id,
)
requests = st.builds(
    lambda provider, size, tools, picture: replace(
        ASKED,
        provider=provider,
        max_tokens=size,
        tools=(Tool("t"),) if tools else (),
        messages=(Message("user", ("look", Image(url="https://x.example/y.png"))),) if picture else ASKED.messages,
    ),
    st.none() | st.sampled_from(["p", "q"]),
    st.none() | st.integers(1, 30_000),
    st.booleans(),
    st.booleans(),
)
policies = st.builds(Policy, st.sampled_from(sorted(STRATEGIES)), st.sampled_from([0.0, 0.1, 1.0, 50.0]))


@settings(max_examples=400)
@given(
    requests, models, policies, st.integers(0, 250_000), st.integers(0, 99), st.sets(st.sampled_from(["p/a", "q/b"]))
)
def test_no_plan_breaks_a_hard_constraint_and_none_hides_a_model(
    request: Request, known: list[Model], policy: Policy, tokens: int, seed: int, broken: set[str]
) -> None:
    health = {name: Health(barred="its breaker is open") for name in broken}
    made = decide(request, *known, tokens=tokens, policy=policy, seed=seed, health=health)
    assert sorted(c.model for c in made.candidates) == sorted(m.id for m in known)
    by_id = {m.id: m for m in known}
    for candidate in made.eligible:
        it = by_id[candidate.model]
        assert candidate.model not in broken
        assert request.provider in (None, it.provider)
        assert it.context_window is None or tokens + (request.max_tokens or 1) <= it.context_window
        assert it.max_output_tokens is None or (request.max_tokens or 1) <= it.max_output_tokens
        assert not request.tools or "tools" in it.capabilities
        assert not request.messages[0].images or "vision" in it.capabilities
    for candidate in made.rejected:
        assert candidate.rejected
        assert candidate.propensity == 0
    if made.eligible:
        assert math.isclose(math.fsum(c.propensity for c in made.eligible), 1, abs_tol=1e-12)
    assert made == decide(request, *known, tokens=tokens, policy=policy, seed=seed, health=health)


@given(st.floats(0, 10), st.floats(0, 200), st.floats(0, 200))
def test_the_default_score_is_the_seeds_to_the_bit(weight: float, dollars_in: float, dollars_out: float) -> None:
    it = model(weight=weight, price=priced(dollars_in, dollars_out))
    choice = decide(ASKED, it).choice
    assert choice is not None
    assert it.price is not None
    assert choice.score == weight + -10 * it.price.cost_per_1k
    assert choice.score == sum(value for _, value in choice.terms)


def test_better_scores_come_first_and_ties_keep_the_catalogs_order() -> None:
    made = decide(ASKED, model("a"), model("b", weight=9.0), model("c"))
    assert [c.model for c in made.eligible] == ["p/b", "p/a", "p/c"]


def test_strategies_rank_as_they_are_called() -> None:
    cheap, fast, idle = model("cheap", price=priced(0.1, 0.1)), model("fast"), model("idle")
    health = {"p/cheap": Health(9.0, 3), "p/fast": Health(0.1, 2), "p/idle": Health(5.0, 0)}

    def first(strategy: str, seed: int = 0) -> str:
        choice = decide(ASKED, cheap, fast, idle, policy=Policy(strategy), health=health, seed=seed).choice
        assert choice is not None
        return choice.model

    assert first("cheapest") == "p/cheap"
    assert first("fastest") == "p/fast"
    assert first("least-busy") == "p/idle"
    assert [first("round-robin", seed) for seed in range(4)] == ["p/cheap", "p/fast", "p/idle", "p/cheap"]


def test_a_function_of_yours_ranks_too_and_nan_is_refused() -> None:
    def shortest_name(request: Request, it: Model, health: Health) -> float:
        return -len(it.name)

    made = decide(ASKED, model("longer"), model("l"), policy=Policy(shortest_name))
    assert made.choice is not None
    assert (made.choice.model, made.strategy) == ("p/l", "shortest_name")
    with pytest.raises(ConfigError, match="NaN"):
        decide(ASKED, model(), policy=Policy(lambda r, m, h: math.nan))


def test_an_unpriced_model_is_left_out_of_a_choice_on_price_but_serves_when_named() -> None:
    unpriced = model("x", price=None)
    made = decide(ASKED, unpriced, model())
    assert [c.model for c in made.eligible] == ["p/m"]
    assert "no known price" in (made.rejected[0].rejected or "")
    assert decide(ASKED, unpriced).choice is not None


@pytest.mark.parametrize("strategy", ["random", "weighted", "score"])
def test_draws_follow_their_stated_propensities(strategy: str) -> None:
    """Chi-square on 100,000 draws: the first place is taken as often as its propensity says (99.9 % quantile)."""
    known = [model("a", weight=1.0), model("b", weight=2.0), model("c", weight=3.5), model("d", weight=0.5)]
    policy = Policy(strategy, temperature=1.0)
    shares = {c.model: c.propensity for c in decide(ASKED, *known, policy=policy).eligible}
    chance = random.Random(7)
    from tokenkit.route import _ordered

    eligible = list(decide(ASKED, *known, policy=Policy("weighted" if strategy == "weighted" else "score")).eligible)
    drawn = Counter(_ordered(eligible, policy, chance.getrandbits(63))[0].model for _ in range(100_000))
    chi_square = sum((drawn[m] - 100_000 * p) ** 2 / (100_000 * p) for m, p in shares.items())
    assert chi_square < 16.27  # 3 degrees of freedom


@pytest.mark.parametrize("policy", [Policy(), Policy(temperature=1.5), Policy("random"), Policy("round-robin")])
def test_a_decision_recomputes_bit_for_bit_from_its_row(policy: Policy) -> None:
    import tokenkit as tk
    from tokenkit.receipts import Receipt
    from tokenkit.tokens import count_messages

    with tk.Kit.simulated(pace=0) as kit:
        kit.policy = policy
        for n in range(5):
            kit.call(f"Question {n}", max_tokens=20)
        for row in kit.journal.rows():
            logged = Receipt.from_json(row.body).plan
            assert logged is not None
            asked = Request((Message("user", Receipt.from_json(row.body).prompt or ""),), max_tokens=20)
            again = plan(
                asked,
                [m for m in kit.models if "chat" in m.capabilities],
                count=lambda m, asked=asked: count_messages(asked.messages, m.id),
                policy=policy,
                seed=logged.seed or 0,
            )
            assert again == logged
            assert all(c.score == sum(v for _, v in c.terms) for c in logged.eligible)


def test_a_model_that_does_not_chat_is_no_candidate() -> None:
    made = decide(ASKED, model("e", capabilities=frozenset({"embed"})), model())
    assert [c.rejected for c in made.rejected] == ["it does not chat"]


def test_softmax_survives_extremes() -> None:
    assert softmax([1e308, -1e308]) == [1.0, 0.0]
    assert softmax([-math.inf, -math.inf]) == [0.5, 0.5]


@pytest.mark.parametrize("temperature", [-1, math.nan, math.inf])
def test_a_temperature_that_means_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        Policy(temperature=temperature)


def test_an_unknown_strategy_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="cheapest"):
        Policy("cheepest")
