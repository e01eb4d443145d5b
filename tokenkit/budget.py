"""Budgets as pure judgement: what a limit means, whose calls it counts, which period a moment falls in, what a call
can cost at most, and how much of an answer still fits.

Nothing here keeps books (``accounts`` does) and nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from tokenkit.catalog import Model
from tokenkit.errors import ConfigError
from tokenkit.money import Nanos, parse_usd, show_usd
from tokenkit.pricing import PriceRule
from tokenkit.receipts import PriceReceipt
from tokenkit.route import ANSWERS, longest_answer
from tokenkit.types import Request, TokenCount, Usage

Window = Literal["request", "cell", "hour", "day", "month", "total"]
Action = Literal["block", "warn", "throttle", "reroute", "shrink"]
Unit = Literal["usd", "tokens"]

SCOPES = ("user", "provider", "model", "session", "endpoint")
"""What a budget can be narrowed to, beside everything."""

PER = {
    "request": "a request",
    "cell": "a cell",
    "hour": "an hour",
    "day": "a day",
    "month": "a month",
    "total": "in total",
}
"""How a window is said."""

SHORTEST_ANSWER = 16
"""Tokens: where less than this is affordable, the call is refused rather than cut to a stump."""

MOST = 2**62
"""Amounts stop here, so that sums of them stay within what SQLite and PostgreSQL hold."""

EACH = "*"
"""As a scope's value: every user (model, …) has an account of its own."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit, in USD (``"5 USD"``, ``"$5"``, ``5``) or tokens (``"100000 tokens"``), for a window of time.

    ``window`` is one request (all its tries), one notebook cell, a calendar ``hour``, ``day`` or ``month`` in
    ``timezone`` (a place such as ``Europe/Berlin``), or the ``total``. The scopes narrow whose calls count: all that
    are given must match, and ``"*"`` gives each user, model, … an account of its own.

    ``action`` says what happens to a call that might not fit: ``block`` refuses it, once no running call can give back
    enough; ``throttle`` waits longer for that; ``reroute`` asks a model that fits; ``shrink`` lowers ``max_tokens``;
    ``warn`` lets it go. ``warn_at`` is the share of the limit at which one notice is given. Raises ConfigError, naming
    the field.
    """

    limit: str | int | float | Decimal
    window: Window = "total"
    action: Action = "block"
    user: str | None = None
    provider: str | None = None
    model: str | None = None
    session: str | None = None
    endpoint: str | None = None
    name: str | None = None
    timezone: str = "UTC"
    warn_at: float = 0.8
    amount: int = field(init=False)
    unit: Unit = field(init=False)

    def __post_init__(self) -> None:
        amount, unit = parse_limit(self.limit)
        if amount > MOST:
            raise ConfigError(f"limit: {self.limit!r} is more than anybody could spend.")
        object.__setattr__(self, "amount", amount)
        object.__setattr__(self, "unit", unit)
        for what, value, choices in (("window", self.window, Window), ("action", self.action, Action)):
            if value not in get_args(choices):
                raise ConfigError(f"A budget's {what} is one of {', '.join(get_args(choices))}, not {value!r}.")
        for scope in (*SCOPES, "name"):
            value = getattr(self, scope)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"A budget's {scope} is a name, not {value!r}.")
        if isinstance(self.warn_at, bool) or not isinstance(self.warn_at, int | float) or not 0 <= self.warn_at <= 1:
            raise ConfigError(f"A budget's warn_at is a share between 0 and 1, not {self.warn_at!r}.")
        _zone(self.timezone)

    @property
    def scope(self) -> tuple[tuple[str, str], ...]:
        """What narrows it, as ``(("user", "alice"),)``; empty: everything counts."""
        return tuple((name, value) for name in SCOPES if (value := getattr(self, name)) is not None)

    @property
    def key(self) -> str:
        """Its identity: setting a budget with the same key replaces its limit and keeps what was spent."""
        scope = ", ".join(f"{name} {value}" for name, value in self.scope)
        unit = "USD" if self.unit == "usd" else "tokens"
        return self.name or f"{unit} {PER[self.window]}" + (f" for {scope}" if scope else "")

    @property
    def hard(self) -> bool:
        """Whether it may never be overdrawn: every action but ``warn``."""
        return self.action != "warn"

    def show(self, amount: int) -> str:
        """Format an amount in this budget's unit."""
        return show_usd(amount) if self.unit == "usd" else f"{amount:,} tokens"

    def as_table(self) -> dict[str, Any]:
        """Return it as tokenkit.toml would write it; ``Budget(**table)`` gives it back."""
        table: dict[str, Any] = {"limit": str(self.limit) if isinstance(self.limit, Decimal) else self.limit}
        if self.unit == "usd" and not isinstance(self.limit, str):
            table["limit"] = f"{Decimal(self.amount) / 10**9:f} USD"
        for name in ("window", "action", *SCOPES, "name", "timezone", "warn_at"):
            table[name] = getattr(self, name)
        return {name: value for name, value in table.items() if value is not None}

    def __repr__(self) -> str:
        whose = "".join(f", {name}={value}" for name, value in self.scope)
        return f"Budget({self.show(self.amount)} {PER[self.window]}, {self.action}{whose})"


class Who(NamedTuple):
    """Whose call it is, and which model it is aimed at: what scopes are compared with."""

    user: str | None
    provider: str | None
    model: str | None
    session: str | None
    endpoint: str | None


def who(request: Request, model: str | None = None, provider: str | None = None) -> Who:
    """Return who makes ``request``, aimed at ``model`` (``provider/name``), by default the request's own."""
    return Who(
        request.user, provider or request.provider, model or request.model, request.session, request.endpoint_name
    )


def account(budget: Budget, caller: Who) -> str | None:
    """Return the name of the account this call is charged to under ``budget``; None when it does not count there."""
    own = ""
    for scope, wanted in budget.scope:
        actual = getattr(caller, scope)
        if wanted == EACH:
            own += f" {scope}={actual or 'nobody'}"
        elif actual != wanted and not (scope == "model" and actual is not None and actual.endswith(f"/{wanted}")):
            return None
    return f"{budget.key}:{own}" if own else budget.key


class Period(NamedTuple):
    """One window of time: its name, which never names two different stretches, and its bounds in Unix nanoseconds.

    ``start`` and ``end`` are None for windows that are no stretch of time (request, cell, total).
    """

    name: str
    start: int | None = None
    end: int | None = None


def period(window: Window, now: int, timezone: str = "UTC", own: str = "") -> Period:
    """Return the period that ``now`` (Unix nanoseconds) falls in; ``own`` names the request or the cell.

    Days and months are local, so a day has 23 or 25 hours twice a year; the hour that a clock repeats in autumn is two
    periods, told apart by their offset. What was spent belongs to the name: a clock set back finds it again.
    """
    if window in ("request", "cell"):
        return Period(own)
    if window == "total":
        return Period("total")
    return _calendar(window, now // 10**9, timezone)


@lru_cache(maxsize=64)
def _calendar(window: Window, seconds: int, timezone: str) -> Period:
    zone = _zone(timezone)
    local = datetime.fromtimestamp(seconds, zone)
    if window == "hour":
        begins = local.replace(minute=0, second=0, microsecond=0)
        # In universal time: adding an hour on the wall clock is wrong where the clock itself is moved.
        ends = (begins.astimezone(UTC) + timedelta(hours=1)).astimezone(zone)
        return Period(f"{begins:%Y-%m-%d %H:00%z}", _nanos(begins), _nanos(ends))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window == "day":
        return Period(f"{local:%Y-%m-%d}", _nanos(midnight), _nanos(midnight + timedelta(days=1)))
    first = midnight.replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return Period(f"{local:%Y-%m}", _nanos(first), _nanos(following))


def _nanos(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        # KeyError covers ZoneInfoNotFoundError; OSError a name that is a folder of the zone files.
        raise ConfigError(f"There is no time zone {name!r}. Name a place, such as 'Europe/Berlin', or 'UTC'.") from None


def parse_limit(limit: str | int | float | Decimal) -> tuple[int, Unit]:
    """Read ``"5 USD"`` as nano-USD and ``"10000 tokens"`` (``_`` and ``k``/``M`` allowed) as tokens."""
    if isinstance(limit, str) and limit.strip().lower().endswith(("token", "tokens")):
        text = limit.strip().lower().removesuffix("s").removesuffix("token").strip().replace("_", "")
        scale = {"k": 1_000, "m": 1_000_000}.get(text[-1:], 1)
        digits = text[:-1].strip() if scale > 1 else text
        if not (digits.isascii() and digits.isdecimal()):
            raise ConfigError(f"limit: {limit!r} is no number of tokens. Write it like '10000 tokens' or '10k tokens'.")
        return int(digits) * scale, "tokens"
    return parse_usd(limit, where="limit"), "usd"


# What a call can cost.

MULTIPLIERS = ("n", "best_of", "candidateCount", "candidate_count")
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict")
SURCHARGED = ("service_tier", "web_search_options", "plugins", "inference_geo", "speed", "modalities", "audio")
"""Keys of ``extra`` that change the price in ways no price table tells: refused where a budget must hold."""


class Ask(NamedTuple):
    """The most one try can take: tokens in and out, and their price. ``nanos`` None: it has no known price."""

    input_tokens: int
    output_tokens: int
    nanos: Nanos | None

    def of(self, unit: Unit) -> int | None:
        """Return the ask in a budget's unit."""
        return self.nanos if unit == "usd" else self.input_tokens + self.output_tokens


def ask(request: Request, model: Model, tokens: TokenCount, now: int) -> Ask | None:
    """Return the most that one try of ``request`` at ``model`` can take; None when nothing bounds its answer.

    The prompt counts at its upper bound and the dearest rate it can meet (cache writes, long-context tiers), the
    answer at ``max_tokens``, as often as ``extra`` asks for it.
    """
    longest = _longest(request, model, tokens)
    if longest is None:
        return None
    return asking(model.price, tokens.upper_bound, longest * _copies(request), now)


def asking(price: PriceRule | None, input_tokens: int, output_tokens: int, now: int) -> Ask:
    """Return an ask for so many tokens at ``price``."""
    bound = None if price is None else min(price.bound(input_tokens, output_tokens, now), MOST)
    return Ask(input_tokens, output_tokens, bound)


def _longest(request: Request, model: Model, tokens: TokenCount) -> int | None:
    if not model.capabilities & ANSWERS:
        return 0  # an embedding model writes nothing
    told = [value for value in _extras(request, CAPS) if isinstance(value, int)]
    longest = longest_answer(request, model, tokens)
    return max([*told, longest or 0]) if told else longest


def _copies(request: Request) -> int:
    copies = 1
    for value in _extras(request, MULTIPLIERS):
        copies *= value if isinstance(value, int) and value > 0 else 1
    return copies


def _extras(request: Request, names: tuple[str, ...]) -> list[Any]:
    extra = request.extra or {}
    nested = [value for key in ("generationConfig", "options") if isinstance(value := extra.get(key), Mapping)]
    return [place[name] for place in (extra, *nested) for name in names if name in place]


def surcharge(request: Request) -> str | None:
    """Return the key of ``extra`` whose price nobody can bound, if there is one."""
    extra = request.extra or {}
    return next((key for key in SURCHARGED if extra.get(key) not in (None, "default", "standard_only", "auto")), None)


def affordable(request: Request, model: Model, tokens: TokenCount, left: int, unit: Unit, now: int) -> int:
    """Return the largest ``max_tokens`` whose ask is at most ``left``; 0 when not even the prompt fits.

    Never more than the model itself can give, or than was asked for.
    """
    most = _longest(request, model, tokens)
    high = 10**7 if most is None else most
    copies = _copies(request)
    low = 0
    # A price is a sum of steps and slopes that never falls, so bisection finds the exact edge.
    while low < high:
        middle = (low + high + 1) // 2
        cost = asking(model.price, tokens.upper_bound, middle * copies, now).of(unit)
        if cost is not None and cost <= left:
            low = middle
        else:
            high = middle - 1
    return low


def worst_usage(price: PriceReceipt | None, input_tokens: int, output_tokens: int) -> Usage:
    """Return the usage that costs the most for so many tokens: what a try of unknown fate is charged with."""
    usage = Usage(input_tokens, output_tokens, source="estimated")
    if price is None:
        return usage
    if (price.cache_creation or 0) > max(price.input, price.cache_read or 0):
        usage = replace(usage, cache_creation_input_tokens=input_tokens)
    elif (price.cache_read or 0) > price.input:
        usage = replace(usage, cache_read_input_tokens=input_tokens)
    if (price.reasoning or 0) > price.output:
        usage = replace(usage, reasoning_output_tokens=output_tokens)
    return usage


def from_tables(tables: tuple[Mapping[str, Any], ...]) -> tuple[Budget, ...]:
    """Return the budgets of tokenkit.toml. Raises ConfigError where two have one key."""
    budgets = tuple(Budget(**table) for table in tables)
    seen: set[str] = set()
    for budget in budgets:
        if budget.key in seen:
            raise ConfigError(f"Two budgets in tokenkit.toml are the same: {budget.key}. Give one of them a name.")
        seen.add(budget.key)
    return budgets
