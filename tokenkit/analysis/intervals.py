"""Intervals of a weighted mean that measured right where the usual one fails: few calls, heavy weights, long tails."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from tokenkit.analysis.overlap import Bounds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def interval(value: float, influence: Floats, size: float, ends: Bounds | None, level: float) -> Bounds:
    """Return the interval of ``value``: Wilson's where outcomes have ``ends``, Hall's where they have a tail (None).

    ``influence`` [n] has mean 0 and is what each call adds to n times the error; ``size`` is effective calls.
    """
    if ends is None:
        return skewed(value, influence, quantile(level, max(size - 1, 2.0)))
    return shrunk(value, influence, size, ends, level)


def quantile(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t, by Cornish and Fisher's series (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def freedom(influence: Floats, size: float) -> float:
    """Return the degrees of freedom that the spread of ``influence`` has as an estimate, at least 2.

    A sample's variance varies by (kurtosis - 1) / n of its square (Cramér 1946), so it is worth 2n / (kurtosis - 1)
    degrees (Satterthwaite 1946): few where single calls weigh heavily. Never more than ``size``, effective calls, has.
    """
    import numpy as np

    spread = float(influence.std())
    tail = float(np.mean((influence / spread) ** 4)) - 1 if spread else 0.0
    own = 2 * len(influence) / tail if tail > 0 else math.inf
    return max(min(own, size - 1), 2.0)


def shrunk(value: float, influence: Floats, size: float, ends: Bounds, level: float) -> Bounds:
    """Return Wilson's interval (1927) for a weighted mean: as if q^2 more calls had come out half at either end.

    For a plain share it is Wilson's own. It holds where few effective calls happen to have come out alike, which is
    where intervals around the sample's own spread fall short.
    """
    q = quantile(level, max(size - 1, 2.0))
    error = float(influence.var(ddof=1)) / len(influence)
    whole, reach = size + q * q, (ends[1] - ends[0]) / 2
    centre = (size * value + q * q * (ends[0] + ends[1]) / 2) / whole
    half = q * size / whole * math.sqrt(error + (q * reach / size) ** 2)
    return centre - half, centre + half


def skewed(value: float, influence: Floats, q: float) -> Bounds:
    """Return the interval of a mean with its skewness undone by Hall's cubic transformation (1992)."""
    import numpy as np

    n, spread = len(influence), float(influence.std())
    error = spread / math.sqrt(n - 1)
    skew = float(np.mean((influence / spread) ** 3)) / math.sqrt(n) if spread else 0.0
    if abs(skew) < 1e-6:
        return value - q * error, value + q * error
    low, high = (3 / skew * (math.cbrt(1 + skew * (x - skew / 6)) - 1) for x in (q, -q))
    return value - error * low, value - error * high
