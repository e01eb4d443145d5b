"""Being stopped: Ctrl-C and cancels come through at once, clean, and leave a pool that works."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import faults
import pytest
from faults import OK, FaultServer, reply
from test_drivers import CANARY, asking, assert_clean

from tokenkit.drivers import AsyncWorld, World, adrive, drive, stream
from tokenkit.effects import Flow


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def watching(flow: Flow, ended: list[BaseException]) -> Flow:
    """Note what ended a flow, as the flow saw it."""
    try:
        return (yield from flow)
    except BaseException as stop:
        ended.append(stop)
        raise


def interrupted(work: Callable[[], object], after: float = 0.2) -> KeyboardInterrupt:
    """Run ``work`` with a Ctrl-C coming, and return the interrupt that comes out of it."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(after, lambda: signal.pthread_kill(main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            work()
    finally:
        signal.signal(signal.SIGINT, before)
        timer.join()
    assert time.monotonic() - began < after + faults.SLACK
    return caught.value


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("behaviour", [faults.hang, faults.drip_headers, faults.drip_body])
def test_after_an_interrupt_the_next_call_has_a_connection_of_its_own(
    behaviour: faults.Behaviour, whole: bool, server: FaultServer
) -> None:
    world, ended = World(), list[BaseException]()
    drive(asking(server.url), world)
    server.script(behaviour, reply())
    stop = interrupted(lambda: drive(watching(asking(server.url, whole=whole), ended), world))
    assert [type(e) for e in ended] == [KeyboardInterrupt]
    assert_clean(stop)
    assert drive(asking(server.url), world).text == OK.decode()
    assert server.connections == 2
    world.close()


def test_an_interrupt_while_sending_shows_nothing_of_what_was_sent() -> None:
    """The frame that sends has the key among its bytes; a verbose traceback would print them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it never reads
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended: list[BaseException] = []
        stop = interrupted(lambda: drive(watching(asking(url, body=bytes(32 << 20)), ended), World()))
    for frame, _ in (*traceback.walk_tb(stop.__traceback__), *traceback.walk_tb(ended[0].__traceback__)):
        assert not [v for v in frame.f_locals.values() if isinstance(v, bytes) and CANARY.encode() in v]


@pytest.mark.parametrize("behaviour", [faults.hang, faults.drip_headers, faults.drip_body])
def test_a_cancel_comes_through_at_once_and_clean(behaviour: faults.Behaviour, server: FaultServer) -> None:
    server.script(behaviour, reply())
    ended: list[BaseException] = []

    async def main() -> BaseException:
        world = AsyncWorld()
        task = asyncio.ensure_future(adrive(watching(asking(server.url), ended), world))
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        began = time.monotonic()
        (stop,) = await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - began < faults.SLACK
        assert (await adrive(asking(server.url), world)).text == OK.decode()
        await world.aclose()
        return stop

    stop = asyncio.run(main())
    assert isinstance(stop, asyncio.CancelledError)
    assert [type(e) for e in ended] == [asyncio.CancelledError]
    assert_clean(ended[0])
    assert_clean(stop)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_ends_its_parents_stream_does_not_take_the_connection(server: FaultServer) -> None:
    """The parent's stream is open across the fork; what the child does with it stays out of the child's pool."""
    server.script(faults.streamed(b"abcdefgh" * 4, size=8, delay=0.02), reply())
    world = World()
    steps = stream(asking(server.url, whole=False), world)
    next(steps)
    child = os.fork()
    if child == 0:
        try:
            steps.close()
            drive(asking(server.url), world)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert "".join(delta.text for delta in steps).endswith("abcdefgh")
    assert server.connections == 2
    world.close()
