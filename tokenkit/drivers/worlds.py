"""The worlds effects are answered from: the network, or an answer made in this process, in sync code and in async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tokenkit.drivers.border import host, remaining
from tokenkit.drivers.plain import Pool
from tokenkit.drivers.pooled import AsyncPool, within
from tokenkit.effects import Drain, LocalAnswer, LocalCall, Open, Reply, Sleep
from tokenkit.errors import DeadlineExceeded

OnSleep = Callable[[Sleep], None]


class LocalSource:
    """The body of an answer made in this process: chunks that come when their time has."""

    def __init__(self, answer: LocalAnswer, deadline: float | None) -> None:
        self.chunks: Iterator[tuple[float, bytes]] = iter(answer.chunks)
        self.deadline = deadline

    def close(self) -> None:
        self.chunks = iter(())


class World:
    """What sync flows are driven against.

    ``locals`` maps ``scheme://host`` to a function that answers in this process; ``client`` is a client of your own
    that behaves like ``httpx.Client``, ``transport`` an httpx transport (``httpx.MockTransport`` in a test);
    ``on_sleep`` is told of every pause.
    """

    def __init__(
        self,
        *,
        locals: Mapping[str, LocalCall] | None = None,  # noqa: A002 - the word for it
        client: Any = None,
        transport: Any = None,
        on_sleep: OnSleep | None = None,
    ) -> None:
        self._locals, self._on_sleep = locals or {}, on_sleep
        self._pool: Any = Pool()
        if client is not None or transport is not None:
            from tokenkit.drivers.yours import YourPool

            self._pool = YourPool(client if client is not None else _client("Client", transport))

    def open(self, effect: Open, sources: list[object]) -> Reply:
        """Answer ``Open``; what was opened is put on ``sources`` for the driver to release."""
        local = self._locals.get(host(effect.wire)) if self._locals else None
        if local is None:
            reply: Reply = self._pool.open(effect)
        else:
            answer = local(effect.wire)
            _nap(answer.seconds, effect.deadline)
            reply = Reply(answer.status, answer.headers, LocalSource(answer, effect.deadline))
        sources.append(reply.source)
        return reply

    def read(self, effect: Drain) -> bytes:
        """Answer ``Drain``."""
        source: Any = effect.source
        if not isinstance(source, LocalSource):
            data: bytes = source.read(effect.whole)
            return data
        parts = []
        for seconds, data in source.chunks:
            _nap(seconds, source.deadline)
            if not effect.whole:
                return data
            parts.append(data)
        return b"".join(parts)

    def sleep(self, effect: Sleep) -> None:
        """Answer ``Sleep``."""
        if self._on_sleep is not None:
            self._on_sleep(effect)
        time.sleep(max(effect.seconds, 0.0))

    def release(self, source: object) -> None:
        """Close a source that was not read to its end."""
        source.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()


class AsyncWorld:
    """What async flows are driven against; the arguments are those of ``World``, the client an async one."""

    def __init__(
        self,
        *,
        locals: Mapping[str, LocalCall] | None = None,  # noqa: A002 - the word for it
        client: Any = None,
        transport: Any = None,
        on_sleep: OnSleep | None = None,
    ) -> None:
        self._locals, self._on_sleep = locals or {}, on_sleep
        self._pool: Any = AsyncPool()
        if client is not None or transport is not None:
            from tokenkit.drivers.yours import YourAsyncPool

            self._pool = YourAsyncPool(client if client is not None else _client("AsyncClient", transport))

    async def open(self, effect: Open, sources: list[object]) -> Reply:
        """Answer ``Open``; what was opened is put on ``sources`` for the driver to release."""
        local = self._locals.get(host(effect.wire)) if self._locals else None
        if local is None:
            reply: Reply = await self._pool.open(effect)
        else:
            answer = local(effect.wire)
            await _anap(answer.seconds, effect.deadline)
            reply = Reply(answer.status, answer.headers, LocalSource(answer, effect.deadline))
        sources.append(reply.source)
        return reply

    async def read(self, effect: Drain) -> bytes:
        """Answer ``Drain``."""
        source: Any = effect.source
        if not isinstance(source, LocalSource):
            data: bytes = await source.read(effect.whole)
            return data
        parts = []
        for seconds, data in source.chunks:
            await _anap(seconds, source.deadline)
            if not effect.whole:
                return data
            parts.append(data)
        return b"".join(parts)

    async def sleep(self, effect: Sleep) -> None:
        """Answer ``Sleep``."""
        if self._on_sleep is not None:
            self._on_sleep(effect)
        await asyncio.sleep(effect.seconds)

    def release(self, source: object) -> None:
        """Close a source that was not read to its end."""
        source.close()  # type: ignore[attr-defined]

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._pool.aclose()

    def close(self) -> None:
        """Close all connections, from sync code."""
        self._pool.close()


def _nap(seconds: float, deadline: float | None) -> None:
    """Let simulated time pass, no further than the deadline."""
    left = remaining(deadline, seconds) if deadline is not None else seconds
    if left > 0:
        time.sleep(left)
    if left < seconds:
        raise DeadlineExceeded("The call's deadline passed while the answer was being made.")


async def _anap(seconds: float, deadline: float | None) -> None:
    left = remaining(deadline, seconds) if deadline is not None else seconds
    await within(asyncio.sleep(left), None)
    if left < seconds:
        raise DeadlineExceeded("The call's deadline passed while the answer was being made.")


def _client(kind: str, transport: Any) -> Any:
    import httpx

    return getattr(httpx, kind)(transport=transport, trust_env=False, follow_redirects=False)
