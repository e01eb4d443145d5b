"""``tokenkit vault …`` and ``provider add``: keys are asked for or read from stdin, never from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tokenkit.cli.parts import Parser, group

if TYPE_CHECKING:
    from tokenkit.vault import Vault


def commands_of(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the commands of the vault."""
    vault = group(
        commands,
        "vault",
        "keys, encrypted in one file; they are asked for or read from stdin, never taken from the command line",
        {
            "init": (_vault_init, "make an empty vault, locked by a passphrase or TOKENKIT_VAULT_KEY"),
            "set": (_vault_set, "store a key under a provider's name"),
            "list": (_vault_list, "list the names that have a key"),
            "delete": (_vault_delete, "forget a key"),
            "rotate": (_vault_rotate, "lock the vault with a new passphrase"),
            "export": (_vault_export, "write all keys to another encrypted file"),
            "import": (_vault_import, "take the keys of an exported file in"),
        },
    )
    for verb in ("set", "delete"):
        vault[verb].add_argument("name", help="the provider's name, such as openai")
    for verb in ("export", "import"):
        vault[verb].add_argument("path", type=Path)


def _vault(said: argparse.Namespace) -> Vault:
    from tokenkit.assembly import vault_of
    from tokenkit.config import load

    return vault_of(load(said.config, os.environ), os.environ)


def _stdin_key() -> str | None:
    """Return the key that is piped in; ``None`` where a person sits at the keyboard, who is then asked."""
    return None if sys.stdin.isatty() else sys.stdin.readline()


def _vault_init(said: argparse.Namespace) -> int:
    print(f"made {_vault(said).create().path}")
    return 0


def _vault_set(said: argparse.Namespace) -> int:
    _vault(said).set(said.name, _stdin_key())
    print(f"stored the key of {said.name}")
    return 0


def provider_add(said: argparse.Namespace) -> int:
    from tokenkit.errors import UnknownModel
    from tokenkit.providers import registry

    if said.name not in registry.known():
        raise UnknownModel(said.name, sorted(registry.known()), what="provider")
    vault = _vault(said)
    if not vault.exists:
        vault.create()
    return _vault_set(said)


def _vault_list(said: argparse.Namespace) -> int:
    for name in _vault(said).names():
        print(name)
    return 0


def _vault_delete(said: argparse.Namespace) -> int:
    _vault(said).delete(said.name)
    print(f"forgot the key of {said.name}")
    return 0


def _vault_rotate(said: argparse.Namespace) -> int:
    _vault(said).rotate()
    print("the vault has a new passphrase")
    return 0


def _vault_export(said: argparse.Namespace) -> int:
    print(f"wrote {', '.join(_vault(said).export(said.path)) or 'no key'} to {said.path}")
    return 0


def _vault_import(said: argparse.Namespace) -> int:
    print(f"took in {', '.join(_vault(said).import_(said.path)) or 'no key'}")
    return 0
