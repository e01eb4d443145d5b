"""A streamed answer as one object: iterate it for deltas; afterwards it holds the text, the response and the receipt.

Leaving it early (``break``, ``close()``, Ctrl-C, or letting go of it) cancels the call, which is then settled at what
had come: the receipt says ``cancelled``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any

from tokenkit.receipts import Receipt, Trail
from tokenkit.types import Delta, Response


class _Told:
    """What both kinds of stream tell about the call."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._texts: list[str] = []

    @property
    def trail(self) -> Trail:
        """What has happened to the call so far; its ``id`` is the receipt's."""
        return self._trail

    @property
    def text(self) -> str:
        """The text so far; all of it once the stream has ended."""
        return "".join(self._texts)

    @property
    def response(self) -> Response | None:
        """The whole answer; ``None`` until the stream has ended well."""
        return self._trail.response

    @property
    def receipt(self) -> Receipt | None:
        """The receipt; ``None`` until the call has been settled, however it ended."""
        return self._trail.receipt

    def __repr__(self) -> str:
        state = self.receipt.status if self.receipt is not None else "open"
        return f"{type(self).__name__}({state}, {len(self.text)} characters so far)"


class Stream(_Told):
    """Deltas of one call, as a plain iterator and a context manager."""

    def __init__(self, steps: Generator[Delta, Any, Any], trail: Trail) -> None:
        super().__init__(trail)
        self._steps = steps

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Delta:
        delta = next(self._steps)
        self._texts.append(delta.text)
        return delta

    def close(self) -> None:
        """Stop the call; nothing happens when it has already ended."""
        self._steps.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_Told):
    """Deltas of one call, as an async iterator and an async context manager."""

    def __init__(self, steps: AsyncGenerator[Delta, Any], trail: Trail) -> None:
        super().__init__(trail)
        self._steps = steps

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Delta:
        delta = await self._steps.__anext__()
        self._texts.append(delta.text)
        return delta

    async def aclose(self) -> None:
        """Stop the call; nothing happens when it has already ended."""
        await self._steps.aclose()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
