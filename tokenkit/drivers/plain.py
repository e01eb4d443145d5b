"""The sync connection pool: the standard library's HTTP client, kept alive, with a deadline on every byte.

A kept-alive connection is used again only when nothing waits on it to be read: a server that closed it, or said
something unasked, is noticed before the request is sent, so no request is ever sent twice.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import select
import socket
import ssl
from collections import defaultdict
from functools import lru_cache
from threading import Lock
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from tokenkit.drivers import border
from tokenkit.drivers.border import CONNECT_SECONDS, READ_SECONDS, clean, decoder, remaining
from tokenkit.effects import Open, Reply, WireRequest
from tokenkit.errors import TransportError

Origin = tuple[str, str, int]


class _Timed(io.RawIOBase):
    """A socket's read side whose every read gets no more time than the call has left."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        line = self._line
        line.sock.settimeout(remaining(line.deadline, READ_SECONDS))
        return line.sock.recv_into(buffer)


class Line:
    """One connection's socket, as ``http.client`` wants it, with the deadline of the call that uses it now."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.deadline = sock, None

    deadline: float | None

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self), 65536)

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(remaining(self.deadline, READ_SECONDS))
        self.sock.sendall(data)

    def close(self) -> None:
        """Do nothing: http.client closes a connection that will not be kept before its body has been read."""

    def hang_up(self) -> None:
        """Close the socket."""
        self.sock.close()

    def is_quiet(self) -> bool:
        """Return whether nothing waits to be read: neither data nor the end of the connection."""
        try:
            return not select.select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False


class Source:
    """The body of one answer; given back to the pool when read to its end, closed otherwise."""

    def __init__(self, pool: Pool, origin: Origin, connection: http.client.HTTPConnection, wire: WireRequest) -> None:
        self.pool, self.origin, self.connection, self.wire = pool, origin, connection, wire
        self.line: Any = connection.sock
        self.answer: http.client.HTTPResponse | None = None
        self.inflate: Any = None
        self.done = False

    def read(self, whole: bool) -> bytes:
        if self.done or self.answer is None:
            return b""
        stop: BaseException
        try:
            data = border.whole(self._some) if whole else self._some()
            if self.done:
                self.pool.give_back(self, self.answer)
            return data
        except BaseException as error:
            self.close()
            stop = clean(error, self.wire, sent=True, deadline=self.line.deadline)
        raise stop

    def _some(self) -> bytes:
        assert self.answer is not None  # noqa: S101 - read() has looked
        while not self.done:
            data = self.answer.read1(65536)
            if not data:
                if self.answer.length:
                    raise TransportError("the connection was cut before the answer was complete")
                self.done = True
            elif self.inflate is not None:
                data = self.inflate(data)
            if data:
                return data
        return b""

    def close(self) -> None:
        if not self.done:
            self.done = True
            self.line.hang_up()


class Pool:
    """Idle connections by origin, shared by threads; a forked child starts with none of its parent's."""

    def __init__(self, most_idle: int = 64) -> None:
        self.most_idle = most_idle
        self._idle: defaultdict[Origin, list[http.client.HTTPConnection]] = defaultdict(list)
        self._lock = Lock()
        self._pid = os.getpid()

    def open(self, effect: Open) -> Reply:
        """Send a request and wait for the headers of its answer."""
        wire, sent = effect.wire, False
        source: Source | None = None
        stop: BaseException
        try:
            parts = _split(wire.url)
            origin = (parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
            connection = self._take(origin) or _connect(origin, effect.deadline)
            source = Source(self, origin, connection, wire)
            source.line.deadline = effect.deadline
            sent = True
            _send(connection, wire, parts)
            source.answer = answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            source.inflate = decoder(headers)
            return Reply(answer.status, headers, source)
        except BaseException as error:
            if source is not None:
                source.close()
            stop = clean(error, wire, sent=sent, deadline=effect.deadline)
        raise stop

    def give_back(self, source: Source, answer: http.client.HTTPResponse) -> None:
        """Keep a connection for the next call, unless the server means to close it."""
        kept = not answer.will_close
        # http.client takes the next request only once it knows that this answer is over.
        answer.close()
        with self._lock:
            idle = self._idle[source.origin]
            if kept and self._pid == os.getpid() and len(idle) < self.most_idle:
                idle.append(source.connection)
                return
        source.line.hang_up()

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, defaultdict(list)
        for connections in idle.values():
            for connection in connections:
                _line(connection).hang_up()

    def _take(self, origin: Origin) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if self._pid != os.getpid():
                    self._idle, self._pid = defaultdict(list), os.getpid()
                waiting = self._idle[origin]
                if not waiting:
                    return None
                connection = waiting.pop()
            if _line(connection).is_quiet():
                return connection
            _line(connection).hang_up()


def _line(connection: http.client.HTTPConnection) -> Line:
    line: Any = connection.sock
    return cast(Line, line)


@lru_cache(maxsize=256)
def _split(url: str) -> SplitResult:
    return urlsplit(url)


@lru_cache(maxsize=1)
def context() -> ssl.SSLContext:
    """Return the one TLS context: making one takes 20 ms, so it is made when first needed and shared."""
    return ssl.create_default_context()


def _connect(origin: Origin, deadline: float | None) -> http.client.HTTPConnection:
    scheme, name, port = origin
    connection = http.client.HTTPConnection(name, port)
    sock = socket.create_connection((name, port), timeout=remaining(deadline, CONNECT_SECONDS))
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            sock = context().wrap_socket(sock, server_hostname=name)
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    connection.sock = Line(sock)  # it has what http.client uses of a socket
    # Without this http.client would connect again, without our deadline, to a server that closes after each answer.
    connection.auto_open = 0
    return connection


def _send(connection: http.client.HTTPConnection, wire: WireRequest, parts: SplitResult) -> None:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(wire.method, path, skip_accept_encoding=True)
    connection.putheader("accept-encoding", "identity")
    connection.putheader("content-length", str(len(wire.body)))
    for name, value in wire.headers:
        connection.putheader(name, value)
    if wire.auth is not None:
        connection.putheader(wire.auth[0], wire.auth[1] + wire.auth[2].reveal())
    connection.endheaders(wire.body)
