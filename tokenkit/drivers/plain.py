"""The sync connection pool: sockets kept alive, with a deadline on every byte.

A kept-alive connection is used again only when nothing waits on it to be read: a server that closed it, or said
something unasked, is noticed before the request is sent. A request is never sent twice: once a byte of it has left,
a POST may have been carried out, and only the layers above, which account for it, may try again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import socket
import ssl
import time
from functools import lru_cache
from threading import Thread
from typing import Any

from tokenkit.drivers import border
from tokenkit.drivers.border import CONNECT_SECONDS, IDLE_SECONDS, READ_SECONDS, Origin, clean, decoder, remaining
from tokenkit.drivers.http1 import Incoming
from tokenkit.effects import Open, Reply, WireRequest
from tokenkit.errors import TransportError


class Line:
    """One connection, with the deadline of the call that uses it now, and whether any of that call has left."""

    __slots__ = ("deadline", "pid", "sent", "since", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.pid = sock, os.getpid()
        self.deadline: float | None = None
        self.sent, self.since = False, 0.0

    def send(self, data: bytes) -> None:
        self.sock.settimeout(remaining(self.deadline, READ_SECONDS))
        self.sent = True
        self.sock.sendall(data)

    def receive(self) -> bytes:
        self.sock.settimeout(remaining(self.deadline, READ_SECONDS))
        return self.sock.recv(65536)

    def hang_up(self) -> None:
        """Close the socket."""
        self.sock.close()

    def is_fresh(self) -> bool:
        """Return whether the connection may carry a call: ours, not idle for long, and nothing on it to be read."""
        if self.pid != os.getpid() or time.monotonic() - self.since > IDLE_SECONDS:
            return False
        try:
            return not _readable(self.sock)
        except (OSError, ValueError):
            return False


def _readable(sock: socket.socket) -> bool:
    """Return whether data or the end of the connection waits to be read."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    if not hasattr(select, "poll"):  # Windows, where select has no trouble with high numbers
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Source:
    """The body of one answer; its connection goes back to the pool with the last byte, and is closed otherwise."""

    def __init__(self, pool: Pool, origin: Origin, line: Line, wire: WireRequest) -> None:
        self.pool, self.origin, self.line, self.wire = pool, origin, line, wire
        self.answer = Incoming(line.receive)
        self.inflate: border.Decoder | None = None
        self.open = True

    def reply(self) -> Reply:
        """Wait for the answer's head. What it says stays in this frame, which no error of ours comes through."""
        status, headers = self.answer.head()
        self.inflate = decoder(headers)
        if self.answer.done:
            self.settle()
        return Reply(status, headers, self)

    def read(self, whole: bool) -> bytes:
        stop: BaseException
        try:
            return border.whole(self._some) if whole else self._some()
        except BaseException as error:
            self.close()
            stop = clean(error, self.wire, sent=True, deadline=self.line.deadline)
        raise stop

    def _some(self) -> bytes:
        while self.open:
            data = self.answer.some()
            if self.answer.done:
                self.settle()
            if self.inflate is not None:
                data = self.inflate(data, self.answer.done)
            if data:
                return data
        return b""

    def settle(self) -> None:
        """Give the connection of a whole answer back."""
        self.open = False
        if self.answer.keep:
            self.pool.keep(self.origin, self.line)
        else:
            self.line.hang_up()

    def close(self) -> None:
        if self.open:
            self.open = False
            self.line.hang_up()


class Pool:
    """Idle connections by origin, shared by threads; a forked child uses none of its parent's.

    There is no lock, which a fork could leave locked for ever: one list operation at a time is atomic as it is.
    """

    def __init__(self, most_idle: int = 64) -> None:
        self.most_idle = most_idle
        self._idle: dict[Origin, list[Line]] = {}

    def open(self, effect: Open) -> Reply:
        """Send a request and wait for the headers of its answer."""
        wire = effect.wire
        source: Source | None = None
        stop: BaseException
        try:
            origin, authority, path = border.parted(wire.url)
            source = Source(self, origin, self._take(origin) or _connect(origin, effect.deadline), wire)
            source.line.deadline, source.line.sent = effect.deadline, False
            # The bytes, which hold the key, are named in no frame that an error of ours comes through.
            source.line.send(_request(wire, authority, path))
            return source.reply()
        except BaseException as error:
            sent = source is not None and source.line.sent
            if source is not None:
                source.close()
            stop = clean(error, wire, sent=sent, deadline=effect.deadline)
        raise stop

    def keep(self, origin: Origin, line: Line) -> None:
        """Keep a connection for the next call."""
        idle = self._idle.setdefault(origin, [])
        if len(idle) < self.most_idle:
            line.since = time.monotonic()
            idle.append(line)
        else:
            line.hang_up()

    def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, {}
        for lines in idle.values():
            for line in lines:
                line.hang_up()

    def _take(self, origin: Origin) -> Line | None:
        idle = self._idle.get(origin)
        while idle:
            try:
                line = idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if line.is_fresh():
                return line
            line.hang_up()
        return None


@lru_cache(maxsize=1)
def context() -> ssl.SSLContext:
    """Return the one TLS context: making one takes 20 ms, so it is made when first needed and shared."""
    return ssl.create_default_context()


def _connect(origin: Origin, deadline: float | None) -> Line:
    """Connect, and greet over TLS where asked. Every address found gets its share of the time there is."""
    scheme, name, port = origin
    found = _resolved(name, port, remaining(deadline, CONNECT_SECONDS))
    failed: OSError = OSError("no address was found")
    for untried, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        sock = socket.socket(family, kind, protocol)
        try:
            share = CONNECT_SECONDS if deadline is None else remaining(deadline, CONNECT_SECONDS * untried) / untried
            sock.settimeout(share)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                sock.settimeout(remaining(deadline, CONNECT_SECONDS))
                sock = context().wrap_socket(sock, server_hostname=name)
            return Line(sock)
        except BaseException as error:
            with contextlib.suppress(OSError):
                sock.close()
            if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
                raise
            failed = error
    raise failed


def _resolved(name: str, port: int, seconds: float) -> list[Any]:
    """Return the addresses of a name. The system's resolver knows no time limit and no Ctrl-C; so a thread asks it."""
    with contextlib.suppress(OSError):
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(list(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, name="tokenkit-resolving", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


def _request(wire: WireRequest, authority: str, path: str) -> bytes:
    """Return a request's bytes: head and body in one, so that they leave in one packet where they fit."""
    rows = [
        f"{wire.method} {path} HTTP/1.1",
        f"host: {authority}",
        "accept-encoding: identity",
        f"user-agent: {border.AGENT}",
        f"content-length: {len(wire.body)}",
        *(f"{name}: {value}" for name, value in wire.headers),
    ]
    if wire.auth is not None:
        rows.append(f"{wire.auth[0]}: {wire.auth[1]}{wire.auth[2].reveal()}")
    if not _SAYABLE.fullmatch("".join(rows)):
        raise TransportError("a header has a character that HTTP cannot carry", sent=False)
    return "\r\n".join((*rows, "", "")).encode("ascii") + wire.body


_SAYABLE = re.compile(r"[\t\x20-\x7e]*")
