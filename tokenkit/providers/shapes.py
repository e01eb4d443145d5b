"""JSON whose shape nobody guarantees: each function gives a value of the type asked for, or nothing, never a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenkit.errors import ProtocolError, UserError
from tokenkit.providers.masking import sound
from tokenkit.providers.sse import parse
from tokenkit.types import Request, ToolCall

MOST_TOKENS = 2**53


def raw(value: Any) -> str:
    """Return text as it came, perhaps with half a character at its end, or ``""`` for anything else."""
    return value if isinstance(value, str) else ""


def text(value: Any) -> str:
    """Return text that can be printed, or ``""`` for anything else."""
    return sound(value) if isinstance(value, str) else ""


def word(value: Any) -> str | None:
    """Return text that is not empty, or ``None``."""
    return sound(value) if isinstance(value, str) and value else None


def count(value: Any) -> int | None:
    """Return a number of tokens; ``None`` for what cannot be one (a text, a negative, a fraction, true)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def record(value: Any) -> Mapping[str, Any]:
    """Return an object, or an empty one."""
    # Every object out of JSON is a dict, which is known at a tenth of the price: this runs often in every chunk.
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def records(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, or an empty list."""
    return [one for one in value if type(one) is dict or isinstance(one, Mapping)] if isinstance(value, list) else []


def body_of(body: bytes) -> dict[str, Any]:
    """Read the JSON object of a whole answer. Raises ProtocolError where there is none."""
    if not body.strip():
        raise ProtocolError("The answer was empty.")
    return parse(body, "the answer")


def sum_of(*counts: int | None) -> int | None:
    """Add counts of which the first must be known for the sum to be; those after it count 0 where unknown."""
    first, *others = counts
    return None if first is None else first + sum(one or 0 for one in others)


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a tool call as an object. Raises UserError for text that is not one."""
    try:
        found = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"The arguments of the call of {call.name} must be a JSON object: {call.arguments[:60]!r}.")
    return found


def schema_of(request: Request) -> tuple[str, Mapping[str, Any] | None]:
    """Return what output is wanted, ``text``, ``json`` or ``schema``, and the JSON schema of the last.

    Raises UserError for a ``response_format`` of another kind.
    """
    wanted = request.response_format or {"type": "text"}
    kind = wanted.get("type")
    if kind == "json_schema":
        inner = record(wanted.get("json_schema")) or wanted
        schema = record(inner.get("schema"))
        if not schema:
            raise UserError("response_format of type 'json_schema' needs a 'schema' under 'json_schema'.")
        return "schema", schema
    if kind in ("text", "json_object"):
        return ("text" if kind == "text" else "json"), None
    raise UserError(f"response_format has type {kind!r}; 'text', 'json_object' and 'json_schema' are understood.")
