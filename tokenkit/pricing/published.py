"""The one border to the ``genai-prices`` package: its bundled data, turned into price rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from tokenkit.money import Nanos, rate_per_million
from tokenkit.pricing.rules import DAY, Period, PriceRule, Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

# genai-prices is imported inside functions: with its data it takes longer to load than httpx.


@cache
def provenance() -> tuple[str, str]:
    """Return the version of the price package and the SHA-256 of its data, as receipts carry them."""
    from hashlib import sha256
    from pathlib import Path

    import genai_prices
    from genai_prices import data

    return genai_prices.__version__, sha256(Path(data.__file__).read_bytes()).hexdigest()


@cache
def _providers() -> dict[str, Provider]:
    # The bundled list itself, whatever an updater may have installed for the rest of the process.
    from genai_prices.data import providers

    return {provider.id: provider for provider in providers}


def names(provider: str) -> tuple[str, ...]:
    """Return the models listed under a provider of the data; empty for one it does not know."""
    listed = _providers().get(provider)
    return () if listed is None else tuple(model.id for model in listed.models)


@lru_cache(maxsize=4096)
def find(provider: str, model: str) -> tuple[ModelInfo, bool] | None:
    """Return the row for a model, and whether it stands under this very provider, not under one it resells."""
    listed = _providers().get(provider)
    found = None if listed is None else listed.find_model(model, all_providers=list(_providers().values()))
    if listed is None or found is None:
        return None
    return found, any(found is own for own in listed.models)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """All prices a model has in the data, in order of time, and the rules already made of them."""

    matched: str
    periods: tuple[Period, ...]
    left_out: tuple[str, ...]
    made: dict[tuple[int, int], PriceRule] = field(default_factory=dict)

    def rule(self, at: int) -> PriceRule:
        """Return the price from the instant ``at`` (Unix nanoseconds) on."""
        day = max([p.since for p in self.periods if p.since <= at], default=self.periods[0].since)
        now = [p for p in self.periods if p.since == day and p.opens <= at % DAY][-1]
        if (made := self.made.get((day, now.opens))) is not None:
            return made
        # What may come is kept, so that a bound made today covers a rise announced for tomorrow.
        ahead = tuple(p._replace(since=0 if p.since == day else p.since) for p in self.periods if p.since >= day)
        periods = () if all(p[2:] == now[2:] for p in ahead) else ahead
        rule = PriceRule("genai-prices", self.matched, now.tiers, now.request, *provenance(), periods, self.left_out)
        return self.made.setdefault((day, now.opens), rule)


@lru_cache(maxsize=4096)
def sheet(provider: str, model: str, context: tuple[tuple[str, str], ...]) -> Sheet | None:
    """Ask the data for every stretch of time between two changes of a model's price; ``None`` when it has none."""
    found = find(provider, model)
    if found is None:
        return None
    info, own = found
    # A reseller's row is the other provider's, whose variants say nothing about the reseller.
    variant = {key: value for key, value in context if key != "cache_ttl"} if own else None
    days, clocks = _changes(info)
    periods, left_out = [], set[str]()
    for day in days:
        for clock in clocks:
            price = info.get_prices(datetime.fromtimestamp((day + clock) // 10**9, UTC), variant)
            rates = _rates(info.id, price, hour_long=("cache_ttl", "1h") in context)
            if rates is not None:
                periods.append(Period(day, clock, *rates))
                left_out |= {key for key, value in vars(price).items() if value is not None} - _CARRIED
    if not periods:
        return None
    return Sheet(f"{provider}/{info.id}", tuple(periods), tuple(sorted(left_out)))


_CARRIED = {
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "output_reasoning_mtok",
    "requests_kcount",
}


def _changes(info: ModelInfo) -> tuple[list[int], list[int]]:
    """Return the days (Unix nanoseconds) and the times of day (nanoseconds) at which a price may change."""
    from genai_prices.types import ModelPrice, StartDateConstraint, TimeOfDateConstraint

    days, clocks = {0}, {0}
    listed = [] if isinstance(info.prices, ModelPrice) else info.prices
    for conditional in (*listed, *(info.price_variants or ())):
        if isinstance(conditional.constraint, StartDateConstraint):
            start = conditional.constraint.start_date
            days.add(int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp()) * 10**9)
        elif isinstance(conditional.constraint, TimeOfDateConstraint):
            for moment in (conditional.constraint.start_time, conditional.constraint.end_time):
                aware = datetime.combine(datetime(2000, 1, 2), moment, tzinfo=moment.tzinfo or UTC)
                clocks.add(int(aware.timestamp()) * 10**9 % DAY)
    return sorted(days), sorted(clocks)


def _rates(name: str, price: ModelPrice, *, hour_long: bool) -> tuple[tuple[Rates, ...], Nanos] | None:
    """Turn a published price into tiers and a fee per request; ``None`` where it has no price for tokens."""
    if not any(value is not None for value in vars(price).values()) and name.endswith(":free"):
        return (Rates(0, 0, 0),), 0
    # An empty row that is not called free only says that nobody wrote the price down.
    if price.input_mtok is None:
        return None
    written = (price.cache_write_1h_mtok if hour_long else None) or price.cache_write_mtok
    # A model without an output price has no output: it embeds or classifies.
    columns = (
        price.input_mtok,
        price.output_mtok or Decimal(0),
        price.cache_read_mtok,
        written,
        price.output_reasoning_mtok,
    )
    # Their threshold is exclusive (a prompt *over* 200,000 tokens), our start inclusive.
    starts = {tier.start + 1 for column in columns for tier in getattr(column, "tiers", ())}
    tiers = tuple(_row(start, columns) for start in sorted({0} | starts))
    fee = price.requests_kcount
    # USD per thousand requests is a million nano-USD for each.
    nanos = 0 if not isinstance(fee, Decimal) else int((fee * 10**6).to_integral_value(ROUND_HALF_UP))
    return tiers, nanos


def _row(start: int, columns: Sequence[Decimal | TieredPrices | None]) -> Rates:
    rates: list[Any] = []
    for column in columns:
        if column is None or isinstance(column, Decimal):
            price = column
        else:
            price = next((tier.price for tier in reversed(column.tiers) if start > tier.start), column.base)
        rates.append(None if price is None else rate_per_million(price))
    return Rates(start, *rates)
