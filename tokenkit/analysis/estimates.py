"""What another policy would have earned, estimated from logged choices: a value, a 95 % interval, or a refusal.

A log holds, for each call, the model taken, the probability with which it was taken, and an outcome (a rating, a real
cost, a latency) that is known for that model alone. Where the other policy would have chosen alike often enough, the
outcomes can be reweighted (Horvitz and Thompson 1952); where it would not, no arithmetic helps, and the answer is None.

Intervals are for calls like those logged. Outcomes that are not known (NaN) may be missing more often for one model
than for another, but within a model not because of what the outcome was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tokenkit.analysis.intervals import freedom, interval, quantile, skewed
from tokenkit.analysis.overlap import Bounds, Log, effective_size, no_overlap, read
from tokenkit.analysis.predictions import predicted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Method = Literal["ips", "snips", "doubly_robust"]


@dataclass(frozen=True, slots=True, repr=False)
class Estimate:
    """A mean outcome with its interval; all three are None where the log cannot tell, and ``reason`` says why.

    ``n`` counts calls with a known outcome, ``n_eff`` how many such calls the target's own choices would be worth.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_eff: float
    method: str
    reason: str = ""

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def __str__(self) -> str:
        if self.value is None:
            return f"unknown: {self.reason}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g}; {self.method}, N_eff {self.n_eff:,.0f})"


def ips(
    actions: ArrayLike,
    propensities: ArrayLike,
    target: ArrayLike,
    outcomes: ArrayLike,
    *,
    bounds: Bounds | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate the target's mean outcome by inverse propensity: unbiased, wide.

    ``actions`` [n] are model indices from 0, ``propensities`` [n] the logged probability of each, ``target`` [n, k] the
    target's probability of every model for every call, ``outcomes`` [n] with NaN for unknown. ``bounds`` are the least
    and greatest outcome possible, where there are such ((0, 1) for ratings). Raises UserError for arrays that disagree.
    """
    log = read(actions, propensities, target, outcomes, bounds)
    refused = refusal(log, "ips")
    if refused is not None:
        return refused
    value, influence = scored(log, None)
    # Hall's correction measured better than Wilson's form: weights times outcomes have no useful ends. With a normal
    # quantile the worst design (weights up to 33, 300 calls) covered 91.6 % of 1,000 logs; with these degrees 93.2 %.
    q = quantile(level, freedom(influence, effective_size(log)))
    return estimate(log, "ips", value, skewed(value, influence, q))


def snips(
    actions: ArrayLike,
    propensities: ArrayLike,
    target: ArrayLike,
    outcomes: ArrayLike,
    *,
    bounds: Bounds | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate the target's mean outcome by self-normalised inverse propensity (Swaminathan and Joachims 2015).

    Arguments as for :func:`ips`. Narrower than it, and unmoved by a constant added to every outcome.
    """
    log = read(actions, propensities, target, outcomes, bounds)
    refused = refusal(log, "snips")
    if refused is not None:
        return refused
    import numpy as np

    weights = np.where(log.known, log.weights / log.rate, 0.0)
    shares = weights / weights.mean()
    value = float(np.mean(shares * np.where(log.known, log.outcomes, 0.0)))
    deviation = log.weights / weights.mean() * np.where(log.known, log.outcomes - value, 0.0)
    influence = of_the_known(log, deviation)
    return estimate(log, "snips", value, interval(value, influence, effective_size(log), log.ends, level))


def doubly_robust(
    actions: ArrayLike,
    propensities: ArrayLike,
    target: ArrayLike,
    outcomes: ArrayLike,
    *,
    features: ArrayLike | None = None,
    predictions: ArrayLike | None = None,
    bounds: Bounds | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate the target's mean outcome from predictions, corrected by what was logged (Dudík and others 2011).

    Arguments as for :func:`ips`. ``predictions`` [n, k] are outcomes predicted without having seen these; without them
    they are made here, cross-fitted: a ridge per model on ``features`` [n, d] (a few hundred columns at most), or each
    model's mean. A wrong prediction costs width, never truth, as long as the propensities are right.
    """
    log = read(actions, propensities, target, outcomes, bounds)
    refused = refusal(log, "doubly_robust")
    if refused is not None:
        return refused
    value, influence = scored(log, predicted(log, features, predictions, seed))
    return estimate(log, "doubly_robust", value, interval(value, influence, effective_size(log), log.ends, level))


def as_logged(
    actions: ArrayLike, models: int, outcomes: ArrayLike, *, bounds: Bounds | None = None, level: float = 0.95
) -> Estimate:
    """Estimate the mean outcome of the calls as they were made: nothing is reweighted but what is not known.

    ``models`` is how many there are, the rest is as for :func:`ips`.
    """
    import numpy as np

    taken = np.asarray(actions, dtype=np.int64)
    log = read(taken, np.ones(len(taken)), np.eye(models)[taken], outcomes, bounds)
    refused = refusal(log, "mean of the log")
    if refused is not None:
        return refused
    value, influence = scored(log, None)
    around = interval(value, influence, effective_size(log), log.ends, level)
    return estimate(log, "mean of the log", value, around)


def refusal(log: Log, method: str) -> Estimate | None:
    """Return an estimate without a value when the log has too little in common with the target, else None."""
    why = no_overlap(log)
    return None if why is None else Estimate(None, None, None, int(log.known.sum()), effective_size(log), method, why)


def scored(log: Log, predictions: Floats | None) -> tuple[float, Floats]:
    """Return the mean of the calls' scores and its influence function; without predictions it is plain IPS."""
    import numpy as np

    rows = np.arange(len(log.actions))
    base = np.zeros(len(rows)) if predictions is None else predictions[rows, log.actions]
    direct = np.zeros(len(rows)) if predictions is None else (log.target * predictions).sum(axis=1)
    rest = log.weights * np.where(log.known, log.outcomes - base, 0.0)
    scores = direct + of_the_known(log, rest)
    value = float(scores.mean())
    return value, scores - value


def of_the_known(log: Log, terms: Floats) -> Floats:
    """Scale terms known for rated calls up to all calls, model by model, with the error of the rating rate in them.

    The second part sums to nothing within each model: it moves no mean, but takes out of the spread what estimating
    the rate has taken out of the error.
    """
    import numpy as np

    if bool(log.known.all()):
        return terms
    k = log.target.shape[1]
    sums = np.bincount(log.actions[log.known], weights=terms[log.known], minlength=k)
    means = (sums / np.maximum(np.bincount(log.actions[log.known], minlength=k), 1))[log.actions]
    scaled: Floats = np.where(log.known, terms, 0.0) / log.rate - (log.known - log.rate) / log.rate * means
    return scaled


def estimate(log: Log, method: str, value: float, around: Bounds) -> Estimate:
    """Return the estimate, no part of it outside the outcomes' bounds."""
    low, high = min(around[0], value), max(around[1], value)
    if log.bounds is not None:
        low, value, high = (min(max(x, log.bounds[0]), log.bounds[1]) for x in (low, value, high))
    return Estimate(value, low, high, int(log.known.sum()), effective_size(log), method)
