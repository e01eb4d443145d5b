"""The guard at the door: who may ask at all, decided from headers alone, and how much of a body is read.

A server on this machine is reachable by every web page its owner visits. A page of another site names itself in
``Origin`` (Fetch standard, "Origin header"), and one that had its own name resolve to this machine (DNS rebinding)
names itself in ``Host``; both are refused, and no CORS header is ever sent.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from tokenkit.providers.openai import dumps
from tokenkit.server.failing import Failure, bad
from tokenkit.server.fields import Malformed
from tokenkit.types import Secret

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 32 * 1024 * 1024
MOST_AT_ONCE = 512
"""Calls under way at once; one more is told to come back."""

BODY_SECONDS = 120.0
"""How long a client may take to send its body."""

DISCARDED = 4
"""How many bodies' worth of a body that is too large is thrown away before the answer: a client that is still sending
when its connection is closed often does not get to see why."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class TooLarge(Malformed):
    """A body beyond what is read."""


class TooSlow(Malformed):
    """A body that did not come to its end in time."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Guard:
    """An ASGI application that lets ``app`` see only requests that may be asked.

    With ``token`` every request must carry it as a bearer token. ``names`` are those this server may be called by in
    ``Host``; empty: any.
    """

    app: App
    token: Secret | None = None
    names: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        failure = self.refusal(scope["headers"])
        if failure is None:
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if failure.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        headers += [(name.encode(), value.encode()) for name, value in failure.headers().items()]
        await send({"type": "http.response.start", "status": failure.status, "headers": headers})
        await send({"type": "http.response.body", "body": dumps(failure.body)})

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Failure | None:
        """Return why a request with these headers is refused, or None."""
        said: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            said.setdefault(name.lower(), []).append(value)
        hosts = said.get(b"host", [])
        if self.names and (len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in self.names):
            message = "The Host header names another machine than this one, so the request was refused."
            return bad(message, "host", "host_refused", 403)
        same = {b"http://" + host.lower() for host in hosts} | {b"https://" + host.lower() for host in hosts}
        foreign = any(origin.lower() not in same for origin in said.get(b"origin", []))
        if foreign or b"cross-site" in said.get(b"sec-fetch-site", []):
            message = "The request comes from a page of another site, so it was refused."
            return bad(message, "origin", "origin_refused", 403)
        if self.token is not None and not self._knows(said.get(b"authorization", [])):
            message = "This server asks for its token, as in 'Authorization: Bearer TOKEN'."
            return Failure(401, message, "authentication_error", "invalid_api_key")
        return None

    def _knows(self, given: list[bytes]) -> bool:
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        wanted = self.token.reveal().encode() if self.token is not None else b""
        # Compared whatever the scheme says, in a time that does not tell how much of it was right.
        right = hmac.compare_digest(token.strip(), wanted)
        return right and scheme.lower() == b"bearer"


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port, in small letters; an address of IPv6 stands in brackets."""
    if host.startswith("["):
        return f"{host.partition(']')[0].lower()}]"
    return host.partition(":")[0].rstrip(".").lower()


async def read(receive: Receive, length: str | None, most: int, seconds: float = BODY_SECONDS) -> bytes:
    """Read a request's body of at most ``most`` bytes; ``length`` is its content-length, as said.

    Raises TooLarge, TooSlow, and ConnectionError when the client has left.
    """
    parts: list[bytes] = []
    size = 0
    announced = int(length) if length is not None and length.isascii() and length.isdigit() and len(length) < 16 else 0
    over = announced > most
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    over = True
                    parts.clear()
                if not over:
                    parts.append(part)
                if not message.get("more_body", False) or size > DISCARDED * most:
                    break
    except TimeoutError:
        raise TooSlow(f"The body did not come to its end within {seconds:.0f} seconds.") from None
    if over:
        raise TooLarge(f"The body is larger than the {most / 2**20:.0f} MB this server reads.")
    return b"".join(parts)
