"""Thumbs beneath a receipt: one click says whether the answer was good, and what-if and advice learn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from tokenkit.errors import TokenkitError
from tokenkit.notebook.magics import told

SAID = {1.0: "rated good", 0.0: "rated bad"}


class Thumbs(ipywidgets.HBox):  # type: ignore[misc]  # ipywidgets is untyped
    """Two buttons that ``rate`` with 1 or 0, and beside them what was said; a second click says it anew.

    A reader without a kernel sees nothing: there is nobody to tell.
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

    def _repr_mimebundle_(self, **wanted: Any) -> Any:
        made = super()._repr_mimebundle_(**wanted)
        data = made[0] if isinstance(made, tuple) else made
        if data is not None:
            data["text/html"] = data["text/plain"] = ""
        return made


def _button(text: str, icon: str, what: str) -> Any:
    return ipywidgets.Button(
        description=text, icon=icon, tooltip=what, layout=ipywidgets.Layout(width="auto", height="2em")
    )
