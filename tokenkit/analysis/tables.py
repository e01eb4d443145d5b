"""A frame as a small card: its first rows as text, figures flush right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenkit import _html

if TYPE_CHECKING:
    import pandas


def table(title: str, frame: pandas.DataFrame) -> _html.Table:
    """Return a frame as a table of text; all of it is made safe to print."""
    rows = tuple(
        tuple(_html.visible("" if value is None or value != value else str(value), 80) for value in row)
        for row in frame.head(_html.MOST_ROWS).itertuples(index=False)
    )
    figures = frozenset(
        i for i, name in enumerate(frame.columns) if str(name).endswith(("usd", "tokens", "tries", "calls"))
    )
    return _html.Table(title, tuple(map(str, frame.columns)), rows, figures)
