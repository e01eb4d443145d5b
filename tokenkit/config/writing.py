"""Weights saved into ``tokenkit.toml`` by changing as little as possible, so that comments and order survive."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenkit.catalog import is_weight
from tokenkit.config.reading import parse
from tokenkit.errors import ConfigError

Span = tuple[int, int]
"""The lines of one table: its header's, and the first that is not its own any more."""

_HEADER = re.compile(r"\s*(\[?)\[\s*([\w.-]+)\s*\]\]?\s*(?:#.*)?$")
_SETTING = re.compile(r"""(\s*("(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)\s*=\s*)([^\s#,]+)""")


def write_weights(path: str | Path, weights: Mapping[str, float]) -> None:
    """Save ``weights`` (by ``provider/name`` or by name) into the file, which is made if it is not there.

    A weight goes where it stands already: under ``[routing.weights]``, else into the model's own ``[[model]]`` table;
    a new one goes under ``[routing.weights]``. Everything else stays as it is, to the letter, and the file is replaced
    in one step. Raises ConfigError, leaving the file alone, for a weight that cannot be, for a broken file, and where
    the file is written in a way this cannot change safely, such as an inline table of weights.
    """
    # Through a link to the file itself: replacing the link would part it from what it points to.
    file = Path(os.path.realpath(path))
    wrong = [name for name, value in weights.items() if not is_weight(value)]
    if wrong:
        advice = "give a finite number of at least 0."
        raise ConfigError(f"{file}: weight of {name}: value {weights[name]!r}: {advice}" for name in wrong)
    text, before = parse(file) if file.exists() else ("", {})
    # Read once more as bytes: what parse drops, a byte order mark, is the user's to keep.
    mark = "\ufeff" if text and file.read_bytes().startswith("\ufeff".encode()) else ""
    lines = text.splitlines(keepends=True)
    for name, weight in weights.items():
        _set(lines, before, name, _numeral(weight))
    after = "".join(lines)
    if not _is_as_meant(after, before, weights):
        settings = ", ".join(f"{json.dumps(name)} = {_numeral(weight)}" for name, weight in weights.items())
        raise ConfigError(
            f"{file}: its weights are written in a way that cannot be changed without risk to the rest. "
            f"Write under [routing.weights] yourself: {settings}"
        )
    try:
        _replace(file, mark + after)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "a name is no text"
        raise ConfigError(f"{file}: cannot be written: {why}.") from None


def _numeral(weight: float) -> str:
    return str(int(weight)) if weight == int(weight) and weight < 10**15 else repr(float(weight))


def _set(lines: list[str], data: Mapping[str, Any], name: str, numeral: str) -> None:
    """Change the one line that holds the weight of ``name``, or add one."""
    sections = list(_sections(lines))
    shared = next((span for header, span in sections if header == "routing.weights"), None)
    if shared is not None and _change(lines, shared, name, numeral):
        return
    tables = [span for header, span in sections if header == "[model"]
    own = _own(data, name)
    if own is not None and len(tables) == len(data["model"]):
        start, end = tables[own]
        if not _change(lines, (start, end), "weight", numeral):
            said = [i for i in range(start, end) if lines[i].split("=")[0].strip() == "name"]
            line = (said or [start])[-1]
            indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
            _insert(lines, line + 1, f"{indent}weight = {numeral}")
        return
    setting = f"{json.dumps(name, ensure_ascii=False)} = {numeral}"
    if shared is None:
        if lines:
            _insert(lines, len(lines), "")
        _insert(lines, len(lines), "[routing.weights]")
        _insert(lines, len(lines), setting)
    else:
        _insert(lines, max(i for i in range(*shared) if lines[i].strip()) + 1, setting)


def _own(data: Mapping[str, Any], name: str) -> int | None:
    """Return which ``[[model]]`` table holds the weight of ``name``, if one does and nothing outdoes it."""
    shared = data.get("routing", {}).get("weights", {})
    models = data.get("model", [])
    mine = [i for i, m in enumerate(models) if name in (f"{m.get('provider')}/{m.get('name')}", m.get("name"))]
    if len(mine) != 1 or models[mine[0]].get("name") in shared:
        return None
    return mine[0]


def _sections(lines: list[str]) -> Iterator[tuple[str, Span]]:
    """Yield each table's name and lines; the name of one under ``[[double]]`` brackets starts with a bracket."""
    heads = [(i, found[1] + found[2]) for i, line in enumerate(lines) if (found := _HEADER.match(line))]
    for (start, header), (end, _) in pairwise([*heads, (len(lines), "")]):
        yield header, (start, end)


def _change(lines: list[str], span: Span, key: str, numeral: str) -> bool:
    """Put ``numeral`` in place of the value of ``key``; return whether it was there."""
    for i in range(span[0] + 1, span[1]):
        found = _SETTING.match(lines[i])
        if found is not None and _bare(found[2]) == key:
            lines[i] = found[1] + numeral + lines[i][found.end() :]
            return True
    return False


def _bare(key: str) -> str:
    if key[0] == "'":
        return key[1:-1]
    if key[0] == '"':
        with suppress(ValueError):
            return str(json.loads(key))
    return key


def _insert(lines: list[str], at: int, line: str) -> None:
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    lines.insert(at, line + newline)


def _is_as_meant(text: str, before: Mapping[str, Any], weights: Mapping[str, float]) -> bool:
    """Return whether ``text`` says what ``before`` did, but for these weights, which all hold."""
    try:
        after = tomllib.loads(text)
    except ValueError:
        return False
    return _without(after, weights) == _without(before, weights) and all(
        _holding(after, name) == weight for name, weight in weights.items()
    )


def _holding(data: Mapping[str, Any], name: str) -> float | None:
    """Return the weight that the file gives ``name``; ``None`` where it gives none."""
    shared = data.get("routing", {}).get("weights", {})
    if name in shared:
        return float(shared[name])
    own = _own(data, name)
    return None if own is None else float(data["model"][own].get("weight", -1))


def _without(data: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    rest = copy.deepcopy(dict(data))
    for model in rest.get("model", []):
        if not {f"{model.get('provider')}/{model.get('name')}", model.get("name")}.isdisjoint(weights):
            model.pop("weight", None)
    routing = rest.setdefault("routing", {})
    shared = routing.setdefault("weights", {})
    routing["weights"] = {name: weight for name, weight in shared.items() if name not in weights}
    return rest


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; one that was there keeps the rights it had.
        if file.exists():
            os.chmod(name, file.stat().st_mode)
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
