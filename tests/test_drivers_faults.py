"""Every fault a server, a resolver or a certificate can show, through both drivers: one outcome, and the key stays."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import signal
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import OK, Behaviour, FaultServer, reply
from test_drivers import BOTH, CANARY, asking, assert_clean, in_async, in_sync, watched

from tokenkit.drivers import AsyncWorld, World, adrive, astream, drive, plain
from tokenkit.effects import Drain, Flow, Open, Sleep, WireRequest
from tokenkit.errors import DeadlineExceeded, ProtocolError, TokenkitError, TransportError
from tokenkit.types import Response


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def saying(data: bytes) -> Behaviour:
    """Send these bytes and close."""
    return lambda sock: sock.sendall(data) is not None


def packed(body: bytes, encoding: str = "gzip") -> Behaviour:
    return reply(200, body, {"content-encoding": encoding})


def bare_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packing.compress(data) + packing.flush()


HTTP = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, Behaviour] = {
    "gzip": packed(gzip.compress(OK)),
    "gzip in two members": packed(gzip.compress(OK[:20]) + gzip.compress(OK[20:])),
    "deflate": packed(zlib.compress(OK), "deflate"),
    "bare deflate": packed(bare_deflate(OK), "deflate"),
    "interim answers": saying(b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n" + HTTP + b"content-length: 2\r\n\r\n{}"),
    "line feeds alone": saying(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"),
    "a long header": reply(200, OK, {"x-long": "a" * 30_000}),
    "empty": reply(200, b""),
    "no content": saying(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "HTML": reply(502, b"<html>Bad gateway</html>", kind="text/html"),
}
FAULTS: dict[str, tuple[Behaviour, type[TokenkitError]]] = {
    "brotli unasked": (packed(b"x", "br"), ProtocolError),
    "gzip cut": (packed(gzip.compress(OK)[:-9]), TransportError),
    "no gzip": (packed(b"plain"), ProtocolError),
    "a bomb": (packed(gzip.compress(bytes(70 << 20))), ProtocolError),
    "closed at once": (saying(b""), TransportError),
    "cut in the head": (saying(HTTP + b"content-ty"), TransportError),
    "cut in the body": (faults.short(), TransportError),
    "cut in a stream": (faults.streamed(OK, end=False), TransportError),
    "reset": (faults.reset, TransportError),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9\r\n\r\n"), ProtocolError),
    "no length": (saying(HTTP + b"content-length: x\r\n\r\nhi"), ProtocolError),
    "two lengths": (saying(HTTP + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi"), ProtocolError),
    "length and chunks": (
        saying(HTTP + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        ProtocolError,
    ),
    "no chunk": (saying(HTTP + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), ProtocolError),
    "endless headers": (saying(HTTP + b"x: y\r\n" * 60_000), ProtocolError),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ANSWERS)
def test_odd_answers_read_the_same_in_sync_and_async(name: str, whole: bool, server: FaultServer) -> None:
    server.script(ANSWERS[name])
    one, two = (run(lambda: asking(server.url, whole=whole)) for run in (in_sync, in_async))
    assert one == two
    if "HTML" not in name:
        assert one.text in (OK.decode(), "{}", "")


@BOTH
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_an_error_of_ours_and_shows_no_key(
    run: Any, name: str, whole: bool, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour, kind = FAULTS[name]
    server.script(behaviour)
    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
        run(lambda: asking(server.url, whole=whole))
    assert str(caught.value).startswith(f"{server.url}: ")
    assert getattr(caught.value, "sent", True)
    assert_clean(caught.value)
    assert CANARY not in caplog.text


@BOTH
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://no-such-host.invalid", "not known|no address|temporary failure|nodename"),
        ("http://[::1", "not an address"),
        ("http://127.0.0.1:99999", "not an address"),
        ("ftp://127.0.0.1", "only http:// and https://"),
    ],
)
def test_what_cannot_be_reached_was_not_sent(run: Any, url: str, said: str) -> None:
    with pytest.raises(TransportError, match=said) as caught:
        run(lambda: asking(url))
    assert not caught.value.sent
    assert_clean(caught.value)


@BOTH
def test_a_password_in_an_address_is_neither_sent_nor_shown(run: Any, server: FaultServer) -> None:
    address = server.url.replace("http://", "http://me:hush@")
    assert run(lambda: asking(address)).text == OK.decode()
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert "@" not in server.requests[0].headers["host"]
    server.script(faults.reset)
    with pytest.raises(TransportError) as caught:
        run(lambda: asking(address))
    assert "hush" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("name", ["x-a", "authorization"])
def test_no_header_can_smuggle_another(run: Any, name: str, server: FaultServer) -> None:
    def flow() -> Flow:
        wire = WireRequest("POST", server.url, b"{}", ((name, "v\r\nx-smuggled: 1"),))
        reply = yield Open(wire)
        return Response((yield Drain(reply.source, whole=True)).decode())

    with pytest.raises(TransportError) as caught:
        run(flow)
    assert not caught.value.sent
    assert server.requests == []


@BOTH
def test_a_path_travels_as_it_was_meant(run: Any, server: FaultServer) -> None:
    run(lambda: asking(f"{server.url}/modèles/a b:go%2Fon"))
    assert server.requests[0].line == "POST /mod%C3%A8les/a%20b:go%2Fon/v1/chat/completions HTTP/1.1"


# Deadlines before there is a connection.


def resolving(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[Any]]) -> None:
    """Let the name ``scripted.test`` resolve as told; numbers and other names as ever."""
    real = socket.getaddrinfo

    def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
        if name not in ("scripted.test", b"scripted.test"):
            return real(name, *args, **kwargs)
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return answer()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def addresses(*ports: int) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def test_several_addresses_share_the_time_there_is(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    kept, url = faults.unaccepting()
    dead = int(url.rpartition(":")[2])
    resolving(monkeypatch, lambda: addresses(dead, dead, dead))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        in_sync(lambda: asking("http://scripted.test", deadline=0.3))
    assert time.monotonic() - began < 0.3 + faults.SLACK
    resolving(monkeypatch, lambda: addresses(dead, int(server.url.rpartition(":")[2])))
    assert in_sync(lambda: asking("http://scripted.test", deadline=2)).text == OK.decode()
    for sock in kept:
        sock.close()


def test_a_resolver_that_hangs_stops_neither_deadline_nor_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang() -> list[Any]:
        release.wait(2 + 2 * faults.SLACK)
        return []

    resolving(monkeypatch, hang)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        in_sync(lambda: asking("http://scripted.test", deadline=0.3))
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_sync(lambda: asking("http://scripted.test"))
    finally:
        signal.signal(signal.SIGINT, before)
        timer.join()
        release.set()
    assert time.monotonic() - began < 0.5 + 2 * faults.SLACK


# Connections that were kept.


def test_an_async_call_notices_a_closed_connection_though_the_loop_was_held_up(server: FaultServer) -> None:
    server.script(faults.close_after(reply()), reply())

    async def main() -> None:
        world = AsyncWorld()
        await adrive(asking(server.url), world)
        time.sleep(0.05)  # a cell that computes; meanwhile the server hangs up
        await adrive(asking(server.url), world)
        await world.aclose()

    asyncio.run(main())
    assert len(server.requests) == 2


def test_a_connection_idle_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    world = World()
    drive(asking(server.url), world)
    monkeypatch.setattr(plain, "IDLE_SECONDS", -1.0)
    drive(asking(server.url), world)
    assert server.connections == 2
    world.close()


def test_a_connection_that_dies_under_a_request_is_an_error_and_never_a_second_request(server: FaultServer) -> None:
    """The server took the request and reset: whether it was carried out nobody knows, so we do not send it again."""
    for run in (in_sync, in_async):
        server.requests.clear()
        server.script(reply(), faults.reset)

        def twice() -> Flow:
            yield from asking(server.url)
            return (yield from asking(server.url))

        with pytest.raises(TransportError) as caught:
            run(twice)
        assert caught.value.sent
        assert len(server.requests) == 2


def test_an_abandoned_async_stream_settles_and_frees_its_connection(server: FaultServer) -> None:
    server.script(faults.streamed(b"abcdefgh" * 500, size=8, delay=0.002))
    told: list[type] = []

    async def main() -> None:
        world = AsyncWorld()
        async for _ in astream(watched(server.url, told), world):
            break
        gc.collect()
        await asyncio.sleep(0.01)  # the loop closes what nobody holds any more
        assert told == [GeneratorExit]
        (session,) = world._pool._sessions.values()
        assert not session.connector._acquired
        await world.aclose()

    asyncio.run(main())


@BOTH
def test_a_pause_of_less_than_nothing_is_none(run: Any) -> None:
    def flow() -> Flow:
        yield Sleep(-0.5, "a date that has passed")
        return Response("on")

    assert run(flow).text == "on"


# TLS: one context, and no word to a server that cannot prove who it is.


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path, list[bytes]]]:
    """A TLS server for 127.0.0.1 with a certificate of its own: its port, the certificate, and what it was sent."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scripted")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    path = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(secret + certificate)
    (tmp_path / "ca.pem").write_bytes(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(sock, server_side=True) as line:
                    while data := line.recv(65536):
                        heard.append(data)
                        line.sendall(faults.head(200, len(OK)) + OK)
            except OSError:
                sock.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], tmp_path / "ca.pem", heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    plain.context.cache_clear()


@BOTH
def test_tls_is_verified_and_an_unproven_server_gets_no_byte(
    run: Any, secure: tuple[int, Path, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, authority, heard = secure
    plain.context.cache_clear()
    with pytest.raises(TransportError, match="certificate was not accepted") as caught:
        run(lambda: asking(f"https://127.0.0.1:{port}"))
    assert not caught.value.sent
    assert_clean(caught.value)
    assert heard == []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    plain.context.cache_clear()
    with pytest.raises(TransportError, match="certificate was not accepted"):
        run(lambda: asking(f"https://localhost:{port}"))
    assert heard == []

    def twice() -> Flow:
        yield from asking(f"https://127.0.0.1:{port}")
        return (yield from asking(f"https://127.0.0.1:{port}"))

    assert run(twice).text == OK.decode()
    assert b"".join(heard).count(CANARY.encode()) == 2


@BOTH
def test_a_server_that_never_greets_back_is_left_at_the_deadline(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the system accepts; nobody speaks
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            run(lambda: asking(f"https://127.0.0.1:{listener.getsockname()[1]}", deadline=0.3))
        assert time.monotonic() - began < 0.3 + faults.SLACK


def test_plain_http_needs_no_tls_context(server: FaultServer) -> None:
    plain.context.cache_clear()
    in_sync(lambda: asking(server.url))
    in_async(lambda: asking(server.url))
    assert plain.context.cache_info().misses == 0
