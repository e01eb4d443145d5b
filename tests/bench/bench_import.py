"""How long ``import tokenkit`` takes beside ``import httpx`` and a bare interpreter, interleaved in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CONTESTANTS = {"bare interpreter": "pass", "import httpx": "import httpx", "import tokenkit": "import tokenkit",
               "Kit ready to call": "import tokenkit as tk; kit = tk.Kit.simulated(); kit.plan('hello')"}  # fmt: skip


def main(rounds: int = 15) -> None:
    """Print the median seconds of each and its ratio to ``import httpx``."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, code in CONTESTANTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - began)
    base = statistics.median(seconds["import httpx"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:20} {middle * 1000:7.0f} ms   {middle / base:5.2f} x import httpx")


if __name__ == "__main__":
    main()
