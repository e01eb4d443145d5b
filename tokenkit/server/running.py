"""Running: who may reach the server is settled here, before its socket opens; then it runs here or in a thread.

Whoever reaches the server spends its owner's money. So it binds to this machine alone unless told otherwise, and then
only with a token.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tokenkit.errors import UserError
from tokenkit.server.guarding import LARGEST_BODY, LOCAL_NAMES, MOST_AT_ONCE, Guard, host_name, is_loopback
from tokenkit.types import Secret

if TYPE_CHECKING:
    from tokenkit.kit import Kit

TOKEN = "TOKENKIT_SERVER_TOKEN"  # noqa: S105 - the variable's name
"""The environment variable that holds the token callers must send."""

HOST, PORT = "127.0.0.1", 8000

GOODBYE_SECONDS = 10
"""How long calls under way may go on once the server was told to stop; then they are cancelled, and settled."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a server answers: ``url`` is what an OpenAI client takes as its ``base_url``."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """The address without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"{self.address}/v1"


def application(
    kit: Kit,
    *,
    host: str = HOST,
    token: Secret | str | None = None,
    names: Iterable[str] = (),
    largest_body: int = LARGEST_BODY,
    most: int = MOST_AT_ONCE,
) -> Any:
    """Return the ASGI application that serves ``kit``, guarded for a server bound to ``host``.

    ``token`` must be sent by every caller; ``names`` are further names the server may be called by, beside those of
    this machine; ``largest_body`` is bytes; ``most`` calls may be under way at once. Raises UserError without the
    extra, and without a token where ``host`` can be reached from other machines.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed here. Install it with: pip install 'tokenkit[server]'")
    secret = Secret(token) if isinstance(token, str) and token else token or None
    if secret is None and not is_loopback(host):
        raise UserError(
            f"Other machines can reach {host}, and every call costs you: put a token that callers must send into the "
            f"environment variable {TOKEN}, or bind to {HOST}."
        )
    from tokenkit.server.endpoints import build

    known: frozenset[str] = frozenset()
    if is_loopback(host):
        mine = f"[{host}]" if ":" in host else host
        known = frozenset(host_name(name) for name in (*LOCAL_NAMES, mine, *names)) - {""}
    assert secret is None or isinstance(secret, Secret)  # noqa: S101 - an empty text became None above
    return Guard(build(kit, largest_body=largest_body, most=most), secret, known)


def serve(
    kit: Kit,
    host: str = HOST,
    port: int = PORT,
    *,
    environ: Mapping[str, str] | None = None,
    names: Iterable[str] = (),
    told: Callable[[Serving], None] | None = None,
) -> None:
    """Serve ``kit`` until interrupted. ``port`` 0 takes any free one; ``told`` is given the address once it is open.

    The token is read from ``TOKENKIT_SERVER_TOKEN``. Raises UserError where the address cannot be had, or may not.
    """
    app = application(kit, host=host, token=_token(os.environ if environ is None else environ), names=names)
    sock, address = _opened(host, port)
    with sock:
        if told is not None:
            told(address)
        _server(app).run(sockets=[sock])


@contextmanager
def serving(
    kit: Kit,
    host: str = HOST,
    port: int = 0,
    *,
    token: Secret | str | None = None,
    names: Iterable[str] = (),
    largest_body: int = LARGEST_BODY,
    most: int = MOST_AT_ONCE,
) -> Iterator[Serving]:
    """Serve ``kit`` in a thread for as long as the block lasts; calls under way at its end are given time to end."""
    app = application(kit, host=host, token=token, names=names, largest_body=largest_body, most=most)
    sock, address = _opened(host, port)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="tokenkit-server", daemon=True)
    with sock:
        thread.start()
        try:
            # The socket listens already: who connects before the loop runs is answered once it does.
            yield address
        finally:
            server.should_exit = True
            thread.join()


def _token(environ: Mapping[str, str]) -> Secret | None:
    token = environ.get(TOKEN, "").strip()
    return Secret(token) if token else None


def _opened(host: str, port: int) -> tuple[socket.socket, Serving]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small writes at once (TCP_NODELAY) only where the socket says that it is TCP. Otherwise each answer,
    # whose head and body are two writes, waits some 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except (OSError, OverflowError, UnicodeError) as error:
        sock.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no address of this machine"
        raise UserError(f"{host}:{port} cannot be served on: {why.lower()}. Try --port 0, which takes any.") from None
    return sock, Serving(host, sock.getsockname()[1])


def _server(app: Any) -> Any:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who forwards a request cannot change whom it is taken to come from
        ws="none",
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        timeout_keep_alive=75,
    )
    return uvicorn.Server(config)
