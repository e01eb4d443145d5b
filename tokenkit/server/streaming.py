"""A call for as long as somebody listens: who hangs up cancels it, in a stream or before, and it settles itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response as Answer

from tokenkit.errors import TokenkitError
from tokenkit.server.failing import BROKEN, failure_of
from tokenkit.server.guarding import Receive, Scope, Send
from tokenkit.server.writing import Chunks, account, event

if TYPE_CHECKING:
    from tokenkit.server.endpoints import Place
    from tokenkit.streams import AsyncStream
    from tokenkit.types import Delta

LOG = logging.getLogger("tokenkit.server")

T = TypeVar("T")


class HungUp(Exception):
    """The client has left before its answer was there."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` gives, and cancel it, and let it settle, when the client leaves first. Raises HungUp."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HungUp
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def following(stream: AsyncStream) -> Delta | None:
    """Return the next delta of a stream; None once it has ended."""
    return await anext(stream, None)


class Streamed(Answer):
    """An answer as server-sent events, begun once its first delta is there: a failure before it has its own status."""

    def __init__(self, stream: AsyncStream, first: Delta | None, chunks: Chunks, place: Place) -> None:
        receipt = {"x-tokenkit-receipt": stream.trail.id, "x-tokenkit-model": chunks.model}
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **receipt})
        self.stream, self.first, self.chunks, self.place = stream, first, chunks, place
        # The length of a stream is not known when it begins.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self.raw_headers.append((b"content-type", b"text/event-stream; charset=utf-8"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, to its end or until the client leaves."""
        try:
            await unless_gone(receive, self._sent(send))
        except (HungUp, OSError):
            pass
        finally:
            self.place.free()

    async def _sent(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            delta = self.first
            while delta is not None:
                await self._send(send, self.chunks.delta(delta))
                delta = await following(self.stream)
            await self._send(send, self.chunks.end(self.stream.response, self.stream.receipt))
        except TokenkitError as error:
            told = {**failure_of(error).body, "tokenkit": account(error.receipt)}
            await self._send(send, event(told))
        except OSError:
            raise
        except Exception:
            LOG.exception("A stream was cut short.")
            await self._send(send, event(BROKEN.body))
        finally:
            await self.stream.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, data: bytes) -> None:
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})


__all__ = ["LOG", "HungUp", "Streamed", "following", "unless_gone"]
