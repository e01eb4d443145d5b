"""The border to foreign HTTP code: its exceptions become ours, and its stack frames, which hold keys, stay outside."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Mapping

from tokenkit.effects import WireRequest
from tokenkit.errors import DeadlineExceeded, ProtocolError, TokenkitError, TransportError

CONNECT_SECONDS = 10.0
READ_SECONDS = 600.0
"""How long one read may take without a byte: some models think for minutes before the first."""

LARGEST_BODY = 64 * 1024 * 1024


def clean(error: BaseException, wire: WireRequest, *, sent: bool, deadline: float | None) -> BaseException:
    """Return what to raise instead of a foreign error, without the frames, causes and contexts it came through.

    Those frames have headers among their locals, which a verbose traceback prints. An interrupt keeps its class.
    """
    late = deadline is not None and time.monotonic() >= deadline - 0.001
    if isinstance(error, Exception) and not isinstance(error, TokenkitError):
        if late:
            return DeadlineExceeded(f"The call's deadline passed while {host(wire)} was answering.")
        return TransportError(f"{host(wire)}: {_words(error)}", sent=sent)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _words(error: Exception) -> str:
    """Say what went wrong on the wire. Foreign texts can quote a request, so only those of the OS are repeated."""
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer within the time one operation may take"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    cut = (
        "IncompleteRead",
        "RemoteDisconnected",
        "ClientPayloadError",
        "ServerDisconnectedError",
        "RemoteProtocolError",
    )
    if type(error).__name__ in cut:
        return "the connection was cut before the answer was complete"
    return f"the exchange failed ({type(error).__name__})"


def host(wire: WireRequest) -> str:
    """Return scheme, host and port of a request: as much of an address as an error needs to show."""
    return "/".join(wire.url.split("/", 3)[:3])


def remaining(deadline: float | None, longest: float) -> float:
    """Return the seconds one operation may take. Raises DeadlineExceeded when none are left."""
    if deadline is None:
        return longest
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("The call's deadline has passed.")
    return min(left, longest)


def decoder(headers: Mapping[str, str]) -> Callable[[bytes], bytes] | None:
    """Return a decompressor for a body that is compressed although we did not ask for it; ``None`` for a plain one."""
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding in ("identity", ""):
        return None
    if encoding not in ("gzip", "deflate", "x-gzip"):
        raise ProtocolError(f"The answer is encoded as {encoding!r}, which was not asked for.")
    # Window bits of 47 read gzip and zlib alike (zlib manual, inflateInit2).
    inflate = zlib.decompressobj(47)

    def decode(data: bytes) -> bytes:
        try:
            out = inflate.decompress(data, LARGEST_BODY)
        except zlib.error:
            raise ProtocolError("The compressed answer could not be unpacked.") from None
        if inflate.unconsumed_tail:
            raise too_large()
        return out

    return decode


def whole(some: Callable[[], bytes]) -> bytes:
    """Read with ``some`` until nothing comes any more. Raises ProtocolError beyond what any model writes."""
    parts, size = [], 0
    while data := some():
        parts.append(data)
        size += len(data)
        if size > LARGEST_BODY:
            raise too_large()
    return b"".join(parts)


async def awhole(some: Callable[[], Awaitable[bytes]]) -> bytes:
    """As ``whole``, in async code."""
    parts, size = [], 0
    while data := await some():
        parts.append(data)
        size += len(data)
        if size > LARGEST_BODY:
            raise too_large()
    return b"".join(parts)


def too_large() -> ProtocolError:
    """Return the error for a body beyond what any model writes."""
    return ProtocolError(f"The answer is larger than {LARGEST_BODY // 2**20} MiB; it was not read to its end.")
