"""What stands in other people's logs, read as our columns have it: tokens, nano-USD, Unix nanoseconds, text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Row = dict[str, Any]
"""A call as the ledger's columns name its parts; what is not there is unknown."""


def unknown(value: Any) -> bool:
    """Whether this says nothing: None, an empty text, or the NaN that pandas writes where there was nothing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def first(said: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these fields that says something."""
    return next((said[name] for name in names if not unknown(said.get(name))), None)


def whole(value: Any) -> int | None:
    """Read a whole number, such as one of tokens. Raises ValueError."""
    if unknown(value):
        return None
    try:
        number = Decimal(str(value))
        if number == number.to_integral_value() and 0 <= number < 2**62:
            return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"{value!r} is no whole number")


def nanos(value: Any) -> int | None:
    """Read an amount of USD as nano-USD. Raises ValueError."""
    if unknown(value):
        return None
    try:
        amount = Decimal(str(value)) * 10**9
        if amount.is_finite() and 0 <= amount < 2**62:
            return int(amount.to_integral_value())
    except InvalidOperation:
        pass
    raise ValueError(f"{value!r} is no amount of USD")


def when(value: Any) -> int | None:
    """Read a time as Unix nanoseconds: ISO 8601 (without a zone: UTC), or Unix seconds, milliseconds, … by its size."""
    if unknown(value):
        return None
    if isinstance(value, datetime):
        return _instant(value)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return _instant(datetime.fromisoformat(str(value).replace(" UTC", "+00:00")))
    scale = next((n for limit, n in ((10**11, 9), (10**14, 6), (10**17, 3)) if abs(number) < limit), 0)
    return int(number * 10**scale)


def _instant(moment: datetime) -> int:
    since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def seconds(began: int | None, ended: int | None) -> float | None:
    """Return the time between two instants in Unix nanoseconds; None where one is unknown."""
    return None if began is None or ended is None else max(ended - began, 0) / 10**9


def number(value: Any) -> float | None:
    """Read a number, such as seconds. Raises ValueError."""
    return None if unknown(value) else float(value)


def text(value: Any) -> str | None:
    """Return a text, or the JSON of whatever else was logged as one; None where nothing was."""
    if unknown(value) or value in ({}, [], "{}", "[]"):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def table(value: Any) -> Mapping[str, Any]:
    """Return a mapping, or the one that its JSON says; an empty one where there is neither."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return value if isinstance(value, Mapping) else {}
