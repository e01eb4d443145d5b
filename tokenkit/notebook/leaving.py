"""What widgets leave behind: a picture of what they showed last, for whoever opens the notebook without their kernel.

When a kernel ends, each widget is replaced by its picture. A kernel that was killed cannot do that, nor one that ends
while its page is closed: the page then says ``Error displaying widget: model not found``. So a board keeps its picture
in an output of its own beneath it, which the living widget hides by a style of its own.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_SHOWN: OrderedDict[int, tuple[Any, Callable[[], str], Any]] = OrderedDict()
_MOST = 200

LATER = 1.0
"""Seconds after which a picture beneath follows its widget: a slider that moves is not drawn twice at every step."""


def shown(bundle: dict[str, Any], picture: Callable[[], str], beneath: Any = None) -> Callable[[], None]:
    """Display a widget's bundle; return what replaces it by ``picture`` (HTML, escaped) at once.

    ``beneath`` is the display that has the picture meanwhile, and is emptied then.
    """
    from IPython.display import display

    if not in_kernel():  # a terminal, which replaces nothing
        display(bundle, raw=True)
        return lambda: None
    handle = display(bundle, raw=True, display_id=True)
    key = id(handle)
    if not _SHOWN:
        atexit.register(leave)
    _SHOWN[key] = (handle, picture, beneath)
    while len(_SHOWN) > _MOST:
        _replaced(*_SHOWN.popitem(last=False)[1])

    def replace() -> None:
        found = _SHOWN.pop(key, None)
        if found is not None:
            _replaced(*found)

    return replace


def in_kernel() -> bool:
    """Return whether this runs in a notebook's kernel."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and bool(kernel.IPKernelApp.initialized())


def leave() -> None:
    """Replace every widget that is still shown by its picture."""
    while _SHOWN:
        with suppress(Exception):  # the connection may be gone: then nobody is there to see
            _replaced(*_SHOWN.popitem()[1])


def _replaced(handle: Any, picture: Callable[[], str], beneath: Any) -> None:
    handle.update({"text/html": picture(), "text/plain": ""}, raw=True)
    if beneath is not None:
        beneath.update({"text/html": "", "text/plain": ""}, raw=True)


class Beneath:
    """The hidden picture under one board; ``follow`` brings it up to date soon, in a thread of its own."""

    def __init__(self, name: str, picture: Callable[[], str]) -> None:
        self.name, self._picture = name, picture
        self.style = f"<style>.{name}{{display:none}}</style>"
        self._handle: Any = None
        self._due: threading.Timer | None = None

    def show(self, bundle: dict[str, Any]) -> None:
        """Display a board's bundle and its picture beneath it; in a terminal the bundle alone."""
        if not in_kernel():
            shown(bundle, self._picture)
            return
        from IPython.display import display

        # The bundle's own picture would be a second one where widgets are not known.
        handle = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)
        bundle = {**bundle, "text/html": "", "text/plain": ""}
        shown(bundle, self._picture, handle)
        self._handle = handle
        self._update()

    def follow(self) -> None:
        """Draw the picture anew within a second, if it is displayed."""
        if self._handle is not None and self._due is None:
            self._due = threading.Timer(LATER, self._update)
            self._due.daemon = True
            self._due.start()

    def _update(self) -> None:
        self._due = None
        html = f'<div class="{self.name}">{self._picture()}</div>'
        with suppress(Exception):  # the kernel may be ending
            self._handle.update({"text/html": html, "text/plain": ""}, raw=True)
