"""The notebook's face: magics that parse, call the kit and show; no logic that Python could not reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenkit import tokens
from tokenkit.notebook.loop import run

if TYPE_CHECKING:
    from tokenkit.kit import Kit

__all__ = ["kit", "load", "run", "use"]

_active: Kit | None = None


def load(ipython: Any) -> None:
    """Register the magics with an IPython shell, and let every tiktoken in this process count offline."""
    # Late, because IPython is imported by whoever has a notebook, and by nobody else.
    from tokenkit.notebook.capping import Capping
    from tokenkit.notebook.cells import keep_as_typed
    from tokenkit.notebook.magics import Routing

    tokens.install()
    ipython.register_magics(Routing, Capping)
    keep_as_typed(ipython)


def use(kit: Kit) -> Kit:
    """Make ``kit`` the one that magics ask from now on, and return it."""
    global _active
    _active = kit
    _at_home(kit)
    return kit


def kit() -> Kit:
    """Return the kit magics ask: the one given to ``use``, else ``Kit()``, made once."""
    global _active
    if _active is None:
        from tokenkit.kit import Kit

        _active = Kit()
        _at_home(_active)
    return _active


def _at_home(kit: Kit) -> None:
    """In a kernel, let a batch show one bar that grows instead of writing lines."""
    import sys

    if "ipykernel" in sys.modules:
        from tokenkit.notebook.live import Bar

        kit.on_progress = Bar()
