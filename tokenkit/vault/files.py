"""How a small private file is replaced whole: one writer at a time, the old bytes or the new ones, never a mixture."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokenkit.errors import VaultError

LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.004


def read(path: Path, limit: int) -> bytes:
    """Return the bytes of ``path``, at most ``limit``; VaultError when it is not a readable file of that size."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked first: opening a pipe would wait for its writer
            raise VaultError(f"{path} is not a file, so it is no vault.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise VaultError(f"{path} could not be read: {error.strerror}.") from error
    if len(data) > limit:
        raise VaultError(f"{path} is larger than {limit >> 20} MiB, which no vault is: it was not read.")
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically and durably, readable and writable by its owner only.

    A process killed at any moment leaves the old file or the new one. Raises VaultError, the old file untouched.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    try:
        with open(new, "xb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError):
            raise VaultError(f"{path} could not be written ({error.strerror}); what it held is unchanged.") from error
        raise
    _persist(path.parent)


def make_private(folder: Path) -> None:
    """Create ``folder`` and what is missing above it, open to the owner only; folders that exist stay as they are."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise VaultError(f"The folder {folder} could not be made: {error.strerror}.") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the one right to write ``path`` (an flock on ``path.lock``); VaultError after 30 seconds of waiting."""
    try:
        import fcntl  # POSIX only: a vault elsewhere can be read, and says why it cannot be written
    except ImportError:
        raise VaultError(f"{path} cannot be locked for writing: this system has no flock.") from None
    lock = path.with_name(path.name + ".lock")
    try:
        held = open(lock, "ab", opener=_private)  # noqa: SIM115  closed below
    except OSError as error:
        raise VaultError(f"{lock} could not be opened: {error.strerror}.") from error
    with held:  # closing gives the lock back too, should Ctrl-C strike in the very line that unlocks
        give_up = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise VaultError(
                        f"Another process has held {lock} for {LOCK_SECONDS:.0f} seconds: end it, then try again."
                    ) from None
                time.sleep(_POLL_SECONDS)
        try:
            _sweep(path)
            yield
        finally:
            # Said aloud: a child forked meanwhile shares the file, and closing ours alone would not free it.
            fcntl.flock(held, fcntl.LOCK_UN)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sweep(path: Path) -> None:
    # Nobody else writes while we hold the lock: what is left half-written was left by a process that was killed.
    for stale in path.parent.glob(f".{path.name}.*.new"):
        with suppress(OSError):
            stale.unlink()


def _persist(folder: Path) -> None:
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise VaultError(f"{folder} could not be synced ({error.strerror}): the write may not survive.") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
