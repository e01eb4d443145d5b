"""How the time of some work grows with its input, on a machine that others use too.

A busy machine can slow down any one reading, small or large, but work that is worse than linear is slow in every
round. So a round reads both sizes side by side, and one good round is enough.
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


def grows_linearly(work: Callable[[T], object], small: T, large: T, doublings: int = 2, rounds: int = 6) -> None:
    """Fail unless, in one of the rounds, `large` took at most 2.3 times as long a doubling as `small`."""
    work(small)
    readings = []
    for _ in range(rounds):
        readings.append((seconds(work, small), seconds(work, large)))
        if readings[-1][1] <= DOUBLING**doublings * readings[-1][0]:
            return
    ratio = min(after / max(before, 1e-9) for before, after in readings)
    raise AssertionError(f"{2**doublings} times the input took at best {ratio:.1f} times as long in {rounds} rounds")
