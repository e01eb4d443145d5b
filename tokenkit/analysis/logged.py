"""The log as estimators want it: the model taken, its propensity, the outcomes, and what another policy would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenkit.analysis.cube import Class
from tokenkit.ledger.book import Ledger, since_clause

if TYPE_CHECKING:
    from tokenkit.analysis.replay import Slider
    from tokenkit.route import Policy

MOST_CALLS = 200_000
"""Estimates look at no more than the latest so many calls: beyond that intervals hardly narrow."""

OUTCOMES = {"rating": (0.0, 1.0), "cost_usd": None, "seconds": None}
"""What can be estimated, and between which ends it lies, where there are such."""

_QUERY = """
SELECT p.candidate_set AS number, c.candidate_mask::BIGINT AS mask, list_position(p.ranks, 1) AS chosen,
       p.propensities[list_position(p.ranks, 1)] AS propensity, r.rating, c.cost_usd::DOUBLE AS cost_usd, c.seconds
FROM calls c JOIN plans p USING (seq)
LEFT JOIN (SELECT id, arg_max(rating, seq) AS rating FROM ratings GROUP BY id) r USING (id)
WHERE c.candidate_mask IS NOT NULL AND p.rejected[list_position(p.ranks, 1)] IS NULL
  AND p.propensities[list_position(p.ranks, 1)] > 0 {condition}
ORDER BY c.seq DESC LIMIT {most}"""


class Logged:
    """The latest planned calls, read once; ``under`` says what a policy would have done with each.

    Calls with the same candidates, the same eligible ones and the same choice are one kind: ``kinds`` [n] says which.
    """

    def __init__(self, ledger: Ledger, slider: Slider, since: Any = None) -> None:
        import numpy as np  # heavy: only where an estimate is made

        where, values = since_clause(since)
        condition = where.replace("WHERE ", "AND ").replace("started_at", "c.started_at")
        rows = ledger.sql(_QUERY.format(condition=condition, most=MOST_CALLS), values)
        sets = ledger.sql("SELECT candidate_set, models FROM candidate_sets")
        places = {name: place for place, name in enumerate(slider.cube.models)}
        inside = {int(n): [places[str(model)] for model in models] for n, models in sets.itertuples(index=False)}
        keys = ["number", "mask", "chosen"]
        self.slider = slider
        self.kinds = rows.groupby(keys, sort=False).ngroup().to_numpy(dtype=int)  # numbered as they first appear
        self.eligible: list[tuple[int, ...]] = []
        taken: list[int] = []
        for number, mask, chosen in rows[keys].drop_duplicates().itertuples(index=False):
            models = inside[int(number)]
            self.eligible.append(tuple(place for i, place in enumerate(models) if int(mask) >> i & 1))
            taken.append(models[int(chosen) - 1])
        self.actions = np.array(taken, dtype=int)[self.kinds]
        self.propensities = rows["propensity"].to_numpy(dtype=float)
        self.outcomes = {name: rows[name].to_numpy(dtype=float, na_value=np.nan) for name in OUTCOMES}

    def under(self, policy: Policy, models: Sequence[str] | None = None) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return actions, propensities, the policy's odds [n, models] and outcomes.

        Calls that no model of this policy could have taken are left out: of them nothing can be said.
        """
        import numpy as np

        odds = np.zeros((len(self.eligible), len(self.slider.cube.models)))
        for kind, eligible in enumerate(self.eligible):
            for place, share in self.slider.odds(Class(eligible, None, 0, 0, 0, {}), policy, models).items():
                odds[kind, place] = share
        target = odds[self.kinds]
        able = target.sum(axis=1) > 0
        outcomes = {name: values[able] for name, values in self.outcomes.items()}
        return self.actions[able], self.propensities[able], target[able], outcomes
