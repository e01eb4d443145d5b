"""The drivers against real sockets: the same outcomes in sync and async, deadlines that hold, keys that stay."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import faults
import httpx
import pytest
from faults import FaultServer, reply
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.drivers import AsyncWorld, World, adrive, astream, drive, stream
from tokenkit.effects import Drain, Flow, LocalAnswer, Open, Show, Sleep, WireRequest
from tokenkit.errors import DeadlineExceeded, ProtocolError, TokenkitError, TransportError
from tokenkit.types import Delta, Response, Secret

CANARY = "sk-canary-5c9e4f7a1b2d3c6e"


def asking(url: str, *, deadline: float | None = None, whole: bool = True, body: bytes = b"{}") -> Flow:
    """Open and drain, whole or piece by piece."""
    auth = ("authorization", "Bearer ", Secret(CANARY))
    limit = None if deadline is None else time.monotonic() + deadline
    reply = yield Open(WireRequest("POST", f"{url}/v1/chat/completions", body, auth=auth), limit)
    if whole:
        data = yield Drain(reply.source, whole=True)
        return Response(data.decode(), id=str(reply.status))
    parts = []
    while data := (yield Drain(reply.source)):
        parts.append(data)
        yield Show(Delta(data.decode("utf-8", "replace")))
    return Response(b"".join(parts).decode(), id=str(reply.status))


def watched(url: str, told: list[type]) -> Flow:
    """Open and drain piece by piece, and note of what kind the exception is that ends it."""
    try:
        return (yield from asking(url, whole=False))
    except BaseException as stop:
        told.append(type(stop))
        raise


def in_sync(flow: Callable[[], Flow]) -> Response:
    world = World()
    try:
        return drive(flow(), world)
    finally:
        world.close()


def in_async(flow: Callable[[], Flow]) -> Response:
    async def main() -> Response:
        return await adrive(flow(), AsyncWorld())

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("run", [in_sync, in_async], ids=["sync", "async"])


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@BOTH
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "behaviour",
    [reply(), faults.streamed(faults.OK), faults.streamed(faults.OK, size=1), faults.until_closed(faults.OK)],
    ids=["length", "chunked", "byte by byte", "until closed"],
)
def test_every_framing_gives_the_same_body(run: Any, whole: bool, behaviour: Any, server: FaultServer) -> None:
    server.script(behaviour)
    response = run(lambda: asking(server.url, whole=whole, body=b'{"a":1}'))
    assert response.text == faults.OK.decode()
    (seen,) = server.requests
    assert seen.body == b'{"a":1}'
    assert seen.headers["authorization"] == f"Bearer {CANARY}"
    assert seen.headers["accept-encoding"] == "identity"


@BOTH
def test_a_compressed_answer_is_unpacked_though_it_was_not_asked_for(run: Any, server: FaultServer) -> None:
    import gzip

    server.script(reply(200, gzip.compress(faults.OK), {"content-encoding": "gzip"}))
    assert run(lambda: asking(server.url)).text == faults.OK.decode()


@BOTH
@pytest.mark.parametrize("behaviour", [faults.short(), faults.reset, faults.streamed(faults.OK, end=False)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_cut_is_an_error_of_ours_without_foreign_frames_or_keys(
    run: Any, behaviour: Any, whole: bool, server: FaultServer
) -> None:
    server.script(behaviour)
    with pytest.raises(TransportError) as caught:
        run(lambda: asking(server.url, whole=whole))
    assert caught.value.sent
    assert_clean(caught.value)


@BOTH
def test_a_refused_connection_says_that_nothing_was_sent(run: Any) -> None:
    with FaultServer() as gone:
        url = gone.url
    with pytest.raises(TransportError) as caught:
        run(lambda: asking(url))
    assert not caught.value.sent
    assert_clean(caught.value)


@BOTH
@pytest.mark.parametrize("behaviour", [faults.hang, faults.drip_headers, faults.drip_body])
def test_a_deadline_holds_against_hang_and_drip(run: Any, behaviour: Any, server: FaultServer) -> None:
    server.script(behaviour)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        run(lambda: asking(server.url, deadline=0.4))
    assert 0.35 < time.monotonic() - began < 0.4 + faults.SLACK
    assert_clean(caught.value)


@BOTH
def test_a_deadline_holds_against_a_server_that_does_not_accept(run: Any) -> None:
    kept, url = faults.unaccepting()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        run(lambda: asking(url, deadline=0.4))
    assert time.monotonic() - began < 0.4 + faults.SLACK
    for sock in kept:
        sock.close()


@BOTH
def test_a_redirect_is_not_followed_and_the_key_stays(run: Any, server: FaultServer) -> None:
    with FaultServer() as elsewhere:
        server.script(reply(307, b"", {"location": f"{elsewhere.url}/steal"}))
        assert run(lambda: asking(server.url)).id == "307"
        assert elsewhere.requests == []


def test_connections_are_kept_and_a_stale_one_is_noticed_before_sending(server: FaultServer) -> None:
    world = World()
    for _ in range(3):
        drive(asking(server.url), world)
    assert server.connections == 1
    server.script(faults.close_after(reply()), reply())
    drive(asking(server.url), world)
    time.sleep(0.05)  # the server's FIN needs a moment on loopback
    drive(asking(server.url), world)
    assert server.connections == 2
    assert len(server.requests) == 5
    world.close()


def test_threads_share_a_world(server: FaultServer) -> None:
    world = World()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                assert drive(asking(server.url), world).text == faults.OK.decode()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(server.requests) == 160
    world.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_no_connection_of_its_parents(server: FaultServer) -> None:
    world = World()
    drive(asking(server.url), world)
    child = os.fork()
    if child == 0:
        try:
            drive(asking(server.url), world)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    drive(asking(server.url), world)
    assert server.connections == 2
    world.close()


def test_an_interrupt_stops_a_blocking_read_at_once_and_reaches_the_flow(server: FaultServer) -> None:
    server.script(faults.hang)
    ended: list[BaseException] = []

    def watched() -> Flow:
        try:
            return (yield from asking(server.url))
        except BaseException as stop:
            ended.append(stop)
            raise

    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            drive(watched(), World())
    finally:
        signal.signal(signal.SIGINT, before)
        timer.join()
    assert time.monotonic() - began < 0.2 + faults.SLACK
    assert isinstance(ended[0], KeyboardInterrupt)
    assert_clean(caught.value)


def test_leaving_a_stream_early_tells_the_flow(server: FaultServer) -> None:
    server.script(faults.streamed(b"abcdefgh" * 50, size=8, delay=0.005))
    told: list[type] = []

    for delta in stream(watched(server.url, told), World()):
        assert delta.text
        break
    gc.collect()
    assert told == [GeneratorExit]

    async def main() -> None:
        steps = astream(watched(server.url, told), AsyncWorld())
        async for _ in steps:
            break
        await steps.aclose()

    asyncio.run(main())
    assert told == [GeneratorExit, GeneratorExit]


def test_cancelled_calls_do_not_wear_out_the_pool(server: FaultServer) -> None:
    """After many calls cancelled at random moments, twenty plain ones all succeed, quickly."""
    many = 10_000 if os.environ.get("TOKENKIT_LONG") else 600
    server.script(faults.streamed(faults.OK, size=40, delay=0.001))

    async def main() -> float:
        import random

        chance = random.Random(1)
        world = AsyncWorld()

        async def once() -> None:
            task = asyncio.ensure_future(adrive(asking(server.url), world))
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(many // 20):
            await asyncio.gather(*(once() for _ in range(20)))
        server.script(reply())
        began = time.monotonic()
        answers = await asyncio.gather(*(adrive(asking(server.url, deadline=5), world) for _ in range(20)))
        assert all(a.text == faults.OK.decode() for a in answers)
        await world.aclose()
        return time.monotonic() - began

    assert asyncio.run(main()) < 5 + faults.SLACK  # their deadline; a tenth of a second on a quiet machine


@pytest.mark.parametrize("times", [3])
def test_one_world_serves_event_loops_that_come_and_go(times: int, server: FaultServer) -> None:
    world = AsyncWorld()
    for _ in range(times):
        assert asyncio.run(adrive(asking(server.url), world)).text == faults.OK.decode()
    gc.collect()  # an unclosed session would warn here, and warnings are errors


def test_a_client_of_your_own_is_used_in_sync_and_async() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=faults.OK)

    mock = httpx.MockTransport(handler)
    assert drive(asking("http://model.test"), World(transport=mock)).text == faults.OK.decode()
    with httpx.Client(transport=mock) as client:
        assert drive(asking("http://model.test", whole=False), World(client=client)).text == faults.OK.decode()

    async def main() -> str:
        async with httpx.AsyncClient(transport=mock) as client:
            return (await adrive(asking("http://model.test"), AsyncWorld(client=client))).text

    assert asyncio.run(main()) == faults.OK.decode()
    assert {r.headers["authorization"] for r in seen} == {f"Bearer {CANARY}"}


def test_your_clients_failures_are_mapped_too() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route for " + request.headers["authorization"])

    with pytest.raises(TransportError) as caught:
        drive(asking("http://model.test"), World(transport=httpx.MockTransport(handler)))
    assert not caught.value.sent
    assert_clean(caught.value)


def test_an_unknown_encoding_is_said(server: FaultServer) -> None:
    server.script(reply(200, b"x", {"content-encoding": "br"}))
    with pytest.raises(ProtocolError, match="br"):
        in_sync(lambda: asking(server.url))


# One flow, two drivers: whatever a scripted world answers, both leave the same trace.

steps = st.lists(st.sampled_from(["open", "drain", "show", "sleep"]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans(), st.integers(0, 3))
def test_sync_and_async_leave_the_same_trace(plan: list[str], fails: bool, chunks: int) -> None:
    def local(wire: WireRequest) -> LocalAnswer:
        if fails:
            raise TransportError("as scripted", sent=False)
        return LocalAnswer(200, {}, 0.0, [(0.0, b"piece")] * chunks)

    def flow(trace: list[object]) -> Flow:
        source: object = None
        for step in plan:
            try:
                if step == "open":
                    reply = yield Open(WireRequest("POST", "simulated://x/y"))
                    source = reply.source
                    trace.append(reply.status)
                elif step == "drain" and source is not None:
                    trace.append((yield Drain(source)))
                elif step == "show":
                    trace.append((yield Show(Delta("d"))))
                elif step == "sleep":
                    trace.append((yield Sleep(0.0, "why")))
            except TokenkitError as error:
                trace.append(str(error))
        return Response(repr(trace))

    worlds = {"simulated://x": local}
    one: list[object] = []
    two: list[object] = []
    first = drive(flow(one), World(locals=worlds))
    second = asyncio.run(adrive(flow(two), AsyncWorld(locals=worlds)))
    assert (one, first) == (two, second)


def assert_clean(error: BaseException) -> None:
    """No frame of a foreign HTTP library, no cause or context, and no key in any traceback, locals included."""
    from IPython.core.ultratb import VerboseTB

    assert error.__cause__ is None
    context = error.__context__
    assert context is None or CANARY not in "".join(traceback.format_exception(context))
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    foreign = [f for f in frames if any(lib in f for lib in ("aiohttp", "httpx/", "httpcore", "http/client", "urllib"))]
    assert not foreign
    try:
        raise error
    except BaseException:
        text = VerboseTB(theme_name="nocolor").text(*sys.exc_info())
    shown = text.replace(f'CANARY = "{CANARY}"', "").replace("CANARY = ", "")
    assert f"'{CANARY}'" not in shown.replace(f"global CANARY = '{CANARY}'", "")
    assert "Bearer " + CANARY not in shown
