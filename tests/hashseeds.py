"""The same code in other processes, where sets are in another order each time: what it prints must not show it."""

from __future__ import annotations

import os
import subprocess
import sys


def printed(code: str, given: str | None = None) -> set[str]:
    """Return what the code prints under two hash seeds, given this on its stdin: one text if that is the same."""
    return {
        subprocess.run(
            [sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
