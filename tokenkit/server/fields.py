"""One field of a request read: its type and its bounds, or one sentence that says what it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tokenkit.errors import UserError

LONGEST_NAME = 256
MOST_TOKENS = 2**31 - 1
MOST_SEED = 2**63 - 1
MOST_MESSAGES = 10_000
MOST_TOOLS = 1_000


class Malformed(UserError):
    """A request that is not what the API takes; ``param`` names the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def listed(body: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{name} must be a list.", name)
    if len(value) > most:
        raise Malformed(f"{name} has more than {most:,} entries.", name)
    return value


def word(body: Mapping[str, Any], name: str, param: str | None = None) -> str | None:
    value, param = body.get(name), param or name
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_NAME:
        raise Malformed(f"{param} must be a text of 1 to {LONGEST_NAME} characters.", param)
    return value


def flag(body: Mapping[str, Any], name: str, param: str | None = None) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Malformed(f"{param or name} must be true or false.", param or name)


def number(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Malformed(f"{name} must be a number from {least} to {most}.", name)
    return value


def whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # 64.0 is what some languages write for 64
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Malformed(f"{name} must be a whole number from {least:,} to {most:,}.", name)
    return value


def words(name: bytes) -> str:
    """Return a header's value as text: UTF-8 where it is that, else byte by byte."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
