"""A routing policy learned from rated calls: one ridge regression a model, on hashed words of the prompt."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenkit.analysis.wording import DENSE, Features, features_of
from tokenkit.errors import UserError
from tokenkit.layers.recorded import transcript

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tokenkit.catalog import Model
    from tokenkit.route import Health
    from tokenkit.types import Request

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

FORMAT = "tokenkit learned policy 1"

# The penalty is a prior, so it need not grow with the log: ratings spread by 0.4 or so, and the words of one prompt
# together move a rating by less than a tenth. From 10 to 60 it made no difference on ten thousand real outcomes.
PENALTY = 30.0
DENSE_SCALE = 0.1

IMAGINED = 10.0
"""Imagined ratings, as good as the average of all models, that each model starts with: three thumbs up prove little."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Learned:
    """What was learned: for each model a mean rating, and what each feature of a prompt adds to it.

    ``weights`` is [models, dim + dense features], ``ratings`` how many each model was learned from. It holds no text.
    """

    models: tuple[str, ...]
    ratings: tuple[int, ...]
    intercepts: Floats
    weights: Floats
    dim: int
    l2: float

    def __repr__(self) -> str:
        return f"Learned({', '.join(self.models)}; {sum(self.ratings):,} ratings, {self.dim:,} hashed features)"

    def predict(self, prompt: str) -> dict[str, float]:
        """Return the rating each model is expected to get for ``prompt``, on the scale of the ratings learned from."""
        import numpy as np

        places, values, dense = features_of(prompt, self.dim)
        found = self.weights[:, places] @ np.array(values) + self.weights[:, self.dim :] @ np.array(dense)
        return dict(zip(self.models, (self.intercepts + found).tolist(), strict=True))

    def policy(self, trade_off: float = 1.0) -> Callable[[Request, Model, Health], float]:
        """Return a strategy for ``Policy``: expected rating minus ``trade_off`` times USD per 1,000 input tokens.

        At 1 a whole point of rating is worth 1 USD per 1,000 tokens, the seed's own balance; 0 ignores cost. A model
        never rated, or without a price where cost counts, comes last. Raises UserError for a negative trade-off.
        """
        if not 0 <= trade_off < math.inf:
            raise UserError(f"trade_off must be a finite number of at least 0, not {trade_off!r}.")
        # Every model of a plan is asked about the same prompt: the last answer is kept, as one pair no thread can tear.
        last: tuple[str | None, dict[str, float]] = (None, {})

        def learned(request: Request, model: Model, health: Health) -> float:
            nonlocal last
            text, (asked, expected) = transcript(request.messages), last
            if text != asked:
                expected = self.predict(text)
                last = (text, expected)
            quality = expected.get(model.id, expected.get(model.name))
            if quality is None or (model.price is None and trade_off > 0):
                return -math.inf
            return quality - (trade_off * model.price.cost_per_1k if model.price is not None else 0.0)

        return learned

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, whole or not at all, and return the path."""
        target = Path(path)
        beside = target.with_name(f"{target.name}.{os.getpid()}.part")
        content = {
            "format": FORMAT,
            "models": self.models,
            "ratings": self.ratings,
            "dim": self.dim,
            "l2": self.l2,
            "intercepts": self.intercepts.tolist(),
            "weights": self.weights.tolist(),
        }
        beside.write_text(json.dumps(content), encoding="utf-8")
        beside.replace(target)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Learned:
        """Read what :meth:`save` wrote; raises UserError where the file is missing or is not such a file."""
        try:
            return _read(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"{path} could not be read ({error.strerror}). Fit a policy and save it there.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if type(error) is ValueError else "a part is missing or misshapen"
            raise UserError(f"{path} does not hold a learned policy: {why}. Fit and save it again.") from None


def _read(content: dict[str, Any]) -> Learned:
    import numpy as np

    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
    models, dim = tuple(str(name) for name in content["models"]), int(content["dim"])
    weights = np.array(content["weights"], dtype=np.float64)
    intercepts = np.array(content["intercepts"], dtype=np.float64)
    ratings = tuple(int(count) for count in content["ratings"])
    if weights.shape != (len(models), dim + DENSE) or intercepts.shape != (len(models),) or len(ratings) != len(models):
        raise ValueError("its weights have the wrong shape")
    if not (np.isfinite(weights).all() and np.isfinite(intercepts).all()):
        raise ValueError("its weights are not finite")
    return Learned(models, ratings, intercepts, weights, dim, float(content["l2"]))


def fit(
    prompts: Sequence[str],
    models: Sequence[str],
    qualities: Sequence[float | None],
    *,
    dim: int = 2**12,
    l2: float = PENALTY,
) -> Learned:
    """Learn from rated calls: for each its prompt, the model that answered, and the rating (None or NaN is left out).

    ``dim`` is the number of hashed features, ``l2`` the ridge penalty for prompts of unit length. The result is the
    same in every process. Raises UserError for sequences of unequal length, or where nothing is rated.
    """
    import numpy as np

    rows = _rated(prompts, models, qualities, dim, l2)
    if not rows:
        raise UserError("Nothing is rated yet, so nothing can be learned. Rate some calls first.")
    distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _, _ in rows))}
    table = _Table.of([features_of(prompt, dim) for prompt in distinct], dim)
    names = tuple(sorted({model for _, model, _ in rows}))
    overall = float(np.mean([quality for _, _, quality in rows]))
    intercepts, weights, counts = [], [], []
    for name in names:
        mine = [(distinct[prompt], quality) for prompt, model, quality in rows if model == name]
        y = np.array([quality for _, quality in mine])
        part = table.rows(np.array([row for row, _ in mine]))
        found = _ridge(part, y - y.mean(), l2)
        base = (y.sum() + IMAGINED * overall) / (len(y) + IMAGINED) - float(part.mean @ found)
        intercepts.append(_rounded(np.array([base]))[0])
        weights.append(_rounded(found * table.scale))
        counts.append(len(y))
    return Learned(names, tuple(counts), np.array(intercepts), np.array(weights), dim, l2)


def held_out(
    prompts: Sequence[str],
    models: Sequence[str],
    qualities: Sequence[float | None],
    *,
    folds: int = 5,
    dim: int = 2**12,
    l2: float = PENALTY,
) -> list[dict[str, float]]:
    """Return for every call what a policy learned without its prompt predicts: what replay and advice must be given.

    Calls are parted by a hash of their prompt, so that equal prompts stay together. A model whose every rating fell
    into one fold is missing from that fold's predictions.
    """
    parts = [zlib.crc32(b"fold" + prompt.encode("utf-8", "surrogatepass")) % folds for prompt in prompts]
    made: list[dict[str, float]] = [{} for _ in prompts]
    for fold in sorted(set(parts)):
        seen = [i for i, part in enumerate(parts) if part != fold and qualities[i] is not None]
        if not seen:
            continue  # every rated prompt is in this fold: nobody else can say anything of it
        learned = fit(
            [prompts[i] for i in seen], [models[i] for i in seen], [qualities[i] for i in seen], dim=dim, l2=l2
        )
        for i, part in enumerate(parts):
            if part == fold:
                made[i] = learned.predict(prompts[i])
    return made


def _rated(
    prompts: Sequence[str], models: Sequence[str], qualities: Sequence[float | None], dim: int, l2: float
) -> list[tuple[str, str, float]]:
    """Return the calls with a rating, or raise UserError."""
    if not len(prompts) == len(models) == len(qualities):
        raise UserError(
            f"prompts, models and qualities must be equally many, not {len(prompts)}, {len(models)}, {len(qualities)}."
        )
    if dim < 1 or not 0 < l2 < math.inf:
        raise UserError(f"dim must be at least 1 and l2 above 0, not {dim!r} and {l2!r}.")
    rows = [
        (prompt, model, float(quality))
        for prompt, model, quality in zip(prompts, models, qualities, strict=True)
        if quality is not None and not math.isnan(quality)
    ]
    if any(math.isinf(quality) for _, _, quality in rows):
        raise UserError("qualities must be finite; write None where a call is not rated.")
    return rows


@dataclass(frozen=True, slots=True)
class _Table:
    """Features of many prompts: a sparse part as (row, place, value), dense measures beside it, all scaled."""

    row: Ints
    place: Ints
    value: Floats
    dense: Floats
    scale: Floats
    dim: int

    @classmethod
    def of(cls, features: Sequence[Features], dim: int) -> _Table:
        import numpy as np

        row = np.repeat(np.arange(len(features)), [len(places) for places, _, _ in features])
        place = np.array([place for places, _, _ in features for place in places], dtype=np.int64)
        value = np.array([value for _, values, _ in features for value in values], dtype=np.float64)
        dense = np.array([measures for _, _, measures in features], dtype=np.float64)
        spread = dense.std(axis=0)
        scale = np.where(spread > 0, DENSE_SCALE / np.where(spread > 0, spread, 1.0), 0.0)
        return cls(row, place, value, dense * scale, np.concatenate([np.ones(dim), scale]), dim)

    def rows(self, wanted: Ints) -> _Table:
        """Return the table of these rows, in this order; a row may come more than once."""
        import numpy as np

        starts = np.searchsorted(self.row, np.arange(len(self.dense) + 1))
        sizes = (starts[1:] - starts[:-1])[wanted]
        # For each wanted row the run of its entries, all runs laid end to end.
        first = np.repeat(starts[wanted] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        entries = first + np.arange(int(sizes.sum()))
        row = np.repeat(np.arange(len(wanted)), sizes)
        return _Table(row, self.place[entries], self.value[entries], self.dense[wanted], self.scale, self.dim)

    @property
    def mean(self) -> Floats:
        """The mean of every feature."""
        import numpy as np

        return self.transposed_times(np.ones(len(self.dense))) / len(self.dense)

    def times(self, weights: Floats) -> Floats:
        """Return features times weights: one number a row."""
        import numpy as np

        found = np.bincount(self.row, self.value * weights[self.place], len(self.dense))
        total: Floats = found + self.dense @ weights[self.dim :]
        return total

    def transposed_times(self, errors: Floats) -> Floats:
        """Return each feature's sum over rows, each row times its error."""
        import numpy as np

        sparse = np.bincount(self.place, self.value * errors[self.row], self.dim)
        return np.concatenate([sparse, self.dense.T @ errors])


def _rounded(numbers: Floats) -> Floats:
    """Return six digits of each: a saved policy stays small, and predicts to the last bit what the fitted one did."""
    import numpy as np

    return np.array([float(f"{number:.6g}") for number in numbers.tolist()])


def _ridge(table: _Table, y: Floats, l2: float) -> Floats:
    """Solve the ridge of ``y`` on centred features by conjugate gradients (Hestenes and Stiefel 1952).

    No matrix of features by features is made; the penalty keeps the problem well conditioned, so some twenty rounds do.
    """
    import numpy as np

    mean = table.mean
    found = np.zeros(len(mean))
    rest = table.transposed_times(y) - mean * y.sum()
    step, size = rest.copy(), float(rest @ rest)
    enough = 1e-12 * max(size, 1e-300)
    for _ in range(500):
        if size <= enough:
            break
        moved = table.times(step) - float(mean @ step)
        turned = table.transposed_times(moved) - mean * moved.sum() + l2 * step
        length = size / float(step @ turned)
        found += length * step
        rest -= length * turned
        before, size = size, float(rest @ rest)
        step = rest + size / before * step
    return found
