"""Money as integers: nano-USD for amounts, femto-USD per token for rates, ``Decimal`` at the edge.

One nano-USD is 1e-9 USD. A rate of 1 USD per million tokens is 1e9 femto-USD per token, so every published price
with up to nine decimals is an exact integer, and a cost is rounded once, half up, at its very end.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from tokenkit.errors import ConfigError

Nanos = int
"""An amount in nano-USD."""

Rate = int
"""A price in femto-USD (1e-15 USD) per token."""

NANOS_PER_USD = 10**9
FEMTOS_PER_NANO = 10**6

_AMOUNT = re.compile(r"^\s*(?:\$\s*)?([0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,2})?)\s*(?:USD|usd|\$)?\s*$")


def parse_usd(text: str | int | float | Decimal, *, where: str = "amount") -> Nanos:
    """Read an amount of US dollars, such as ``"0.05 USD"``, ``"$5"`` or ``2``, as nano-USD.

    Raises ConfigError, naming ``where``, for negative, infinite, not-a-number or foreign-currency amounts, for
    thousands separators (``"1,000"`` may mean 1 or 1000), and for anything finer than a nano-USD.
    """
    if isinstance(text, bool):
        raise ConfigError(f"{where}: {text!r} is not an amount of money.")
    if isinstance(text, str):
        match = _AMOUNT.match(text)
        if match is None:
            raise ConfigError(f"{where}: {text!r} is not an amount in USD. Write it like '0.05 USD', '$5' or 2.")
        text = match[1]
    try:
        amount = Decimal(str(text))
    except InvalidOperation:
        raise ConfigError(f"{where}: {text!r} is not an amount in USD.") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{where}: {text!r} is not a finite amount of at least 0 USD.")
    nanos = amount * NANOS_PER_USD
    if nanos != nanos.to_integral_value():
        raise ConfigError(f"{where}: {text!r} is finer than a nano-USD (nine decimals).")
    return int(nanos)


def usd(nanos: Nanos | None) -> Decimal | None:
    """Return nano-USD as an exact ``Decimal`` of USD; unknown stays ``None``."""
    return None if nanos is None else Decimal(nanos) / NANOS_PER_USD


def show_usd(nanos: Nanos | None) -> str:
    """Format nano-USD for people: two significant digits below a cent, cents above, ``unknown`` for None."""
    if nanos is None:
        return "unknown"
    amount = Decimal(nanos) / NANOS_PER_USD
    if nanos == 0:
        return "$0"
    if abs(amount) >= Decimal("0.1"):
        return f"${amount:,.2f}"
    places = max(2, 1 - amount.adjusted())
    return f"${amount:.{places}f}"


def rate_per_million(usd_per_million_tokens: str | int | float | Decimal) -> Rate:
    """Convert a published price in USD per million tokens to femto-USD per token.

    Raises ConfigError for negative or non-finite prices.
    """
    try:
        price = Decimal(str(usd_per_million_tokens))
    except InvalidOperation:
        raise ConfigError(f"{usd_per_million_tokens!r} is not a price in USD per million tokens.") from None
    if not price.is_finite() or price < 0:
        raise ConfigError(f"{usd_per_million_tokens!r} is not a finite price of at least 0 USD per million tokens.")
    return int((price * 10**9).to_integral_value())


def per_million(rate: Rate) -> Decimal:
    """Return a rate as USD per million tokens."""
    return Decimal(rate) / 10**9


def round_to_nanos(femtos: int) -> Nanos:
    """Round femto-USD to nano-USD, half up: the one rounding a cost goes through."""
    return (femtos + FEMTOS_PER_NANO // 2) // FEMTOS_PER_NANO


def ceil_to_nanos(femtos: int) -> Nanos:
    """Round femto-USD up to nano-USD: for upper bounds, which must never be too low."""
    return -(-femtos // FEMTOS_PER_NANO)
