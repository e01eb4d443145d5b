"""The border to foreign HTTP code: its exceptions become ours, and its stack frames, which hold keys, stay outside."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from urllib.parse import quote, urlsplit

from tokenkit.effects import WireRequest
from tokenkit.errors import DeadlineExceeded, ProtocolError, TokenkitError, TransportError

AGENT = "tokenkit"
"""What we call ourselves: some front ends refuse a request that names no agent."""

CONNECT_SECONDS = 10.0
READ_SECONDS = 600.0
"""How long one read may take without a byte: some models think for minutes before the first."""

IDLE_SECONDS = 60.0
"""How long an idle connection is trusted: routers on the way forget one silently, some after little more."""

LARGEST_BODY = 64 * 1024 * 1024

Origin = tuple[str, str, int]
Decoder = Callable[[bytes, bool], bytes]
"""Given some bytes, and whether they are the last, what they unpack to."""

# Foreign classes are known by name, so that naming them imports nothing: http.client's, aiohttp's and httpx's.
_CUT = frozenset({"ClientPayloadError", "ServerDisconnectedError", "RemoteProtocolError"})
_NOT_HTTP = frozenset({"ClientResponseError", "LocalProtocolError", "DecodingError"})


def clean(error: BaseException, wire: WireRequest, *, sent: bool, deadline: float | None) -> BaseException:
    """Return what to raise instead of a foreign error, without the frames, causes and contexts it came through.

    Those frames have headers among their locals, which a verbose traceback prints. An interrupt keeps its class.
    """
    late = deadline is not None and time.monotonic() >= deadline - 0.001
    if isinstance(error, TransportError):
        return TransportError(f"{host(wire)}: {error}", sent=sent and error.sent)
    if isinstance(error, ProtocolError):
        return ProtocolError(f"{host(wire)}: {error}")
    if isinstance(error, Exception) and not isinstance(error, TokenkitError):
        if late:
            return DeadlineExceeded(f"The call's deadline passed while {host(wire)} was answering.")
        if type(error).__name__ in _NOT_HTTP:
            return ProtocolError(f"{host(wire)}: the answer is not the HTTP it should be")
        return TransportError(f"{host(wire)}: {_words(error)}", sent=sent)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _words(error: Exception) -> str:
    """Say what went wrong on the wire. Foreign texts can quote a request, so only those of the OS are repeated."""
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer within the time one operation may take"
    refused = getattr(error, "certificate_error", error)
    if verdict := getattr(refused, "verify_message", None):
        return f"its TLS certificate was not accepted: {verdict}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__name__ in _CUT:
        return "the connection was cut before the answer was complete"
    return f"the exchange failed ({type(error).__name__})"


def host(wire: WireRequest) -> str:
    """Return scheme, host and port of a request: as much of an address as an error needs to show."""
    scheme, _, rest = wire.url.partition("://")
    return f"{scheme}://{_PATH.split(rest, 1)[0].rpartition('@')[2]}"


_PATH = re.compile("[/?#]")


@lru_cache(maxsize=256)
def parted(url: str) -> tuple[Origin, str, str]:
    """Return where an address leads, its Host header and its path, the last two as HTTP carries them.

    A name and password in front of the host are left out: keys go into headers. Raises TransportError.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
        authority = parts.netloc.rpartition("@")[2]
        authority = authority if authority.isascii() else authority.encode("idna").decode()
    except ValueError:
        raise TransportError("this is not an address", sent=False) from None
    if parts.scheme not in ("http", "https") or not name:
        raise TransportError("only http:// and https:// addresses can be asked", sent=False)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (parts.scheme, name, port or (443 if parts.scheme == "https" else 80)), authority, quote(path, _SAFE)


def bare(url: str) -> str:
    """Return an address without a name and password in front of its host."""
    scheme, _, rest = url.partition("://")
    authority = _PATH.split(rest, 1)[0]
    return f"{scheme}://{authority.rpartition('@')[2]}{rest[len(authority) :]}" if "@" in authority else url


_SAFE = "!$%&'()*+,/:;=?@~-._[]"
"""What is left as it is in a path and its query, ``%`` too: what looks escaped is."""


def remaining(deadline: float | None, longest: float) -> float:
    """Return the seconds one operation may take. Raises DeadlineExceeded when none are left."""
    if deadline is None:
        return longest
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("The call's deadline has passed.")
    return min(left, longest)


def decoder(headers: Mapping[str, str]) -> Decoder | None:
    """Return a decompressor for a body that is compressed although we did not ask for it; ``None`` for a plain one."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return None
    if encoding not in ("gzip", "deflate", "x-gzip"):
        raise ProtocolError(f"the answer is encoded as {encoding[:20]!r}, which was not asked for")
    inflate, size = None, 0

    def decode(data: bytes, last: bool) -> bytes:
        nonlocal inflate, size
        out = []
        try:
            # A gzip file may have several members, one after another (RFC 1952, 2.2).
            while data:
                if inflate is None:
                    inflate = zlib.decompressobj(_window(encoding, data))
                out.append(inflate.decompress(data, LARGEST_BODY + 1 - size))
                size += len(out[-1])
                if size > LARGEST_BODY:
                    raise too_large()
                data, inflate = (inflate.unused_data, None) if inflate.eof else (b"", inflate)
        except zlib.error:
            raise ProtocolError("the compressed answer could not be unpacked") from None
        if last and inflate is not None:
            raise TransportError("the compressed answer was cut before its end")
        return b"".join(out)

    return decode


def _window(encoding: str, data: bytes) -> int:
    """Return zlib's window bits: for gzip, for zlib, or for the bare deflate that some servers send in its name."""
    if encoding != "deflate":
        return 31
    return 15 if data[0] & 0x0F == 8 else -15


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
    return ProtocolError(f"the answer is larger than {LARGEST_BODY // 2**20} MiB; it was not read to its end")
