"""A frame as a small card: its first rows as text, figures flush right."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from tokenkit import _html

if TYPE_CHECKING:
    import pandas

FIGURES = ("usd", "tokens", "tries", "calls", "unknown", "z", "here", "published", "eff")


def table(title: str, frame: pandas.DataFrame) -> _html.Table:
    """Return a frame as a table of text; all of it is made safe to print."""
    rows = tuple(
        (_shown(row[0]) or "none", *map(_shown, row[1:])) for row in frame.head(_html.MOST_ROWS).itertuples(index=False)
    )
    names = tuple(str(name) for name in frame.columns)
    figures = frozenset(i for i, name in enumerate(names) if name.rpartition("_")[2] in FIGURES)
    return _html.Table(title, names, rows, figures)


def _shown(value: Any) -> str:
    try:
        missing = value is None or bool(value != value)
    except TypeError:  # pandas' NA, which is neither equal nor unequal
        missing = True
    if missing:
        return ""
    if isinstance(value, bool | str):
        return _html.visible(str(value), 80)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    return f"{value:,.6g}" if isinstance(value, float) else _html.visible(str(value), 80)
