"""A disk that fails on command: a shim between a child process and libc, armed from Python within it.

Every call that changes a file beneath the marked folder is counted: writes, syncs, cuts, and files made, renamed or
removed. The n-th fails with the errno that was asked for, and with ``sticky`` every one after it, as a full or broken
disk would; with ``torn`` half of a failing write still reaches the file. What goes through a memory map (SQLite's
``-shm``) is not seen.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long at = 0, seen = 0, failed = 0;  /* at: which change fails; 0: none */
static int code = EIO, sticky = 0, torn = 0, syncs_only = 0;
static char mark[4096] = "";

void disk_arm(const char *folder, long n, int error, int stay, int tear, int syncs) {
  at = 0;
  snprintf(mark, sizeof mark, "%s", folder);
  code = error; sticky = stay; torn = tear; syncs_only = syncs; seen = 0; failed = 0;
  at = n;
}
long disk_counted(void) { return seen; }
long disk_failed(void) { return failed; }

static int due(void) {
  long n = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (!at || n < at || (n > at && !sticky)) return 0;
  __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
  errno = code;
  return 1;
}

static int fails(int fd, int sync) {
  char link[64], path[4096];
  if (!mark[0] || (syncs_only && !sync)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int before = errno;
  ssize_t size = readlink(link, path, sizeof path - 1);
  errno = before;
  if (size < 0) return 0;
  path[size] = 0;
  return strstr(path, mark) != NULL && due();
}

static int fails_at(const char *path) {
  return mark[0] && !syncs_only && path && strstr(path, mark) != NULL && due();
}

/* The next definition of a name: libc's own. */
#define REAL(kind, name, args) \
  static kind(*real) args;     \
  if (!real) real = (kind(*) args)dlsym(RTLD_NEXT, #name)
#define WRAP(kind, name, args, call, failing, half) \
  kind name args {                                  \
    REAL(kind, name, args);                         \
    if (failing) {                                  \
      int error = errno;                            \
      if (torn) { half; }                           \
      errno = error;                                \
      return (kind)-1;                              \
    }                                               \
    return real call;                               \
  }

WRAP(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), fails(fd, 0), (void)!real(fd, b, n / 2))
WRAP(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), fails(fd, 0),
     (void)!real(fd, b, n / 2, o))
WRAP(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), fails(fd, 0),
     (void)!real(fd, b, n / 2, o))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), fails(fd, 0), (void)!real(fd, v, n / 2))
WRAP(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o), fails(fd, 0),
     (void)!real(fd, v, n / 2, o))
WRAP(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o), fails(fd, 0),
     (void)!real(fd, v, n / 2, o))
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), fails(fd, 0), )
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n), fails(fd, 0), )
WRAP(int, fallocate, (int fd, int m, off_t o, off_t n), (fd, m, o, n), fails(fd, 0), )
WRAP(int, fallocate64, (int fd, int m, off64_t o, off64_t n), (fd, m, o, n), fails(fd, 0), )
WRAP(int, fsync, (int fd), (fd), fails(fd, 1), )
WRAP(int, fdatasync, (int fd), (fd), fails(fd, 1), )
WRAP(int, mkdir, (const char *p, mode_t m), (p, m), fails_at(p), )
WRAP(int, chmod, (const char *p, mode_t m), (p, m), fails_at(p), )
WRAP(int, unlink, (const char *p), (p), fails_at(p), )
WRAP(int, remove, (const char *p), (p), fails_at(p), )
WRAP(int, rename, (const char *p, const char *to), (p, to), fails_at(p), )

/* Opening changes something where it makes or empties a file. */
static int makes(const char *path, int flags) {
  int before = errno, changes = flags & O_TRUNC || (flags & O_CREAT && access(path, F_OK) != 0);
  errno = before;
  return changes && fails_at(path);
}
#define OPEN(name)                               \
  int name(const char *path, int flags, ...) {   \
    REAL(int, name, (const char *, int, ...));   \
    va_list more;                                \
    va_start(more, flags);                       \
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
    va_end(more);                                \
    return makes(path, flags) ? -1 : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
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


class Disk:
    """Within a child that has the shim: fails changes beneath ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._shim = ctypes.CDLL(None)
        self._shim.disk_counted.restype = self._shim.disk_failed.restype = ctypes.c_long
        self._shim.disk_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, *[ctypes.c_int] * 4)
        self.folder = str(folder).encode()

    def arm(self, n: int, error: int, *, sticky: bool = False, torn: bool = False, syncs_only: bool = False) -> None:
        """Count changes (or syncs alone) from now on, and let the n-th fail; 0 lets none."""
        self._shim.disk_arm(self.folder, n, error, sticky, torn, syncs_only)

    def counted(self) -> int:
        """Return how many changes there were since it was armed."""
        return int(self._shim.disk_counted())

    def mend(self) -> int:
        """Let nothing fail any more; return how many changes did."""
        failed = int(self._shim.disk_failed())
        self._shim.disk_arm(b"", 0, 0, 0, 0, 0)
        return failed


def apart(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns in a fork of this process, which then dies without closing anything."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            told = {"returned": work()}
        except BaseException:
            told = {"raised": traceback.format_exc()}
        with os.fdopen(writing, "w") as out:
            json.dump(told, out)
        sys.stderr.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        text = lines.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"it died, status {status}, after {text!r}"
    told = json.loads(text)
    assert "raised" not in told, told["raised"]
    return told["returned"]
