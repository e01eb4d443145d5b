"""A log folded into classes once, so that moving a weight costs the same however many calls there were.

A linear score does not depend on the call, only which models may take it does. So calls with the same candidates, the
same eligible ones and the same choice behave alike under every weight: of each such class the cube holds how many
there were, what they were billed, and what each model would have cost at list price, in whole nano-USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenkit.ledger.book import Ledger, since_clause
from tokenkit.money import Nanos
from tokenkit.pricing import PriceRule


@dataclass(frozen=True, slots=True)
class Class:
    """Calls that any policy of linear scores treats alike.

    ``eligible`` are the places of models that could take them, ``chosen`` the one that came first (None: none did).
    ``calls`` is how many there were, ``priced`` how many of them have known token counts, ``billed`` what all were
    billed. ``costs`` maps the place of a model to what the priced ones would have cost there in nano-USD; a model
    without a price is missing.
    """

    eligible: tuple[int, ...]
    chosen: int | None
    calls: int
    priced: int
    billed: Nanos
    costs: Mapping[int, Nanos]


@dataclass(frozen=True, slots=True)
class Cube:
    """All classes of a log. ``models`` are the ids their places mean; ``skipped`` calls had no plan to go by."""

    models: tuple[str, ...]
    classes: tuple[Class, ...]
    skipped: int

    @property
    def calls(self) -> int:
        """Calls in all classes."""
        return sum(one.calls for one in self.classes)


def cube(ledger: Ledger, prices: Mapping[str, PriceRule | None], *, since: Any = None) -> Cube:
    """Fold the log's planned calls; ``prices`` are by model id. One pass over the ledger, in DuckDB.

    An answer's length under another model is not known: list prices take each prompt in the model's own tokens, and the
    answer as long as it was.
    """
    where, values = since_clause(since)
    sets = ledger.sql("SELECT candidate_set, models FROM candidate_sets")
    names = sorted({str(model) for models in sets["models"] for model in models})
    places = {name: place for place, name in enumerate(names)}
    classes: list[Class] = []
    counted = 0
    for number, models in sets.itertuples(index=False):
        inside = [places[str(model)] for model in models]
        rows = _classes(ledger, int(number), [str(model) for model in models], prices, where, values)
        for row in rows.to_dict("records"):
            mask = int(row["mask"])
            costs = {
                place: int(row[f"m{i}"]) for i, place in enumerate(inside) if row[f"m{i}"] == row[f"m{i}"] is not None
            }
            costs = {place: cost for place, cost in costs.items() if prices.get(names[place]) is not None}
            chosen = None if row["chosen"] != row["chosen"] or row["chosen"] is None else inside[int(row["chosen"]) - 1]
            eligible = tuple(place for i, place in enumerate(inside) if mask >> i & 1)
            made = Class(eligible, chosen, int(row["calls"]), int(row["priced"]), int(row["billed"]), costs)
            classes.append(made)
            counted += made.calls
    total = int(ledger.sql(f"SELECT count(*) AS n FROM calls {where}", values).iloc[0]["n"])  # noqa: S608 - its own
    return Cube(tuple(names), tuple(classes), total - counted)


def _classes(
    ledger: Ledger,
    number: int,
    models: Sequence[str],
    prices: Mapping[str, PriceRule | None],
    where: str,
    values: Sequence[object],
) -> Any:
    sums = ", ".join(f"{_cost(i, prices.get(model))} AS m{i}" for i, model in enumerate(models))
    condition = where.replace("WHERE ", "AND ").replace("started_at", "c.started_at")
    return ledger.sql(
        f"""SELECT c.candidate_mask::BIGINT AS mask,
              CASE WHEN p.rejected[list_position(p.ranks, 1)] IS NULL THEN list_position(p.ranks, 1) END AS chosen,
              count(*) AS calls, count(c.output_tokens) AS priced,
              coalesce(sum(c.cost_nanos), 0)::BIGINT AS billed, {sums}
            FROM calls c JOIN plans p USING (seq)
            WHERE p.candidate_set = ? AND c.candidate_mask IS NOT NULL {condition}
            GROUP BY ALL ORDER BY ALL""",  # noqa: S608 - numbers and names of our own making
        [number, *values],
    )


def _cost(place: int, rule: PriceRule | None) -> str:
    """Return SQL for what a model would have cost over a class: each call rounded once, at the tier of its prompt."""
    if rule is None:
        return "NULL::HUGEINT"
    size = f"p.input_tokens[{place + 1}]"
    tiers = [rule.receipt(tier.start) for tier in rule.tiers]
    tokens = f"({size}::HUGEINT * {{0}} + c.output_tokens::HUGEINT * {{1}} + {{2}} + 500000) // 1000000"
    cases = "".join(
        f" WHEN {size} >= {tier.tier} THEN {tokens.format(tier.input, tier.output, tier.request * 10**6)}"
        for tier in reversed(tiers)
    )
    return f"coalesce(sum(CASE{cases} END), 0)::HUGEINT"
