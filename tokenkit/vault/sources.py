"""Where a provider's key is looked for, and in which order: the environment, the vault, the system's keyring."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tokenkit.errors import ConfigError, VaultError
from tokenkit.types import Secret
from tokenkit.vault.keys import Hidden, VaultLocked, checked
from tokenkit.vault.store import Vault

KEYRING_SERVICE = "tokenkit"

log = logging.getLogger("tokenkit.vault")


class KeyStore(Protocol):
    """What is needed of a keyring: the one function of the ``keyring`` package that we call."""

    def get_password(self, service_name: str, username: str, /) -> str | None: ...


def system_keyring() -> KeyStore | None:
    """Return the ``keyring`` package as a source of keys, or ``None`` where it is not installed."""
    try:
        module: Any = importlib.import_module("keyring")  # optional: no dependency of ours brings it
    except ImportError:
        return None
    found: KeyStore = module
    return found


def find_key(
    provider: str,
    names_in_environment: Sequence[str],
    vault: Vault | None = None,
    keyring: KeyStore | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Secret | None:
    """Return the key of ``provider``, or ``None`` when it is nowhere.

    The environment wins (its variables in the order given): it is set for one process, on purpose, and most often
    to override what is stored. Then the vault, then the keyring (service ``tokenkit``, user name ``provider``).
    A variable that is empty, a vault that does not exist or that nothing here can unlock, and a keyring that fails
    are passed over. Raises ConfigError for a variable that cannot be a key, VaultError for a wrong passphrase or a
    damaged vault.
    """
    hidden: Hidden[Mapping[str, str]] = Hidden(os.environ if environ is None else environ)
    environ = None  # a traceback would print the whole environment with this frame
    for name in names_in_environment:
        if hidden.reveal().get(name, "").strip():
            return _from_environment(Secret(hidden.reveal()[name]), name)
    if vault is not None:
        try:
            found = vault.find(provider)
        except VaultLocked as locked:
            log.info("No key for %s from the vault: %s", provider, locked)
        else:
            if found is not None:
                return found
    return None if keyring is None else _from_keyring(keyring, provider)


def _from_environment(secret: Secret, name: str) -> Secret:
    try:
        return checked(secret, f"The environment variable {name}")
    except VaultError as error:
        problem = str(error)
    raise ConfigError(problem)


def _from_keyring(keyring: KeyStore, provider: str) -> Secret | None:
    try:
        secret = Secret(keyring.get_password(KEYRING_SERVICE, provider) or "")
    except Exception as error:  # a keyring fails in the words of its backend: D-Bus, Keychain, a locked file
        log.info("No key for %s from the keyring: %s", provider, type(error).__name__)
        return None
    return checked(secret, f"The keyring's entry for {provider}") if secret.reveal().strip() else None
