"""What widgets leave behind: when their kernel ends, each is replaced by the picture it showed last.

A notebook that is opened again, with another kernel, would else say ``Error displaying widget: model not found`` in
their place; where a kernel was killed, or its page reloaded in between, it still does.
"""

from __future__ import annotations

import atexit
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_SHOWN: OrderedDict[int, tuple[Any, Callable[[], str]]] = OrderedDict()
_MOST = 200


def shown(bundle: dict[str, Any], picture: Callable[[], str]) -> Callable[[], None]:
    """Display a widget's bundle; return what replaces it by ``picture`` (HTML, escaped) at once."""
    from IPython.display import display

    kernel = sys.modules.get("ipykernel.kernelapp")
    if kernel is None or not kernel.IPKernelApp.initialized():  # a terminal, which replaces nothing
        display(bundle, raw=True)
        return lambda: None
    handle = display(bundle, raw=True, display_id=True)
    key = id(handle)
    if not _SHOWN:
        atexit.register(leave)
    _SHOWN[key] = (handle, picture)
    while len(_SHOWN) > _MOST:
        _replaced(*_SHOWN.popitem(last=False)[1])

    def replace() -> None:
        found = _SHOWN.pop(key, None)
        if found is not None:
            _replaced(*found)

    return replace


def leave() -> None:
    """Replace every widget that is still shown by its picture."""
    while _SHOWN:
        with suppress(Exception):  # the connection may be gone: then nobody is there to see
            _replaced(*_SHOWN.popitem()[1])


def _replaced(handle: Any, picture: Callable[[], str]) -> None:
    handle.update({"text/html": picture(), "text/plain": ""}, raw=True)
