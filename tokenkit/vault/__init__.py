"""Where provider keys rest: one encrypted file, and the order in which a key is looked for.

What the file promises: without the passphrase or the environment key nobody reads a key, and nobody changes a byte,
swaps, renames, removes or repeats an entry without the next open saying so. What it cannot promise: a whole older
copy put back in its place opens as it did then, and a program that runs as you can ask you for the passphrase too.
"""

from __future__ import annotations

from tokenkit.vault.keys import KEY_VARIABLE, VaultLocked
from tokenkit.vault.sources import KeyStore, find_key, system_keyring
from tokenkit.vault.store import Vault

__all__ = ["KEY_VARIABLE", "KeyStore", "Vault", "VaultLocked", "find_key", "system_keyring"]
