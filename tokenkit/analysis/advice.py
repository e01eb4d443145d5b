"""Whether to switch to another policy: only where it beats every single model, and today's policy, beyond chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tokenkit.analysis.estimates import Estimate, estimate, of_the_known, refusal, scored
from tokenkit.analysis.intervals import interval
from tokenkit.analysis.overlap import FEWEST_EFFECTIVE, Bounds, Log, effective_size, read
from tokenkit.analysis.predictions import predicted
from tokenkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

METHOD = "doubly_robust"


@dataclass(frozen=True, slots=True, repr=False)
class Advice:
    """A verdict and what it rests on.

    ``gain`` is target minus the best single model, ``gain_on_current`` target minus the policy that made the log;
    ``singles`` has one estimate a model, in the order of the target's columns; ``best`` is the best one's column.
    """

    verdict: Literal["switch", "stay"]
    reason: str
    target: Estimate
    current: Estimate
    singles: tuple[Estimate, ...]
    best: int | None
    gain: Estimate
    gain_on_current: Estimate

    def __repr__(self) -> str:
        return f"Advice({self.verdict}: {self.reason})"


def advise(
    actions: ArrayLike,
    propensities: ArrayLike,
    target: ArrayLike,
    outcomes: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    features: ArrayLike | None = None,
    predictions: ArrayLike | None = None,
    bounds: Bounds | None = None,
    tried: int = 1,
    level: float = 0.95,
    seed: int = 0,
) -> Advice:
    """Advise to switch to ``target`` only when it is better than every single model and than the log's own policy.

    Arguments as for ``doubly_robust``; more is better, so negate a cost or a latency. Each comparison is paired, and
    each must hold by itself: which single model looked best in this log therefore makes no difference. ``tried`` is
    how many targets were looked at to find this one; the level is divided among them (Bonferroni). A target learned
    from these very outcomes must be given out of fold, each row by a policy that has not seen its outcome.
    """
    if tried < 1 or not 0 < level < 1:
        raise UserError(f"tried must be at least 1 and level between 0 and 1, not {tried!r} and {level!r}.")
    import numpy as np

    log = read(actions, propensities, target, outcomes, bounds)
    k = log.target.shape[1]
    called = [f"model {i}" for i in range(k)] if names is None else list(names)
    if len(called) != k:
        raise UserError(f"names has {len(called)} names for {k} models.")
    guesses = predicted(log, features, predictions, seed) if log.known.any() else np.zeros((len(log.actions), k))
    strict = 1 - (1 - level) / tried
    target_value = _valued(log, guesses, level)
    alone = [replace(log, target=np.broadcast_to(np.eye(k)[j], log.target.shape)) for j in range(k)]
    singles = tuple(_valued(one, guesses, level) for one in alone)
    current = _valued(_as_logged(log), None, level)
    known = [j for j in range(k) if singles[j].value is not None]
    if target_value.value is None or not known:
        gain = replace(target_value, value=None, low=None, high=None)
        return Advice(
            "stay", target_value.reason or singles[0].reason, target_value, current, singles, None, gain, gain
        )
    best = max(known, key=lambda j: singles[j].value or 0.0)
    gains = {j: _difference(log, guesses, np.eye(k)[j], strict) for j in known}
    on_current = _difference(log, guesses, None, strict)
    rivals = [(f"always {called[j]}", gains[j]) for j in known] + [("the policy that made the log", on_current)]
    unproven = [(name, one) for name, one in rivals if one.low is None or one.low <= 0]
    verdict: Literal["switch", "stay"] = "stay" if unproven else "switch"
    unknown = [called[j] for j in range(k) if j not in known]
    reason = _reason(unproven, called[best], gains[best], unknown)
    return Advice(verdict, reason, target_value, current, singles, best, gains[best], on_current)


def _valued(log: Log, guesses: Floats | None, level: float) -> Estimate:
    method = "mean of the log" if guesses is None else METHOD
    refused = refusal(log, method)
    if refused is not None:
        return refused
    value, influence = scored(log, guesses)
    return estimate(log, method, value, interval(value, influence, effective_size(log), log.ends, level))


def _as_logged(log: Log) -> Log:
    """Return the log with its own policy as the target, as far as is known: every weight is 1."""
    import numpy as np

    own = np.zeros_like(log.target)
    own[np.arange(len(own)), log.actions] = log.propensities
    return replace(log, target=own)


def _difference(log: Log, guesses: Floats, single: Floats | None, level: float) -> Estimate:
    """Return target minus a single model, or minus the log's own policy (None), call by call."""
    import numpy as np

    if single is None:
        value, influence = scored(log, guesses)
        weights = log.weights - 1
        own = of_the_known(log, np.where(log.known, log.outcomes, 0.0))
        influence, value = influence - own + own.mean(), value - float(own.mean())
    else:
        signed = replace(log, target=log.target - single)
        value, influence = scored(signed, guesses)
        weights = signed.weights
    used = np.abs(np.where(log.known, weights / log.rate, 0.0))
    squares = float((used * used).sum())
    size = float(used.sum()) ** 2 / squares if squares else 0.0
    n = int(log.known.sum())
    if size < FEWEST_EFFECTIVE:
        return Estimate(
            None, None, None, n, size, METHOD, f"they choose differently in too few calls (N_eff {size:.1f})"
        )
    ends = log.ends
    # A difference lies between losing and winning the whole range in the share of calls where the two part ways.
    reach = None if ends is None else float(used.mean()) * (ends[1] - ends[0]) / 2
    low, high = interval(value, influence, size, None if reach is None else (-reach, reach), level)
    return Estimate(value, min(low, value), max(high, value), n, size, METHOD)


def _reason(unproven: list[tuple[str, Estimate]], best: str, gain: Estimate, unknown: list[str]) -> str:
    aside = f" Not compared, for too few calls in the log: {', '.join(unknown)}." if unknown else ""
    if not unproven:
        return f"It beats always {best} by {gain.value:.3g} ({gain.low:.3g} to {gain.high:.3g}).{aside}"
    # The rival that it loses to most clearly tells the most; a comparison that could not be made, the least.
    name, nearest = min(unproven, key=lambda one: math.inf if one[1].value is None else one[1].value)
    more = f", nor {len(unproven) - 1} more" if len(unproven) > 1 else ""
    if nearest.value is None:
        return f"It is not shown to beat {name}{more}: {nearest.reason}.{aside}"
    span = f"{nearest.value:+.3g} ({nearest.low:+.3g} to {nearest.high:+.3g})"
    return f"It is not shown to beat {name}{more}: the difference is {span}.{aside}"
