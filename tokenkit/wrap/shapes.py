"""The shapes of other people's clients: where their methods are, and by which dialect each of them answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tokenkit.errors import UserError


class Way(NamedTuple):
    """One method that costs money: its path from the client, who sells it, and how its answer is read.

    ``asked`` is its name for the messages; ``streams`` says that it gives a stream unasked, ``opens`` that it gives a
    context manager, which sends when it is entered.
    """

    path: tuple[str, ...]
    vendor: str
    dialect: str
    asked: str
    streams: bool = False
    opens: bool = False


def _way(path: str, vendor: str, dialect: str, asked: str, **more: bool) -> Way:
    return Way(tuple(path.split(".")), vendor, dialect, asked, **more)


WAYS = (
    _way("chat.completions.create", "openai", "openai", "messages"),
    _way("responses.create", "openai", "responses", "input"),
    _way("messages.create", "anthropic", "anthropic", "messages"),
    _way("models.generate_content", "google", "gemini", "contents"),
    _way("models.generate_content_stream", "google", "gemini", "contents", streams=True),
    _way("aio.models.generate_content", "google", "gemini", "contents"),
    _way("aio.models.generate_content_stream", "google", "gemini", "contents", streams=True),
    _way("models.embed_content", "google", "embeddings", "contents"),
    _way("aio.models.embed_content", "google", "embeddings", "contents"),
    _way("chat.completions.parse", "openai", "openai", "messages"),
    _way("chat.completions.stream", "openai", "openai", "messages", opens=True),
    _way("beta.chat.completions.parse", "openai", "openai", "messages"),
    _way("responses.parse", "openai", "responses", "input"),
    _way("responses.stream", "openai", "responses", "input", opens=True),
    _way("completions.create", "openai", "completions", "prompt"),
    _way("embeddings.create", "openai", "embeddings", "input"),
    _way("messages.parse", "anthropic", "anthropic", "messages"),
    _way("messages.stream", "anthropic", "anthropic", "messages", opens=True),
    _way("beta.chat.completions.create", "openai", "openai", "messages"),
    _way("beta.chat.completions.stream", "openai", "openai", "messages", opens=True),
    _way("beta.responses.create", "openai", "responses", "input"),
    _way("beta.messages.create", "anthropic", "anthropic", "messages"),
    _way("beta.messages.parse", "anthropic", "anthropic", "messages"),
    _way("beta.messages.stream", "anthropic", "anthropic", "messages", opens=True),
)
"""In the order in which a client that has several is used by ``tracked_completion``."""

BY_PATH = {way.path: way for way in WAYS}

RAW = ("with_raw_response",)
"""Steps of a path that change what an answer is wrapped in, and nothing else."""


def leads_on(path: tuple[str, ...]) -> bool:
    """Return whether a method that costs money is reached by this path and further names."""
    return any(way.path[: len(path)] == path for way in WAYS)


def found(client: Any, way: Way) -> Callable[..., Any] | None:
    """Return a client's method of this way; None where it has none."""
    at = client
    try:
        for name in way.path:
            at = getattr(at, name)
        return at if callable(at) else None
    except Exception:  # a client of another kind may answer to a name by raising anything
        return None


def method(client: Any, streamed: bool = False) -> tuple[Callable[..., Any], Way]:
    """Return a client's first method and its way. Raises UserError.

    Google's clients have another method for streams, which is meant where one is asked for.
    """
    for way in WAYS:
        if (make := found(client, way)) is not None:
            other = BY_PATH.get((*way.path[:-1], way.path[-1] + "_stream")) if streamed else None
            instead = None if other is None else found(client, other)
            return (make, way) if other is None or instead is None else (instead, other)
    raise UserError(
        f"A {type(client).__name__} is no client known here: OpenAI's, Anthropic's and Google's are, and what has the "
        "same methods (chat.completions.create, responses.create, messages.create, models.generate_content)."
    )


# The hosts of compatible services, so that one client for all of them is charged at the right prices.
_HOSTS = {
    "openrouter.ai": "openrouter", "groq.com": "groq", "mistral.ai": "mistral", "deepseek.com": "deepseek",
    "x.ai": "xai", "together.xyz": "together", "azure.com": "azure",
}  # fmt: skip


def provider_of(client: Any, way: Way) -> str:
    """Return whose prices a client is charged at."""
    if way.vendor != "openai":
        return way.vendor
    if "azure" in type(client).__name__.lower():
        return "azure"
    try:
        host = "." + (urlsplit(str(client.base_url)).hostname or "")
    except Exception:  # a look-alike need not have an address
        return "openai"
    return next((name for known, name in _HOSTS.items() if host.endswith("." + known)), "openai")


def model_of(said: Any, vendor: str) -> str:
    """Return the name of a model as the price tables have it; ``unknown`` where none was said."""
    name = "-".join(said.split()) if isinstance(said, str) else ""
    if vendor == "google":  # models/NAME, publishers/google/models/NAME, google/NAME
        name = name.rpartition("models/")[2].removeprefix("google/")
    return name or "unknown"
