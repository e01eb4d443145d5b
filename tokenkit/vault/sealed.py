"""How keys lie in the file: its bytes, what each of them is bound to, and the key that opens them.

    header   magic, version, derivation and its cost, salt
    wrapped  the file key, sealed by the derived key            bound to the header
    count    how many entries follow
    entry    length, then one key sealed by the file key        bound to the header and to its own name
    ...
    index    the names in order, sealed by the file key         bound to every byte above it
    check    SHA-256 of everything above: tells damage from a wrong key before any key is derived

*Sealed* is AES-256-GCM with a random 96-bit nonce in front. Every write draws a new file key, so no nonce can meet
the same key twice. Costs are checked against bounds before anything is derived. Numbers are big-endian.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tokenkit.errors import VaultError, did_you_mean
from tokenkit.types import Secret
from tokenkit.vault.keys import KEY_VARIABLE, Hidden

MAGIC, VERSION = b"tokenkit vault\r\n", 1
MAX_FILE = 16 << 20  # bytes: a thousand of the longest keys; a larger file is refused unread
ARGON2ID, HKDF = 1, 2
COST = (64 << 10, 3, 4)  # KiB, passes, lanes: the second recommendation of RFC 9106
MIN_COST, MAX_COST = COST, (256 << 10, 8, 8)  # a second or two at most on a laptop

_HEADER = struct.Struct(">16sBBIII32s")
_LENGTH = struct.Struct(">I")
_NONCE, _TAG, _CHECK = 12, 16, 32
_WRAPPED = _NONCE + 32 + _TAG


class Derivation(NamedTuple):
    """How the wrapping key is derived: kind, memory in KiB, passes, lanes, salt. HKDF has no cost: three zeros."""

    kind: int
    memory: int
    passes: int
    lanes: int
    salt: bytes

    @classmethod
    def fresh(cls, kind: int) -> Derivation:
        """Draw a new salt at today's cost."""
        return cls(kind, *(COST if kind == ARGON2ID else (0, 0, 0)), os.urandom(32))

    @property
    def header(self) -> bytes:
        """The first bytes of a file locked this way."""
        return _HEADER.pack(MAGIC, VERSION, *self)

    @property
    def acceptable(self) -> bool:
        """Whether the cost lies within bounds: neither weakened nor large enough to exhaust the machine."""
        cost = (self.memory, self.passes, self.lanes)
        if self.kind == HKDF:
            return cost == (0, 0, 0)
        return self.kind == ARGON2ID and all(
            low <= x <= high for low, x, high in zip(MIN_COST, cost, MAX_COST, strict=True)
        )


class Wrapping(NamedTuple):
    """A derivation and the key derived by it: what a vault keeps in memory while it is unlocked."""

    derivation: Derivation
    key: Hidden[bytes]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A vault file taken apart, its key not needed yet."""

    path: Path
    derivation: Derivation = field(repr=False)
    wrapped: bytes = field(repr=False)
    entries: tuple[bytes, ...] = field(repr=False)
    index: bytes = field(repr=False)
    above: bytes = field(repr=False)  # every byte before the index


@dataclass(frozen=True, slots=True)
class Opened:
    """A vault file whose every byte has been verified; keys are decrypted one by one, when asked for."""

    sealed: Sealed = field(repr=False)
    names: tuple[str, ...]
    file_key: Hidden[bytes] = field(repr=False)
    wrapping: Wrapping = field(repr=False)

    def key(self, name: str) -> Secret:
        """Return the key called ``name``; VaultError when there is none."""
        if name not in self.names:
            raise VaultError(
                f"The vault {self.sealed.path} holds no key named {name!r}. {did_you_mean(name, self.names)}"
            )
        return self._decrypted(name, self.sealed.entries[self.names.index(name)])

    def keys(self) -> dict[str, Secret]:
        """Return every key by its name."""
        return {name: self._decrypted(name, entry) for name, entry in zip(self.names, self.sealed.entries, strict=True)}

    def _decrypted(self, name: str, entry: bytes) -> Secret:
        found = _open(self.file_key, entry, _entry_bond(self.sealed.derivation.header, name))
        if found is None:
            raise altered(self.sealed.path, f"the entry {name!r} is not the one written under that name")
        return Secret(found.reveal().decode("ascii"))


def derive(material: Hidden[bytes], derivation: Derivation) -> Wrapping:
    """Derive the wrapping key from a passphrase or an environment key; a passphrase takes about 0.3 s and 64 MiB."""
    if not derivation.acceptable:  # parse() has refused it already: this is the last gate before the cost is paid
        raise VaultError("This derivation is outside the accepted costs.")
    return Wrapping(derivation, (argon2id if derivation.kind == ARGON2ID else hkdf)(material, derivation))


def argon2id(material: Hidden[bytes], cost: Derivation) -> Hidden[bytes]:
    """Argon2id (RFC 9106), 32 bytes."""
    # cryptography loads OpenSSL: imported where a vault is really opened, so that importing tokenkit stays light.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        kdf = Argon2id(
            salt=cost.salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory, ad=MAGIC
        )
        return Hidden(kdf.derive(material.reveal()))
    except UnsupportedAlgorithm:
        raise VaultError(
            "This build of cryptography has no Argon2id (it needs OpenSSL 3.2): install the wheel from PyPI, "
            f"or lock the vault with {KEY_VARIABLE}."
        ) from None
    except MemoryError:
        raise VaultError(f"There is no memory for the passphrase: it needs {cost.memory >> 10} MiB.") from None


def hkdf(material: Hidden[bytes], cost: Derivation) -> Hidden[bytes]:
    """HKDF-SHA256 (RFC 5869), 32 bytes: enough for a key that is random already, never used for a passphrase."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf import hkdf as rfc5869

    return Hidden(rfc5869.HKDF(SHA256(), 32, cost.salt, MAGIC + b"environment key").derive(material.reveal()))


def seal(keys: Mapping[str, Secret], wrapping: Wrapping) -> bytes:
    """Return the bytes of a vault file that holds ``keys``, under a file key nobody has used before."""
    header, file_key = wrapping.derivation.header, Hidden(os.urandom(32))
    parts = [header, _seal(wrapping.key, file_key, header), _LENGTH.pack(len(keys))]
    for name in sorted(keys):
        entry = _seal(file_key, Hidden(keys[name].reveal().encode("ascii")), _entry_bond(header, name))
        parts += [_LENGTH.pack(len(entry)), entry]
    above = b"".join(parts)
    index = _seal(file_key, Hidden("\n".join(sorted(keys)).encode("ascii")), _index_bond(above))
    if len(above) + len(index) + _CHECK > MAX_FILE:
        raise VaultError(f"The vault is full: its file may not pass {MAX_FILE >> 20} MiB.")
    return above + index + hashlib.sha256(above + index).digest()


def parse(data: bytes, path: Path) -> Sealed:
    """Take a vault file apart without any key: damage, a foreign version and foreign costs are refused here.

    Cheap whatever the file says: one hash over at most 16 MiB, nothing derived. Raises VaultError.
    """
    if not data.startswith(MAGIC):
        raise damaged(path, "it does not begin as a vault does" if data else "it is empty")
    end = len(data) - _CHECK
    if end < _HEADER.size + _WRAPPED + _LENGTH.size or hashlib.sha256(data[:end]).digest() != data[end:]:
        raise damaged(path, "its checksum does not match its contents")
    _, version, *rest = _HEADER.unpack_from(data)
    if version != VERSION:
        raise VaultError(
            f"The vault {path} has format {version}, and this tokenkit reads format {VERSION}: upgrade it."
        )
    derivation = Derivation(*rest)
    if not derivation.acceptable:
        raise altered(path, "the cost of its key derivation is outside the accepted bounds, and nothing was derived")
    start = _HEADER.size + _WRAPPED
    (count,) = _LENGTH.unpack_from(data, start)
    entries: list[bytes] = []
    offset = start + _LENGTH.size
    while len(entries) < count:
        size = _LENGTH.unpack_from(data, offset)[0] if offset + _LENGTH.size <= end else MAX_FILE
        offset += _LENGTH.size + size
        if offset > end:
            raise altered(path, "an entry reaches past its end")
        entries.append(data[offset - size : offset])
    return Sealed(path, derivation, data[_HEADER.size : start], tuple(entries), data[offset:end], data[:offset])


def unseal(sealed: Sealed, wrapping: Wrapping) -> Opened:
    """Verify every byte with the derived key; VaultError for a wrong key, and another for an altered file."""
    file_key = _open(wrapping.key, sealed.wrapped, sealed.derivation.header)
    if file_key is None:
        what = "The passphrase" if sealed.derivation.kind == ARGON2ID else f"The key in {KEY_VARIABLE}"
        raise VaultError(f"{what} does not open the vault {sealed.path}: it was locked with another one.")
    index = _open(file_key, sealed.index, _index_bond(sealed.above))
    if index is None:
        raise altered(sealed.path, "its bytes are not the ones that were written")
    names = tuple(index.reveal().decode("ascii").split("\n")) if index.reveal() else ()
    if len(names) != len(sealed.entries) or any(a >= b for a, b in pairwise(names)):
        raise altered(sealed.path, "its names and its entries do not agree")
    return Opened(sealed, names, file_key, wrapping)


def damaged(path: Path, how: str) -> VaultError:
    """Say that a file was cut or changed by accident, and what to do."""
    return VaultError(f"The vault {path} is damaged ({how}): {_restore}")


def altered(path: Path, how: str) -> VaultError:
    """Say that a file was changed by someone who mended its checksum, and what to do."""
    return VaultError(f"The vault {path} was altered after it was written ({how}): {_restore}")


_restore = (
    "move it aside, make a new one with `tokenkit vault init`, and bring the keys back with "
    "`tokenkit vault import` from your last export."
)


def _entry_bond(header: bytes, name: str) -> bytes:
    return b"entry" + header + name.encode("ascii")


def _index_bond(above: bytes) -> bytes:
    return b"index" + above


def _seal(key: Hidden[bytes], plain: Hidden[bytes], bond: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key.reveal()).encrypt(nonce, plain.reveal(), bond)


def _open(key: Hidden[bytes], blob: bytes, bond: bytes) -> Hidden[bytes] | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(blob) < _NONCE + _TAG:
        return None
    try:
        return Hidden(AESGCM(key.reveal()).decrypt(blob[:_NONCE], blob[_NONCE:], bond))
    except InvalidTag:
        return None
