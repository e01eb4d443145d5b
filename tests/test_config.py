"""The configuration: every fault at once and no secret shown; weights saved without a comment lost."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from configs import faults, written

from tokenkit import pricing
from tokenkit.catalog import Catalog, filled
from tokenkit.config import Config, data_home, find, load
from tokenkit.errors import BudgetExceeded, ConfigError
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


def test_everything_that_can_be_said_is_understood(tmp_path: Path) -> None:
    found = load(written(tmp_path, FULL), {"HOME": "/home/ann"})
    openai, corp = found.providers
    assert (openai.dialect, openai.key_env, openai.base_url) == ("openai", ("OPENAI_API_KEY",), None)
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
        "profil: unknown key: Did you mean 'profile'?",
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


def test_a_teams_journal_is_named_by_its_variable_and_never_silently_left_out(tmp_path: Path) -> None:
    from tokenkit import Kit

    (tmp_path / "tokenkit.toml").write_text('[ledger]\njournal_env = "TEAM"\n')
    with pytest.raises(ConfigError, match="names TEAM, and that environment variable is not set"):
        Kit(tmp_path / "tokenkit.toml", environ={"TOKENKIT_SIMULATED": "1"})
    environ = {"TOKENKIT_SIMULATED": "1", "TEAM": "postgresql://nobody:secret@127.0.0.1:9/none"}
    with Kit(tmp_path / "tokenkit.toml", home=tmp_path, environ=environ) as kit:
        assert "secret" not in repr(kit.journal)
        with pytest.raises(BudgetExceeded, match="budgets cannot be read") as refusal:
            kit.call("Hello")
        assert "secret" not in str(refusal.value)


def test_stages_of_compression_are_named_in_their_order(tmp_path: Path) -> None:
    said = load(written(tmp_path, '[defaults]\ncompress = ["summarize", "hyperbolic"]\ntarget = 0.4\n'), {}).defaults
    assert said == {"compress": ("summarize", "hyperbolic"), "target": 0.4}
    assert load(written(tmp_path, '[defaults]\ncompress = "dedupe, llm"'), {}).defaults == {
        "compress": ("dedupe", "llm")
    }
    assert load(written(tmp_path, "[defaults]\ncompress = []"), {}).defaults == {}


@pytest.mark.parametrize("age", ["true", "false", '"7d"'])
def test_a_cache_may_be_the_habit(tmp_path: Path, age: str) -> None:
    said = load(written(tmp_path, f"[defaults]\ncache = {age}\n"), {}).defaults
    assert said == tomllib.loads(f"cache = {age}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('compress = ["sumarize"]', "defaults.compress: value \"sumarize\": Did you mean 'summarize'?"),
        ('compress = "normalize, nope"', 'defaults.compress: value "nope": Known here: dedupe, diff'),
        ("compress = 5", "defaults.compress: value 5: give a list of stages"),
        ("compress = [5]", "defaults.compress: value [5]: give a list of stages"),
        ("compress = { a = 1 }", "defaults.compress: value {…}: give a list of stages"),
        ("target = 0", "defaults.target: value 0: give the share of tokens to keep"),
        ("target = 1.5", "defaults.target: value 1.5: give a finite number"),
        ("target = true", "defaults.target: value true: give a finite number"),
        ('target = "half"', 'defaults.target: value "half": give a finite number'),
        ("cache = 7", 'defaults.cache: value 7: give true, false, or an age such as "7d"'),
        ('cache = "weekly"', 'defaults.cache: value "weekly": give true, false, or an age'),
    ],
)
def test_a_habit_that_cannot_be_is_told_in_one_line(tmp_path: Path, line: str, told: str) -> None:
    (problem,) = faults(tmp_path, f"[defaults]\n{line}\n")
    assert problem.startswith(told)
