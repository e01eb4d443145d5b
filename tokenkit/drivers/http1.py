"""One HTTP/1.1 answer, read strictly from a connection's bytes: what is cut or ambiguous is never taken for whole.

The standard library's client reads a head that was cut short as a complete one, and lets a wrong length pass; so this
reads by RFC 9112 itself, and costs half as much. What it refuses is said as ProtocolError, what stops too early as
TransportError.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tokenkit.errors import ProtocolError, TransportError

LARGEST_HEAD = 256 * 1024
MOST_INTERIM = 20
"""Answers like 100 and 103 that may come before the real one."""

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.([01]) (\d{3})(?: .*)?", re.DOTALL)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110, 5.6.2
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}")

# What a chunked body expects next, where it is not so many bytes of a chunk.
_SIZE, _CHUNK_END, _TRAILER = 0, -1, -2


class Incoming:
    """An answer as it arrives; ``receive`` gives a connection's next bytes, and ``b""`` once the server has closed it.

    ``done`` says that the body has been read to its end, ``keep`` that the connection may then carry another call.
    """

    __slots__ = ("_at", "_chunked", "_data", "_left", "_receive", "done", "keep")

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._data, self._at = b"", 0
        self._left: int | None = 0
        self._chunked = self.done = self.keep = False

    def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers (lower-case names) of the answer, past every interim one."""
        for _ in range(MOST_INTERIM):
            version, status, headers = _parsed(self._until_head_ends())
            if status >= 200 or status == 101:
                self._frame(version, status, headers)
                return status, headers
        raise ProtocolError("the answer never began: the server sent nothing but interim answers")

    def some(self) -> bytes:
        """Return the next bytes of the body, ``b""`` once it has ended."""
        if self.done:
            return b""
        if self._chunked:
            return self._some_chunks()
        if self._at == len(self._data):
            self._data, self._at = self._receive(), 0
            if not self._data:
                if self._left is not None:
                    raise cut()
                self.done = True
                return b""
        end = len(self._data) if self._left is None else min(len(self._data), self._at + self._left)
        data = self._data[self._at : end] if self._at or end < len(self._data) else self._data
        self._at = end
        if self._left is not None:
            self._left -= len(data)
            if not self._left:
                self._finish()
        return data

    def _until_head_ends(self) -> bytes:
        search = self._at
        while not (match := _END.search(self._data, search)):
            if len(self._data) - self._at > LARGEST_HEAD:
                raise ProtocolError(f"the answer's headers are longer than {LARGEST_HEAD // 1024} KiB")
            seen = len(self._data) - self._at
            self._more()
            search = max(0, seen - 3)
            if not b"HTTP/".startswith(self._data[:5]):
                raise ProtocolError("the server does not speak HTTP")
        head = self._data[self._at : match.start()]
        self._at = match.end()
        return head

    def _more(self) -> None:
        data = self._receive()
        if not data:
            raise cut()
        self._data = self._data[self._at :] + data
        self._at = 0

    def _frame(self, version: str, status: int, headers: dict[str, str]) -> None:
        """Decide how long the body is, by RFC 9112, 6.3, and whether the connection lives on."""
        said = {word.strip() for word in headers.get("connection", "").lower().split(",")}
        self.keep = "close" not in said if version == "1" else "keep-alive" in said
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if status in (101, 204, 304):
            self.keep = self.keep and status != 101
            self._finish()
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise ProtocolError("the answer is transferred in a coding that was not asked for")
            if length is not None:
                raise ProtocolError("the answer contradicts itself about its length")
            self._chunked, self._left = True, _SIZE
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 16):
                raise ProtocolError("the answer's content-length is not one number")
            self._left = int(length)
            if not self._left:
                self._finish()
        else:
            self._left, self.keep = None, False

    def _finish(self) -> None:
        """Note that the body has ended; bytes beyond it belong to nothing we asked, so the connection ends too."""
        self.done = True
        self.keep = self.keep and self._at == len(self._data)

    def _some_chunks(self) -> bytes:
        """Return what is here of all chunks that are here, waiting only while that is nothing."""
        parts = []
        while not self.done:
            assert self._left is not None  # noqa: S101 - a chunked body is never read until the connection's end
            if self._left > 0:
                piece = self._data[self._at : self._at + self._left]
                self._at += len(piece)
                self._left = self._left - len(piece) or _CHUNK_END
                if piece:
                    parts.append(piece)
                    continue
            elif self._on_line():
                continue
            if parts:
                break
            self._more()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _on_line(self) -> bool:
        """Take the line that is next in a chunked body; ``False`` when it is not all here yet."""
        end = self._data.find(b"\n", self._at)
        if end < 0:
            if len(self._data) - self._at > LARGEST_HEAD:
                raise ProtocolError("the answer's chunks are malformed")
            return False
        line = self._data[self._at : end].rstrip(b"\r")
        self._at = end + 1
        if self._left == _SIZE:
            size = line.partition(b";")[0].strip()
            if not _HEX.fullmatch(size):
                raise ProtocolError("the answer's chunks are malformed")
            self._left = int(size, 16) or _TRAILER
        elif self._left == _CHUNK_END:
            if line:
                raise ProtocolError("the answer's chunks are malformed")
            self._left = _SIZE
        elif not line:
            self._finish()
        return True


def cut() -> TransportError:
    """Return the error for a connection that ended before the answer did."""
    return TransportError("the connection was cut before the answer was complete")


def _parsed(head: bytes) -> tuple[str, int, dict[str, str]]:
    """Return minor version, status and headers. A folded line continues the one before it."""
    first, *rows = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ProtocolError("the server does not speak HTTP")
    headers: dict[str, str] = {}
    last = ""
    for row in rows:
        if row[:1] in (" ", "\t") and last:
            headers[last] += " " + row.strip()
            continue
        name, colon, value = row.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise ProtocolError("the answer's headers are malformed")
        last, value = name.lower(), value.strip(" \t")
        if last in ("content-length", "transfer-encoding") and headers.get(last, value) != value:
            raise ProtocolError("the answer contradicts itself about its length")
        headers[last] = value
    return status[1], int(status[2]), headers
