"""A client of the caller's own beneath the drivers: as safe to cancel and as careful with keys as ours."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator

import faults
import httpx
import pytest
from faults import FaultServer, reply
from test_drivers import CANARY, asking, assert_clean

from tokenkit.drivers import AsyncWorld, World, adrive, astream, drive
from tokenkit.errors import DeadlineExceeded, TokenkitError


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def in_sync(url: str, **how: float | bool) -> str:
    with httpx.Client(trust_env=False) as client:
        return drive(asking(url, **how), World(client=client)).text  # type: ignore[arg-type]


def in_async(url: str, **how: float | bool) -> str:
    async def main() -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await adrive(asking(url, **how), AsyncWorld(client=client))).text  # type: ignore[arg-type]

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("run", [in_sync, in_async], ids=["sync", "async"])


@BOTH
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["short", "reset", "cut", "drip_body", "hang"])
def test_a_fault_beneath_your_client_is_an_error_of_ours(
    run: object, whole: bool, name: str, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    behaviours = {"short": faults.short(), "cut": faults.streamed(faults.OK, end=False)}
    server.script(behaviours.get(name) or getattr(faults, name))
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(TokenkitError) as caught:
        run(server.url, whole=whole, deadline=0.4)  # type: ignore[operator]
    assert time.monotonic() - began < 0.4 + faults.SLACK
    assert isinstance(caught.value, DeadlineExceeded) == (name in ("drip_body", "hang"))
    assert_clean(caught.value)
    assert CANARY not in caplog.text


def test_a_hang_in_mid_body_ends_at_the_deadline(server: FaultServer) -> None:
    """httpx limits each read; the one that hangs began when half the time was gone."""

    def half(sock: object) -> bool:
        sock.sendall(faults.head(200, 100))  # type: ignore[attr-defined]
        time.sleep(0.3)
        sock.sendall(b"x" * 50)  # type: ignore[attr-defined]
        time.sleep(1 + faults.SLACK)
        return False

    for run in (in_sync, in_async):
        server.script(half)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            run(server.url, whole=False, deadline=0.6)
        assert time.monotonic() - began < 0.6 + faults.SLACK


def test_cancelled_calls_do_not_wear_out_your_clients_pool(server: FaultServer) -> None:
    """httpx's own pool of 10 loses a connection with each call cancelled inside it; here it is never cancelled."""
    server.script(faults.streamed(faults.OK, size=40, delay=0.001))

    async def main() -> None:
        chance = random.Random(2)
        limits = httpx.Limits(max_connections=10)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
            world = AsyncWorld(client=client)

            async def once() -> None:
                task = asyncio.ensure_future(adrive(asking(server.url, whole=False), world))
                await asyncio.sleep(chance.random() * 0.02)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            for _ in range(20):
                await asyncio.gather(*(once() for _ in range(10)))
            server.script(reply())
            answers = await asyncio.gather(*(adrive(asking(server.url, deadline=5), world) for _ in range(20)))
            assert {a.text for a in answers} == {faults.OK.decode()}

    asyncio.run(main())


def test_an_abandoned_stream_of_your_client_gives_its_connection_back(server: FaultServer) -> None:
    server.script(faults.streamed(b"abcdefgh" * 50, size=8, delay=0.005), reply())

    async def main() -> str:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
            world = AsyncWorld(client=client)
            async for _ in astream(asking(server.url, whole=False), world):
                break
            return (await adrive(asking(server.url, deadline=3), world)).text

    assert asyncio.run(main()) == faults.OK.decode()
