"""Docs that cannot lie: the README's Python runs in order, its commands are the ones CI calls, its links exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tokenkit.config import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TOKENKIT_HOME", str(tmp_path))
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["answer"].receipt.status == "ok"
    names["kit"].close()


def test_the_readmes_configuration_is_valid(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    tomllib.loads(block)
    path = tmp_path / "tokenkit.toml"
    path.write_text(block, encoding="utf-8")
    config = load(path, {})
    assert [model.name for model in config.models] == ["my-model"]


def test_the_two_commands_are_one_line_each_and_ci_calls_the_second() -> None:
    demo, test = blocks("sh")
    for command in (demo, test):
        assert command.count("\n") == 1
    assert "tokenkit demo" in demo
    assert "pytest" in test
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_inside_the_project_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), f"README links to {target}, which does not exist"


def test_contributing_fits_one_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 45


def test_nothing_names_a_registry_host_or_an_absolute_path() -> None:
    lock = (ROOT / ".ci" / "lock.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--find-links|file:", lock)
