"""A client of the caller's own beneath the drivers: anything that behaves like ``httpx.Client`` or ``AsyncClient``.

The key still goes in through an auth hook at the last moment, redirects stay off, and a cancelled call is let run to
its headers and then closed: httpx's async pool loses the connection, and in the end all of them, when it is cancelled
inside (encode/httpcore issues on pool state after cancellation).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from threading import Timer
from typing import Any

from tokenkit.drivers import border
from tokenkit.drivers.border import CONNECT_SECONDS, READ_SECONDS, awhole, clean, remaining
from tokenkit.drivers.pooled import within
from tokenkit.effects import Open, Reply, WireRequest

_NEVER_LEFT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL")


def _hook(wire: WireRequest) -> Any:
    import httpx

    class Key(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            if wire.auth is not None:
                request.headers[wire.auth[0]] = wire.auth[1] + wire.auth[2].reveal()
            yield request

    return Key()


def _built(client: Any, effect: Open) -> Any:
    import httpx

    left = remaining(effect.deadline, READ_SECONDS)
    timeout = httpx.Timeout(left, connect=min(left, CONNECT_SECONDS))
    wire = effect.wire
    return client.build_request(wire.method, wire.url, content=wire.body, headers=list(wire.headers), timeout=timeout)


def _mapped(error: BaseException, effect: Open) -> BaseException:
    never_left = type(error).__name__ in _NEVER_LEFT
    return clean(error, effect.wire, sent=not never_left, deadline=effect.deadline)


class YourSource:
    """A body read through an ``httpx.Response``; at its deadline the connection is shut, which ends a read at once."""

    def __init__(self, answer: Any, effect: Open) -> None:
        self.answer, self.effect, self.pieces = answer, effect, answer.iter_bytes()
        self.watch = _watch(answer, effect)

    def read(self, whole: bool) -> bytes:
        stop: BaseException
        try:
            return border.whole(self._some) if whole else self._some()
        except BaseException as error:
            self.close()
            stop = _mapped(error, self.effect)
        raise stop

    def _some(self) -> bytes:
        remaining(self.effect.deadline, READ_SECONDS)
        data: bytes = next(self.pieces, b"")
        if not data:
            self.close()
        return data

    def close(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
        self.answer.close()


def _watch(answer: Any, effect: Open) -> Timer | None:
    """Return a running timer that shuts an answer's connection at the deadline: httpx limits each read, not all of it.

    A connection of HTTP/2 is left alone, because other calls share it.
    """
    stream = answer.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream is not None else None
    if effect.deadline is None or not isinstance(sock, socket.socket) or answer.http_version == "HTTP/2":
        return None

    def shut(sock: socket.socket = sock) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not as SSLSocket, whose own takes TLS from under a reader

    watch = Timer(max(0.0, effect.deadline - time.monotonic()), shut)
    watch.daemon = True
    watch.start()
    return watch


class YourPool:
    """The caller's sync client, asked as the pool of our own is."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def open(self, effect: Open) -> Reply:
        stop: BaseException
        try:
            request = _built(self.client, effect)
            answer = self.client.send(request, stream=True, auth=_hook(effect.wire), follow_redirects=False)
            return Reply(answer.status_code, _lower(answer.headers), YourSource(answer, effect))
        except BaseException as error:
            stop = _mapped(error, effect)
        raise stop

    def close(self) -> None:
        """Do nothing: the client is the caller's to close."""


class YourAsyncSource:
    """A body read through an async ``httpx.Response``; each read is shielded from cancellation and then closed."""

    def __init__(self, answer: Any, effect: Open) -> None:
        self.answer, self.effect, self.pieces = answer, effect, answer.aiter_bytes()

    async def read(self, whole: bool) -> bytes:
        stop: BaseException
        try:
            work = (lambda: awhole(self._some)) if whole else self._some
            return await within(_shielded(work, self.answer), self.effect.deadline)
        except BaseException as error:
            stop = _mapped(error, self.effect)
        raise stop

    async def _some(self) -> bytes:
        data: bytes = await anext(self.pieces, b"")
        return data

    def close(self) -> None:
        if not self.answer.is_closed:
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and its connections with it
                _keep(asyncio.get_running_loop().create_task(self.answer.aclose()))


class YourAsyncPool:
    """The caller's async client; its calls are shielded, because httpx does not survive being cancelled."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def open(self, effect: Open) -> Reply:
        stop: BaseException
        try:
            request = _built(self.client, effect)
            send, auth = self.client.send, _hook(effect.wire)
            work = partial(send, request, stream=True, auth=auth, follow_redirects=False)
            answer = await within(_shielded(work, None), effect.deadline)
            return Reply(answer.status_code, _lower(answer.headers), YourAsyncSource(answer, effect))
        except BaseException as error:
            stop = _mapped(error, effect)
        raise stop

    async def aclose(self) -> None:
        """Do nothing: the client is the caller's to close."""

    def close(self) -> None:
        """Do nothing: the client is the caller's to close."""


_kept: set[asyncio.Future[Any]] = set()


def _keep(task: asyncio.Future[Any]) -> None:
    """Hold on to a task that nobody awaits: the loop alone would let it be collected."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)


async def _shielded(work: Callable[[], Awaitable[Any]], answer: Any) -> Any:
    """Await ``work()`` so that cancelling us does not cancel it; what it opened is closed when it is done."""
    task = asyncio.ensure_future(work())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _kept.add(task)
        task.add_done_callback(lambda done: _close_after(done, answer))
        raise


def _close_after(done: asyncio.Future[Any], answer: Any) -> None:
    _kept.discard(done)
    opened = answer
    if not done.cancelled() and done.exception() is None and answer is None:
        opened = done.result()
    if opened is not None:
        _keep(asyncio.ensure_future(opened.aclose()))


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
