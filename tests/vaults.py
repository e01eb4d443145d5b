"""A vault file to take apart: shared by the tests of the vault."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tokenkit.errors import VaultError
from tokenkit.vault import KEY_VARIABLE, Vault

LONG = os.environ.get("TOKENKIT_LONG") == "1"
ENVIRON = {KEY_VARIABLE: "5a" * 32}
HEADER, WRAPPED = 62, 60  # bytes, from the picture in tokenkit/vault/sealed.py


def filled(folder: Path) -> Vault:
    """An unlocked vault of about 1 KB under an environment key: no passphrase to pay for."""
    vault = Vault(folder / "keys.vault", environ=ENVIRON).create()
    for name, size in (("anthropic", 108), ("gemini", 139), ("groq", 56), ("openai", 164), ("xai", 184)):
        vault.set(name, f"{name}-" + "k" * size)
    return vault


def mended(data: bytes) -> bytes:
    """The file as someone leaves it who knows the format but not the key: with a checksum that agrees."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def refused(vault: Vault, data: bytes, environ: Mapping[str, str] = ENVIRON) -> str:
    """Put ``data`` in the vault's place and return the sentence it is refused with, by a newly opened vault."""
    vault.path.write_bytes(data)
    with pytest.raises(VaultError) as caught:
        Vault(vault.path, passphrase="never used", environ=environ).names()
    return str(caught.value)


def taken_apart(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Everything before the entries' count, the entries, and the index."""
    start, end = HEADER + WRAPPED, len(data) - 32
    entries, offset = [], start + 4
    for _ in range(struct.unpack_from(">I", data, start)[0]):
        (size,) = struct.unpack_from(">I", data, offset)
        entries.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return data[:start], entries, data[offset:end]


def put_together(head: bytes, entries: list[bytes], index: bytes, count: int | None = None) -> bytes:
    """The inverse of ``taken_apart``, with a checksum that agrees."""
    body = b"".join(struct.pack(">I", len(e)) + e for e in entries)
    return mended(head + struct.pack(">I", len(entries) if count is None else count) + body + index + b"\0" * 32)


def run(script: str, *arguments: str) -> str:
    """Run a script in a Python of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
