"""What a log of choices has in common with another policy: its arrays, checked, and whether they overlap at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Bounds = tuple[float, float]

FEWEST_EFFECTIVE = 8.0
"""Below this many effective calls nothing is estimated."""

LARGEST_UNSEEN = 0.01
"""The largest share of the target's choices that may fall on models without one known outcome."""

# The mean weight is 1 where every choice of the target could have been logged. A mean this far off, and this many of
# its standard errors, is no accident: part of the target was never tried, or the propensities are not the true ones.
WEIGHT_OFF, WEIGHT_ERRORS = 0.1, 4.0

TAIL = 3.5
"""Standard deviations from the mean beyond which an outcome without given bounds counts as having a tail."""


@dataclass(frozen=True, slots=True)
class Log:
    """Checked arrays of one log: ``weights`` are target over propensity for the model taken, rated or not.

    ``rate`` is the share of calls with a known outcome among those of the same model, ``known`` says which.
    """

    actions: Ints
    propensities: Floats
    target: Floats
    outcomes: Floats
    known: NDArray[np.bool_]
    rate: Floats
    bounds: Bounds | None

    @property
    def weights(self) -> Floats:
        """Target probability of the model taken over the probability with which it was taken."""
        import numpy as np

        taken: Floats = self.target[np.arange(len(self.actions)), self.actions]
        return taken / self.propensities

    @property
    def ends(self) -> Bounds | None:
        """The least and greatest outcome: as given, else as seen; None where what is seen has a tail."""
        if self.bounds is not None:
            return self.bounds
        seen = self.outcomes[self.known]
        low, high, middle, spread = float(seen.min()), float(seen.max()), float(seen.mean()), float(seen.std())
        return None if max(high - middle, middle - low) > TAIL * spread else (low, high)


def read(
    actions: ArrayLike, propensities: ArrayLike, target: ArrayLike, outcomes: ArrayLike, bounds: Bounds | None
) -> Log:
    """Return the arrays checked against each other; raises UserError naming the first thing wrong."""
    import numpy as np

    a, p = np.asarray(actions), np.asarray(propensities, dtype=np.float64)
    t, y = np.asarray(target, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if t.ndim != 2 or not (a.shape == p.shape == y.shape == t.shape[:1]):
        raise UserError(
            f"The log's arrays disagree: actions {a.shape}, propensities {p.shape}, target {t.shape}, "
            f"outcomes {y.shape}. They must be [n], [n], [n, models] and [n]."
        )
    if len(a) and (a.dtype.kind not in "iu" or a.min() < 0 or a.max() >= t.shape[1]):
        raise UserError(f"actions must be whole numbers from 0 to {t.shape[1] - 1}, one column of target each.")
    if not bool(np.all((p > 0) & (p <= 1 + 1e-9))):
        raise UserError(
            "propensities must be above 0 and at most 1. Leave calls out whose propensity was not logged: their choice "
            "cannot be reweighted."
        )
    if not bool(np.all(t >= 0)) or not bool(np.all(np.abs(t.sum(axis=1) - 1) < 1e-6)):
        raise UserError("Each row of target must be probabilities: none below 0, their sum 1.")
    if bool(np.any(np.isinf(y))):
        raise UserError("outcomes must be finite; write NaN where an outcome is not known.")
    known = ~np.isnan(y)
    if bounds is not None and bool(np.any((y[known] < bounds[0]) | (y[known] > bounds[1]))):
        raise UserError(f"Some outcome lies outside bounds {bounds[0]:g} to {bounds[1]:g}: correct one or the other.")
    calls = np.bincount(a, minlength=t.shape[1])
    rated = np.bincount(a[known], minlength=t.shape[1])
    rate = (rated / np.maximum(calls, 1))[a]
    return Log(a.astype(np.int64), p, t, y, known, np.where(rate > 0, rate, 1.0), bounds)


def effective_size(log: Log) -> float:
    """Return (sum w)^2 / sum w^2 over calls with a known outcome (Kish 1965): what reweighting leaves of them."""
    import numpy as np

    return effective(np.where(log.known, log.weights / log.rate, 0.0))


def effective(weights: Floats) -> float:
    """Return how many equal weights these are worth."""
    squares = float((weights * weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def no_overlap(log: Log) -> str | None:
    """Return why nothing can be estimated from this log, with N_eff, or None where something can."""
    import numpy as np

    rated, size = int(log.known.sum()), effective_size(log)
    start = f"No overlap to estimate from (N_eff {size:,.1f} of {rated:,} calls with a known outcome): "
    if not rated:
        return start + "no outcome is known."
    seen = np.bincount(log.actions[log.known], minlength=log.target.shape[1]) > 0
    unseen = float(log.target[:, ~seen].sum()) / len(log.actions)
    if unseen > LARGEST_UNSEEN:
        return start + f"{unseen:.0%} of the target's choices fall on models without a known outcome."
    # Kish's number alone would keep just the lucky ones among logs too small for the target, and so make estimates
    # wrong: as weights average 1, a log is worth n^2 / sum w^2 too, which falls where his rises by luck.
    squares = float(((log.weights / log.rate)[log.known] ** 2).sum())
    worth = min(size, len(log.actions) ** 2 / squares) if squares else 0.0
    if worth < FEWEST_EFFECTIVE:
        return start + f"they are worth {worth:,.1f}, and at least {FEWEST_EFFECTIVE:.0f} are needed. Explore more."
    weights = log.weights
    mean, error = float(weights.mean()), float(weights.std()) / math.sqrt(len(weights))
    if abs(mean - 1) > max(WEIGHT_OFF, WEIGHT_ERRORS * error):
        return start + (
            f"the log could have made only {mean:.0%} of the target's choices."
            if mean < 1
            else f"weights average {mean:.2f} where true propensities give 1.00, so the logged propensities are wrong."
        )
    return None
