"""A loopback HTTP server that misbehaves as told: real sockets, real bytes, one thread a connection.

    with FaultServer() as server:
        server.script(reply(429, headers={"retry-after": "0"}), reply(200, OK))

Each request takes the next behaviour of the script; the last one repeats. A behaviour is a function that gets the
connected socket and returns whether the connection may be kept.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Behaviour = Callable[[socket.socket], bool]

SLACK = 3.0
"""Seconds that a loaded machine may be late with what ends by itself; what hangs here hangs for longer. How late a
deadline really is, is measured beside other clients in the benches, not asserted here."""


def completion(text: str = "Hello there.", **usage: int) -> bytes:
    """A whole chat completion."""
    used = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12} | usage
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": used}
    ).encode()


def events(*texts: str, done: bool = True, usage: bool = True, ending: str = "\n\n") -> bytes:
    """A chat completion as server-sent events."""
    head = {"id": "c1", "object": "chat.completion.chunk", "model": "m"}
    rows = [head | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    if done:
        rows.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        rows.append(head | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(texts)}})
    out = "".join(f"data: {json.dumps(row, ensure_ascii=False)}{ending}" for row in rows)
    return (out + (f"data: [DONE]{ending}" if done else "")).encode()


OK = completion()


def head(
    status: int, length: int | None, headers: dict[str, str] | None = None, kind: str = "application/json"
) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", f"content-type: {kind}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def reply(
    status: int = 200, body: bytes = OK, headers: dict[str, str] | None = None, kind: str = "application/json"
) -> Behaviour:
    """Answer at once, and keep the connection."""

    def act(sock: socket.socket) -> bool:
        sock.sendall(head(status, len(body), headers, kind) + body)
        return True

    return act


def error(status: int, message: str = "scripted", code: str | None = None, **headers: str) -> Behaviour:
    """Answer with an error as OpenAI words it."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


def streamed(body: bytes, *, size: int = 7, delay: float = 0.0, end: bool = True) -> Behaviour:
    """Stream in chunked pieces of ``size`` bytes; without ``end`` the connection is cut instead of finished."""

    def act(sock: socket.socket) -> bool:
        sock.sendall(head(200, None, {"transfer-encoding": "chunked"}, "text/event-stream"))
        for i in range(0, len(body), size):
            piece = body[i : i + size]
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            if delay:
                time.sleep(delay)
        if end:
            sock.sendall(b"0\r\n\r\n")
        return end

    return act


def until_closed(body: bytes) -> Behaviour:
    """Answer in HTTP/1.0 style: no length, the body ends when the connection does."""

    def act(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)
        return False

    return act


def short(body: bytes = OK) -> Behaviour:
    """Promise more bytes than come."""

    def act(sock: socket.socket) -> bool:
        sock.sendall(head(200, len(body) + 100) + body)
        return False

    return act


def hang(sock: socket.socket) -> bool:
    """Never answer."""
    time.sleep(5)
    return False


def drip_headers(sock: socket.socket) -> bool:
    """Send the headers a byte every 50 ms."""
    try:
        for byte in head(200, len(OK)) + OK:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)
    except OSError:
        pass
    return False


def drip_body(sock: socket.socket) -> bool:
    """Send headers at once, then the body a byte every 50 ms."""
    try:
        sock.sendall(head(200, len(OK)))
        for byte in OK:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)
    except OSError:
        pass
    return False


def reset(sock: socket.socket) -> bool:
    """Reset the connection without an answer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def close_after(behaviour: Behaviour) -> Behaviour:
    """Behave, and then close the connection although it was to be kept."""
    return lambda sock: behaviour(sock) and False


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it."""

    line: str
    headers: dict[str, str]
    body: bytes


class FaultServer:
    """The server; ``url`` is its address, ``requests`` what it was asked, ``connections`` how often one connected."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours: list[Behaviour] = list(behaviours) or [reply()]
        self.requests: list[Seen] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open: list[socket.socket] = []
        self._closing = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def script(self, *behaviours: Behaviour) -> None:
        """Set what the next requests get; the last one repeats."""
        self.behaviours = list(behaviours)

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept(), which keeps it open
        self._listener.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    got = sock.recv(65536)
                    if not got:
                        return
                    data += got
                top, _, data = data.partition(b"\r\n\r\n")
                line, *rows = top.decode("latin-1").split("\r\n")
                headers = {k.lower(): v for k, _, v in (row.partition(": ") for row in rows)}
                size = int(headers.get("content-length", 0))
                while len(data) < size:
                    data += sock.recv(65536)
                with self._lock:
                    self.requests.append(Seen(line, headers, data[:size]))
                    behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
                data = data[size:]
                if not behave(sock):
                    return
        except OSError:
            return
        finally:
            sock.close()


def unaccepting() -> tuple[Sequence[socket.socket], str]:
    """Return sockets to keep, and the address of a listener whose backlog is full: connecting to it hangs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return (listener, *fillers), f"http://127.0.0.1:{listener.getsockname()[1]}"
