"""How the time of some work grows with its input, on a machine that others use too.

A busy machine can slow down any one reading, small or large, and a neighbour that fills the caches every large one; but
work that is worse than linear is slow in every round, and the more so the further the two sizes are apart. So sizes are
16 times apart, a round reads both side by side, and one good round is enough.
"""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

from tokenkit.compress.spans import forget

T = TypeVar("T")

DOUBLING = 2.3
"""What one doubling of the input may cost; quadratic work costs 4."""


def seconds(work: Callable[[T], object], given: T, tries: int = 2) -> float:
    """The shortest CPU time of a few tries, without the collector, whose rounds depend on what other tests left."""
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(tries):
            forget()
            began = time.process_time()
            work(given)
            best = min(best, time.process_time() - began)
    finally:
        gc.enable()
    return best


def grows_linearly(work: Callable[[T], object], small: T, large: T, rounds: int = 6) -> None:
    """Fail unless in one round `large`, 16 times `small`, took at most 2.3 times as long for each doubling."""
    work(small)
    readings = []
    for _ in range(rounds):
        readings.append((seconds(work, small), seconds(work, large)))
        if readings[-1][1] <= DOUBLING**4 * readings[-1][0]:
            return
    ratio = min(after / max(before, 1e-9) for before, after in readings)
    raise AssertionError(f"16 times the input took at best {ratio:.1f} times as long in {rounds} rounds")
