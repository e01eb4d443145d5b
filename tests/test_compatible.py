"""The compatible providers: each is one line of a table, known by name and brought by its variable alone."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from tokenkit.providers import compatible
from tokenkit.providers.registry import BUILT_IN, ENVIRONMENT, OWN, from_environment
from tokenkit.types import Message, Request, Secret

EVERY = pytest.mark.parametrize("name", sorted(compatible.PLACES))


@EVERY
def test_its_variable_alone_makes_a_provider_and_the_key_goes_behind_bearer(name: str) -> None:
    place = compatible.PLACES[name]
    environ = {place.key_env: "k-1"} | ({place.url_env: place.base_url} if place.own else {})
    (found,) = from_environment(environ)
    assert (found.name, found.base_url, found.key_env) == (name, place.base_url, (place.key_env,))
    wire = found.encode(Request((Message("user", "Hi"),), "vendor/m", stream=True), found)
    assert wire.url == place.base_url + "/chat/completions"
    assert json.loads(wire.body)["model"] == "vendor/m"
    assert wire.auth is not None
    assert (*wire.auth[:2], wire.auth[2].reveal()) == ("authorization", "Bearer ", "k-1")


@EVERY
def test_an_address_alone_is_enough_for_a_server_of_ones_own_and_for_no_other(name: str) -> None:
    place = compatible.PLACES[name]
    found = from_environment({place.url_env: "http://box:9/v1/"})
    assert [p.base_url for p in found] == (["http://box:9/v1"] if place.own else [])
    assert all(p.key is None for p in found)


@EVERY
def test_a_key_leaves_this_machine_encrypted_only(name: str) -> None:
    place = compatible.PLACES[name]
    parts = urlsplit(place.base_url)
    assert parts.scheme == ("http" if place.own else "https")
    assert (parts.hostname == "127.0.0.1") == place.own


@EVERY
def test_another_name_address_and_key_can_be_given(name: str) -> None:
    made = BUILT_IN[name](name="mine", base_url="https://there.example/v1", key=Secret("k"))
    assert (made.name, made.base_url, bool(made.key)) == ("mine", "https://there.example/v1", True)


def test_a_key_alone_does_not_make_a_server_of_ones_own() -> None:
    assert from_environment({"VLLM_API_KEY": "k", "OLLAMA_API_KEY": "k"}) == ()


def test_every_name_of_the_environment_is_a_dialect_that_can_be_made_by_name() -> None:
    assert set(ENVIRONMENT) | OWN <= set(BUILT_IN)
    for name, make in BUILT_IN.items():
        assert make(name="mine").name == "mine", name


def test_many_variables_make_many_providers() -> None:
    environ = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "GEMINI_API_KEY": "c", "GROQ_API_KEY": "d"}
    environ["OLLAMA_HOST"] = "box"
    assert {p.name for p in from_environment(environ)} == {"openai", "anthropic", "gemini", "groq", "ollama"}


def test_mistral_gets_the_seed_by_its_own_word_and_no_word_it_refuses() -> None:
    mistral = compatible.provider("mistral")
    body = json.loads(mistral.encode(Request((Message("user", "ü"),), "m", stream=True, seed=3), mistral).body)
    wanted = {"model": "m", "messages": [{"role": "user", "content": "ü"}], "random_seed": 3, "stream": True}
    assert body == wanted
    extra = {"seed": 4, "stream_options": {}}
    assert json.loads(mistral.encode(Request((Message("user", "ü"),), "m", extra=extra), mistral).body)["seed"] == 4
