"""Streams of somebody else's client, heard along: written down when they end, break, are closed, or are let go of.

A stream helper (``with client.messages.stream(...) as stream``) sends when it is entered, each time anew. Its stream
is the client's own object: only what that reads from is heard, so every way of reading it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tokenkit.wrap.calls import Call
from tokenkit.wrap.proxies import Proxy
from tokenkit.wrap.reading import field, is_raw


def taken(result: Any, call: Call) -> Any:
    """Return what a client returned: an answer, written down, or a stream that will be."""
    if call.streamed:
        heard = _Raw(result, call) if is_raw(result) else heard_stream(result, call)
        if heard is not None:
            return heard
    call.answered(result)
    return result


async def awaited(pending: Any, call: Call, held: bool) -> Any:
    """Do the same for an awaitable; one that nobody awaits sends nothing, so nothing is held for it."""
    if not held:
        try:
            call.reserve()
        except BaseException:
            with suppress(Exception):
                pending.close()
            raise
    try:
        result = await pending
    except BaseException as stop:
        call.failed(stop)
        raise
    if not is_raw(result) or call.streamed:
        return taken(result, call)
    call.answered(await _parsed(result))
    return result


async def _parsed(raw: Any) -> Any:
    """Return the answer within a raw response; the response itself where it will not give it."""
    with suppress(Exception):
        answer = raw.parse()
        return (await answer) if inspect.isawaitable(answer) else answer
    return raw


def helper(manager: Any, begun: Callable[[], Call]) -> Any:
    """Return what stands in for a stream helper, or the helper itself where it is of no known kind."""
    if hasattr(type(manager), "__aenter__"):
        return _AsyncHelper(manager, begun)
    return _Helper(manager, begun) if hasattr(type(manager), "__enter__") else manager


def heard_stream(stream: Any, call: Call) -> Any:
    """Return what stands in for a stream; None for what is none, as where a mock answers at once."""
    if hasattr(type(stream), "__aiter__"):
        return _AsyncStream(stream, call)
    whole = isinstance(stream, str | bytes | Mapping) or hasattr(type(stream), "model_dump")
    if isinstance(stream, list | tuple):  # all parts at once
        for part in stream:
            call.chunk(part)
        call.written("ok", None)
        return stream
    return _Stream(stream, call) if hasattr(type(stream), "__iter__") and not whole else None


def _entered(stream: Any, call: Call) -> Any:
    raw = field(stream, "_raw_stream")
    with suppress(Exception):
        if raw is not None and (heard := heard_stream(raw, call)) is not None:
            stream._raw_stream = heard
            return stream
    return heard_stream(stream, call) or stream


class _Heard(Proxy):
    """What all streams have: their end, by whichever name, settles the call."""

    def __init__(self, inner: Any, call: Call) -> None:
        super().__init__(inner)
        self._tk_call = call
        self._tk_parts: Any = None
        call.opened()

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name not in ("close", "aclose") or not callable(found):
            return found

        def close(*args: Any, **kw: Any) -> Any:
            self._tk_call.left()
            return found(*args, **kw)

        return close

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError):  # never quite made; no thread to be had any more
            self._tk_call.forgotten()


class _Stream(_Heard):
    def __iter__(self) -> _Stream:
        if self._tk_parts is None:
            self._tk_parts = iter(self._tk_inner)
        return self

    def __next__(self) -> Any:
        try:
            part = next(iter(self)._tk_parts)
        except StopIteration:
            self._tk_call.written("ok", None)
            raise
        except BaseException as stop:
            self._tk_call.failed(stop)
            raise
        self._tk_call.chunk(part)
        return part

    def __enter__(self) -> _Stream:
        self._tk_inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        self._tk_call.left()
        return self._tk_inner.__exit__(*error)


class _AsyncStream(_Heard):
    def __aiter__(self) -> _AsyncStream:
        if self._tk_parts is None:
            self._tk_parts = aiter(self._tk_inner)
        return self

    async def __anext__(self) -> Any:
        try:
            part = await anext(aiter(self)._tk_parts)
        except StopAsyncIteration:
            self._tk_call.written("ok", None)
            raise
        except BaseException as stop:
            self._tk_call.failed(stop)
            raise
        self._tk_call.chunk(part)
        return part

    async def __aenter__(self) -> _AsyncStream:
        await self._tk_inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        self._tk_call.left()
        return await self._tk_inner.__aexit__(*error)


class _Raw(_Heard):
    """A raw response whose answer is a stream."""

    def __init__(self, inner: Any, call: Call) -> None:
        super().__init__(inner, call)
        self._tk_heard: dict[int, Any] = {}

    def parse(self, *args: Any, **kw: Any) -> Any:
        found = self._tk_inner.parse(*args, **kw)
        return self._tk_later(found) if inspect.isawaitable(found) else self._tk_once(found)

    async def _tk_later(self, found: Any) -> Any:
        return self._tk_once(await found)

    def _tk_once(self, stream: Any) -> Any:
        """Return the same stand-in for the same stream, which the client keeps."""
        if id(stream) not in self._tk_heard:
            self._tk_heard[id(stream)] = heard_stream(stream, self._tk_call) or stream
        return self._tk_heard[id(stream)]


class _Opening(Proxy):
    """A stream helper: each time it is entered is a call of its own."""

    def __init__(self, inner: Any, begun: Callable[[], Call]) -> None:
        super().__init__(inner)
        self._tk_begun = begun
        self._tk_open: list[Call] = []

    def _tk_left(self) -> None:
        with suppress(IndexError):
            self._tk_open.pop().left()


class _Helper(_Opening):
    def __enter__(self) -> Any:
        call = self._tk_begun()
        call.reserve()
        try:
            stream = self._tk_inner.__enter__()
        except BaseException as stop:
            call.failed(stop)
            raise
        self._tk_open.append(call)
        return _entered(stream, call)

    def __exit__(self, *error: Any) -> Any:
        self._tk_left()
        return self._tk_inner.__exit__(*error)


class _AsyncHelper(_Opening):
    async def __aenter__(self) -> Any:
        call = self._tk_begun()
        call.reserve()
        try:
            stream = await self._tk_inner.__aenter__()
        except BaseException as stop:
            call.failed(stop)
            raise
        self._tk_open.append(call)
        return _entered(stream, call)

    async def __aexit__(self, *error: Any) -> Any:
        self._tk_left()
        return await self._tk_inner.__aexit__(*error)
