"""The shapes of other people's clients: where their one method is, and where their answers say what was used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenkit.errors import UserError
from tokenkit.types import Usage


def method(client: Any) -> tuple[Callable[..., Any], str]:
    """Return a client's completing method and its shape: openai, anthropic or google. Raises UserError."""
    for path, shape in (
        (("chat", "completions", "create"), "openai"),
        (("messages", "create"), "anthropic"),
        (("models", "generate_content"), "google"),
    ):
        found = client
        for name in path:
            found = getattr(found, name, None)
        if callable(found):
            return found, shape
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
    if shape != "openai":
        return shape
    if "azure" in type(client).__name__.lower():
        return "azure"
    address = str(getattr(client, "base_url", ""))
    return next((name for host, name in _HOSTS.items() if host in address), "openai")


def is_answer(result: Any) -> bool:
    """Return whether this is a whole answer rather than a stream."""
    return any(hasattr(result, name) for name in ("choices", "content", "candidates"))


def openai_usage(said: Any) -> Usage | None:
    """Read a chat completion's usage: cached tokens are within the prompt's, reasoning within the answer's."""
    if said is None:
        return None
    inner, outer = getattr(said, "prompt_tokens_details", None), getattr(said, "completion_tokens_details", None)
    return Usage(
        said.prompt_tokens, said.completion_tokens,
        cache_read_input_tokens=getattr(inner, "cached_tokens", None),
        reasoning_output_tokens=getattr(outer, "reasoning_tokens", None),
    )  # fmt: skip


def anthropic_usage(said: Any) -> Usage:
    """Read a message's usage: its input leaves out what was read from or written to the cache."""
    read, made = (getattr(said, name, None) for name in ("cache_read_input_tokens", "cache_creation_input_tokens"))
    return Usage(said.input_tokens + (read or 0) + (made or 0), said.output_tokens, read, made)


def google_usage(said: Any) -> Usage | None:
    """Read a Gemini answer's usage: its candidates leave out its thoughts."""
    if said is None or said.prompt_token_count is None:
        return None
    thoughts = getattr(said, "thoughts_token_count", None)
    return Usage(
        said.prompt_token_count, (said.candidates_token_count or 0) + (thoughts or 0),
        cache_read_input_tokens=getattr(said, "cached_content_token_count", None), reasoning_output_tokens=thoughts,
    )  # fmt: skip
