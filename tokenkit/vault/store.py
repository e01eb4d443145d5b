"""The vault itself: provider keys by name in one encrypted file that several processes may share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tokenkit.errors import VaultError
from tokenkit.types import Secret
from tokenkit.vault.files import locked, make_private, read, replace_file
from tokenkit.vault.keys import (
    NAMES,
    Hidden,
    Passphrase,
    asked_key,
    checked,
    environment_material,
    has_environment_key,
    hide,
    is_name,
    passphrase_material,
)
from tokenkit.vault.sealed import ARGON2ID, HKDF, MAX_FILE, Derivation, Opened, Wrapping, derive, parse, seal, unseal


class Vault:
    """Provider keys in one file, encrypted with AES-256-GCM and verified whole at every open.

    The wrapping key comes from a passphrase (Argon2id: 64 MiB, 3 passes, 4 lanes) or from the 32 bytes of
    ``TOKENKIT_VAULT_KEY`` (HKDF-SHA256); the file itself says which. ``passphrase`` may be text, a function called
    when it is needed, or ``None``: asked for at the keyboard. ``environ`` stands in for ``os.environ``.
    Nothing is read before the first use; the derived key is kept in memory until the object goes.

        >>> vault = Vault("~/.config/tokenkit/vault")   # doctest: +SKIP
        >>> vault.create().set("openai")                # doctest: +SKIP
        New passphrase for /home/me/.config/tokenkit/vault: ········
    """

    __slots__ = ("__weakref__", "_environ", "_passphrase", "_unlocked", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        passphrase: Passphrase = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._passphrase = hide(passphrase)
        self._environ: Hidden[Mapping[str, str]] = Hidden(os.environ if environ is None else environ)
        passphrase = environ = None  # here and below: a traceback would print them with this frame
        self._unlocked: Wrapping | None = None
        # Resolved once: a link stays a link when its target is replaced, and two names of one file share one lock.
        self.path = Path(os.path.realpath(Path(path).expanduser()))

    @property
    def exists(self) -> bool:
        """Whether there is a file yet."""
        return os.path.exists(self.path)  # Path.exists raises where a folder above is closed to us

    def create(self) -> Vault:
        """Make an empty vault, its file 0600 in a folder 0700 (where the folder is new), and return it unlocked.

        Locked with the passphrase if one was given, else with ``TOKENKIT_VAULT_KEY`` if it is set, else with a
        passphrase asked for twice. Raises VaultError when the file exists.
        """
        self._must_not_exist(self.path)
        by_environment = self._passphrase is None and has_environment_key(self._environ)
        wrapping = self._new_wrapping(self._passphrase, self._environ if by_environment else None)
        make_private(self.path.parent)
        with locked(self.path):
            self._must_not_exist(self.path)
            replace_file(self.path, seal({}, wrapping))
        self._unlocked = wrapping
        return self

    def set(self, name: str, key: str | Secret | None = None) -> None:
        """Keep ``key`` under ``name``, in place of any other; ``None`` asks for it without echo.

        Blanks around the key are dropped. Raises VaultError for a key that is empty, has blanks, line breaks or
        control characters inside, or is not ASCII.
        """
        given = key if key is None or isinstance(key, Secret) else Secret(key)
        key = None
        if not is_name(name):
            name = ""  # it may be the key, in the wrong place
            raise VaultError(NAMES)
        self._open()  # a wrong passphrase is said before the key is asked for
        secret = checked(asked_key(name) if given is None else given, f"The key for {name}")
        self._change(lambda keys: keys.update({name: secret}))

    def get(self, name: str) -> Secret:
        """Return the key kept under ``name``; VaultError when there is none."""
        return self._open().key(name)

    def find(self, name: str) -> Secret | None:
        """Return the key kept under ``name``; ``None`` when there is none, or no vault at all."""
        if not self.exists:
            return None
        opened = self._open()
        return opened.key(name) if name in opened.names else None

    def names(self) -> tuple[str, ...]:
        """Return the names in the vault, sorted; every byte of the file has been verified when they come."""
        return self._open().names

    def delete(self, name: str) -> None:
        """Remove the key kept under ``name``; VaultError when there is none."""
        self._open().key(name)
        self._change(lambda keys: keys.pop(name, None))

    def rotate(self, passphrase: Passphrase = None, *, environ: Mapping[str, str] | None = None) -> None:
        """Lock the vault anew, with a fresh salt: with ``passphrase``, or with the key in ``environ``, or asked for.

        Keys stay as they are. Of ``environ`` only ``TOKENKIT_VAULT_KEY`` is read, which holds the new key; it takes
        precedence over ``passphrase``, and VaultLocked says when it is not there.
        """
        given = hide(passphrase)
        fresh: Hidden[Mapping[str, str]] | None = None if environ is None else Hidden(environ)
        passphrase = environ = None
        self._open()
        wrapping = self._new_wrapping(given, fresh)
        with locked(self.path):
            replace_file(self.path, seal(self._open().keys(), wrapping))
            self._unlocked = wrapping
            if fresh is not None:
                self._environ = fresh
            elif given is not None:
                self._passphrase = given

    def export(self, path: str | os.PathLike[str], passphrase: Passphrase = None) -> tuple[str, ...]:
        """Write every key to a new file under its own passphrase (asked for if ``None``) and return their names.

        The file is a vault too. Raises VaultError when ``path`` exists: an older export is worth keeping.
        """
        given = hide(passphrase)
        passphrase = None
        target = Path(os.path.realpath(Path(path).expanduser()))
        self._must_not_exist(target)
        keys = self._open().keys()
        material = passphrase_material(given, f"Passphrase for {target}: ", twice=True)
        data = seal(keys, derive(material, Derivation.fresh(ARGON2ID)))
        make_private(target.parent)
        replace_file(target, data)
        return tuple(sorted(keys))

    def import_(
        self, path: str | os.PathLike[str], passphrase: Passphrase = None, *, replace: bool = False
    ) -> tuple[str, ...]:
        """Take over every key of an export, or of any vault file, and return their names.

        Raises VaultError, nothing imported, when a name here has another key already, unless ``replace`` is true.
        """
        source = Vault(path, passphrase=passphrase, environ=self._environ.reveal())
        passphrase = None
        incoming = source._open().keys()
        self._change(lambda keys: _merge(keys, incoming, replace, source.path))
        return tuple(sorted(incoming))

    def __repr__(self) -> str:
        if not hasattr(self, "path"):  # a traceback out of __init__ asks too
            return "Vault(not made)"
        state = "unlocked" if self._unlocked is not None else "locked" if self.exists else "not made yet"
        return f"Vault({str(self.path)!r}, {state})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("A Vault cannot be pickled or copied to another process: open its path there.")

    def _open(self) -> Opened:
        if not self.exists:
            raise VaultError(f"There is no vault at {self.path} yet: `tokenkit vault init` or .create() makes one.")
        sealed = parse(read(self.path, MAX_FILE), self.path)
        wrapping = self._unlocked
        if wrapping is None or wrapping.derivation != sealed.derivation:  # locked, or rotated by somebody else
            wrapping = derive(self._material(sealed.derivation.kind), sealed.derivation)
        opened = unseal(sealed, wrapping)
        self._unlocked = wrapping  # only now: a wrong key is not remembered
        return opened

    def _change(self, change: Callable[[dict[str, Secret]], object]) -> None:
        # Opened once before the lock, so that asking and deriving do not keep other writers waiting.
        self._open()
        with locked(self.path):
            opened = self._open()
            keys = opened.keys()
            change(keys)
            replace_file(self.path, seal(keys, opened.wrapping))  # not self._unlocked: another thread may rotate

    def _material(self, kind: int) -> Hidden[bytes]:
        # The kind decides alone: a passphrase never goes through HKDF, whatever the header has been changed to.
        if kind == HKDF:
            return environment_material(self._environ, self.path)
        return passphrase_material(self._passphrase, f"Passphrase of {self.path}: ")

    def _new_wrapping(self, given: Callable[[], str] | None, environ: Hidden[Mapping[str, str]] | None) -> Wrapping:
        if environ is not None:
            return derive(environment_material(environ, self.path), Derivation.fresh(HKDF))
        material = passphrase_material(given, f"New passphrase for {self.path}: ", twice=True)
        return derive(material, Derivation.fresh(ARGON2ID))

    @staticmethod
    def _must_not_exist(path: Path) -> None:
        if os.path.exists(path):
            raise VaultError(f"{path} exists already and was left as it is: choose another place, or move it aside.")


def _merge(keys: dict[str, Secret], incoming: Mapping[str, Secret], replace: bool, source: Path) -> None:
    clashes = [name for name in incoming if name in keys and keys[name].reveal() != incoming[name].reveal()]
    if clashes and not replace:
        raise VaultError(
            f"{source} has other keys than the vault for {', '.join(sorted(clashes))}: nothing was imported; "
            "ask for them to be replaced, or delete them here first."
        )
    keys.update(incoming)
