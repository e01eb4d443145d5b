"""History at other prices, and price tables against each other.

It is computed in the ledger, try by try in whole numbers, so a repriced history is exact to the nano-USD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tokenkit import _html, pricing
from tokenkit.analysis.tables import table
from tokenkit.catalog import Catalog
from tokenkit.errors import UserError
from tokenkit.ledger.book import Ledger, since_clause
from tokenkit.money import Nanos, show_usd, usd
from tokenkit.pricing import PriceRule

if TYPE_CHECKING:
    import pandas

PriceOf = Callable[[str, str], PriceRule | None]
"""From provider and model name to the price to use; None where there is none."""

Prices = str | Mapping[str, PriceRule] | None


@dataclass(frozen=True)
class Repriced:
    """History at other prices: ``was`` and ``now`` in USD over the tries both know; ``unknown`` tries have no price.

    ``df()`` has one row a model.
    """

    rows: pandas.DataFrame
    prices: str

    @property
    def was(self) -> Decimal | None:
        """What the tries that both prices know were charged, in USD."""
        return usd(_total(self.rows, "was_nanos"))

    @property
    def now(self) -> Decimal | None:
        """What they would be charged at these prices, in USD."""
        return usd(_total(self.rows, "now_nanos"))

    @property
    def unknown(self) -> int:
        """Tries left out, because one of the two prices or their use is not known."""
        return int(self.rows["unknown"].sum())

    def df(self) -> pandas.DataFrame:
        """Return one row a model: tries, cost then and now in USD, tries left out."""
        frame = self.rows[["model", "tries", "unknown"]].copy()
        for name in ("was", "now"):
            frame[f"{name}_usd"] = [usd(int(value)) for value in self.rows[f"{name}_nanos"]]
        return frame

    def __repr__(self) -> str:
        was, now = (_total(self.rows, name) for name in ("was_nanos", "now_nanos"))
        left = f"; {self.unknown:,} tries without a price left out" if self.unknown else ""
        return f"Repriced(at {self.prices}: {show_usd(was)} -> {show_usd(now)}{left})"

    def _repr_html_(self) -> str:
        return _html.table_card(table(repr(self), self.df()))


def reprice(
    ledger: Ledger, catalog: Catalog, *, at: datetime | None = None, prices: Prices = None, since: Any = None
) -> Repriced:
    """Recompute the cost of every logged try at other prices.

    ``prices`` is a profile such as ``"seed-2024"``, or a mapping from ``provider/name`` (or name) to a PriceRule;
    ``at`` takes the published prices of that moment; with neither, today's prices of this kit. Raises UserError.
    """
    said, price_of = _chosen(catalog, at, prices)
    where, values = since_clause(since)
    where = where.replace("started_at", "a.started_at")
    models = ledger.sql("SELECT DISTINCT provider, model FROM attempts WHERE model IS NOT NULL")
    rates = [row for provider, model in models.itertuples(index=False) for row in _rates(provider, model, price_of)]
    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(rates)) or "(NULL, 0, 0, 0, 0, 0, 0, 0, 0)"
    rows = ledger.sql(
        f"""WITH rates(model, low, high, dear_in, dear_out, cr, cc, rs, fee) AS (VALUES {marks}),
        costs AS (
          SELECT a.model, a.cost_nanos AS was, CASE WHEN a.input_tokens IS NULL AND a.cost_nanos = 0 THEN 0 ELSE
            (greatest(a.input_tokens - coalesce(a.cache_read_input_tokens, 0)
                      - coalesce(a.cache_creation_input_tokens, 0), 0)::HUGEINT * dear_in
             + coalesce(a.cache_read_input_tokens, 0)::HUGEINT * cr
             + coalesce(a.cache_creation_input_tokens, 0)::HUGEINT * cc
             + greatest(a.output_tokens - coalesce(a.reasoning_output_tokens, 0), 0)::HUGEINT * dear_out
             + coalesce(a.reasoning_output_tokens, 0)::HUGEINT * rs + fee::HUGEINT * 1000000 + 500000) // 1000000
            END AS now
          FROM attempts a LEFT JOIN rates r
            ON a.model = r.model AND coalesce(a.input_tokens, 0) >= r.low AND coalesce(a.input_tokens, 0) < r.high
          {where})
        SELECT model, count(*) AS tries, count(*) FILTER (was IS NULL OR now IS NULL) AS unknown,
          coalesce(sum(was) FILTER (was IS NOT NULL AND now IS NOT NULL), 0)::BIGINT AS was_nanos,
          coalesce(sum(now) FILTER (was IS NOT NULL AND now IS NOT NULL), 0)::BIGINT AS now_nanos
        FROM costs GROUP BY model ORDER BY was_nanos DESC, model""",  # noqa: S608 - the marks are ours
        [value for row in rates for value in row] + list(values),
    )
    return Repriced(rows, said)


def _chosen(catalog: Catalog, at: datetime | None, prices: Prices) -> tuple[str, PriceOf]:
    if at is not None and prices is not None:
        raise UserError("Say either at= (published prices of a moment) or prices=, not both.")
    if at is not None:
        moment = int(at.timestamp() * 10**9)
        return f"published prices of {at:%Y-%m-%d}", lambda p, m: pricing.resolve(p, m, at=moment)
    if prices is None:
        return "today's prices", _todays(catalog)
    table = pricing.profile(prices) if isinstance(prices, str) else prices
    name = prices if isinstance(prices, str) else "the given prices"

    def given(provider: str, model: str) -> PriceRule | None:
        return next((table[key] for key in (f"{provider}/{model}", model, f"{provider}/*") if key in table), None)

    return name, given


def _todays(catalog: Catalog) -> PriceOf:
    known = {model.id: model.price for model in catalog.models}
    return lambda provider, model: known.get(f"{provider}/{model}") or pricing.resolve(provider, model)


def _rates(provider: str | None, model: str, price_of: PriceOf) -> Iterable[tuple[object, ...]]:
    """Return one row for each tier of a model's price: input sizes from and below, and rates in femto-USD a token."""
    name = model.partition("/")[2] or model
    rule = price_of(provider or model.partition("/")[0], name)
    if rule is None:
        return
    ends = [*(tier.start for tier in rule.tiers[1:]), 2**62]
    for start, end in zip((tier.start for tier in rule.tiers), ends, strict=True):
        price = rule.receipt(start)
        read = price.input if price.cache_read is None else price.cache_read
        made = price.input if price.cache_creation is None else price.cache_creation
        thought = price.output if price.reasoning is None else price.reasoning
        yield model, start, end, price.input, price.output, read, made, thought, price.request


def compare_prices(catalog: Catalog) -> pandas.DataFrame:
    """Return where this kit's prices and the published ones disagree: USD per million tokens, a row a model and rate.

    A model without a published price, or without one here, is listed with the other side empty.
    """
    import pandas  # heavy: only where a frame is made

    rows = []
    for model in catalog.models:
        published = pricing.resolve(model.provider, model.name)
        for rate in ("input", "output", "cache_read", "cache_creation", "reasoning"):
            mine = None if model.price is None else getattr(model.price.receipt(None), rate)
            theirs = None if published is None else getattr(published.receipt(None), rate)
            if mine != theirs:
                rows.append(
                    (model.id, rate, _million(mine), _million(theirs), "" if model.price is None else model.price.layer)
                )
    return pandas.DataFrame(rows, columns=["model", "rate", "here", "published", "whose"])


def _million(rate: int | None) -> float | None:
    return None if rate is None else rate / 10**9


def _total(rows: pandas.DataFrame, column: str) -> Nanos:
    return int(rows[column].sum())
