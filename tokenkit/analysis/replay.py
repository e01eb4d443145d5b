"""What if: another policy over one's own log. Choices and list prices recomputed exactly, outcomes only estimated.

Exact is what the log determines: which model would have come first, and what it would have cost at list price had its
answer been as long. Not known is what it would have answered: for ratings, billed cost and latency there is an estimate
with a 95 % interval and an effective sample size, or a refusal where the log never tried what the policy would choose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.analysis.cube import Class, Cube, cube
from tokenkit.analysis.tables import table
from tokenkit.catalog import Catalog, Model
from tokenkit.errors import UserError
from tokenkit.ledger.book import Ledger, since_clause
from tokenkit.money import Nanos, show_usd, usd
from tokenkit.route import Policy, softmax

if TYPE_CHECKING:
    import pandas

    from tokenkit.analysis.advice import Advice
    from tokenkit.analysis.estimates import Estimate

MOST_CALLS = 200_000
"""Estimates look at no more than the latest so many calls: beyond that intervals hardly narrow."""

OUTCOMES = {"rating": (0.0, 1.0), "cost_usd": None, "seconds": None}


@dataclass(frozen=True, slots=True)
class Choice:
    """How a policy would have chosen: shares of calls and list price by model, over all classes of a cube.

    ``nanos`` is None for a model without a price; ``unroutable`` calls would have had no model at all.
    """

    calls: Mapping[str, float]
    nanos: Mapping[str, Nanos | None]
    unroutable: int

    @property
    def total(self) -> Nanos:
        """List price of all priced calls."""
        return sum(value for value in self.nanos.values() if value is not None)


class Slider:
    """A cube with the models' prices: weights in, choices out, in time that does not depend on the log's length."""

    def __init__(self, made: Cube, catalog: Catalog, policy: Policy) -> None:
        self.cube, self.catalog, self.policy = made, catalog, policy
        known = {model.id: model for model in catalog.models}
        self._models = {place: known[name] for place, name in enumerate(made.models) if name in known}
        order = {model.id: n for n, model in enumerate(catalog.models)}
        self._order = sorted(self._models, key=lambda place: order[made.models[place]])

    def weights(self, policy: Policy) -> dict[str, float]:
        """Return the weight each logged model has under a policy, its own where the policy says nothing."""
        return {model.id: _weight(model, policy) for model in self._models.values()}

    def choose(self, policy: Policy, models: Sequence[str] | None = None) -> Choice:
        """Return what ``policy`` would have chosen; ``models`` are the only ones it may take."""
        shares: dict[str, float] = {}
        nanos: dict[str, float | None] = {}
        unroutable = 0
        for one in self.cube.classes:
            odds = self.odds(one, policy, models)
            if not odds:
                unroutable += one.calls
            for place, share in odds.items():
                name = self.cube.models[place]
                shares[name] = shares.get(name, 0.0) + share * one.calls
                cost = one.costs.get(place)
                before = nanos.get(name, 0)
                nanos[name] = None if cost is None or before is None else before + share * cost
        return Choice(shares, {n: None if v is None else round(v) for n, v in nanos.items()}, unroutable)

    def as_logged(self) -> Choice:
        """Return what was chosen in the log itself."""
        shares: dict[str, float] = {}
        nanos: dict[str, Nanos | None] = {}
        for one in self.cube.classes:
            if one.chosen is not None:
                name = self.cube.models[one.chosen]
                shares[name] = shares.get(name, 0) + one.calls
                cost, before = one.costs.get(one.chosen), nanos.get(name, 0)
                nanos[name] = None if cost is None or before is None else before + cost
        return Choice(shares, nanos, sum(one.calls for one in self.cube.classes if one.chosen is None))

    def changed(self, policy: Policy, models: Sequence[str] | None = None) -> float:
        """Return how many calls would have gone to another model than they did; a mean, where the policy explores."""
        return sum(
            one.calls * (1 - self.odds(one, policy, models).get(one.chosen, 0.0))
            for one in self.cube.classes
            if one.chosen is not None
        )

    def odds(self, one: Class, policy: Policy, models: Sequence[str] | None = None) -> dict[int, float]:
        """Return the probability with which a policy puts each eligible model of a class first."""
        able = [p for p in self._order if p in one.eligible and (models is None or _named(self.cube.models[p], models))]
        scores = [(place, score) for place in able if (score := _score(self._models[place], policy)) is not None]
        if not scores:
            return {}
        if policy.strategy == "random":
            return {place: 1 / len(scores) for place, _ in scores}
        if policy.strategy == "weighted":
            logits = [math.log(score) if score > 0 else -math.inf for _, score in scores]
        elif policy.temperature > 0:
            logits = [score / policy.temperature for _, score in scores]
        else:
            # As in routing: of equal scores the catalog's first wins.
            return {max(scores, key=lambda pair: pair[1])[0]: 1.0}
        return {place: share for (place, _), share in zip(scores, softmax(logits), strict=True)}


def _score(model: Model, policy: Policy) -> float | None:
    """Return a model's score, which depends on no call; None where this strategy cannot take it."""
    weight = _weight(model, policy)
    if policy.strategy in ("random", "weighted"):
        return weight
    if model.price is None:
        return None
    if policy.strategy == "cheapest":
        return -model.price.cost_per_1k
    # Summed as the router sums its terms, so that the result is the same to the last bit.
    return sum([weight, -10 * model.price.cost_per_1k])


def _weight(model: Model, policy: Policy) -> float:
    return policy.weights.get(model.id, policy.weights.get(model.name, model.weight))


def _named(name: str, models: Sequence[str]) -> bool:
    return name in models or name.partition("/")[2] in models


class Replay:
    """Another policy over the log: ``.df()`` by model, ``.now`` and ``.then`` in USD at list price, ``.changed`` calls.

    ``.best_single`` is the one model that could have taken the most calls for the least, always shown beside; outcomes
    are in ``.estimate("rating")``, ``"cost_usd"`` and ``"seconds"``; ``.advice`` weighs whether to switch.
    """

    def __init__(
        self, ledger: Ledger, slider: Slider, policy: Policy, models: Sequence[str] | None, since: Any = None
    ) -> None:
        self._ledger, self.slider, self.policy, self.models, self._since = ledger, slider, policy, models, since
        self.before, self.after = slider.as_logged(), slider.choose(policy, models)
        self.calls, self.changed = slider.cube.calls, slider.changed(policy, models)

    @property
    def then(self) -> Decimal | None:
        """List price in USD of the log as it was chosen."""
        return usd(self.before.total)

    @property
    def now(self) -> Decimal | None:
        """List price in USD as this policy would have chosen."""
        return usd(self.after.total)

    @cached_property
    def best_single(self) -> tuple[str, Decimal | None] | None:
        """The cheapest model that alone could have taken nearly every call (99 % of what any could), and its price."""
        found = []
        for place, name in enumerate(self.slider.cube.models):
            able = [one for one in self.slider.cube.classes if place in one.eligible]
            if able and all(place in one.costs for one in able):
                found.append((sum(one.calls for one in able), sum(one.costs[place] for one in able), name))
        most = max((calls for calls, _, _ in found), default=0)
        fit = [(nanos / calls, nanos, name) for calls, nanos, name in found if calls >= 0.99 * most]
        if not fit:
            return None
        _, nanos, name = min(fit)
        return name, usd(nanos)

    def df(self) -> pandas.DataFrame:
        """Return one row a model: calls and list price in USD, as logged and under this policy."""
        import pandas  # heavy: only where a frame is made

        names = sorted({*self.before.calls, *self.after.calls}, key=lambda n: -self.after.calls.get(n, 0))
        return pandas.DataFrame(
            [
                (
                    name,
                    round(self.before.calls.get(name, 0)),
                    round(self.after.calls.get(name, 0), 1),
                    usd(self.before.nanos.get(name, 0)),
                    usd(self.after.nanos.get(name, 0)),
                )
                for name in names
            ],
            columns=["model", "logged_calls", "replayed_calls", "logged_usd", "replayed_usd"],
        )

    def estimate(self, outcome: str = "rating") -> Estimate:
        """Estimate the mean ``rating``, billed ``cost_usd`` or ``seconds`` of a call under this policy.

        Doubly robust, with a 95 % interval, over the calls that some model of this policy could have taken; where the
        log has too little of what the policy would do, ``value`` is None and ``reason`` says why. Raises UserError for
        another outcome.
        """
        from tokenkit.analysis.estimates import doubly_robust

        if outcome not in OUTCOMES:
            raise UserError(f"Outcomes are {', '.join(OUTCOMES)}, not {outcome!r}.")
        logged = self._log
        found: Estimate = doubly_robust(*logged[:3], logged[3][outcome], bounds=OUTCOMES[outcome])
        return found

    @cached_property
    def advice(self) -> Advice:
        """Whether to switch to this policy, by the ratings in the log: only where it beats every single model."""
        from tokenkit.analysis.advice import advise

        actions, propensities, target, outcomes = self._log
        names = self.slider.cube.models
        return advise(actions, propensities, target, outcomes["rating"], names=names, bounds=(0.0, 1.0))

    @cached_property
    def _log(self) -> tuple[Any, Any, Any, dict[str, Any]]:
        """The latest planned calls as arrays: model chosen, its propensity, this policy's odds, and outcomes."""
        import numpy as np  # heavy: only where an estimate is made

        where, values = since_clause(self._since)
        condition = where.replace("WHERE ", "AND ").replace("started_at", "c.started_at")
        rows = self._ledger.sql(
            f"""SELECT p.candidate_set AS number, c.candidate_mask::BIGINT AS mask, list_position(p.ranks, 1) AS chosen,
                  p.propensities[list_position(p.ranks, 1)] AS propensity, r.rating, c.cost_usd::DOUBLE AS cost_usd,
                  c.seconds
                FROM calls c JOIN plans p USING (seq)
                LEFT JOIN (SELECT id, arg_max(rating, seq) AS rating FROM ratings GROUP BY id) r USING (id)
                WHERE c.candidate_mask IS NOT NULL AND p.rejected[list_position(p.ranks, 1)] IS NULL {condition}
                ORDER BY c.seq DESC LIMIT {MOST_CALLS}""",  # noqa: S608 - our own names and numbers
            values,
        )
        sets = self._ledger.sql("SELECT candidate_set, models FROM candidate_sets")
        inside = {
            int(n): [self.slider.cube.models.index(str(m)) for m in models]
            for n, models in sets.itertuples(index=False)
        }
        target = np.zeros((len(rows), len(self.slider.cube.models)))
        actions = np.zeros(len(rows), dtype=int)
        odds: dict[tuple[int, int], Any] = {}
        pairs = zip(rows["number"], rows["mask"], rows["chosen"], strict=True)
        for n, (number, mask, chosen) in enumerate(pairs):
            places = inside[int(number)]
            key = (int(number), int(mask))
            if key not in odds:
                eligible = tuple(place for i, place in enumerate(places) if int(mask) >> i & 1)
                row = np.zeros(target.shape[1])
                for place, share in self.slider.odds(
                    Class(eligible, None, 0, 0, 0, {}), self.policy, self.models
                ).items():
                    row[place] = share
                odds[key] = row
            target[n], actions[n] = odds[key], places[int(chosen) - 1]
        outcomes = {name: rows[name].to_numpy(dtype=float, na_value=np.nan) for name in OUTCOMES}
        able = target.sum(axis=1) > 0  # of a call that no model of this policy could take, nothing can be said
        propensities = rows["propensity"].to_numpy(dtype=float)[able]
        return actions[able], propensities, target[able], {name: values[able] for name, values in outcomes.items()}

    def __repr__(self) -> str:
        if not self.calls:
            return "Replay(no planned calls to replay)"
        moved = f"{self.changed:,.0f} of {self.calls:,} calls would go elsewhere"
        best = (
            ""
            if self.best_single is None
            else f"; {self.best_single[0]} alone: {show_usd(_nanos(self.best_single[1]))}"
        )
        cost = f"{show_usd(self.before.total)} -> {show_usd(self.after.total)} at list price"
        return f"Replay({moved}, {cost}{best})"

    def _repr_html_(self) -> str:
        notes = [repr(self)]
        if self.slider.cube.skipped:
            notes.append(f"{self.slider.cube.skipped:,} calls were not planned by the router and are left out.")
        if self.after.unroutable:
            notes.append(f"{self.after.unroutable:,} calls would have had no model.")
        unpriced = [name for name, nanos in self.after.nanos.items() if nanos is None]
        if unpriced:
            notes.append(f"No price is known for {', '.join(unpriced)}: its calls are not in the sums.")
        return _html.answer("\n".join(notes)) + _html.table_card(table("By model", self.df()))


def _nanos(amount: Decimal | None) -> Nanos | None:
    return None if amount is None else int(amount * 10**9)


def replay(
    ledger: Ledger,
    catalog: Catalog,
    policy: Policy,
    *,
    weights: Mapping[str, float] | None = None,
    models: Sequence[str] | None = None,
    since: Any = None,
) -> Replay:
    """Replay ``policy`` over the log, with ``weights`` of its own and only the ``models`` named, if any are.

    Raises UserError for a policy whose choice depends on more than the log holds: a function, latency or load.
    """
    if not isinstance(policy.strategy, str) or policy.strategy in ("fastest", "least-busy", "round-robin"):
        raise UserError(
            f"The strategy {policy.name!r} cannot be replayed: its choice depends on more than the log holds. "
            "'score', 'cheapest', 'weighted' and 'random' can, with any weights and temperature."
        )
    known = {name for model in catalog.models for name in (model.id, model.name)}
    for name in (*(weights or ()), *(models or ())):
        if name not in known:
            from tokenkit.errors import UnknownModel

            raise UnknownModel(name, sorted(known))
    if weights is not None:
        policy = Policy(policy.strategy, policy.temperature, {**policy.weights, **weights})
    prices = {model.id: model.price for model in catalog.models}
    slider = Slider(cube(ledger, prices, since=since), catalog, policy)
    return Replay(ledger, slider, policy, models, since)
