"""How a key or a passphrase comes in: asked for, checked, and hidden from tracebacks on the way.

A traceback with locals prints every variable of every frame. So plain text lives here only inside expressions, and
in a parameter for as long as it takes to hide it; functions that raise hold a ``Secret`` or a ``Hidden``.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tokenkit.errors import VaultError
from tokenkit.types import Secret

KEY_VARIABLE = "TOKENKIT_VAULT_KEY"
MAX_KEY = 8192  # characters; the longest vendor tokens (signed JWTs) stay below 4,096

T = TypeVar("T")
Passphrase = str | Secret | Callable[[], str] | None
"""A passphrase, something that returns one when it is needed, or ``None``: ask the person at the keyboard."""

NAMES = (
    "A name in the vault is 1 to 64 letters, digits or . _ - / : @ + and begins with a letter or a digit; "
    "the key itself goes second, as in vault.set('openai', key)."
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,63}")


class VaultLocked(VaultError):
    """What the vault needs is not here: no passphrase, no environment key, and nobody at a keyboard to ask."""


class Hidden(Generic[T]):
    """A value that shows itself to nobody, as :class:`Secret` does for text."""

    __slots__ = ("__value",)

    def __init__(self, value: T) -> None:
        self.__value = value

    def reveal(self) -> T:
        """Return the value itself; call it inside an expression, never into a variable."""
        return self.__value

    def __repr__(self) -> str:
        return "Hidden(…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("Hidden key material cannot be pickled or copied to another process.")


def hide(passphrase: Passphrase) -> Callable[[], str] | None:
    """Turn any form of passphrase into a function whose repr says nothing; ``None`` stays ``None``."""
    if passphrase is None:
        return None
    if isinstance(passphrase, Secret):
        return passphrase.reveal
    if callable(passphrase):
        hidden = Hidden(passphrase)  # its own repr may show arguments, as functools.partial's does
        return lambda: hidden.reveal()()
    return Secret(passphrase).reveal


def passphrase_material(given: Callable[[], str] | None, prompt: str, *, twice: bool = False) -> Hidden[bytes]:
    """Return the bytes a passphrase stands for, asking at the keyboard when none was given.

    Composed to NFC, so that one passphrase typed on two systems is one key; a line end at its close is dropped, so
    that a passphrase read from a file is the one typed by hand. Raises VaultError when it is empty, VaultLocked when
    there is nobody to ask.
    """
    secret = Secret(given()) if given is not None else _asked(prompt)
    if not isinstance(secret.reveal(), str) or not secret.reveal().rstrip("\r\n"):
        raise VaultError("The passphrase is empty or not text: a vault needs one that is worth its keys.")
    if twice and given is None and _asked("The same again: ").reveal() != secret.reveal():
        raise VaultError("The two passphrases differ: nothing was changed.")
    # surrogatepass: a failing encode would carry the passphrase inside its exception.
    return Hidden(unicodedata.normalize("NFC", secret.reveal().rstrip("\r\n")).encode("utf-8", "surrogatepass"))


def environment_material(environ: Hidden[Mapping[str, str]], path: object) -> Hidden[bytes]:
    """Return the 32 bytes of TOKENKIT_VAULT_KEY (64 hex digits or base64); VaultLocked when it is not set."""
    if not has_environment_key(environ):
        raise VaultLocked(f"The vault {path} is locked with an environment key, and {KEY_VARIABLE} is not set.")
    material = _key_bytes(Secret(environ.reveal()[KEY_VARIABLE].strip()))
    if material is None:
        raise VaultError(
            f"{KEY_VARIABLE} must be 32 random bytes written as 64 hex digits or as base64; "
            "`python -c 'import secrets; print(secrets.token_hex(32))'` makes one."
        )
    return material


def has_environment_key(environ: Hidden[Mapping[str, str]]) -> bool:
    """Say whether TOKENKIT_VAULT_KEY is set to anything."""
    return bool(environ.reveal().get(KEY_VARIABLE, "").strip())


def asked_key(name: str) -> Secret:
    """Ask for the key of ``name`` without echoing it."""
    return _asked(f"Key for {name}: ")


def checked(secret: Secret, what: str) -> Secret:
    """Return the key with the blanks around it removed.

    Raises VaultError, without quoting the key, when it cannot be a header value: empty, blanks or control characters
    inside, non-ASCII (usually a copying accident), quoted, or longer than 8,192 characters. ``what`` names its place.
    """
    problem = _problem(secret)
    if problem:
        raise VaultError(f"{what} {problem}.")
    return Secret(secret.reveal().strip())


def is_name(name: object) -> bool:
    """Say whether ``name`` can name an entry: see :data:`NAMES`."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _problem(secret: Secret) -> str | None:
    if not isinstance(secret.reveal(), str):
        return "must be text"
    if not secret.reveal().strip():
        return "is empty"
    if not secret.reveal().strip().isascii():
        return "holds characters outside ASCII, usually an accident of copying: copy it again from the provider's page"
    if re.search(r"[\x00-\x20\x7f]", secret.reveal().strip()):
        return "holds a blank, a line break or a control character inside: copy it again, in one piece"
    if re.fullmatch(r"(['\"]).*\1", secret.reveal().strip()):
        return "is wrapped in quotation marks: give it without them"
    if len(secret.reveal().strip()) > MAX_KEY:
        return f"is longer than {MAX_KEY:,} characters, and no provider's key is"
    return None


def _key_bytes(text: Secret) -> Hidden[bytes] | None:
    # binascii is C: the pure-Python base64 module would leave the key in the locals of its own frame.
    for read in (_from_hex, _from_base64):
        try:
            found = Hidden(read(text))
        except (ValueError, TypeError):
            continue
        if len(found.reveal()) == 32:
            return found
    return None


def _from_hex(text: Secret) -> bytes:
    return binascii.unhexlify(text.reveal())


def _from_base64(text: Secret) -> bytes:
    return binascii.a2b_base64(text.reveal().rstrip("=").translate(_URL_SAFE) + "=", strict_mode=True)


_URL_SAFE = {ord("-"): "+", ord("_"): "/"}


def _asked(prompt: str) -> Secret:
    import getpass
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would read with echo on
            return Secret(getpass.getpass(prompt))
    except (EOFError, OSError, NotImplementedError, getpass.GetPassWarning) as error:
        reason = type(error).__name__
    raise VaultLocked(f"{prompt.rstrip(': ')}: there is nobody here to ask ({reason}), so it has to be passed in.")
