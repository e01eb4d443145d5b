"""Thumbs beneath a receipt: one click says whether the answer was good, and what-if and advice learn from it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets

from tokenkit.errors import TokenkitError
from tokenkit.notebook.leaving import shown
from tokenkit.notebook.magics import told

AT_ONCE = 3
"""Answers that can be rated by a click: buttons that nobody pressed should not fill the notebook."""

_OFFERED: list[Callable[[], None]] = []

SAID = {1.0: "rated good", 0.0: "rated bad"}


class Thumbs(ipywidgets.HBox):  # type: ignore[misc]  # ipywidgets is untyped
    """Two buttons that ``rate`` with 1 or 0, and beside them what was said; a second click says it anew.

    A reader without a kernel sees what was said, or nothing: there is nobody to tell.
    """

    def __init__(self, rate: Callable[[float], None]) -> None:
        self._rate = rate
        self.good = _button("good", "thumbs-up", "This answer was good: rate it 1")
        self.bad = _button("bad", "thumbs-down", "This answer was bad: rate it 0")
        self._said = ipywidgets.Label()
        super().__init__([self.good, self.bad, self._said], layout=ipywidgets.Layout(align_items="center"))
        self.good.on_click(lambda _: self._clicked(1.0))
        self.bad.on_click(lambda _: self._clicked(0.0))

    @property
    def message(self) -> str:
        """What stands beside the buttons."""
        return str(self._said.value)

    def _clicked(self, rating: float) -> None:
        try:
            self._rate(rating)
            self._said.value = SAID[rating]
        except TokenkitError as error:
            self._said.value = told(error)

    def show(self) -> None:
        """Display the buttons; of the answers before, only the last few keep theirs."""
        data = self._repr_mimebundle_()
        bundle = {**(data[0] if isinstance(data, tuple) else data), "text/html": "", "text/plain": ""}
        _OFFERED.append(shown(bundle, lambda: escape(self.message)))
        while len(_OFFERED) > AT_ONCE:
            _OFFERED.pop(0)()


def _button(text: str, icon: str, what: str) -> Any:
    return ipywidgets.Button(
        description=text, icon=icon, tooltip=what, layout=ipywidgets.Layout(width="auto", height="2em")
    )
