"""A process's few connections to the server: lent to one thread at a time, and never shared with a forked child."""

from __future__ import annotations

import os
import select
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tokenkit.errors import LedgerError

if TYPE_CHECKING:
    import psycopg

    from tokenkit.team.server import Server


class Lines:
    """At most ``most`` connections; who comes when all are lent waits, for as long as the server's patience lasts."""

    def __init__(self, server: Server, most: int) -> None:
        self._server, self._most = server, most
        self._begin()
        _ALIVE.add(self)

    def _begin(self) -> None:
        self._free = threading.BoundedSemaphore(self._most)
        self._lock = threading.Lock()
        self._idle: list[psycopg.Connection[Any]] = []
        self._open: set[psycopg.Connection[Any]] = set()  # the idle ones and those that are lent

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection for a block; when the block raises, it is closed, and the server rolls back what it did."""
        free = self._free
        if not free.acquire(timeout=self._server.patience):
            raise LedgerError(
                f"All {self._most} connections of this process to the team journal {self._server.where} have been busy "
                f"for {self._server.patience:g} seconds. Try again."
            )
        try:
            connection = self._idle_one() or self._new()
            try:
                yield connection
            except BaseException:
                self._end(connection)
                raise
            with self._lock:
                if connection in self._open:
                    self._idle.append(connection)
                    return
            self._end(connection)  # the journal was closed meanwhile
        finally:
            free.release()

    def close(self) -> None:
        """Close the idle connections now, and those that are lent when they come back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._open.clear()
        for connection in idle:
            connection.close()

    def _idle_one(self) -> psycopg.Connection[Any] | None:
        """Return a connection the server has not hung up on."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()  # the one used last: it is the likeliest to be alive
            if _silent(connection):
                return connection
            self._end(connection)

    def _new(self) -> psycopg.Connection[Any]:
        connection = self._server.connect()
        with self._lock:
            self._open.add(connection)
        return connection

    def _end(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _forked(self) -> None:
        """In a child: let go of the parent's connections without a word to the server, which would end them."""
        inherited = self._open
        self._begin()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection in inherited:
            with suppress(Exception):  # one that was broken already: there is nothing to let go of
                os.dup2(nowhere, connection.fileno())
                connection.close()  # says its farewell to nobody
        os.close(nowhere)


def _silent(connection: psycopg.Connection[Any]) -> bool:
    """Say whether nothing waits to be read: a server speaks to an idle connection only to say that it is going."""
    if connection.closed:
        return False
    waiting = select.poll()  # not select(), which knows no descriptor above 1023
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)


_ALIVE: weakref.WeakSet[Lines] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lines in list(_ALIVE):
        lines._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
