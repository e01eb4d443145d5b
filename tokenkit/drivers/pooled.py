"""The async connection pool: aiohttp beneath, one session per event loop, safe to cancel at any moment.

Chosen by measurement: at 64 calls at once httpx's own async pool collapses, and does not survive cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from tokenkit.drivers import border
from tokenkit.drivers.border import CONNECT_SECONDS, LARGEST_BODY, READ_SECONDS, awhole, clean, remaining
from tokenkit.drivers.http1 import LARGEST_HEAD
from tokenkit.effects import Open, Reply, WireRequest

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

LOOKED_SECONDS = 0.005
"""After a pause this long the loop looks at its connections before one is used again."""

_NEVER_LEFT = ("ClientConnector", "ConnectionTimeout", "InvalidUrl", "NonHttpUrl", "ValueError", "UnicodeEncodeError")


class AsyncSource:
    """The body of one answer; its connection goes back to the pool when read to its end, and is closed otherwise."""

    def __init__(self, answer: aiohttp.ClientResponse, wire: WireRequest, deadline: float | None) -> None:
        self.answer, self.wire, self.deadline = answer, wire, deadline
        self.inflate: border.Decoder | None = None

    async def read(self, whole: bool) -> bytes:
        stop: BaseException
        try:
            return await within(awhole(self._some) if whole else self._some(), self.deadline)
        except BaseException as error:
            self.close()
            stop = clean(error, self.wire, sent=True, deadline=self.deadline)
        raise stop

    async def _some(self) -> bytes:
        while True:
            data = await self.answer.content.readany()
            if self.inflate is None:
                return data
            unpacked = self.inflate(data, not data)
            if unpacked or not data:
                return unpacked

    def close(self) -> None:
        if self.answer.content.is_eof() and not self.answer.content.exception():
            self.answer.release()
        else:
            self.answer.close()


class AsyncPool:
    """aiohttp sessions, one per running event loop, each closed by its own loop's end."""

    def __init__(self, at_once: int = 512) -> None:
        self.at_once = at_once
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = WeakKeyDictionary()
        self._asked = 0.0

    async def open(self, effect: Open) -> Reply:
        """Send a request and wait for the headers of its answer."""
        wire, sent = effect.wire, False
        stop: BaseException
        try:
            origin, _, _ = border.parted(wire.url)
            session = self._sessions.get(asyncio.get_running_loop()) or await self._begin()
            await self._notice_closed()
            sent = True
            return await within(_exchange(session, wire, origin, effect.deadline), effect.deadline)
        except BaseException as error:
            sent = sent and not type(error).__name__.startswith(_NEVER_LEFT)
            stop = clean(error, wire, sent=sent, deadline=effect.deadline)
        raise stop

    async def _notice_closed(self) -> None:
        """Let the loop see which servers have hung up, so that no request goes to a connection that is closed already.

        A loop that was held up, as by ``time.sleep`` in a notebook's cell, has not looked. Seeing it takes one turn to
        read the end of a connection and one for that to take effect.
        """
        now, before = time.monotonic(), self._asked
        self._asked = now
        if now - before > LOOKED_SECONDS:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _begin(self) -> aiohttp.ClientSession:
        import aiohttp  # 150 ms to import, and only async code needs it

        loop = asyncio.get_running_loop()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.at_once, keepalive_timeout=border.IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            auto_decompress=False,  # it is done as in sync code
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=LARGEST_HEAD,
            read_bufsize=LARGEST_BODY // 256,
        )
        # An event loop ends by closing the async generators begun in it: this one closes the session with the loop,
        # which a pool that outlives asyncio.run() could not do afterwards.
        keeper = _keeping(session)
        await keeper.__anext__()
        self._sessions[loop], self._keepers[loop] = session, keeper
        return session

    async def aclose(self) -> None:
        """Close the sessions of the running loop."""
        loop = asyncio.get_running_loop()
        self._sessions.pop(loop, None)
        keeper = self._keepers.pop(loop, None)
        if keeper is not None:
            await keeper.aclose()

    def close(self) -> None:
        """Close every session, from sync code: now where its loop is idle, soon where it is running."""
        for loop in list(self._keepers):
            if loop.is_closed():
                continue
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(self.aclose(), loop)
            else:
                loop.run_until_complete(self.aclose())


async def _keeping(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await session.close()


async def _exchange(
    session: aiohttp.ClientSession, wire: WireRequest, origin: border.Origin, deadline: float | None
) -> Reply:
    """Send a request and wait for the answer's head. What both say stays in frames that no error of ours has."""
    from tokenkit.drivers.plain import context

    headers = [("accept-encoding", "identity"), ("user-agent", border.AGENT), *wire.headers]
    if wire.auth is not None:
        headers.append((wire.auth[0], wire.auth[1] + wire.auth[2].reveal()))
    answer = await session.request(
        wire.method,
        border.bare(wire.url),
        data=wire.body,
        headers=headers,
        allow_redirects=False,
        ssl=context() if origin[0] == "https" else True,
    )
    said = {name.lower(): value for name, value in answer.headers.items()}
    source = AsyncSource(answer, wire, deadline)
    try:
        source.inflate = border.decoder(said)
    except BaseException:
        source.close()
        raise
    return Reply(answer.status, said, source)


async def within(work: Awaitable[T], deadline: float | None) -> T:
    """Wait for ``work`` until a ``time.monotonic()`` instant. Raises DeadlineExceeded or TimeoutError after it."""
    if deadline is None:
        return await work
    loop = asyncio.get_running_loop()
    try:
        left = remaining(deadline, 1e9)
    except BaseException:
        # The coroutine was made and must not be left unawaited.
        with contextlib.suppress(AttributeError):
            work.close()  # type: ignore[attr-defined]
        raise
    async with asyncio.timeout_at(loop.time() + left):
        return await work
