"""The vocabularies that travel with the package, and how they are read: verified, and never from the network."""

from __future__ import annotations

import binascii
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tokenkit.errors import TokenkitError

CARRIED = ("cl100k_base", "o200k_base", "o200k_harmony")
"""The encodings that count without a network; o200k_harmony has the ranks of o200k_base and more special tokens."""

FOLDER = Path(__file__).parent


def constructors(public: ModuleType) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return tiktoken's own constructors, reading through ``ranks``: its patterns, special tokens and hashes hold.

    Each is rebuilt over a copy of its module's names, so tiktoken's module itself stays as it is for other threads.
    """
    names = {**vars(public), "load_tiktoken_bpe": ranks}
    for name in CARRIED:
        if isinstance(constructor := names.get(name), FunctionType):
            names[name] = FunctionType(constructor.__code__, names, name)
    return {name: names[name] for name in CARRIED if name in names}


def ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
    """Read a vocabulary as ``{token: rank}`` from the user's tiktoken cache or from this package, never the network."""
    path = FOLDER / f"{url.rsplit('/', 1)[-1]}.gz"
    data = _cached(url)
    if data is None or hashlib.sha256(data).hexdigest() != expected_hash:
        try:
            data = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, str(error)) from None
        if hashlib.sha256(data).hexdigest() != expected_hash:
            raise _damaged(path, f"its SHA-256 is not the {expected_hash} that tiktoken names")
    words = data.split()
    return dict(zip(map(binascii.a2b_base64, words[::2]), map(int, words[1::2]), strict=True))


def _cached(url: str) -> bytes | None:
    """Return the user's own copy out of TIKTOKEN_CACHE_DIR; a wrong one is left where it is, for its owner to see."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        return None
    try:
        # tiktoken names the files of its cache by the SHA-1 of their address.
        return Path(folder, hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()).read_bytes()
    except OSError:
        return None


def _damaged(path: Path, why: str) -> TokenkitError:
    return TokenkitError(
        f"The vocabulary file {path} cannot be used: {why}. Tokens cannot be counted without it; "
        "`pip install --force-reinstall tokenkit` brings it back."
    )
