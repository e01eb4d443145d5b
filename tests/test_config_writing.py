"""Weights saved into a configuration: they hold, and not a comment is lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from configs import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit.config import load, write_weights
from tokenkit.errors import ConfigError

FULL = """
# mine
[[model]]   # the first
provider = "openai"
name = "gpt-4o"
weight = 7.5          # I like it
price = { input = 2.50, output = 10 }

[[model]]
provider = "corp"
name = "our/llama"

[routing]
strategy = "cheapest"

[routing.weights]
"openai/gpt-4o" = 8

[ledger]
store_prompts = false  # nobody's business
"""


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
