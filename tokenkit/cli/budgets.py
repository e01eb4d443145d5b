"""``tokenkit budget …``: limits set once, held to by every notebook and script of this home."""

from __future__ import annotations

import argparse

from tokenkit.budget import SCOPES
from tokenkit.cli.parts import Parser, group, kit_of
from tokenkit.errors import UserError
from tokenkit.money import show_usd
from tokenkit.spending import LIMITS, from_options


def commands_of(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the commands of budgets."""
    budget = group(
        commands,
        "budget",
        "limits on what may be spent",
        {
            "set-limit": (_set, "put a limit in force, for every kernel of this home"),
            "list": (_list, "show how every budget stands"),
            "remove": (_remove, "take a limit out of force"),
            "reconcile": (_reconcile, "list calls whose end nobody saw, or say what one really cost"),
        },
    )
    limit = budget["set-limit"]
    limit.add_argument("limit", nargs="?", help="such as '5 USD' or '10000 tokens'; or one of the options below")
    for name in LIMITS:
        limit.add_argument(f"--{name.replace('_', '-')}", metavar="AMOUNT")
    for name in SCOPES:
        limit.add_argument(f"--{name}", help="count only these calls; '*' gives each an account of its own")
    limit.add_argument("--window", help="request, hour, day, month or total")
    limit.add_argument("--action", help="block, warn, throttle, reroute or shrink")
    limit.add_argument("--name")
    limit.add_argument("--timezone", help="of days and months, such as Europe/Berlin; UTC without it")
    limit.add_argument("--warn-at", type=float, help="share of the limit at which to give notice, 0.8 without it")
    budget["remove"].add_argument("key", help="the budget's name, as `tokenkit budget list` shows it")
    budget["reconcile"].add_argument("call", nargs="?", help="the call's id, or how it begins")
    budget["reconcile"].add_argument("--cost", help="what the provider billed for it, in USD")
    budget["reconcile"].add_argument("--tokens", type=int, help="the tokens it billed, for budgets in tokens")
    budget["reconcile"].add_argument(
        "--dead", action="store_true", help="no kernel of this home is alive: charge calls under way now"
    )


def _set(said: argparse.Namespace) -> int:
    fields = {
        name: value
        for name, value in vars(said).items()
        if name in (*LIMITS, *SCOPES, "limit", "window", "action", "name", "timezone", "warn_at")
    }
    made = from_options(fields)
    with kit_of(said) as kit:
        for budget in made:
            print(kit.budgets.set(budget))
    return 0


def _list(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        print(kit.budgets.status())
    return 0


def _remove(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        kit.budgets.remove(said.key)
    print(f"removed {said.key}")
    return 0


def _reconcile(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        if said.call is not None:
            if said.cost is None:
                raise UserError("Say what it really cost, as in: tokenkit budget reconcile ID --cost 0.0012")
            print(kit.budgets.reconcile(said.call, said.cost, said.tokens).notes[0])
            return 0
        kit.budgets.sweep(everything=said.dead)
        unknown = kit.budgets.unknown()
        for receipt in unknown:
            print(f"{receipt.id}  {receipt.model}  charged {show_usd(receipt.cost_nanos)} in full")
        if not unknown:
            print("Every call's end is known.")
    return 0
