"""What each model would have got for each call, predicted without the call's own outcome: a cross-fitted ridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenkit.analysis.overlap import Log
from tokenkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

FOLDS = 5
FEWEST_TO_REGRESS = 10
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Ridge penalties tried, per column; the one with the least leave-one-out error is taken."""


def predicted(log: Log, features: ArrayLike | None, predictions: ArrayLike | None, seed: int) -> Floats:
    """Return outcomes [n, k] for every call and model: those given, or cross-fitted ones.

    Raises UserError for arrays of another length than the log, or with gaps.
    """
    import numpy as np

    n, k = log.target.shape
    if predictions is not None:
        given = np.asarray(predictions, dtype=np.float64)
        if given.shape != (n, k) or not bool(np.isfinite(given).all()):
            raise UserError(f"predictions must be finite and of shape {(n, k)}, not {given.shape}.")
        return given
    x = np.zeros((n, 0)) if features is None else np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != n or not bool(np.isfinite(x).all()):
        raise UserError(f"features must be finite and of shape [{n}, columns], not {x.shape}.")
    spread = x.std(axis=0)
    x = (x[:, spread > 0] - x[:, spread > 0].mean(axis=0)) / spread[spread > 0]
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    made = np.empty((n, k))
    for out in range(FOLDS):
        held, train = fold == out, (fold != out) & log.known
        overall = float(log.outcomes[train].mean()) if train.any() else float(log.outcomes[log.known].mean())
        for model in range(k):
            rows = train & (log.actions == model)
            made[held, model] = _ridge(x[rows], log.outcomes[rows], x[held]) if rows.any() else overall
    return made


def _ridge(x: Floats, y: Floats, asked: Floats) -> Floats:
    """Return predictions for ``asked``; the penalty has the least leave-one-out error, a plain mean included."""
    import numpy as np

    middle = float(y.mean())
    m, columns = x.shape
    if m < FEWEST_TO_REGRESS or columns == 0:
        return np.full(len(asked), middle)
    centre = x.mean(axis=0)
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    turned = u.T @ (y - middle)
    best, shrink = float(np.mean(((y - middle) / (1 - 1 / m)) ** 2)), None
    for penalty in PENALTIES:
        kept = s * s / (s * s + penalty * columns)
        # The hat matrix in closed form: what each call weighs in its own prediction (Allen's PRESS, 1974).
        own = np.minimum((u * u) @ kept + 1 / m, 1 - 1e-9)
        error = float(np.mean(((y - middle - u @ (kept * turned)) / (1 - own)) ** 2))
        if error < best:
            best, shrink = error, s / (s * s + penalty * columns)
    if shrink is None:
        return np.full(len(asked), middle)
    guessed: Floats = middle + (asked - centre) @ (vt.T @ (shrink * turned))
    return guessed
