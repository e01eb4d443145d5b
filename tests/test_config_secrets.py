"""No secret in a configuration is accepted, and none is shown, whatever else is wrong with the file."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from configs import faults, written
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit import config, pricing
from tokenkit.catalog import Catalog
from tokenkit.config import load
from tokenkit.config.reading import holds_a_secret, names_a_secret
from tokenkit.errors import ConfigError

# Made up, in the shapes vendors use.
KEYS = [
    "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12",
    "sk-ant-api03-" + "Zz9_" * 8,
    "gsk_" + "a1B2" * 12,
    "xai-" + "a1B2" * 10,
    "pplx-" + "a1b2" * 10,
    "hf_" + "aBcD1" * 6,
    "AIzaSy" + "D4e5F6" * 5,
    "ghp_" + "a1B2" * 9,
    "Bearer abcdef0123456789",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "text",
    [
        '[[provider]]\nname = "openai"\napi_key = "{}"',
        '[[provider]]\nname = "openai"\nkey_env = "{}"',
        '[[provider]]\nname = "{}"',
        '[[provider]]\nname = "openai"\nheaders = {{ "x-custom" = "{}" }}',
        '[[provider]]\nname = "openai"\nbase_url = "https://host/v1?key={}"',
        '[[provider]]\nname = "openai"\nbase_url = "https://me:{}@host/v1"',
        '[[model]]\nprovider = "openai"\nname = "gpt-4o"\ncapabilities = ["{}"]',
        '[[budget]]\nlimit = "{}"',
        'profile = "{}"',
        '[routing.weights]\n"{}" = -1',
        '"{}" = 1',
        '[secrets]\nopenai = "{}"',
        'broken = "{}',
        '["{0}"]\n["{0}"]',
    ],
)
def test_a_key_in_plain_text_is_refused_and_never_shown(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text.format(key))
    with pytest.raises(ConfigError) as wrong:
        load(path, {})
    said = "".join(traceback.format_exception(wrong.value)) + repr(wrong.value) + repr(wrong.value.problems)
    assert key not in said
    assert key[8:] not in said


SECRETS = """key token secret password passwd api_key apikey openai_api_key client_secret x-api-key Authorization"""


@pytest.mark.parametrize("value", ['"hunter2"', "4711", '["hunter2"]'])
@pytest.mark.parametrize("name", SECRETS.split())
@pytest.mark.parametrize("form", ["{} = {}", "headers = {{ {} = {} }}", "extra = [{{ {} = {} }}]"])
def test_a_setting_with_a_secret_name_is_refused_with_advice(tmp_path: Path, form: str, name: str, value: str) -> None:
    problem = faults(tmp_path, '[[provider]]\nname = "openai"\n' + form.format(name, value))[0]
    assert "value (hidden): keep keys out of this file" in problem
    assert 'key_env = "OPENAI_API_KEY"' in problem
    assert "vault" in problem
    assert "hunter2" not in problem
    assert "4711" not in problem


def test_a_dense_value_is_hidden_where_it_is_wrong(tmp_path: Path) -> None:
    dense = "a1B2c3D4" * 4  # some vendors' keys are 32 letters and digits and nothing else
    (problem,) = faults(tmp_path, f'[[provider]]\nname = "mistral"\nkey_env = "{dense}"')
    assert "key_env: value (hidden): give the name of an environment variable" in problem
    (problem,) = faults(tmp_path, f'profile = "{dense}"')
    assert dense not in problem


def test_ordinary_names_and_values_are_not_taken_for_secrets() -> None:
    for name in ("max_tokens", "key_env", "warn_at", "tokens", "monkey", "author", "input", "keyboard"):
        assert not names_a_secret(name), name
    for provider in (
        "openai",
        "anthropic",
        "google",
        "perplexity",
        "groq",
        "x-ai",
        "openrouter",
        "fireworks",
        "together",
    ):
        for model in pricing.names(provider):
            assert not holds_a_secret(model), model
    for value in (
        "https://api.openai.com/v1",
        "5 USD",
        "OPENAI_API_KEY",
        "You are a basic helper.",
        "http://[::1]:8080/v1",
    ):
        assert not holds_a_secret(value), value


KNOWN = """provider model routing budget ledger defaults profile name weight price input output headers key_env base_url
weights strategy limit window path durability capabilities context_window api_key"""
known = st.sampled_from(re.findall(r"\w+", KNOWN))


scalars = st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
keys = known | st.text(max_size=6)
inner = scalars | st.lists(scalars, max_size=3) | st.dictionaries(keys, scalars, max_size=4)
tables = st.dictionaries(keys, inner, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, scalars | tables | st.lists(tables | scalars, max_size=3), max_size=6))
def test_whatever_is_in_the_file_it_loads_or_tells(data: dict[str, Any]) -> None:
    report = config.reading.Report(Path("tokenkit.toml"))
    try:
        Catalog(config.read(data, report, {}).models)
    except ConfigError as error:
        told = error.problems
    else:
        told = ()
    assert told == tuple(report.problems)
    assert not any(key in "".join(told) for key in KEYS)
