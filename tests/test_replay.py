"""What-if replay: the router's own choices to the last bit, list prices to the nano-USD, outcomes or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit import Kit, Policy, price
from tokenkit.analysis.cube import cube
from tokenkit.catalog import Model
from tokenkit.errors import UnknownModel, UserError
from tokenkit.pricing import PriceRule
from tokenkit.pricing.rules import Rates
from tokenkit.providers import simulated

PROMPTS = ("Hello", "What is the capital of France?", "word " * 1500, "word " * 6000)
WEIGHTS = st.dictionaries(st.sampled_from(["tiny", "swift", "steady", "sage"]), st.floats(0, 10), max_size=4)


@pytest.fixture(scope="module")
def kit() -> Iterator[Kit]:
    with Kit.simulated(pace=0) as made:
        made.policy = Policy(temperature=2.0)
        for n in range(160):
            answer = made.call(PROMPTS[n % 4], max_tokens=5 + n % 30)
            made.rate(answer, 0.9 if answer.receipt.model.endswith("steady") else 0.3)
        yield made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=WEIGHTS, strategy=st.sampled_from(["score", "cheapest"]))
def test_the_choice_is_the_routers_own_to_the_last_bit(kit: Kit, weights: dict[str, float], strategy: Any) -> None:
    policy = Policy(strategy, 0.0, weights)
    found = kit.replay(policy=policy)
    before, kit.policy = kit.policy, policy
    try:
        routed = Counter()
        for prompt in PROMPTS:
            choice = kit.plan(prompt, max_tokens=5).choice
            assert choice is not None
            routed[choice.model] += 40
    finally:
        kit.policy = before
    assert dict(routed) == {name: round(calls) for name, calls in found.after.calls.items()}


def test_under_the_logged_policy_nothing_changes() -> None:
    with Kit.simulated(pace=0) as kit:
        for prompt in PROMPTS:
            kit.call(prompt, max_tokens=20)
        same = kit.replay()
        assert same.changed == 0
        assert same.before.calls == same.after.calls
        billed = kit.ledger.sql("select sum(cost_nanos) as n from calls").iloc[0]["n"]
        assert same.then == same.now == Decimal(int(billed)) / 10**9


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(temperature=st.floats(0.05, 20), weights=WEIGHTS)
def test_odds_are_the_routers_propensities(kit: Kit, temperature: float, weights: dict[str, float]) -> None:
    policy = Policy("score", temperature, weights)
    slider = kit.replay(policy=policy).slider
    before, kit.policy = kit.policy, policy
    try:
        plans = [kit.plan(prompt, max_tokens=5) for prompt in PROMPTS]
    finally:
        kit.policy = before
    for plan in plans:
        eligible = {c.model: c.propensity for c in plan.eligible}
        one = next(c for c in slider.cube.classes if {slider.cube.models[p] for p in c.eligible} == set(eligible))
        odds = {slider.cube.models[p]: share for p, share in slider.odds(one, policy).items()}
        assert odds == pytest.approx(eligible, abs=1e-12)
        assert sum(odds.values()) == pytest.approx(1, abs=1e-12)


def test_list_prices_are_exact_call_by_call(tmp_path: Any) -> None:
    tiered = PriceRule("user", "m", (Rates(0, 1_500_000_001, 7), Rates(1000, 2_000_000_003, 10_000_000_009)))
    models = [
        Model("simulated", "sage", 9, price(input="0.333333333", output="0.777777777"), 100_000, 5000),
        Model("simulated", "steady", 1, tiered, 100_000, 5000),
    ]
    with Kit(home=tmp_path, providers=[simulated.provider(pace=0)], models=models, environ={}) as kit:
        expected = 0
        for n in range(30):
            prompt = "word " * (1 + n * 70)
            answer = kit.call(prompt, max_tokens=7 + n)
            size = kit.plan(prompt).candidates[1].input_tokens
            assert size is not None
            paid = tiered.receipt(size.tokens)
            cost = paid.cost(answer.usage.__class__(size.tokens, answer.usage.output_tokens))
            assert cost is not None
            expected += cost
        found = kit.replay(models=["steady"])
        assert found.now == Decimal(expected) / 10**9
        assert found.changed == 30


def test_estimates_know_what_they_do_not_know(kit: Kit) -> None:
    explored = kit.replay(policy=Policy(), weights={"steady": 10})
    rating = explored.estimate("rating")
    assert rating.low is not None
    assert rating.high is not None
    assert rating.low <= 0.9 <= rating.high + 1e-9
    assert explored.estimate("cost_usd").value is not None
    never = kit.replay(models=["swift"], policy=Policy("cheapest"))
    with Kit.simulated(pace=0) as other:
        for _ in range(30):
            other.rate(other.call("Hello", max_tokens=5), 1)
        refused = other.replay(models=["tiny"]).estimate()
        assert refused.value is None
        assert "N_eff" in refused.reason
        assert other.replay(models=["tiny"]).advice.verdict != "switch"
    with pytest.raises(UserError, match="Outcomes are rating"):
        never.estimate("happiness")


def test_what_cannot_be_replayed_says_so(kit: Kit) -> None:
    for strategy in ("fastest", "least-busy", "round-robin", lambda request, model, health: 1.0):
        with pytest.raises(UserError, match="cannot be replayed"):
            kit.replay(policy=Policy(strategy))
    with pytest.raises(UnknownModel, match="stedy"):
        kit.replay(weights={"stedy": 3})
    with pytest.raises(UnknownModel):
        kit.replay(models=["nobody"])


def test_an_empty_an_imported_and_a_hostile_log_replay_to_something_sane() -> None:
    with Kit.simulated(pace=0) as kit:
        assert "no planned calls" in repr(kit.replay())
        assert kit.replay().best_single is None
        kit.ledger.import_([{"id": "1", "model": "p/<script>", "started_at": "2026-05-01"}])
        kit.call("Hello", max_tokens=5)
        found = kit.replay(weights={"tiny": 10})
        assert (found.calls, found.slider.cube.skipped) == (1, 1)
        assert "1 call was not planned" in found._repr_html_()
        assert "<script>" not in found._repr_html_()
        gone = kit.catalog.__class__([m for m in kit.models if m.name != "sage"])
        kit.catalog = gone
        assert kit.replay().after.unroutable == 0
        assert "sage" not in "".join(kit.replay().after.calls)


def test_the_cube_holds_every_call_once(kit: Kit) -> None:
    made = cube(kit.ledger, {model.id: model.price for model in kit.models})
    assert made.calls == 160
    assert made.skipped == 0
    assert len(made.classes) <= 4 * 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"weights": {"tiny": -1}}, "at least 0, not -1"),
        ({"weights": {"tiny": float("nan")}}, "at least 0, not nan"),
        ({"weights": {"tiny": "9"}}, "at least 0, not '9'"),
        ({"models": "tiny"}, "list of at least one model"),
        ({"models": []}, "list of at least one model"),
        ({"policy": "cheapest"}, "policy is a tk.Policy"),
        ({"policy": Policy(weights={"stedy": 3})}, "steady"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(kit: Kit, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kit.replay(**asked)


def test_the_policy_in_force_and_single_models_stand_beside_with_intervals(kit: Kit) -> None:
    found = kit.replay(policy=Policy(), weights={"tiny": 10})
    for outcome in ("rating", "seconds"):
        made = found.beside(outcome).set_index("choice")
        assert list(made.index[:3]) == ["as logged", "in force", "this policy"]
        assert found.best_single is not None
        assert made.index[3] == f"always {found.best_single[0]}"
        assert made.loc["this policy", "list_usd"] == found.now
        known = made.dropna(subset=["value"])
        assert len(known) >= 3
        assert (known["low"] <= known["value"]).all()
        assert (known["value"] <= known["high"]).all()
        assert made.loc[made["value"].isna(), "why_not"].str.contains("N_eff").all()
    logged = found.beside().set_index("choice").loc["as logged"]
    rated = kit.ledger.sql("select avg(rating) as mean from rated_calls").iloc[0]["mean"]
    assert logged["value"] == pytest.approx(rated)
    before, kit.policy = kit.policy, Policy("fastest")
    try:
        other = kit.replay(policy=Policy())
        assert "in force" not in list(other.beside()["choice"])
        assert "The policy in force is not beside" in other._repr_html_()
    finally:
        kit.policy = before


def test_a_sum_with_gaps_is_no_sum(tmp_path: Any) -> None:
    models = [
        Model("simulated", "sage", 9, None, 100_000, 5000),
        Model("simulated", "steady", 1, price(input=1, output=1), 100_000, 5000),
    ]
    with Kit(home=tmp_path, providers=[simulated.provider(pace=0)], models=models, environ={}) as kit:
        kit.call("Hello", max_tokens=5)
        assert "-> no model at all at list price" in repr(kit.replay(policy=Policy("random"), models=["sage"]))
    with Kit(home=tmp_path / "2", providers=[simulated.provider(pace=0)], models=models, environ={}) as kit:
        kit.policy = Policy("random")  # by score, a model without a price is no candidate
        for _ in range(3):
            kit.call("Hello", max_tokens=5)
        alone = kit.replay(policy=Policy("random"), models=["sage"])
        assert alone.now is None
        assert "-> unknown at list price" in repr(alone)
        both = kit.replay(policy=Policy("random"))
        assert both.now is not None
        assert "-> at least $" in repr(both)
        assert "No price is known for simulated/sage" in both._repr_html_()
