"""The configuration: every fault at once and no secret shown; weights saved without a comment lost."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit import config, pricing
from tokenkit.catalog import Catalog, filled
from tokenkit.config import Config, data_home, find, load, write_weights
from tokenkit.config.reading import holds_a_secret, names_a_secret
from tokenkit.errors import ConfigError
from tokenkit.money import rate_per_million
from tokenkit.route import Policy

FULL = """
# mine
profile = "seed-2024"

[defaults]
model = "gpt-4o"   # the usual
max_tokens = 500
deadline = 30

[[provider]]
name = "openai"
key_env = "OPENAI_API_KEY"
headers = { "OpenAI-Organization" = "org-1", "x-team" = "data" }

[[provider]]
name = "corp"
dialect = "openai"
base_url = "http://localhost:8000/v1"
price = { input = 0.1, output = "0.2" }

[[model]]
provider = "openai"
name = "gpt-4o"
weight = 7.5          # I like it
price = { input = 2.50, output = 10, cache_read = 1.25, cache_creation = 3, reasoning = 12, request = 0.01 }
context_window = 128000
max_output_tokens = 16384
capabilities = ["chat", "stream", "tools"]
encoding = "o200k_base"

[[model]]
provider = "corp"
name = "our/llama"

[routing]
strategy = "cheapest"
temperature = 0.5

[routing.weights]
"openai/gpt-4o" = 8

[[budget]]
limit = "5 USD"
window = "day"
user = "alice"
action = "block"
warn_at = 0.8

[[budget]]
limit = "100000 tokens"

[ledger]
path = "calls.duckdb"
durability = "power"
store_prompts = false
"""


def written(folder: Path, text: str | bytes, name: str = "tokenkit.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults(folder: Path, text: str | bytes) -> list[str]:
    """The problems of a file, without its own name in front."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as wrong:
        load(path, {})
    assert all(problem.startswith(f"{path}: ") for problem in wrong.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in wrong.value.problems]


def test_everything_that_can_be_said_is_understood(tmp_path: Path) -> None:
    found = load(written(tmp_path, FULL), {"HOME": "/home/ann"})
    openai, corp = found.providers
    assert (openai.dialect, openai.key_env, openai.base_url) == ("openai", "OPENAI_API_KEY", None)
    assert openai.headers == (("OpenAI-Organization", "org-1"), ("x-team", "data"))
    assert (corp.name, corp.dialect, corp.base_url) == ("corp", "openai", "http://localhost:8000/v1")
    gpt, llama = found.models
    assert (gpt.id, gpt.weight, gpt.context_window, gpt.max_output_tokens) == ("openai/gpt-4o", 7.5, 128_000, 16_384)
    assert (gpt.capabilities, gpt.encoding) == ({"chat", "stream", "tools"}, "o200k_base")
    assert gpt.price is not None
    assert gpt.price.layer == "user"
    assert gpt.price.tiers[0][1:] == tuple(map(rate_per_million, (2.5, 10, 1.25, 3, 12)))
    assert gpt.price.request == 10_000_000
    assert (llama.id, llama.weight, llama.price) == ("corp/our/llama", 1.0, None)
    assert found.routing == Policy("cheapest", 0.5, {"openai/gpt-4o": 8.0})
    assert [dict(budget) for budget in found.budgets] == tomllib.loads(FULL)["budget"]
    assert found.ledger == tmp_path / "calls.duckdb"
    assert (found.durability, found.store_prompts, found.profile) == ("power", False, "seed-2024")
    assert found.defaults == {"model": "gpt-4o", "max_tokens": 500, "deadline": 30}
    assert (found.path, found.home) == (tmp_path / "tokenkit.toml", Path("/home/ann/.local/share/tokenkit"))
    assert "org-1" not in repr(found)


def test_prices_have_layers(tmp_path: Path) -> None:
    found = load(written(tmp_path, FULL), {})
    priced = Catalog(filled(model, overrides=found.overrides) for model in found.models)
    assert priced.get("openai/gpt-4o").price is found.models[0].price
    house = priced.get("corp/our/llama").price
    assert house is not None
    assert (house.layer, house.matched) == ("provider", "corp/*")
    old = pricing.resolve("openai", "gpt-4", overrides=found.overrides)
    assert old is not None
    assert old.layer == "seed-2024"
    today = pricing.resolve("openai", "gpt-4", overrides=load(written(tmp_path, ""), {}).overrides)
    assert today is not None
    assert today.layer == "genai-prices"


def test_no_file_is_fine_and_so_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = load(None, {"HOME": str(tmp_path)})
    assert none == Config(home=tmp_path / ".local/share/tokenkit")
    assert none.routing == Policy()
    assert none.overrides == ({}, {})
    empty = load(written(tmp_path, "\ufeff# nothing yet\r\n"), {})
    assert (empty.providers, empty.models, empty.store_prompts, empty.durability) == ((), (), True, "process")


def test_the_search_goes_from_the_nearest_to_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, work, xdg = tmp_path / "home", tmp_path / "work", tmp_path / "xdg"
    for folder in (home / ".config/tokenkit", work, xdg / "tokenkit"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    environ = {"HOME": str(home)}
    assert find(None, environ) is None
    own = written(home / ".config/tokenkit", "")
    assert find(None, environ) == own
    assert find(None, {**environ, "XDG_CONFIG_HOME": "relative"}) == own
    environ["XDG_CONFIG_HOME"] = str(xdg)
    assert find(None, environ) is None
    theirs = written(xdg / "tokenkit", "")
    assert find(None, environ) == theirs
    written(work, "")
    assert find(None, environ) == find("tokenkit.toml", environ) == work / "tokenkit.toml"
    named = written(home, "", "mine.toml")
    environ["TOKENKIT_CONFIG"] = "~/mine.toml"
    assert find(None, environ) == named
    assert find(own, environ) == own
    assert find(str(own), environ) == own


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    for path, environ in ((tmp_path / "no.toml", {}), (None, {"TOKENKIT_CONFIG": str(tmp_path / "no.toml")})):
        with pytest.raises(ConfigError, match=r"no\.toml: there is no such file"):
            load(path, environ)
    with pytest.raises(ConfigError, match="a folder"):
        load(tmp_path, {})


def test_data_goes_where_the_environment_says() -> None:
    assert data_home({"TOKENKIT_HOME": "/data", "XDG_DATA_HOME": "/xdg", "HOME": "/h"}) == Path("/data")
    assert data_home({"TOKENKIT_HOME": "~/data", "HOME": "/h"}) == Path("/h/data")
    assert data_home({"XDG_DATA_HOME": "/xdg", "HOME": "/h"}) == Path("/xdg/tokenkit")
    assert data_home({"XDG_DATA_HOME": "xdg", "HOME": "/h"}) == Path("/h/.local/share/tokenkit")


def test_every_fault_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = """
profil = "seed-2024"
profile = "seed-2025"
[[provider]]
nmae = "openai"
base_url = "api.openai.com"
[[provider]]
name = "corp"
price = { input = 1 }
headers = { "x y" = "1", "x-z" = 5, "x-w" = "a\\nb" }
[[provider]]
name = "corp"
[[model]]
provider = "openai"
name = "gpt-4o"
weight = -1
context_window = 0
capabilities = ["chat", "tool"]
price = { input = nan, output = -2, inptu = 1, request = 1e-12 }
[[model]]
provider = "openai"
name = "gpt-4o"
wieght = 3
max_output_tokens = 1.5
[[model]]
name = 7
[routing]
strategy = "cheepest"
temperature = inf
[routing.weights]
"gpt-4o" = nan
"gpt-5" = true
[[budget]]
limit = "10 EUR"
window = "week"
warn_at = 2
[[budget]]
usr = "alice"
[ledger]
durability = 3
store_prompts = "no"
[defaults]
max_tokens = 0
deadline = 0
"""
    told = "\n".join(faults(tmp_path, text))
    for expected in (
        "profil: unknown key: Did you mean 'profile' or 'provider'?",
        "profile: value \"seed-2025\": Did you mean 'seed-2024'?",
        "provider[1].name: missing: ",
        "provider[1].nmae: unknown key: Did you mean 'name'?",
        'provider[1].base_url: value "api.openai.com": give an address',
        "provider[2].price.output: missing: ",
        'provider[2].headers.x y: value "1": a header',
        "provider[2].headers.x-z: value 5: give a text in quotes",
        'provider[2].headers.x-w: value "a\\nb": ',
        'provider[3].name: value "corp": this provider has been given already',
        "model[1].weight: value -1: give a finite number of at least 0",
        "model[1].context_window: value 0: give a whole number above 0",
        "model[1].capabilities: value \"tool\": Did you mean 'tools'",
        "model[1].price.input: value nan: give a finite price",
        "model[1].price.output: value -2: give a finite price",
        "model[1].price.inptu: unknown key: Did you mean 'input'",
        "model[1].price.request: value 1e-12: give USD for each request",
        'model[2].name: value "gpt-4o": openai/gpt-4o has been given already',
        "model[2].wieght: unknown key: Did you mean 'weight'?",
        "model[2].max_output_tokens: value 1.5: ",
        "model[3].provider: missing: ",
        "model[3].name: value 7: ",
        "routing.strategy: value \"cheepest\": Did you mean 'cheapest'?",
        "routing.temperature: value inf: ",
        "routing.weights.gpt-4o: value nan: ",
        "routing.weights.gpt-5: value true: ",
        'budget[1].limit: value "10 EUR": ',
        'budget[1].window: value "week": ',
        "budget[1].warn_at: value 2: give a finite number of at least 0 and at most 1",
        "budget[2].limit: missing: ",
        "budget[2].usr: unknown key: Did you mean 'user'?",
        "ledger.durability: value 3: ",
        'ledger.store_prompts: value "no": give true or false',
        "defaults.max_tokens: value 0: ",
        "defaults.deadline: value 0: ",
    ):
        assert expected in told, expected
    assert len(told.splitlines()) == 35


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\nb = = 2\n", "line 2, column 5: broken TOML"),
        ('name = "no end', "broken TOML"),
        ("[a]\n[a]\n", "line 2, column 3: broken TOML"),
        ("a = 1\na = 2\n", "line 2, column 6: broken TOML"),
        (b"a = '\xff'", "byte 5 is not UTF-8"),
        ("a = " + "[" * 20_000, "broken TOML: nested too deeply"),
        ("a = " + "1" * 10_000, "broken TOML"),
    ],
)
def test_broken_toml_is_told_with_line_and_column(tmp_path: Path, text: str | bytes, place: str) -> None:
    (problem,) = faults(tmp_path, text)
    assert place in problem


def test_tables_of_the_wrong_shape_are_told(tmp_path: Path) -> None:
    told = faults(tmp_path, "provider = 1\nmodel = {}\nrouting = []\nbudget = [1]\nledger = 'x'\ndefaults = 2\n")
    places = sorted(problem.split(":")[0] for problem in told)
    assert places == ["budget", "defaults", "ledger", "model", "provider", "routing"]


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


# Saving weights.


def test_a_saved_weight_changes_its_own_number_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, FULL)
    write_weights(path, {"openai/gpt-4o": 9.25})
    assert path.read_text() == FULL.replace('"openai/gpt-4o" = 8', '"openai/gpt-4o" = 9.25')
    without = FULL.replace('\n[routing.weights]\n"openai/gpt-4o" = 8\n', "")
    path = written(tmp_path, without)
    write_weights(path, {"openai/gpt-4o": 6})
    assert path.read_text() == without.replace("weight = 7.5          # I like it", "weight = 6          # I like it")
    write_weights(path, {"corp/our/llama": 2})
    assert 'name = "our/llama"\nweight = 2\n' in path.read_text()
    write_weights(path, {"anthropic/claude-opus-5-5": 9, "gpt-5": 0.1})
    assert path.read_text().endswith('\n[routing.weights]\n"anthropic/claude-opus-5-5" = 9\n"gpt-5" = 0.1\n')
    found = load(path, {})
    assert [model.weight for model in found.models] == [6, 2]
    assert found.routing.weights == {"anthropic/claude-opus-5-5": 9, "gpt-5": 0.1}


def test_a_new_file_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokenkit.toml"
    write_weights(path, {"gpt-4o": 3})
    assert path.read_text() == '[routing.weights]\n"gpt-4o" = 3\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["tokenkit.toml"]


def test_rights_links_line_ends_and_marks_survive(tmp_path: Path) -> None:
    real = written(tmp_path, "\ufeff[routing.weights]\r\na = 1\r\n\r\n# end", "real.toml")
    real.chmod(0o640)
    link = tmp_path / "tokenkit.toml"
    link.symlink_to(real)
    write_weights(link, {"a": 2, "b": 3})
    assert link.is_symlink()
    assert real.read_bytes().decode() == '\ufeff[routing.weights]\r\na = 2\r\n\r\n# end\r\n"b" = 3\r\n'
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "text",
    [
        '[routing]\nweights = { "a" = 1 }\n',
        "routing.weights.a = 1\n",
        'model = [{ provider = "p", name = "a", weight = 1 }]\n[routing.weights]\n"p/a" = """\n2"""\n',
        "[broken\n",
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError):
        write_weights(path, {"a": 2, "p/a": 3})
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["tokenkit.toml"]


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), True, "7"])
def test_a_weight_that_cannot_be_is_not_saved(tmp_path: Path, weight: Any) -> None:
    with pytest.raises(ConfigError, match="weight of gpt-4o"):
        write_weights(tmp_path / "tokenkit.toml", {"gpt-4o": weight})
    assert os.listdir(tmp_path) == []


def test_a_folder_one_cannot_write_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_weights(path / "inside.toml", {"a": 1})


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
models = st.lists(st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["a", "b/c", "d"]), st.booleans()), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    models.map(lambda rows: list({row[:2]: row for row in rows}.values())),
    st.dictionaries(names | st.sampled_from(["p/a", "q/a", "a", "p/b/c"]), st.integers(0, 9), max_size=3),
    st.dictionaries(names | st.sampled_from(["p/a", "q/a", "p/b/c", "q/d"]), st.floats(0, 10), min_size=1, max_size=3),
)
def test_saved_weights_are_the_ones_that_hold(
    tmp_path: Path, rows: list[tuple[str, str, bool]], shared: dict[str, int], new: dict[str, float]
) -> None:
    text = "# head\n"
    for provider, name, weighed in rows:
        text += f'\n[[model]]  # one\n  provider = "{provider}"\n  name = "{name}"\n' + "  weight = 1 # w\n" * weighed
    if shared:
        text += "\n[routing.weights] # ours\n"
        text += "".join(f"{json.dumps(name)} = {weight}  # note\n" for name, weight in shared.items())
    path = written(tmp_path, text)
    try:
        before = load(path, {})
    except ConfigError:
        return
    try:
        write_weights(path, new)
    except ConfigError:
        assert path.read_text() == text
        return
    after = load(path, {})
    for name, weight in new.items():
        model = next((m for m in after.models if m.id == name), None)
        if model is not None:
            holds = after.routing.weights.get(model.id, after.routing.weights.get(model.name, model.weight))
            assert holds == weight or model.name in new
        elif name not in [m.name for m in after.models]:
            assert after.routing.weights[name] == weight
    assert [m.id for m in after.models] == [m.id for m in before.models]
    assert path.read_text().count("#") >= text.count("#")
