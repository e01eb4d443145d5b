"""The catalog: found by id, by name, by a near miss; never changed in place; its defaults priced."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from growth import grows_linearly
from hypothesis import given
from hypothesis import strategies as st

from tokenkit import pricing
from tokenkit.catalog import CAPABILITIES, CHAT, DEFAULTS, Catalog, Model, capabilities_of, defaults, filled, from_genai
from tokenkit.errors import ConfigError, UnknownModel
from tokenkit.pricing import flat

GPT = Model("openai", "gpt-4o", 5)
AZURE = Model("azure", "gpt-4o", 4)
OPUS = Model("anthropic", "claude-opus-5-5", 8)
RESOLD = Model("openrouter", "anthropic/claude-opus-5-5", 7)
CATALOG = Catalog([GPT, AZURE, OPUS, RESOLD])


def test_a_name_means_every_model_so_called() -> None:
    assert CATALOG.find("auto") == CATALOG.models == (GPT, AZURE, OPUS, RESOLD)
    assert CATALOG.find("gpt-4o") == (GPT, AZURE)
    assert CATALOG.find("gpt-4o", "azure") == CATALOG.find("azure/gpt-4o") == (AZURE,)
    assert CATALOG.find("auto", "openai") == (GPT,)
    assert CATALOG.get("openai/gpt-4o") is GPT


def test_a_name_with_a_slash_may_be_a_resellers() -> None:
    assert CATALOG.find("anthropic/claude-opus-5-5") == (OPUS,)
    assert CATALOG.find("anthropic/claude-opus-5-5", "openrouter") == (RESOLD,)
    assert CATALOG.find("openrouter/anthropic/claude-opus-5-5") == (RESOLD,)
    assert Catalog([RESOLD]).find("anthropic/claude-opus-5-5") == (RESOLD,)


@pytest.mark.parametrize(
    ("name", "provider", "hint"),
    [
        ("gpt-4", None, "'gpt-4o'"),
        ("GPT-4o", None, "'gpt-4o'"),
        ("openai/gpt4o", None, "'openai/gpt-4o'"),
        ("opus", None, "claude-opus-5-5"),
        ("gpt-4o", "opnai", "'openai'"),
        ("claude-opus", "anthropic", "'claude-opus-5-5'"),
        ("azure/gpt-4o", "openai", "openai/gpt-4o"),
    ],
)
def test_a_near_miss_is_told_what_was_meant(name: str, provider: str | None, hint: str) -> None:
    with pytest.raises(UnknownModel) as missed:
        CATALOG.find(name, provider)
    assert hint in str(missed.value)
    with pytest.raises(UnknownModel):
        Catalog().find("gpt-4o")


def test_an_id_given_twice_is_refused_with_every_culprit() -> None:
    with pytest.raises(ConfigError) as refused:
        Catalog([GPT, OPUS, Model("openai", "gpt-4o"), OPUS, GPT])
    assert len(refused.value.problems) == 2
    assert "openai/gpt-4o" in refused.value.problems[0]
    assert "anthropic/claude-opus-5-5" in refused.value.problems[1]


def test_a_catalog_never_changes_in_place() -> None:
    heavier = CATALOG.with_weights({"gpt-4o": 1, "azure/gpt-4o": 9.5})
    assert [m.weight for m in heavier] == [1, 9.5, 8, 7]
    assert [m.weight for m in CATALOG] == [5, 4, 8, 7]
    grown = CATALOG.with_models([Model("openai", "gpt-4o", 2), Model("ollama", "llama3")])
    assert [m.id for m in grown] == [*(m.id for m in CATALOG), "ollama/llama3"]
    assert grown.get("openai/gpt-4o").weight == 2
    assert len(CATALOG) == 4
    assert "ollama/llama3" in grown
    assert "ollama/llama3" not in CATALOG
    with pytest.raises(FrozenInstanceError):
        GPT.weight = 3  # type: ignore[misc]
    with pytest.raises(UnknownModel, match="gpt-4o"):
        CATALOG.with_weights({"gpt-4": 1})
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="weight"):
            CATALOG.with_weights({"gpt-4o": weight})


def test_a_model_that_cannot_be_is_refused_with_all_its_faults() -> None:
    with pytest.raises(ConfigError) as refused:
        Model("open ai", "", float("nan"), context_window=0, max_output_tokens=-1)
    assert len(refused.value.problems) == 5
    for provider in ("", "a/b", "a\nb"):
        with pytest.raises(ConfigError, match="provider"):
            Model(provider, "m")


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=3)
names = st.one_of(words, st.builds("{}/{}".format, words, words))


@given(st.lists(st.builds(Model, words, names), unique_by=lambda m: m.id, max_size=8), words)
def test_every_model_is_found_by_each_of_its_names(models: list[Model], other: str) -> None:
    catalog = Catalog(models)
    for model in models:
        assert catalog.get(model.id) is model
        assert catalog.find(model.id)[0] is model
        assert model in catalog.find(model.name, model.provider)
        assert all(other.name == model.name or other.id == model.name for other in catalog.find(model.name))
    if all(other not in (m.id, m.name) for m in models) and other != "auto":
        with pytest.raises(UnknownModel):
            catalog.find(other)


def test_building_and_finding_take_linear_time() -> None:
    def build_and_find(models: list[Model]) -> None:
        catalog = Catalog(models)
        for model in models:
            catalog.find(model.name)
            catalog.find(model.id)

    small, large = ([Model("openai", f"m{i}") for i in range(count)] for count in (1000, 16_000))
    grows_linearly(build_and_find, small, large)


@pytest.mark.parametrize("provider", [*DEFAULTS, "gemini", "xai"])
def test_a_bare_key_gives_a_handful_of_priced_models(provider: str) -> None:
    models = defaults(provider)
    assert 2 <= len(models) <= 6
    for model in models:
        assert model.provider == provider
        assert model.price is not None, f"{model.id} is not in the price data any more"
        assert model.price.layer == "genai-prices"
        assert model.price.receipt(1000).input > 0
        assert model.context_window is not None
        assert 0 <= model.weight <= 10
        assert CHAT < model.capabilities <= CAPABILITIES
    assert models == Catalog(models).models


def test_defaults_are_rows_of_the_price_data_not_lookalikes() -> None:
    for provider, weights in DEFAULTS.items():
        for name in weights:
            matched = next(m.price.matched for m in from_genai(provider, [name]) if m.price is not None)
            known = pricing.names(provider)
            assert name in known or matched.partition("/")[2] in known


def test_a_stranger_has_no_defaults_and_an_unknown_model_no_price() -> None:
    assert defaults("my-server") == ()
    (model,) = from_genai("openai", ["no-such-model"])
    assert (model.price, model.context_window, model.capabilities) == (None, None, CHAT)


def test_what_is_known_already_is_not_looked_up() -> None:
    mine = flat("user", "gpt-4o", input=1, output=1)
    kept = Model("openai", "gpt-4o", price=mine, context_window=7)
    assert filled(kept) is kept
    assert filled(Model("openai", "gpt-4o"), overrides={"gpt-4o": mine}).price is mine
    assert filled(Model("openai", "gpt-4o", price=mine)).context_window == 128_000
    assert filled(Model("openai", "gpt-4o", context_window=7)).context_window == 7
    weighed = from_genai("openai", {"gpt-4o": 3.5, "gpt-5": 6})
    assert [(m.name, m.weight) for m in weighed] == [("gpt-4o", 3.5), ("gpt-5", 6)]


def test_families_say_what_a_model_can_do() -> None:
    assert "vision" in capabilities_of("gpt-4o-mini")
    assert "vision" not in capabilities_of("gpt-4")
    assert "tools" in capabilities_of("openrouter/anthropic/claude-sonnet-5.5")
    assert capabilities_of("text-embedding-3-small") == {"embed"}
    assert capabilities_of("my-own") == CHAT


def test_a_catalog_shows_itself_in_a_line() -> None:
    assert repr(CATALOG) == "Catalog(4 models of openai, azure, anthropic, openrouter)"
    assert repr(Catalog()) == "Catalog(0 models of no provider)"
