"""A provider that keeps its own integer book, and kernels that spend against it: what a budget must hold against.

The biller charges like a real one: whatever it has generated, whether or not anybody was left to receive it; a stream
until its reader is gone; nothing for an error status. It knows nothing of tokenkit's books.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_NANOS, OUTPUT_NANOS = 1_000, 5_000  # a token: 1 and 5 USD per million
PROMPT_TOKENS = 19  # what tokenkit counts too: the count is exact
PRICE = {"input": 1, "output": 5}
WORD = " the"  # one token in o200k_base, alone or in a row


class Biller(ThreadingHTTPServer):
    """Chat completions with faults, on loopback; ``book`` is what it would put on the invoice, in nano-USD."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seed: int, faults: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.random, self.faults = random.Random(seed), faults
        self.lock = threading.Lock()
        self.book = 0
        self.billed: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def bill(self, output_tokens: int) -> None:
        with self.lock:
            self.billed.append(PROMPT_TOKENS * INPUT_NANOS + output_tokens * OUTPUT_NANOS)
            self.book += self.billed[-1]

    def draw(self, most: int) -> tuple[float, int]:
        with self.lock:
            return self.random.random(), self.random.randint(1, most)

    def handle_error(self, *where: Any) -> None:
        """Readers that go away are part of the game."""

    def __enter__(self) -> Biller:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Biller

    def log_message(self, *said: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        most = asked.get("max_tokens") or asked["max_completion_tokens"]
        chance, size = self.server.draw(most)
        if self.server.faults and chance < 0.05:
            return self._send(500, {"error": {"message": "broken"}})
        if self.server.faults and chance < 0.08:
            return self._send(429, {"error": {"message": "slow down"}}, {"retry-after": "0"})
        if asked.get("stream"):
            return self._stream(size)
        time.sleep(0.002 + chance / 200)
        self.server.bill(size)
        if self.server.faults and chance > 0.97:  # it is generated, and on the invoice, but never arrives
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        choice = {"index": 0, "message": {"role": "assistant", "content": WORD * size}, "finish_reason": "length"}
        return self._send(200, {"id": "c", "model": "gpt-4o", "choices": [choice], "usage": _usage(size)})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, size: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        sent = 0
        step = max(1, size // 8)
        try:
            while sent < size:
                now = min(step, size - sent)
                self._event({"choices": [{"index": 0, "delta": {"content": WORD * now}, "finish_reason": None}]})
                sent += now
                time.sleep(0.003)
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._event({"choices": [], "usage": _usage(size)})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        finally:
            self.server.bill(sent)

    def _event(self, body: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps({'id': 'c', 'model': 'gpt-4o', **body})}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def _usage(size: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": size}


# A kernel: what runs in each of the processes.


def kit_of(home: str, url: str) -> Any:
    from tokenkit import Kit
    from tokenkit.catalog import Model
    from tokenkit.pricing import flat
    from tokenkit.providers import openai

    price = flat("user", "gpt-4o", **PRICE)
    model = Model("billed", "gpt-4o", price=price, context_window=128_000, encoding="o200k_base")
    provider = openai.provider(name="billed", base_url=url, key=None)
    return Kit(home=home, providers=[provider], models=[model], environ={})


async def spend(home: str, url: str, calls: int, seed: int, most: int, calm: bool) -> None:
    """Make ``calls`` calls, 16 at once: plain, streamed and, unless ``calm``, stopped halfway or cancelled."""
    from tokenkit.errors import TokenkitError

    importlib.import_module("tokenkit.layers.budgeted").STALL = 0.5  # what the dead hold never comes back
    chance = random.Random(seed)
    with kit_of(home, url) as kit:
        gate = asyncio.Semaphore(16)

        async def one(n: int, kind: float) -> None:
            async with gate:
                try:
                    if kind < 0.5:
                        await kit.acall(prompt(), max_tokens=most)
                    elif kind < 0.6:
                        await asyncio.wait_for(kit.acall(prompt(), max_tokens=most), 0.004)
                    else:
                        async for _ in (stream := kit.astream(prompt(), max_tokens=most)):
                            if kind > 0.9:
                                await stream.aclose()
                                break
                except (TokenkitError, TimeoutError):
                    return
                if n % 20 == 0:
                    print(n, flush=True)

        kinds = [0.0, 0.8] if calm else [n / 100 for n in range(100)]
        await asyncio.gather(*(one(n, chance.choice(kinds)) for n in range(calls)))


def prompt() -> str:
    return "Say it again, please, as often as you can."


if __name__ == "__main__":
    home, url, calls, seed, most, calm = sys.argv[1:]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    asyncio.run(spend(home, url, int(calls), int(seed), int(most), calm == "calm"))
