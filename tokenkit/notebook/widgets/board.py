"""What every widget is: controls, our own HTML beneath, errors shown in it, and a picture for later readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any
from uuid import uuid4

import ipywidgets

from tokenkit import _html
from tokenkit.errors import TokenkitError
from tokenkit.notebook.leaving import Beneath
from tokenkit.notebook.magics import told

WIDE = {"description_width": "initial"}
LONGEST = 200  # characters of what a control says, in the picture

BROAD = "min(100% - 4px, 60em)"  # a control has a margin of two pixels on each side


class Board(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is untyped
    """A column of controls with an output beneath; ``body`` is its HTML, all of it escaped by whoever sets it.

    ``told`` are the controls whose values the body shows anyway: its picture does not repeat them.
    """

    told: Sequence[Any] = ()

    def __init__(self, controls: Sequence[Any]) -> None:
        self._body = ""
        self._beneath = Beneath(f"tokenkit-left-{uuid4().hex[:12]}", self._picture)
        self._shown = ipywidgets.HTML(self._beneath.style)
        self._said = ipywidgets.HTML()
        super().__init__([*controls, self._said, self._shown])

    @property
    def body(self) -> str:
        """The HTML beneath the controls."""
        return self._body

    @body.setter
    def body(self, html: str) -> None:
        self._body = html
        self._shown.value = html + self._beneath.style
        self._beneath.follow()

    @property
    def message(self) -> str:
        """What the widget last said: an error, or that something was done."""
        return str(self._said.value)

    def say(self, text: str) -> None:
        """Show one line above the output; nothing clears it."""
        self._said.value = f'<div role="status">{escape(_html.visible(text, 400))}</div>' if text else ""
        self._beneath.follow()

    def doing(self, work: Callable[[], None]) -> None:
        """Do something on a control's behalf: what goes wrong is shown here, since callbacks would swallow it."""
        try:
            self.say("")
            work()
        except TokenkitError as error:
            self.say(told(error))
        except Exception as error:
            self.say(f"{type(error).__name__}: {error}")

    def _repr_mimebundle_(self, **wanted: Any) -> Any:
        """Return the living widget, and for a reader without a kernel what it showed when it was saved."""
        made = super()._repr_mimebundle_(**wanted)
        data = made[0] if isinstance(made, tuple) else made
        if data is not None:
            data["text/html"] = self._picture()
        return made

    def _ipython_display_(self, **wanted: Any) -> None:
        """Show: the living widget, which leaves its picture in the notebook however its kernel ends."""
        data = self._repr_mimebundle_(**wanted)
        self._beneath.show(data[0] if isinstance(data, tuple) else data)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(a widget: it lives in a notebook)"

    def _picture(self) -> str:
        said = " · ".join(_settings(self, self.told))
        line = f'<div class="{_html.PLAIN}" style="opacity:.75">{escape(_html.visible(said))}</div>' if said else ""
        return self.message + line + self.body


def _settings(node: Any, told: Sequence[Any]) -> Iterator[str]:
    """Yield what the controls say that the body does not tell, for a reader who has none to look at."""
    for child in getattr(node, "children", ()):
        yield from _settings(child, told)
    value = getattr(node, "value", None)
    if isinstance(node, ipywidgets.HTML | ipywidgets.Button) or node in told:
        return
    if value is None or value is False or value in ("", -1):  # 0 is a weight
        return
    if isinstance(node, ipywidgets.Checkbox):
        yield node.description
    elif hasattr(node, "description"):
        if isinstance(node, ipywidgets.FloatSlider):
            value = format(value, node.readout_format)
        yield f"{node.description}: {_html.visible(str(value), LONGEST)}"


def button(text: str, what: str, work: Callable[[], None], board: Callable[[], Board]) -> Any:
    """Return a button that does ``work`` and shows its errors in the board."""
    made = ipywidgets.Button(description=text, tooltip=what, layout=ipywidgets.Layout(width="auto"))
    made.on_click(lambda _: board().doing(work))
    return made


def changed(control: Any, work: Callable[[], None], board: Callable[[], Board]) -> None:
    """Do ``work`` whenever the value of a control changes."""
    control.observe(lambda _: board().doing(work), names="value")
