"""Streams in pieces: server-sent events and newline-delimited JSON, decoded whatever the cuts.

A piece may end anywhere, inside a character too. Lines end in LF, CRLF or CR; comments, a leading byte-order mark and
fields other than ``data`` and ``event`` are passed over (WHATWG HTML, "Server-sent events").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenkit.errors import ProtocolError

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 16 * 1024 * 1024


def lines() -> Callable[[bytes], list[bytes]]:
    """Return a splitter: feed it pieces, get whole lines without their ends; ``b""`` gives the unfinished last one."""
    rest = b""
    started = False

    def feed(data: bytes) -> list[bytes]:
        nonlocal rest, started
        whole = rest + data if rest else data
        if not data:
            rest = b""
            return [part for part in (whole.rstrip(b"\r"),) if part]
        if not started:
            if len(whole) < 3 and BOM.startswith(whole):
                rest = whole
                return []
            started = True
            whole = whole.removeprefix(BOM)
        # A CR at the very end may be half of a CRLF: it waits for what follows.
        held = whole.endswith(b"\r")
        if b"\r" in whole:
            whole = whole[:-1].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + (b"\r" if held else whole[-1:])
        found = whole.split(b"\n")
        rest = found.pop()
        if len(rest) > LONGEST_LINE:
            raise ProtocolError("The stream sent a line of more than 16 MiB.")
        return found

    return feed


def events() -> Callable[[bytes], list[tuple[str, bytes]]]:
    """Return a decoder of server-sent events: feed it pieces, get ``(event, data)``; ``b""`` flushes the last one."""
    split = lines()
    name = ""
    data: list[bytes] = []

    def feed(piece: bytes) -> list[tuple[str, bytes]]:
        nonlocal name, data
        found: list[tuple[str, bytes]] = []
        for line in (*split(piece), b"") if not piece else split(piece):
            if not line:
                if data:
                    found.append((name, b"\n".join(data)))
                name, data = "", []
            elif line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
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
        shown = data[:80] if isinstance(data, str) else data[:80].decode("utf-8", "replace")
        raise ProtocolError(f"Expected a JSON object in {what}, but it began with {shown!r}.")
    return value
