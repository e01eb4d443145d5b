"""Streams in pieces: server-sent events and newline-delimited JSON, decoded whatever the cuts.

A piece may end anywhere, inside a character too. Lines end in LF, CRLF or CR; comments, a leading byte-order mark and
fields other than ``data`` and ``event`` are passed over (WHATWG HTML, "Server-sent events").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenkit.errors import ProtocolError
from tokenkit.providers.masking import safe

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 16 * 1024 * 1024


def lines() -> Callable[[bytes], list[bytes]]:
    """Return a splitter: feed it pieces, get whole lines without their ends; ``b""`` gives the unfinished last one."""
    head: bytes | None = b""  # the first bytes, while they may yet be a byte-order mark
    rest: list[bytes] = []  # the unfinished line, joined once: it may come in a million pieces
    length = 0
    after_cr = False

    def feed(data: bytes) -> list[bytes]:
        nonlocal head, rest, length, after_cr
        ends = not data
        if head is not None:
            head += data
            if not ends and len(head) < len(BOM) and BOM.startswith(head):
                return []
            data, head = head.removeprefix(BOM), None
        # A CR ends its line at once; an LF that follows it, in the next piece perhaps, is the other half of a CRLF.
        if after_cr and data:
            data, after_cr = data.removeprefix(b"\n"), False
        if data:
            after_cr = data.endswith(b"\r")
            if b"\r" in data:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = data.split(b"\n")
        rest.append(first)
        length += len(first)
        found: list[bytes] = []
        if others:
            found = [b"".join(rest), *others[:-1]]
            rest, length = [others[-1]], len(others[-1])
        if length > LONGEST_LINE:
            raise ProtocolError("The stream sent a line of more than 16 MiB.")
        if ends:
            last, rest, length = b"".join(rest), [], 0
            found += [last] if last else []
        return found

    return feed


def events() -> Callable[[bytes], list[tuple[str, bytes]]]:
    """Return a decoder of server-sent events: feed it pieces, get ``(event, data)``; ``b""`` flushes the last one."""
    split = lines()
    name = ""
    data: list[bytes] = []
    length = 0

    def feed(piece: bytes) -> list[tuple[str, bytes]]:
        nonlocal name, data, length
        found: list[tuple[str, bytes]] = []
        for line in (*split(piece), b"") if not piece else split(piece):
            if not line:
                if data:
                    found.append((name, b"\n".join(data)))
                name, data, length = "", [], 0
            elif line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
                length += len(line)
                if length > LONGEST_LINE:
                    raise ProtocolError("The stream sent an event of more than 16 MiB.")
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode("utf-8", "replace")
        return found

    return feed


def parse(data: bytes | str, what: str = "the stream") -> dict[str, Any]:
    """Read one JSON object. Raises ProtocolError that shows the beginning of what came instead."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        begin = data[:400] if isinstance(data, str) else data[:400].decode("utf-8", "replace")
        # A key that is only part of what is read is masked before the text is shortened.
        raise ProtocolError(f"Expected a JSON object in {what}, but it began with {safe(begin)[:80]!r}.")
    return value
