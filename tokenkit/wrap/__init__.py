"""tracked_completion: a call made by somebody else's client, in our books, and otherwise exactly as it was.

The client is known by its shape, never imported: OpenAI's (``chat.completions.create``), Anthropic's
(``messages.create``), Google's (``models.generate_content``), theirs for async code, and whatever looks like them. It
retries by itself, so one call is one try here. Nothing of ours may break it: what goes wrong with counting or writing
is said once, as a warning. Only a budget stops a call, which is what it is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenkit.wrap.calls import Call
from tokenkit.wrap.shapes import MESSAGES, PATHS, found, method

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
    return _tracked(make, Call(shape, provider_client, model, messages, kw, kit, endpoint_name, session))


def _tracked(make: Callable[..., Any], call: Call) -> Any:
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
    method(client)  # a client of no known shape is refused now
    instead: dict[tuple[str, ...], Callable[..., Any]] = {}
    for shape, path in PATHS.items():
        if (make := found(client, shape)) is not None:
            instead[path] = partial(_by_keywords, client, shape, make, kit, endpoint_name)
    return _Proxy(client, instead)


def _by_keywords(
    client: Any, shape: str, make: Callable[..., Any], kit: Kit | None, endpoint_name: str | None, /, **kw: Any
) -> Any:
    model, messages = kw.pop("model", None), kw.pop(MESSAGES[shape], None)
    if model is None or messages is None:
        return make(**kw)  # the client knows best how to refuse this
    return _tracked(make, Call(shape, client, model, messages, kw, kit, endpoint_name, None))


class _Proxy:
    """An object some of whose methods, reached by their paths, are others; everything else is the original's."""

    def __init__(self, inner: Any, instead: Mapping[tuple[str, ...], Callable[..., Any]]) -> None:
        self._inner, self._instead = inner, instead

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if (name,) in self._instead:
            return self._instead[(name,)]
        within = {path[1:]: work for path, work in self._instead.items() if path[0] == name}
        return _Proxy(found, within) if within else found
