"""tracked_completion: a call made by somebody else's client, in our books, and otherwise exactly as it was.

The client is known by its shape, never imported: OpenAI's (``chat.completions.create``), Anthropic's
(``messages.create``), Google's (``models.generate_content``), theirs for async code, and whatever looks like them;
``shapes`` lists all the methods that are counted. It retries by itself, so one call is one try here. Nothing of ours
may break it: what goes wrong with counting or writing is said once, as a warning. Only a budget stops a call, which is
what it is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenkit.wrap.asked import listed
from tokenkit.wrap.calls import Call
from tokenkit.wrap.opened import awaited, helper, taken
from tokenkit.wrap.proxies import Client, Place
from tokenkit.wrap.shapes import Way, method

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
    make, way = method(provider_client, bool(kw.get("stream")))
    if way.streams:
        kw.pop("stream")  # its method says it already
    said = {"model": model, way.asked: messages, **kw}
    books = {"kit": kit, "endpoint_name": endpoint_name, "session": session}
    return _counted(provider_client, books, make, way, (), said)


def track(client: Any, *, kit: Kit | None = None, endpoint_name: str | None = None) -> Any:
    """Return a client that works like ``client``, and writes a receipt for every call that costs money.

    Raises UserError for a client of a shape that is not known.
    """
    method(client)  # refused now rather than at the first call
    books = {"kit": kit, "endpoint_name": endpoint_name}
    return Client(client, Place(partial(_counted, client, books)))


def _counted(
    client: Any, books: dict[str, Any], make: Callable[..., Any], way: Way, args: tuple[Any, ...], kw: dict[str, Any]
) -> Any:
    if not ({"model", "prompt", way.asked} & kw.keys()) or kw.get("response_id"):
        return make(*args, **kw)  # the client knows best how to refuse this; an answer of before is paid for
    kw = listed(kw, way.asked)
    begun = partial(Call, way, client, kw, streamed=way.streams or way.opens or bool(kw.get("stream")), **books)
    if way.opens:
        return helper(make(*args, **kw), begun)
    call = begun()
    if _sends_when_awaited(make):
        return awaited(make(*args, **kw), call, held=False)
    call.reserve()
    try:
        result = make(*args, **kw)
    except BaseException as stop:
        call.failed(stop)
        raise
    return awaited(result, call, held=True) if inspect.isawaitable(result) else taken(result, call)


def _sends_when_awaited(make: Callable[..., Any]) -> bool:
    try:
        return inspect.iscoroutinefunction(inspect.unwrap(make))
    except Exception:  # somebody else's object may raise anything when it is looked at
        return False
