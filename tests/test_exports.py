"""What ``import tokenkit as tk`` offers, exactly."""

from __future__ import annotations

import types

import tokenkit as tk

NAMES = {
    "AsyncStream", "Budget", "Image", "Kit", "Message", "Model", "Plan", "Policy", "Provider", "Receipt", "Request",
    "Response", "Stream", "Tool", "Usage", "charts", "errors", "frames", "lab", "layers", "notebook", "price",
    "track", "tracked_completion", "widgets",
}  # fmt: skip

FUNCTIONS = {"price", "track", "tracked_completion"}


def test_the_names_are_these_and_all_load() -> None:
    assert set(tk.__all__) == NAMES
    assert len(NAMES) <= 25
    for name in NAMES:
        value = getattr(tk, name)
        assert isinstance(value, types.ModuleType) == (name.islower() and name not in FUNCTIONS)


def test_dir_and_unknown_names_behave() -> None:
    assert not hasattr(tk, "Managers")


def test_every_public_class_has_a_docstring() -> None:
    for name in NAMES:
        assert getattr(tk, name).__doc__, f"tk.{name} has no docstring"
