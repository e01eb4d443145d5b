"""A disk that fails on command: a shim between a child process and libc, armed from Python within it.

Every call that changes a file beneath the marked folder is counted; the n-th fails with the errno that was asked for,
and with ``sticky`` every one after it, as a full or broken disk would.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long at = -1, seen = 0, failed = 0;  /* at: which call fails; -1: none */
static int error = EIO, sticky = 0;
static char mark[256] = "";

void disk_arm(const char *folder, long n, int err, int stay) {
  snprintf(mark, sizeof mark, "%s", folder);
  error = err; sticky = stay; seen = 0; failed = 0; at = n;
}
long disk_seen(void) { return seen; }
long disk_failed(void) { return failed; }

static int ours(int fd) {
  char link[64], path[512];
  if (!mark[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return strstr(path, mark) != NULL;
}

static int fails(int fd) {
  if (!ours(fd)) return 0;
  long n = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (at < 0 || n < at || (n > at && !sticky)) return 0;
  __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
  errno = error;
  return 1;
}

#define WRAP(kind, name, args, call)                        \
  kind name args {                                          \
    static kind (*real) args = NULL;                        \
    if (!real) real = (kind(*) args)dlsym(RTLD_NEXT, #name); \
    if (fails(fd)) return (kind)-1;                         \
    return real call;                                       \
  }

WRAP(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
WRAP(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o))
WRAP(int, ftruncate, (int fd, off_t n), (fd, n))
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n))
WRAP(int, fallocate, (int fd, int m, off_t o, off_t n), (fd, m, o, n))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
"""


def built(folder: Path) -> Path:
    """Compile the shim; skip the test where this machine has no compiler for it."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("failing disks need Linux and a C compiler (cc)")
    source, made = folder / "disk.c", folder / "disk.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


def environment(shim: Path) -> dict[str, str]:
    """Return the environment of a child whose disk can fail."""
    return {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent)])}


class Disk:
    """Within such a child: fails the n-th change of a file beneath ``folder``."""

    def __init__(self, folder: str) -> None:
        self._shim = ctypes.CDLL(None)
        self._shim.disk_seen.restype = self._shim.disk_failed.restype = ctypes.c_long
        self._shim.disk_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int)
        self.folder, self.hit = folder, 0

    def arm(self, n: int, error: int, *, sticky: bool = False) -> None:
        """Let the n-th change from now on fail, once or for good."""
        self._shim.disk_arm(self.folder.encode(), n, error, int(sticky))

    def mend(self) -> int:
        """Let nothing fail any more; return how many changes did."""
        failed = int(self._shim.disk_failed())
        self._shim.disk_arm(b"", -1, 0, 0)
        return failed
