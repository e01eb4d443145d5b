"""The shapes of other people's clients: where their one method is, and where their answers say what was used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenkit.errors import UserError

PATHS = {
    "openai": ("chat", "completions", "create"),
    "responses": ("responses", "create"),
    "anthropic": ("messages", "create"),
    "google": ("models", "generate_content"),
}
"""Where each shape's method is; a client may have several."""

DIALECT = {"openai": "openai", "responses": "responses", "anthropic": "anthropic", "google": "gemini"}
MESSAGES = {"openai": "messages", "responses": "input", "anthropic": "messages", "google": "contents"}
"""What each calls its messages."""


def found(client: Any, shape: str) -> Callable[..., Any] | None:
    """Return a client's method of this shape; None where it has none."""
    at = client
    for name in PATHS[shape]:
        at = getattr(at, name, None)
    return at if callable(at) else None


def method(client: Any) -> tuple[Callable[..., Any], str]:
    """Return a client's completing method and its shape, its first in the order of PATHS. Raises UserError."""
    for shape in PATHS:
        if (make := found(client, shape)) is not None:
            return make, shape
    raise UserError(
        f"A {type(client).__name__} is no client known here: OpenAI's, Anthropic's and Google's are, and what has the "
        "same methods (chat.completions.create, messages.create, models.generate_content)."
    )


# The hosts of compatible services, so that one client for all of them is charged at the right prices.
_HOSTS = {
    "openrouter.ai": "openrouter", "groq.com": "groq", "mistral.ai": "mistral", "deepseek.com": "deepseek",
    "x.ai": "xai", "together.xyz": "together", "azure.com": "azure",
}  # fmt: skip


def provider_of(client: Any, shape: str) -> str:
    """Return whose prices a client is charged at."""
    if shape not in ("openai", "responses"):
        return shape
    if "azure" in type(client).__name__.lower():
        return "azure"
    address = str(getattr(client, "base_url", ""))
    return next((name for host, name in _HOSTS.items() if host in address), "openai")


def is_answer(result: Any) -> bool:
    """Return whether this is a whole answer rather than a stream."""
    return any(hasattr(result, name) for name in ("choices", "content", "candidates", "output"))
