"""Frozen nouns as plain JSON and back: a field that has its default is left out, one of a later version is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

_Shape = tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], Iterable[Any]]]
_SHAPES: dict[type, _Shape] = {}

encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
"""Write plain values as one line of JSON."""


def shaped(*classes: type) -> None:
    """Make dataclasses and named tuples known here; one with a known one within is written whole."""
    for cls in classes:
        if is_dataclass(cls):
            rows = [(f.name, f.default) for f in fields(cls)]
        else:
            rows = [(name, cls._field_defaults.get(name)) for name in cls._fields]  # type: ignore[attr-defined]
        names = tuple(name for name, _ in rows)
        _SHAPES[cls] = (names, tuple(default for _, default in rows), attrgetter(*names))


def plain(value: Any) -> dict[str, Any]:
    """Turn a noun into JSON values, leaving out every field that still has its default.

    Written for speed: it runs within every call, once for each attempt, candidate and price.
    """
    names, defaults, read = _SHAPES[value.__class__]
    found: dict[str, Any] = {}
    for name, item, default in zip(names, read(value), defaults, strict=True):
        if item is default:
            continue
        kind = item.__class__
        if kind is tuple and item and item[0].__class__ in _SHAPES:
            found[name] = [plain(each) for each in item]
        elif kind in _SHAPES:
            found[name] = plain(item)
        elif item != default:
            # Numbers, texts, and tuples of them: json writes tuples as lists, all the way down.
            found[name] = item
    return found


def make(cls: type, data: Mapping[str, Any], **nested: Any) -> Any:
    """Make a noun of what :func:`plain` gave; ``nested`` are the fields that are nouns themselves, made already."""
    known = _SHAPES[cls][0]
    return cls(**{key: value for key, value in data.items() if key in known and key not in nested}, **nested)
