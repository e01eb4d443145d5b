"""A price as exact integers: tiers by prompt length, periods by the clock, and the bound over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from tokenkit.errors import ConfigError
from tokenkit.money import Nanos, Rate, ceil_to_nanos, parse_usd, rate_per_million
from tokenkit.receipts import PriceReceipt

DAY = 86_400 * 10**9
"""One day in nanoseconds."""


class Rates(NamedTuple):
    """What a token costs, in femto-USD, in a prompt of at least ``start`` tokens; ``None`` means the plain rate."""

    start: int
    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_creation: Rate | None = None
    reasoning: Rate | None = None


class Period(NamedTuple):
    """Rates from the day ``since`` (Unix nanoseconds) on, each day from ``opens`` (nanoseconds after midnight UTC) on.

    A later day, or a later time of the same day, takes over. ``request`` is a fee in nano-USD for each request.
    """

    since: int
    opens: int
    tiers: tuple[Rates, ...]
    request: Nanos = 0


Ceiling = tuple[tuple[tuple[int, Rate, Rate], ...], Nanos]
"""The dearest input and output rate that a prompt reaching each start can meet, and the dearest fee."""


@dataclass(frozen=True, slots=True)
class PriceRule:
    """The price of one model: everything needed to charge a call, or to bound one that has not been made.

    ``layer`` is whose word it is (``user``, ``provider``, ``ours``, ``genai-prices``, a profile's name …), ``matched``
    the row; ``tiers`` rise from 0 input tokens; ``request`` is nano-USD for each request. Where the price changes with
    the clock, ``periods`` holds all that can apply from the time of resolving on, in order of time.
    Raises ConfigError for tiers that do not start at 0 and rise, and for negative rates.
    """

    layer: str
    matched: str
    tiers: tuple[Rates, ...]
    request: Nanos = 0
    version: str = ""
    data_hash: str = ""
    periods: tuple[Period, ...] = ()
    left_out: tuple[str, ...] = ()
    _ceiling: Ceiling = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tiers = tuple(Rates(*row) for row in self.tiers)
        starts = [row.start for row in tiers]
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise ConfigError(f"{self.matched}: price tiers must begin at 0 input tokens and rise, not {starts}.")
        if self.request < 0 or any((rate or 0) < 0 for row in tiers for rate in row):
            raise ConfigError(f"{self.matched}: a price cannot be negative.")
        object.__setattr__(self, "tiers", tiers)
        possible = [(tiers, self.request), *((period.tiers, period.request) for period in self.periods)]
        object.__setattr__(self, "_ceiling", _ceiling(possible))

    def receipt(self, input_tokens: int | None, at: int | None = None) -> PriceReceipt:
        """Return the price of a call with ``input_tokens`` (cached ones included) made at ``at``, in Unix nanoseconds.

        Unknown ``input_tokens`` gives the base tier. Without ``at`` the rates are those of the time of resolving;
        a time long before it is charged by the prices of that time too: use ``resolve(..., at=...)`` for history.
        """
        tiers, request = self.tiers, self.request
        if at is not None:
            for period in self.periods:
                if period.since <= at and period.opens <= at % DAY:
                    tiers, request = period.tiers, period.request
        row = tiers[0]
        if input_tokens is not None and len(tiers) > 1:
            row = max(tier for tier in tiers if tier.start <= max(input_tokens, 0))
        return PriceReceipt(
            self.layer,
            self.matched,
            row.input,
            row.output,
            row.cache_read,
            row.cache_creation,
            row.reasoning,
            request,
            row.start,
            self.version,
            self.data_hash,
            "" if at is None else _iso(at),
        )

    def bound(self, input_tokens: int, output_tokens: int, at: int | None = None) -> Nanos:
        """Return the most a call of up to so many tokens can cost, in nano-USD rounded up.

        Counts every tier that such a prompt can reach, the dearest of plain, cache and reasoning rates, and every
        period to come; with ``at`` (Unix nanoseconds) only what can hold within a day from then.
        """
        rows, fee = self._ceiling
        if at is not None and self.periods:
            today = max([period.since for period in self.periods if period.since <= at], default=0)
            near = [(period.tiers, period.request) for period in self.periods if today <= period.since <= at + DAY]
            rows, fee = _ceiling(near)
        dear_in = dear_out = 0
        for start, rate_in, rate_out in rows:
            if start > input_tokens:
                break
            dear_in, dear_out = rate_in, rate_out
        return ceil_to_nanos(input_tokens * dear_in + output_tokens * dear_out) + fee

    @property
    def cost_per_1k(self) -> float:
        """USD for 1,000 input tokens at the base tier: the figure of the seed's score ``weight - 10 * cost_per_1k``.

        The formula stands in the first model registry of jordanhubbard/tokenhub (February 2026, ``models/registry.go``)
        where each model has a single figure. Its example for GPT-4 is 0.03, which is that model's published input
        price (output was 0.06): so it is the input price, neither output nor a blend.
        """
        return self.tiers[0].input / 10**12

    def __str__(self) -> str:
        return str(self.receipt(None))


def flat(
    layer: str,
    matched: str,
    *,
    input: Any,  # noqa: A002 - what it is called everywhere else, tokenkit.toml included
    output: Any,
    cache_read: Any = None,
    cache_creation: Any = None,
    reasoning: Any = None,
    request: Any = 0,
    version: str = "",
) -> PriceRule:
    """Return a price without tiers from USD per million tokens; ``request`` is USD for each request.

    Numbers, decimals and numerals all do. Raises ConfigError for a negative or non-finite one.
    """
    extras = [None if price is None else rate_per_million(price) for price in (cache_read, cache_creation, reasoning)]
    rates = Rates(0, rate_per_million(input), rate_per_million(output), *extras)
    return PriceRule(layer, matched, (rates,), parse_usd(request, where="price per request"), version)


def _ceiling(possible: Iterable[tuple[tuple[Rates, ...], Nanos]]) -> Ceiling:
    rates: list[Rates] = []
    fee = 0
    for tiers, request in possible:
        rates.extend(tiers)
        fee = max(fee, request)
    rows, dear_in, dear_out = [], 0, 0
    for row in sorted(rates, key=lambda row: row.start):
        dear_in = max(dear_in, row.input, row.cache_read or 0, row.cache_creation or 0)
        dear_out = max(dear_out, row.output, row.reasoning or 0)
        rows.append((row.start, dear_in, dear_out))
    return tuple(rows), fee


def _iso(at: int) -> str:
    seconds, nanos = divmod(at, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos // 10**6:03d}Z"
