"""A configuration file to be read, and what is found wrong with it: shared by the tests of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenkit.config import load
from tokenkit.errors import ConfigError


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
