"""Which providers there are: those built in, those the environment brings, those other packages add."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.errors import ConfigError
from tokenkit.providers import azure, openai, registry
from tokenkit.providers.base import Provider
from tokenkit.types import Message, Request

KEY = "sk-canary-9wXy"


def named(**environ: str) -> dict[str, Provider]:
    return {provider.name: provider for provider in registry.from_environment(environ)}


def key_of(provider: Provider) -> str | None:
    return None if provider.key is None else provider.key.reveal()


# The environment


def test_a_key_in_the_environment_is_a_provider() -> None:
    found = named(OPENAI_API_KEY=KEY, HOME="/", PATH="")
    assert list(found) == ["openai"]
    assert key_of(found["openai"]) == KEY
    assert found["openai"].base_url == openai.BASE_URL
    assert named() == {}


@pytest.mark.parametrize("name", sorted(set(registry.ENVIRONMENT) - {"azure"}))
def test_every_provider_is_found_by_its_variables_and_reaches_its_address(name: str) -> None:
    keys, urls = registry.ENVIRONMENT[name]
    for key, url in ((keys[0], urls[0]), (keys[-1], urls[-1])):
        provider = named(**{key: f" {KEY}\n", url: " https://example.org/v1/ "})[name]
        assert key_of(provider) == KEY
        request = Request((Message("user", "Hello"),), model="m")
        assert provider.encode(request, provider).url.startswith("https://example.org/")
        assert KEY not in repr(provider)
    alone = named(**{keys[0]: KEY})
    assert (name in alone) == (name not in registry.OWN)


@pytest.mark.parametrize("said", ["{}", " {}", "{}\n", "{}\r\n", "\t{} ", '"{}"', "'{}'", ' "{}" \n', "\ufeff {}"])
def test_what_comes_with_copying_is_stripped_from_a_key(said: str) -> None:
    text = said.format(KEY)
    if text.startswith("\ufeff"):  # a mark no editor shows cannot be told from a damaged key
        with pytest.raises(ConfigError):
            named(OPENAI_API_KEY=text)
    else:
        assert key_of(named(OPENAI_API_KEY=text)["openai"]) == KEY


@pytest.mark.parametrize("nothing", ["", " ", "\n", '""', "''", ' " " '])
def test_an_empty_variable_is_none(nothing: str) -> None:
    assert named(OPENAI_API_KEY=nothing, OPENAI_BASE_URL=nothing) == {}
    assert key_of(named(GEMINI_API_KEY=nothing, GOOGLE_API_KEY=KEY)["gemini"]) == KEY


BAD = [f"{KEY}{bad}" for bad in (f" {KEY}", "\nX-Evil: 1", "\x00", "ü", "\u200b", "\x7f")] + [
    f"Bearer {KEY}",
    f"«{KEY}",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_key_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(OPENAI_API_KEY=bad, ANTHROPIC_API_KEY=bad, GROQ_API_KEY=KEY)
    assert [problem.split()[0] for problem in caught.value.problems] == ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"]
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.__dict__)
    assert "9wXy" not in shown
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        tk.Kit(environ={"OPENAI_API_KEY": bad})


REFUSAL = "X holds a key with a space, a control character or a letter no key has inside: copy it again."


@given(st.text())
def test_any_text_is_a_key_or_is_refused_unseen(text: str) -> None:
    try:
        found = registry.key_from({"X": text}, "X")
    except ConfigError as error:
        found, said = None, str(error)
    else:
        said = REFUSAL
    assert said == REFUSAL
    if found is not None:
        key = found.reveal()
        assert key in text
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key
        f"authorization: Bearer {key}".encode("ascii")


@pytest.mark.parametrize(
    "bad",
    ["api.example.org", "ftp://example.org", "file:///etc/passwd", "https://", "https://exa mple.org", "https://ü.org",
     f"https://me:{KEY}@example.org/v1", "simulated://x"],
)  # fmt: skip
def test_a_bad_address_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=bad)
    assert str(caught.value).startswith("OPENAI_BASE_URL holds")
    assert "9wXy" not in str(caught.value)


def test_a_host_alone_is_an_address_for_ollama() -> None:
    assert named(OLLAMA_HOST="10.0.0.7:11434")["ollama"].base_url == "http://10.0.0.7:11434"
    assert named(OLLAMA_BASE_URL="'http://box:1'")["ollama"].base_url == "http://box:1"


# Other packages

SOUND = """
from tokenkit.providers import openai

def provider(name="elsewhere", base_url="https://elsewhere.example/v1", key=None):
    return openai.provider(name, base_url, key)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a small package, as pip leaves it: a module, and metadata that names entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(module: str, code: str, points: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        registry.known.cache_clear()

    registry.known.cache_clear()
    yield install
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)
    monkeypatch.undo()
    registry.known.cache_clear()
    registry.known()


def test_the_providers_built_in_are_known_and_all_well() -> None:
    assert registry.known().keys() >= registry.BUILT_IN.keys() >= registry.ENVIRONMENT.keys()
    assert registry.notice() == ""


def test_a_provider_of_another_package_is_known_and_can_be_configured(
    installed: Callable[..., None], tmp_path: Path
) -> None:
    installed("elsewhere_kit", SOUND, "[tokenkit.providers]\nelsewhere = elsewhere_kit:provider\n")
    assert registry.known()["elsewhere"]().base_url == "https://elsewhere.example/v1"
    assert registry.notice() == ""
    config = tmp_path / "tokenkit.toml"
    config.write_text('[[provider]]\nname = "elsewhere"\nkey_env = "ELSEWHERE_KEY"\n')
    with tk.Kit(config, home=tmp_path / "home", environ={"ELSEWHERE_KEY": KEY}) as kit:
        provider = next(p for p in kit.providers if p.name == "elsewhere")
    assert key_of(provider) == KEY


@pytest.mark.parametrize(
    ("code", "points", "why"),
    [
        (f"raise RuntimeError('{KEY}')", "bad = bad_kit:provider", "RuntimeError"),
        ("raise SystemExit(3)", "bad = bad_kit:provider", "SystemExit"),
        ("import no_such_module_anywhere", "bad = bad_kit:provider", "ModuleNotFoundError"),
        ("def provider(: pass", "bad = bad_kit:provider", "SyntaxError"),
        ("", "bad = bad_kit:provider", "AttributeError"),
        ("", "bad = no_such_kit:provider", "ModuleNotFoundError"),
        ("provider = 5", "bad = bad_kit:provider", "it is no function"),
        ("", "bad = bad_kit", "it is no function"),
    ],
)
def test_a_broken_package_is_a_notice_and_takes_nobody_along(
    installed: Callable[..., None], code: str, points: str, why: str
) -> None:
    installed("elsewhere_kit", SOUND, "[tokenkit.providers]\nelsewhere = elsewhere_kit:provider\n")
    installed("bad_kit", code, f"[tokenkit.providers]\n{points}\n")
    assert "elsewhere" in registry.known()
    assert "bad" not in registry.known()
    assert registry.notice() == f"The provider bad of another package could not be loaded: {why}."
    assert named(OPENAI_API_KEY=KEY)["openai"].base_url == openai.BASE_URL


def test_a_notice_is_told_once_however_often_it_is_looked_for(installed: Callable[..., None]) -> None:
    installed("bad_kit", "raise RuntimeError", "[tokenkit.providers]\nbad = bad_kit:provider\n")
    for _ in range(3):
        registry.known()
        registry.known.cache_clear()
    registry.known()
    assert registry.notice().count("bad") == 1


def test_a_package_cannot_step_into_the_place_of_a_provider_that_is_ours(installed: Callable[..., None]) -> None:
    installed("thief_kit", SOUND, "[tokenkit.providers]\nopenai = thief_kit:provider\n")
    assert registry.known()["openai"] is openai.provider
    assert "built in" in registry.notice()
    assert "thief_kit" not in sys.modules


def test_a_damaged_list_of_entry_points_is_a_notice(installed: Callable[..., None]) -> None:
    installed("damaged_kit", "", "[tokenkit.providers]\nthis line has no equals sign\n")
    assert registry.known().keys() == registry.BUILT_IN.keys()
    assert registry.notice() == "The providers of other packages could not be listed: TypeError."


def test_a_kit_in_a_fresh_process_finds_the_package_and_tells_the_notice(
    installed: Callable[..., None], tmp_path: Path
) -> None:
    installed("elsewhere_kit", SOUND, "[tokenkit.providers]\nelsewhere = elsewhere_kit:provider\n")
    installed("bad_kit", "raise RuntimeError", "[tokenkit.providers]\nbad = bad_kit:provider\n")
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import tokenkit as tk
        from tokenkit.providers import registry
        kit = tk.Kit(home={str(tmp_path / "home")!r}, environ={{"OPENAI_API_KEY": "{KEY}"}})
        print(sorted(set(registry.known()) - set(registry.BUILT_IN)))
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout == "['elsewhere']\n"
    assert run.stderr == "The provider bad of another package could not be loaded: RuntimeError.\n"


@pytest.mark.parametrize(
    ("address", "version", "asked"),
    [
        ("https://r.openai.azure.com", "2025-01-01-preview", "?api-version=2025-01-01-preview"),
        ("https://r.openai.azure.com?api-version=2024-06-01", "2025-01-01", "?api-version=2024-06-01"),
        ("https://r.openai.azure.com/openai/v1", "2025-01-01", "/openai/v1/chat/completions"),
        ("https://r.openai.azure.com", " ", "?api-version=2024-10-21"),
    ],
)
def test_azure_asks_for_the_version_the_environment_names(address: str, version: str, asked: str) -> None:
    environ = {"AZURE_OPENAI_API_KEY": "k" * 32, "AZURE_OPENAI_ENDPOINT": address, "OPENAI_API_VERSION": version}
    (found,) = registry.from_environment(environ)
    assert azure.address(found, "gpt").endswith(asked)
