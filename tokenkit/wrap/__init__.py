"""tracked_completion: a call made by somebody else's client, in our books, and otherwise exactly as it was.

The client is known by its shape, never imported: OpenAI's (``chat.completions.create``), Anthropic's
(``messages.create``), Google's (``models.generate_content``), theirs for async code, and whatever looks like them. It
retries by itself, so one call is one try here. Nothing of ours may break it: what goes wrong with counting or writing
is said once, as a warning. Only a budget stops a call, which is what it is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tokenkit.wrap.calls import Call
from tokenkit.wrap.shapes import method

if TYPE_CHECKING:
    from tokenkit.kit import Kit

__all__ = ["track", "tracked_completion"]


def tracked_completion(
    *,
    model: str,
    messages: Any,
    provider_client: Any,
    endpoint_name: str | None = None,
    kit: Kit | None = None,
    session: str | None = None,
    **kw: Any,
) -> Any:
    """Call ``provider_client`` with ``model``, ``messages`` and ``kw``, and return what it returns; write a receipt.

    Streams and awaitables come back as such and are written down when they end. Without a ``kit`` the default home's
    books are used. Raises what the client raises, BudgetExceeded before anything is sent, and UserError for a client of
    a shape that is not known.
    """
    make, shape = method(provider_client)
    call = Call(shape, provider_client, model, messages, kw, kit, endpoint_name, session)
    call.reserve()
    try:
        result = make(**call.arguments())
    except BaseException as stop:
        call.failed(stop)
        raise
    if inspect.isawaitable(result):
        return call.awaited(result)
    return call.taken(result)


def track(client: Any, *, kit: Kit | None = None, endpoint_name: str | None = None) -> Any:
    """Return a client that works like ``client`` and whose completions go through ``tracked_completion``."""
    _, shape = method(client)

    def tracked(**kw: Any) -> Any:
        messages = kw.pop("contents" if shape == "google" else "messages")
        return tracked_completion(messages=messages, provider_client=client, kit=kit, endpoint_name=endpoint_name, **kw)

    path = {"openai": ("chat", "completions", "create"), "anthropic": ("messages", "create")}
    return _Proxy(client, path.get(shape, ("models", "generate_content")), tracked)


class _Proxy:
    """An object whose one method, reached by ``path``, is another; everything else is the original's."""

    def __init__(self, inner: Any, path: Sequence[str], instead: Callable[..., Any]) -> None:
        self._inner, self._path, self._instead = inner, path, instead

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._path[0]:
            return found
        return self._instead if len(self._path) == 1 else _Proxy(found, self._path[1:], self._instead)
