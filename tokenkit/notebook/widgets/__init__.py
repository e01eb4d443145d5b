"""Widgets: sliders over model weights, arguments side by side, compression by hand, spend as it happens.

Each shows its own errors, keeps working while calls run, and leaves a static picture where there is no kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"weight_tuner": "tuner", "adversarial": "duel", "compression_lab": "squeeze", "spend": "watching"}

__all__ = ["adversarial", "compression_lab", "spend", "weight_tuner"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenkit.widgets' has no attribute {name!r}")
    return getattr(import_module(f"tokenkit.notebook.widgets.{_HOMES[name]}"), name)
