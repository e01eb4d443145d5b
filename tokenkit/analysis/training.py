"""A policy learned from the log's own ratings, and whether they show that it is worth switching to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.analysis.advice import Advice, advise
from tokenkit.analysis.learning import Learned, fit, held_out
from tokenkit.errors import UserError
from tokenkit.ledger.book import since_clause
from tokenkit.route import Policy

if TYPE_CHECKING:
    from tokenkit.catalog import Catalog
    from tokenkit.ledger import Ledger

_RATED = """
SELECT c.prompt, p.candidate_set AS number, c.candidate_mask::BIGINT AS mask,
       list_position(p.ranks, 1) AS chosen, p.propensities[list_position(p.ranks, 1)] AS propensity, r.rating
FROM calls c JOIN plans p USING (seq)
JOIN (SELECT id, arg_max(rating, seq) AS rating FROM ratings GROUP BY id) r USING (id)
WHERE c.prompt IS NOT NULL AND c.candidate_mask IS NOT NULL AND c.status = 'ok'
  AND p.rejected[list_position(p.ranks, 1)] IS NULL {condition}
ORDER BY c.seq DESC LIMIT {most}"""

MOST_RATED = 50_000
"""The latest rated calls that are learned from."""


@dataclass(frozen=True, slots=True, repr=False)
class Training:
    """What the log's ratings teach: ``learned`` from ``calls`` rated calls, ``policy`` to route by, and ``advice``.

    The advice weighs rating minus ``trade_off`` times USD per 1,000 input tokens, as the policy does. Each call was
    judged by a policy that had not seen its prompt. Nothing routes by it until ``kit.policy`` is set to ``policy``.
    """

    learned: Learned
    policy: Policy
    advice: Advice
    calls: int
    trade_off: float

    def __repr__(self) -> str:
        return f"Training({self.calls:,} rated calls; {self.advice.verdict}: {self.advice.reason})"

    def _repr_html_(self) -> str:
        ratings = ", ".join(
            f"{_html.visible(name, 60)} {count:,}"
            for name, count in zip(self.learned.models, self.learned.ratings, strict=True)
        )
        what = "rating" if not self.trade_off else f"rating minus {self.trade_off:g} x USD per 1,000 input tokens"
        follow = "kit.policy = training.policy routes by it." if self.advice.verdict == "switch" else ""
        said = (repr(self), f"Ratings by model: {ratings}. Judged by {what}.", follow)
        return _html.answer("\n".join(line for line in said if line))


def train(ledger: Ledger, catalog: Catalog, *, trade_off: float, since: Any = None) -> Training:
    """Learn from the rated calls in the log. Raises UserError where nothing is rated, or no prompts were kept."""
    import numpy as np  # heavy: only where something is learned

    where, values = since_clause(since)
    condition = where.replace("WHERE ", "AND ").replace("started_at", "c.started_at")
    rows = ledger.sql(_RATED.format(condition=condition, most=MOST_RATED), values)
    if rows.empty:
        raise UserError(
            "There is nothing to learn from: no planned call with a kept prompt was rated. Rate answers with %rate, "
            "kit.rate(receipt, 1) or the buttons beneath a receipt."
        )
    sets = dict(ledger.sql("SELECT candidate_set, models FROM candidate_sets").itertuples(index=False))
    chosen = [str(sets[n][place - 1]) for n, place in zip(rows["number"], rows["chosen"], strict=True)]
    names = sorted({str(name) for number in set(rows["number"]) for name in sets[number]})
    prompts, ratings = rows["prompt"].tolist(), rows["rating"].tolist()
    costs = {model.id: model.price.cost_per_1k for model in catalog.models if model.price is not None}
    dear = {name: trade_off * costs[name] if trade_off else 0.0 for name in names if name in costs or not trade_off}
    learned = fit(prompts, chosen, ratings)
    policy = Policy(strategy=learned.policy(trade_off))
    target = np.zeros((len(rows), len(names)))
    for n, (number, mask, expected) in enumerate(
        zip(rows["number"], rows["mask"], held_out(prompts, chosen, ratings), strict=True)
    ):
        able = [str(name) for i, name in enumerate(sets[number]) if int(mask) >> i & 1]
        known = {name: expected[name] - dear[name] for name in able if name in expected and name in dear}
        if known:
            target[n, names.index(max(sorted(known), key=known.__getitem__))] = 1.0
    keep = (target.sum(axis=1) > 0) & np.array([name in dear for name in chosen])
    if not keep.any():
        few = f"{len(rows):,} rated calls are too few to learn from and to judge by: rate more, of different prompts"
        raise UserError(few if dear else "No model that was rated has a known price: learn with trade_off=0")
    actions = np.array([names.index(name) for name in chosen])[keep]
    worth = np.array([rating - dear.get(name, 0.0) for rating, name in zip(ratings, chosen, strict=True)])[keep]
    bounds = (-max(dear.values()), 1.0 - min(dear.values()))
    odds = rows["propensity"].to_numpy(dtype=float)[keep]
    advice = advise(actions, odds, target[keep], worth, names=names, bounds=bounds)
    return Training(learned, policy, advice, len(rows), trade_off)
