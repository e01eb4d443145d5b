"""tokenkit: know and steer what LLM calls cost, from a notebook.

    kit = tokenkit.Kit()
    answer = kit.call("Explain quantum computing", max_tokens=200)
    answer.text, answer.receipt

In a notebook, ``%load_ext tokenkit`` brings ``%%route`` and ``%%budget``. Everything here loads when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Kit": "kit", "Policy": "route", "Budget": "budget", "price": "pricing",
    "Stream": "streams", "AsyncStream": "streams", "Receipt": "receipts", "Plan": "receipts",
    "Message": "types", "Image": "types", "Tool": "types", "Request": "types", "Response": "types", "Usage": "types",
    "Model": "catalog", "Provider": "providers.base",
    "charts": "analysis.charts", "frames": "analysis.frames", "lab": "analysis.lab", "widgets": "notebook.widgets",
    "tracked_completion": "wrap", "track": "wrap",
    "errors": "errors", "layers": "layers", "notebook": "notebook",
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenkit' has no attribute {name!r}")
    module = import_module(f"tokenkit.{_HOMES[name]}")
    value = globals()[name] = module if module.__name__.endswith(f".{name}") else getattr(module, name)
    return value


def load_ipython_extension(ipython: Any) -> None:
    """Bring the magics into this notebook: ``%load_ext tokenkit``."""
    import_module("tokenkit.notebook").load(ipython)
