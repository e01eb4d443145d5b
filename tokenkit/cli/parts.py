"""What every command is made of: a parser that answers mistakes in one sentence, groups of verbs, the kit."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenkit.errors import UserError

if TYPE_CHECKING:
    from tokenkit.kit import Kit

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """argparse that answers a wrong command or option with one sentence that helps."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse says NoReturn; raising is that
        raise UserError(f"{self.prog}: {message}. `{self.prog} -h` lists what there is.")


def group(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    about: str,
    verbs: dict[str, tuple[Run, str]],
) -> dict[str, Parser]:
    """Add a command with verbs; return the parser of each verb."""
    inner = commands.add_parser(name, help=about, description=about).add_subparsers(metavar="VERB", required=True)
    made = {}
    for verb, (run, help_) in verbs.items():
        made[verb] = inner.add_parser(verb, help=help_, description=help_)
        made[verb].set_defaults(run=run)
    return made


def kit_of(said: argparse.Namespace) -> Kit:
    """Return the kit that the command line asks."""
    from tokenkit.kit import Kit

    return Kit(said.config)
