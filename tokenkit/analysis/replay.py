"""What if: another policy over one's own log. Choices and list prices recomputed exactly, outcomes only estimated.

Exact is what the log determines: which model would have come first, and what it would have cost at list price had its
answer been as long. Not known is what it would have answered: for ratings, billed cost and latency there is an estimate
with a 95 % interval and an effective sample size, or a refusal where the log never tried what the policy would choose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.analysis.cube import Class, Cube, cube
from tokenkit.analysis.logged import OUTCOMES, Logged
from tokenkit.analysis.tables import table
from tokenkit.catalog import Catalog, Model
from tokenkit.errors import UnknownModel, UserError
from tokenkit.ledger.book import Ledger
from tokenkit.money import Nanos, show_usd, usd
from tokenkit.route import Policy, softmax

if TYPE_CHECKING:
    import pandas

    from tokenkit.analysis.advice import Advice
    from tokenkit.analysis.estimates import Estimate

MOST_SINGLES = 12
"""Models shown alone beside a policy, the cheapest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a policy would have chosen: shares of calls and list price by model, over all classes of a cube.

    ``nanos`` is None for a model without a price; ``unroutable`` calls would have had no model at all.
    """

    calls: Mapping[str, float]
    nanos: Mapping[str, Nanos | None]
    unroutable: int

    @property
    def total(self) -> Nanos | None:
        """List price in nano-USD of all calls to models with a price; None where there are calls to others alone."""
        known = [value for value in self.nanos.values() if value is not None]
        return sum(known) if known or not self.nanos else None

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models whose calls ``total`` leaves out, since no price is known."""
        return tuple(sorted(name for name, value in self.nanos.items() if value is None))


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

    @cached_property
    def singles(self) -> list[tuple[str, Nanos]]:
        """Each priced model that alone could have taken nearly every call, the cheapest a call first; and its price."""
        found = []
        for place, name in enumerate(self.cube.models):
            able = [one for one in self.cube.classes if place in one.eligible]
            if able and all(place in one.costs for one in able):
                found.append((sum(one.calls for one in able), sum(one.costs[place] for one in able), name))
        most = max((calls for calls, _, _ in found), default=0)
        fit = sorted((nanos / calls, nanos, name) for calls, nanos, name in found if calls >= 0.99 * most)
        return [(name, nanos) for _, nanos, name in fit]

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

    ``.beside()`` has it beside the log, the policy in force (``current``) and ``.best_single``, the one model that
    could have taken the most calls for the least. Outcomes are in ``.estimate("rating")``, ``"cost_usd"`` and
    ``"seconds"``; ``.advice`` weighs whether to switch.
    """

    def __init__(
        self,
        ledger: Ledger,
        slider: Slider,
        policy: Policy,
        models: Sequence[str] | None,
        since: Any = None,
        current: Policy | None = None,
    ) -> None:
        self._ledger, self.slider, self.policy, self.models, self._since = ledger, slider, policy, models, since
        self.current = current
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

    @property
    def best_single(self) -> tuple[str, Decimal | None] | None:
        """The cheapest model that alone could have taken nearly every call (99 % of what any could), and its price."""
        return next(((name, usd(nanos)) for name, nanos in self.slider.singles), None)

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
        if outcome not in OUTCOMES:
            raise UserError(f"Outcomes are {', '.join(OUTCOMES)}, not {outcome!r}.")
        return self._estimated(self.policy, self.models, outcome)

    def _estimated(self, policy: Policy, models: Sequence[str] | None, outcome: str) -> Estimate:
        from tokenkit.analysis.estimates import doubly_robust

        actions, odds, target, outcomes = self._logged.under(policy, models)
        found: Estimate = doubly_robust(actions, odds, target, outcomes[outcome], bounds=OUTCOMES[outcome])
        return found

    def beside(self, outcome: str = "rating") -> pandas.DataFrame:
        """Return this policy beside the log, the policy in force, and every model that alone would nearly do.

        One row each: ``list_usd`` is the list price of all calls it could take, exact (missing: no price is known),
        ``moved_calls`` how many would go elsewhere, ``untaken_calls`` how many no model of it could take. ``value``,
        ``low`` and ``high`` estimate the mean ``outcome`` of a call with a 95 % interval, ``n_eff`` how many calls that
        rests on; where there is no estimate, ``why_not`` says why. Raises UserError for another outcome.
        """
        import pandas  # heavy: only where a frame is made

        if outcome not in OUTCOMES:
            raise UserError(f"Outcomes are {', '.join(OUTCOMES)}, not {outcome!r}.")
        ways: list[tuple[str, Policy, Sequence[str] | None]] = [("this policy", self.policy, self.models)]
        if self.current is not None:
            ways.insert(0, ("in force", self.current, None))
        ways += [(f"always {name}", Policy("random"), [name]) for name, _ in self.slider.singles[:MOST_SINGLES]]
        rows = [("as logged", self.before, 0.0, self._as_logged(outcome))]
        for who, policy, models in ways:
            made, moved = self.slider.choose(policy, models), self.slider.changed(policy, models)
            rows.append((who, made, moved, self._estimated(policy, models, outcome)))
        return pandas.DataFrame(
            [
                (who, usd(made.total), moved, made.unroutable, e.value, e.low, e.high, e.n_eff, e.reason)
                for who, made, moved, e in rows
            ],
            columns=[
                "choice", "list_usd", "moved_calls", "untaken_calls", "value", "low", "high", "n_eff", "why_not",
            ],
        )  # fmt: skip

    def _as_logged(self, outcome: str) -> Estimate:
        from tokenkit.analysis.estimates import as_logged

        values = self._logged.outcomes[outcome]
        return as_logged(self._logged.actions, len(self.slider.cube.models), values, bounds=OUTCOMES[outcome])

    @cached_property
    def advice(self) -> Advice:
        """Whether to switch to this policy, by the ratings in the log: only where it beats every single model."""
        from tokenkit.analysis.advice import advise

        actions, odds, target, outcomes = self._logged.under(self.policy, self.models)
        names, bounds = self.slider.cube.models, OUTCOMES["rating"]
        return advise(actions, odds, target, outcomes["rating"], names=names, bounds=bounds)

    @cached_property
    def _logged(self) -> Logged:
        return Logged(self._ledger, self.slider, self._since)

    def __repr__(self) -> str:
        if not self.calls:
            return "Replay(no planned calls to replay)"
        moved = f"{self.changed:,.0f} of {_calls(self.calls)} would go elsewhere"
        best = (
            ""
            if self.best_single is None
            else f"; {self.best_single[0]} alone: {show_usd(_nanos(self.best_single[1]))}"
        )
        cost = f"{_price(self.before)} -> {_price(self.after)} at list price"
        return f"Replay({moved}, {cost}{best})"

    def __str__(self) -> str:
        return "\n".join([repr(self), *self._notes(), *map(_html.table_text, self._tables())])

    def _repr_html_(self) -> str:
        return _html.answer("\n".join([repr(self), *self._notes()])) + "".join(map(_html.table_card, self._tables()))

    def _tables(self) -> list[_html.Table]:
        return [table("Beside each other", self.shown()), table("By model", self.df())] if self.calls else []

    def shown(self) -> pandas.DataFrame:
        """Return ``beside`` as it is read: the estimate of the rating as one text, or why there is none."""
        made = self.beside()
        said = [
            f"unknown: {why.rpartition('): ')[2]}"
            if why
            else f"{value:.3f} ({low:.3f} to {high:.3f})".replace(" ", "\u00a0")
            for *_, value, low, high, _, why in made.itertuples(index=False)
        ]
        prices = [show_usd(_nanos(cost)) for cost in made["list_usd"]]
        counts = {name: [f"{count:,.0f}" for count in made[name]] for name in ("moved_calls", "untaken_calls", "n_eff")}
        return made[["choice"]].assign(list_usd=prices, **counts, rating=said)

    def _notes(self) -> Iterator[str]:
        classes = self.slider.cube.classes
        if self.slider.cube.skipped:
            left = _calls(self.slider.cube.skipped)
            yield f"{left} {'was' if left == '1 call' else 'were'} not planned by the router and left out."
        if self.after.unroutable:
            yield f"{_calls(self.after.unroutable)} would have had no model."
        unpriced = sorted({*self.before.unpriced, *self.after.unpriced})
        if unpriced:
            yield f"No price is known for {', '.join(unpriced)}: such calls are not in the sums."
        uncounted = sum(one.calls - one.priced for one in classes)
        if uncounted:
            yield f"{_calls(uncounted)} ended without a known number of tokens: moved, but not in the sums."
        if self.calls and self.current is None:
            yield "The policy in force is not beside: its choice depends on more than the log holds."


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"


def _price(choice: Choice) -> str:
    """Return what a choice costs in words; a sum with gaps says that it is the least."""
    if choice.unroutable and not choice.calls:
        return "no model at all"
    return f"{'at least ' if choice.unpriced and choice.total is not None else ''}{show_usd(choice.total)}"


def _nanos(amount: Decimal | None) -> Nanos | None:
    return None if amount is None else int(amount * 10**9)


REPLAYABLE = ("score", "cheapest", "weighted", "random")
"""The strategies whose choice depends on a call only through its eligible models."""


def replay(
    ledger: Ledger,
    catalog: Catalog,
    policy: Policy,
    *,
    weights: Mapping[str, float] | None = None,
    models: Sequence[str] | None = None,
    since: Any = None,
    current: Policy | None = None,
) -> Replay:
    """Replay ``policy`` over the log, with ``weights`` of its own and only the ``models`` named, if any are.

    ``current`` is the policy in force, which is shown beside. Raises UserError for a policy whose choice depends on
    more than the log holds (a function, latency or load), for names that are not in the catalog, and for weights that
    are no weights.
    """
    if not isinstance(policy, Policy):
        raise UserError(f"policy is a tk.Policy, such as tk.Policy('cheapest'), not {policy!r}.")
    if policy.strategy not in REPLAYABLE:
        raise UserError(
            f"The strategy {policy.name!r} cannot be replayed: its choice depends on more than the log holds. "
            f"{', '.join(map(repr, REPLAYABLE[:-1]))} and {REPLAYABLE[-1]!r} can, with any weights and temperature."
        )
    if isinstance(models, str) or (models is not None and not len(models)):
        raise UserError(f"models is a list of at least one model, such as ['small'], not {models!r}.")
    # A policy in force may still weigh a model that is gone; in one that was just written, that is a slip.
    own = () if policy is current else policy.weights
    known = {name for model in catalog.models for name in (model.id, model.name)}
    for name in (*own, *(weights or ()), *(models or ())):
        if name not in known:
            raise UnknownModel(name, sorted(known))
    if weights is not None:
        policy = Policy(policy.strategy, policy.temperature, {**policy.weights, **weights})
    prices = {model.id: model.price for model in catalog.models}
    slider = Slider(cube(ledger, prices, since=since), catalog, policy)
    beside = current if current is not None and current.strategy in REPLAYABLE else None
    return Replay(ledger, slider, policy, models, since, beside)
