"""What a whole tokenkit call costs beside raw httpx, on one loopback server, interleaved in one run.

The server is a process of its own that answers a fixed chat completion. Contestants: raw httpx posting the same bytes;
our drivers alone (open and drain); the whole kit: routing, token counts, price, and a durable receipt for each call.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

import tokenkit as tk
from tokenkit.catalog import Model
from tokenkit.drivers import AsyncWorld, World, adrive, drive
from tokenkit.effects import Drain, Flow, Open, WireRequest
from tokenkit.pricing import flat
from tokenkit.providers import openai
from tokenkit.types import Response, Secret

SERVER = r"""
import asyncio, json
MESSAGE = {"role": "assistant", "content": "Hello there, this is an answer of a sentence or two."}
BODY = json.dumps({"id": "x", "object": "chat.completion", "model": "m",
  "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
  "usage": {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}}).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY

class Fixed(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            sizes = [l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length")]
            size = int(sizes[0].split(b":")[1]) if sizes else 0
            if len(rest) < size: return
            self.data = rest[size:]
            self.transport.write(REPLY)

async def main():
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

PROMPT = "Explain in two sentences why the sky is blue, and what would change on Mars."
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 100}).encode()
HEADERS = {"content-type": "application/json", "authorization": "Bearer benchmark"}


def trivial(url: str) -> Flow:
    """The smallest flow: open, drain."""
    wire = WireRequest("POST", url, BODY, auth=("authorization", "Bearer ", Secret("benchmark")))
    reply = yield Open(wire)
    body = yield Drain(reply.source, whole=True)
    return Response(body.decode())


def one_after_another(contestants: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, float]:
    """Return each contestant's median microseconds per call over interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            began = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: statistics.median(t) for name, t in times.items()}


async def one_after_another_async(
    contestants: dict[str, Callable[[], Awaitable[object]]], calls: int, rounds: int
) -> dict[str, float]:
    """As above, awaiting each call."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            began = time.perf_counter()
            for _ in range(calls):
                await call()
            times[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: statistics.median(t) for name, t in times.items()}


async def at_once(
    contestants: dict[str, Callable[[], Awaitable[object]]], width: int, calls: int, rounds: int
) -> dict[str, float]:
    """Return each contestant's median microseconds per call with ``width`` calls in flight."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            gate = asyncio.Semaphore(width)

            async def gated(call: Callable[[], Awaitable[object]] = call, gate: asyncio.Semaphore = gate) -> None:
                async with gate:
                    await call()

            began = time.perf_counter()
            await asyncio.gather(*(gated() for _ in range(calls)))
            times[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: statistics.median(t) for name, t in times.items()}


def table(title: str, figures: dict[str, float]) -> None:
    """Print microseconds per call and the ratio to raw httpx."""
    print(f"\n{title}")
    for name, us in figures.items():
        print(f"  {name:28} {us:9.0f} us a call {1e6 / us:8.0f} calls/s   {us / figures['raw httpx']:6.2f} x raw httpx")


def main() -> None:
    """Start the server, run every contest, print the tables, end the server."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        url = f"{base}/chat/completions"
        provider = openai.provider(name="local", base_url=base, key=Secret("benchmark"))
        models = [Model("local", f"m{i}", 5 - i / 10, flat("user", "m", input=1, output=2), 128_000) for i in range(5)]
        with (
            tempfile.TemporaryDirectory() as home,
            httpx.Client() as raw,
            tk.Kit(home=home, providers=[provider], models=models, environ={}) as kit,
        ):
            world = World()
            sync = {
                "raw httpx": lambda: raw.post(url, content=BODY, headers=HEADERS).json(),
                "our driver": lambda: drive(trivial(url), world),
                "the whole kit": lambda: kit.call(PROMPT, max_tokens=100),
            }
            one_after_another(sync, 50, 2)
            table("sync, one after another", one_after_another(sync, 100, 9))
            with ThreadPoolExecutor(64) as threads:
                crowd = {
                    name: lambda call=call: list(threads.map(lambda _: call(), range(640)))
                    for name, call in sync.items()
                }
                table("sync, 64 threads", {k: v / 640 for k, v in one_after_another(crowd, 1, 3).items()})
            asyncio.run(asynchronous(kit, url))
            table("once more, sync, one after another", one_after_another(sync, 100, 5))
    finally:
        server.terminate()
        server.wait()


async def asynchronous(kit: tk.Kit, url: str) -> None:
    """The async contests, in one event loop."""
    async with httpx.AsyncClient(timeout=60) as raw:
        world = AsyncWorld()

        async def posted() -> object:
            return (await raw.post(url, content=BODY, headers=HEADERS)).json()

        contestants: dict[str, Callable[[], Awaitable[object]]] = {
            "raw httpx": posted,
            "our driver": lambda: adrive(trivial(url), world),
            "the whole kit": lambda: kit.acall(PROMPT, max_tokens=100),
        }
        await one_after_another_async(contestants, 50, 1)
        table("async, one after another", await one_after_another_async(contestants, 100, 9))
        table("async, 64 at once", await at_once(contestants, 64, 640, 3))
        await world.aclose()


if __name__ == "__main__":
    main()
