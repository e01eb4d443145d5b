"""Prices: equal to the price data for every model, tier and time; bounded from above; known by name or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import genai_prices
import genai_prices.data
import pytest
from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot
from genai_prices.types import ModelPrice, TieredPrices
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit import pricing
from tokenkit.errors import ConfigError, UnknownModel
from tokenkit.money import rate_per_million
from tokenkit.pricing import Period, PriceRule, Rates, flat, profile, resolve
from tokenkit.pricing.rules import DAY
from tokenkit.types import Usage

SECOND = 10**9
NOW = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * SECOND
FEMTO = Decimal("1e-9")  # one femto-USD per token, in USD per million tokens
EDGES = (32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000, 524_288)


def prices_of(model: Any) -> list[ModelPrice]:
    return [model.prices] if isinstance(model.prices, ModelPrice) else [row.prices for row in model.prices]


def numbers(price: ModelPrice) -> list[Decimal]:
    values = [value for value in vars(price).values() if value is not None]
    flats = [value for value in values if not isinstance(value, TieredPrices)]
    tiered = [value for value in values if isinstance(value, TieredPrices)]
    return flats + [v.base for v in tiered] + [tier.price for v in tiered for tier in v.tiers]


def rows() -> list[tuple[str, str, bool]]:
    """Every (provider, model, are its prices whole femto-USD) that is sold by the token."""
    found = []
    for provider in genai_prices.data.providers:
        for listed in provider.models:
            model = provider.find_model(listed.id, all_providers=genai_prices.data.providers)
            # A few rows go by names other than their own id, for the price data itself too.
            if model is not None and all(price.input_mtok is not None for price in prices_of(model)):
                whole = all(number % FEMTO == 0 for price in prices_of(model) for number in numbers(price))
                found.append((provider.id, listed.id, whole))
    return found


ROWS = rows()


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    edge = st.builds(lambda edge, step: edge + step, st.sampled_from(EDGES), st.integers(-1, 1))
    total = draw(st.integers(0, 3_000_000) | st.integers(0, 2000) | edge)
    read = draw(st.integers(0, total))
    written = draw(st.integers(0, total - read))
    out = draw(st.integers(0, 200_000))
    return Usage(total, out, read, written, draw(st.integers(0, out)))


def theirs(provider: str, model: str, usage: Usage, at: int, context: dict[str, str] | None = None) -> Decimal:
    """What genai-prices charges, in nano-USD."""
    tokens = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_input_tokens,
        "cache_write_tokens": usage.cache_creation_input_tokens,
        "output_reasoning_tokens": usage.reasoning_output_tokens,
    }
    if context is not None and "cache_ttl" in context:
        tokens["cache_write_1h_tokens"] = usage.cache_creation_input_tokens
    charged = genai_prices.calc_price(
        genai_prices.Usage(**tokens),
        model,
        provider_id=provider,
        genai_request_timestamp=datetime.fromtimestamp(at // SECOND, UTC),
        price_context=context,
    )
    return charged.total_price * 10**9


def agree(row: tuple[str, str, bool], usage: Usage, at: int, context: dict[str, str] | None = None) -> PriceRule:
    provider, model, whole = row
    rule = resolve(provider, model, at=at, context=context)
    assert rule is not None, row
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    cost = rule.receipt(usage.input_tokens, at).cost(usage)
    assert cost is not None
    expected = theirs(provider, model, usage, at, context)
    if whole:
        assert cost == expected.quantize(Decimal(1), ROUND_HALF_UP), (row, usage, at)
    else:  # published finer than a femto-USD per token: no more than half of one is lost on each
        assert abs(cost - expected) <= Decimal(usage.input_tokens + usage.output_tokens) / 2_000_000 + 1, (row, usage)
    for when in (None, at):
        assert rule.bound(usage.input_tokens, usage.output_tokens, when) >= cost, (row, usage, at)
    return rule


def test_every_model_sold_by_the_token_costs_what_the_price_data_says() -> None:
    assert len(ROWS) > 2000
    assert sum(not whole for *_, whole in ROWS) < 40
    for row in ROWS:
        for count in (0, 199_999, 200_001, 999_983):
            agree(row, Usage(count, 777, count // 3, count // 5, 111), NOW)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(ROWS), usages(), st.integers(-3 * 365 * 86_400, 365 * 86_400))
def test_any_usage_at_any_time_costs_what_the_price_data_says(row: Any, usage: Usage, seconds: int) -> None:
    agree(row, usage, NOW + seconds * SECOND)


TIERED = [row for row in ROWS if (rule := resolve(*row[:2], at=NOW)) is not None and len(rule.tiers) > 1]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TIERED), usages(), st.data())
def test_a_prompt_over_the_threshold_is_charged_at_the_tier_as_a_whole(row: Any, usage: Usage, data: Any) -> None:
    rule = resolve(*row[:2], at=NOW)
    assert rule is not None
    start = data.draw(st.sampled_from(rule.tiers[1:])).start
    for count in (start - 1, start, start + 1):
        agree(row, Usage(count, 100, min(usage.cache_read_input_tokens or 0, count), 0, 0), NOW)
    assert rule.receipt(start - 1).tier < rule.receipt(start).tier == start


CHANGING = [
    (provider.id, model.id, True)
    for provider in genai_prices.data.providers
    for model in provider.models
    if not isinstance(model.prices, ModelPrice) and (provider.id, model.id, True) in ROWS
]


def test_prices_change_on_the_very_second() -> None:
    usage = Usage(300_000, 1000, 1000, 1000, 10)
    assert len(CHANGING) > 50
    for row in CHANGING:
        sheet = pricing.published.sheet(*row[:2], ())
        assert sheet is not None
        for period in sheet.periods:
            for step in (-SECOND, 0, SECOND):
                for day in (0, 37 * DAY):
                    agree(row, usage, max(period.since + period.opens + day + step, 0))


def test_the_hour_of_the_day_matters_where_it_does() -> None:
    rule = resolve("deepseek", "deepseek-flash", at=NOW)
    assert rule is not None
    noon, peak = rule.receipt(1, NOW), rule.receipt(1, NOW + 14 * 3600 * SECOND)
    assert peak.input == 2 * noon.input
    assert rule.bound(1000, 1000) == rule.bound(1000, 1000, NOW) == peak.cost(Usage(1000, 1000))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CHANGING), usages(), st.integers(0, 800 * 86_400), st.integers(0, 200 * 86_400))
def test_a_rule_resolved_today_charges_and_bounds_a_call_made_later(
    row: Any, usage: Usage, past: int, later: int
) -> None:
    made = NOW - past * SECOND
    rule, then = resolve(*row[:2], at=made), resolve(*row[:2], at=made + later * SECOND)
    assert rule is not None
    assert then is not None
    price = rule.receipt(usage.input_tokens, made + later * SECOND)
    assert price == then.receipt(usage.input_tokens, made + later * SECOND)
    cost = price.cost(usage)
    assert cost is not None
    assert rule.bound(usage.input_tokens or 0, usage.output_tokens or 0) >= cost
    if later < 86_400:
        assert rule.bound(usage.input_tokens or 0, usage.output_tokens or 0, made) >= cost


rates = st.integers(0, 10**12)
maybe = st.none() | rates
tiers = st.lists(st.integers(1, 2_999_999), max_size=3, unique=True).flatmap(
    lambda starts: st.tuples(
        *[st.builds(Rates, st.just(s), rates, rates, maybe, maybe, maybe) for s in (0, *sorted(starts))]
    )
)
periods = st.lists(
    st.builds(Period, st.integers(0, 40).map(lambda day: day * DAY), st.just(0), tiers, st.integers(0, 10**9)),
    max_size=3,
).map(lambda rows: tuple(sorted(rows, key=lambda row: row.since)))


@settings(max_examples=400, deadline=None)
@given(
    st.builds(PriceRule, st.just("user"), st.just("m"), tiers, st.integers(0, 10**9), periods=periods),
    usages(),
    st.integers(0, 50 * DAY),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_no_rule_charges_more_than_its_bound(rule: PriceRule, usage: Usage, at: int, more: tuple[float, float]) -> None:
    tokens_in, tokens_out = usage.input_tokens or 0, usage.output_tokens or 0
    cost = rule.receipt(tokens_in, at).cost(usage)
    assert cost is not None
    room_in, room_out = tokens_in + int(tokens_in * more[0]), tokens_out + int(1000 * more[1])
    assert cost <= rule.bound(tokens_in, tokens_out) <= rule.bound(room_in, room_out)
    if not rule.periods or rule.periods[0].since <= at:
        assert cost <= rule.bound(tokens_in, tokens_out, at) <= rule.bound(tokens_in, tokens_out)


def test_a_rise_announced_for_tomorrow_is_in_todays_bound() -> None:
    rule = resolve("google", "gemini-4-argon", at=NOW)  # dearer from 1 December 2026
    assert rule is not None
    eve = NOW + 10 * DAY + 3600 * SECOND
    now, later = (rule.receipt(1000, at).cost(Usage(1000, 1000)) for at in (NOW, eve + DAY))
    assert now is not None
    assert later is not None
    assert now < later
    assert rule.bound(1000, 1000, NOW) == now
    assert rule.bound(1000, 1000, eve) == rule.bound(1000, 1000) == later


def test_a_bound_is_not_far_off_where_nothing_special_applies() -> None:
    rule = flat("user", "m", input=2, output=10)
    assert rule.bound(1000, 500) == rule.receipt(1000).cost(Usage(1000, 500)) == 7_000_000


@pytest.mark.parametrize(
    ("provider", "model", "context"),
    [
        ("openai", "gpt-6.1-sol", {"processing": "batch"}),
        ("openai", "gpt-5", {"service_tier": "flex"}),
        ("openai", "gpt-5", {"service_tier": "priority"}),
        ("google", "gemini-3.6-flash", {"processing": "batch"}),
        ("mistral", "mistral-large-4", {"processing": "batch"}),
        ("anthropic", "claude-opus-5-5", {"speed": "fast"}),
        ("anthropic", "claude-opus-5-5", {"cache_ttl": "1h"}),
        ("anthropic", "claude-haiku-5-5", {"cache_ttl": "1h", "processing": "batch"}),
        ("azure", "gpt-5", {"processing": "batch"}),  # the reseller's own terms are unknown: the standard price
    ],
)
def test_variants_of_a_price_follow_the_context(provider: str, model: str, context: dict[str, str]) -> None:
    usage = Usage(150_000, 5000, 1000, 20_000, 300)
    for days in (-600, -30, 0, 30, 60):
        agree((provider, model, True), usage, NOW + days * DAY, context)
    plain, special = resolve(provider, model, at=NOW), resolve(provider, model, at=NOW, context=context)
    assert plain is not None
    assert special is not None
    assert (plain.tiers == special.tiers) == (provider == "azure")


def test_a_request_fee_is_charged_once() -> None:
    rule = agree(("perplexity", "sonar-pro", True), Usage(1000, 1000), NOW)
    assert rule.request == 14_000_000
    assert rule.bound(0, 0) == rule.request


def test_looking_up_twice_gives_the_same_object() -> None:
    first = resolve("openai", "gpt-4o", at=NOW)
    assert first is not None
    assert resolve("openai", "gpt-4o", at=NOW + 3600 * SECOND) is first
    assert resolve("openai", "gpt-4o") is first
    assert resolve("gemini", "gemini-2.5-flash", at=NOW) is resolve("google", "gemini-2.5-flash", at=NOW)


def test_receipts_say_where_the_price_is_from() -> None:
    rule = resolve("anthropic", "claude-haiku-5-5", at=NOW)
    assert rule is not None
    price = rule.receipt(100_001, NOW + 5_250_000)
    data = Path(genai_prices.data.__file__).read_bytes()
    assert (price.layer, price.matched, price.tier) == ("genai-prices", "anthropic/claude-haiku-5-5", 100_001)
    assert (price.version, price.data_hash) == (genai_prices.__version__, hashlib.sha256(data).hexdigest())
    assert price.at == "2026-11-20T12:00:00.005Z"
    assert rule.receipt(None).tier == 0
    assert rule.receipt(None).at == ""
    assert "web_searches_kcount" in rule.left_out


def test_unknown_is_none_and_never_zero() -> None:
    assert resolve("openai", "no-such-model") is None
    assert resolve("no-such-provider", "gpt-4o") is None
    assert resolve("my-openai-proxy", "gpt-4o") is None
    assert resolve("openai", "whisper-1") is None  # sold by the hour
    assert resolve("google", "gemma-3") is None  # an empty row
    assert resolve("openrouter", "openai/gpt-oss-20b:free") == PriceRule(
        "genai-prices", "openrouter/openai/gpt-oss-20b:free", (Rates(0, 0, 0),), 0, *pricing.provenance()
    )


def test_ollama_costs_nothing_by_our_own_row() -> None:
    rule = resolve("ollama", "llama3:8b")
    assert rule is not None
    assert (rule.layer, rule.bound(10**9, 10**9), rule.cost_per_1k) == ("ours", 0, 0.0)


def test_the_strongest_word_wins() -> None:
    mine = flat("user", "gpt-4o", input=1, output=2)
    house = flat("provider", "openai/*", input=3, output=4)
    layers = [{"gpt-4o": mine}, {"openai/*": house, "openai/gpt-4o": house, "ollama/*": house}]
    assert resolve("openai", "gpt-4o", overrides=layers) is mine
    assert resolve("azure", "gpt-4o", overrides=layers) is mine
    assert resolve("openai", "gpt-5", overrides=layers) is house
    assert resolve("ollama", "llama3", overrides=layers) is house
    assert resolve("openai", "gpt-4o", overrides=layers[1]) is house
    data = resolve("anthropic", "claude-opus-5-5", overrides=layers)
    assert data is not None
    assert data.layer == "genai-prices"


def test_a_flat_price_is_exact_and_refuses_nonsense() -> None:
    rule = flat("user", "m", input="0.15", output=0.6, cache_read=Decimal("0.075"), request="0.005")
    assert rule.tiers == (Rates(0, 150_000_000, 600_000_000, 75_000_000),)
    assert rule.request == 5_000_000
    assert str(rule) == "$0.15/$0.6 per M (user)"
    for bad in (-1, float("nan"), float("inf"), "1,000", "free"):
        with pytest.raises(ConfigError):
            flat("user", "m", input=bad, output=1)
        with pytest.raises(ConfigError):
            flat("user", "m", input=1, output=1, request=bad)
    for tiers in ((), (Rates(1, 1, 1),), (Rates(0, 1, 1), Rates(0, 2, 2)), (Rates(0, -1, 1),), (Rates(0, 1, 1, -1),)):
        with pytest.raises(ConfigError):
            PriceRule("user", "m", tiers)


def test_the_seeds_nine_models_are_a_profile_that_applies_only_when_asked_for() -> None:
    old = profile("seed-2024")
    assert len(old) == len(list(old)) == 9
    assert all(rule.layer == "seed-2024" and rule.version == "2024" for rule in old.values())
    gpt4o, today = old["gpt-4o"], resolve("openai", "gpt-4o", at=NOW)
    assert today is not None
    assert gpt4o.tiers[0].input == rate_per_million(5) > today.tiers[0].input
    assert resolve("openai", "gpt-4o", at=NOW, overrides=old) is gpt4o
    assert resolve("openai", "gpt-6-sol", at=NOW, overrides=old) is resolve("openai", "gpt-6-sol", at=NOW)
    spellings = ("claude-3.5-sonnet", "claude-3-5-sonnet-20241022", "anthropic/claude-3-5-sonnet", "Claude-3-5-Sonnet")
    assert len({id(old[name]) for name in spellings}) == 1
    assert old.get("claude-9") is None
    assert repr(old) == "Profile(seed-2024, 9 models, prices of 2024)"
    with pytest.raises(UnknownModel, match="seed-2024"):
        profile("seed-2025")


def test_the_seeds_cost_figure_is_the_input_price() -> None:
    assert profile("seed-2024")["gpt-4"].cost_per_1k == 0.03
    for row in ROWS[::50]:
        rule = resolve(*row[:2], at=NOW)
        assert rule is not None
        assert rule.cost_per_1k == pytest.approx(rule.tiers[0].input * 1000 / 1e15)


def test_an_updater_elsewhere_changes_nothing_here() -> None:
    before = resolve("openai", "gpt-4.1-mini", at=NOW)
    set_custom_snapshot(DataSnapshot(providers=[], from_auto_update=True))
    try:
        pricing.published.sheet.cache_clear()
        pricing.published.find.cache_clear()
        assert resolve("openai", "gpt-4.1-mini", at=NOW) == before
    finally:
        set_custom_snapshot(None)


def test_windows_and_names_come_from_the_data() -> None:
    assert pricing.context_window("gemini", "gemini-2.5-flash") == 1_048_576
    assert pricing.context_window("openai", "no-such-model") is None
    assert "gpt-4o" in pricing.names("openai")
    assert pricing.names("no-such-provider") == ()


def test_nothing_is_loaded_early_and_nothing_goes_to_the_network() -> None:
    program = """
import socket, sys
def refuse(*args, **kwargs): raise SystemExit("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from tokenkit import pricing
assert pricing.resolve("ollama", "llama3") is not None
assert pricing.profile("seed-2024")["gpt-4"]
assert not {"genai_prices", "pydantic", "httpx", "httpx2"} & set(sys.modules), "loaded before it was needed"
assert pricing.resolve("openai", "gpt-4o") is not None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
