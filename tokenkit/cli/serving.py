"""``tokenkit serve``: this kit behind OpenAI's HTTP API, for every tool that takes a base URL."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from tokenkit.cli.parts import Parser, kit_of
from tokenkit.errors import UserError

if TYPE_CHECKING:
    from tokenkit.server import Serving

ABOUT = "serve the kit behind OpenAI's HTTP API, with its budgets, receipts and ledger"


def commands_of(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command that serves."""
    serve = commands.add_parser("serve", help=ABOUT, description=ABOUT)
    serve.add_argument("--host", default="127.0.0.1", help="where to listen; other than this machine needs a token")
    serve.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name this machine may be called by, as from a container",
    )
    serve.set_defaults(run=_serve)


def _serve(said: argparse.Namespace) -> int:
    from tokenkit.server import serve

    if not 0 <= said.port <= 65535:
        raise UserError(f"--port must be from 0 to 65535, not {said.port}.")
    # What stops a service is obeyed like Ctrl-C: the kit closes, and what was under way is settled.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with kit_of(said) as kit:
        serve(kit, said.host, said.port, names=said.allow_host, told=_tell)
    return 0


def _tell(where: Serving) -> None:
    print(f"Serving at {where.url}: give this to a client as its base_url. Ctrl-C stops it.", file=sys.stderr)
