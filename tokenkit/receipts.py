"""What a call leaves behind: its plan, attempts, stages, price, and the receipt that binds them.

All of it is frozen and turns into plain JSON and back without loss, so a receipt can be checked, repriced and replayed
long after the prices and the models have changed. ``Trail`` is the one mutable thing: the notes layers take while a
call runs, which the recorded layer freezes into exactly one receipt however the call ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from tokenkit.money import FEMTOS_PER_NANO, Nanos, Rate, ceil_to_nanos, per_million, round_to_nanos, show_usd, usd
from tokenkit.plain import encode, make, plain, shaped
from tokenkit.types import Response, TokenCount, Usage

Status = Literal["ok", "error", "cancelled", "unknown"]


@dataclass(frozen=True, slots=True)
class PriceReceipt:
    """The price a call was charged at, complete enough to reprice it from itself alone.

    Rates are femto-USD per token (1 USD per million tokens = 1e9). A cache or reasoning rate of ``None`` means the
    provider charges the plain input or output rate. ``request`` is nano-USD per request. ``layer`` says whose word the
    price is: ``user``, ``provider``, ``ours``, a profile, ``genai-prices`` or ``simulated``; ``matched`` which row;
    ``tier`` the input size in tokens from which these rates hold; ``data_hash`` the SHA-256 of the price data.
    """

    layer: str
    matched: str
    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_creation: Rate | None = None
    reasoning: Rate | None = None
    request: Nanos = 0
    tier: int = 0
    version: str = ""
    data_hash: str = ""
    at: str = ""

    def cost(self, usage: Usage) -> Nanos | None:
        """Return what ``usage`` costs in nano-USD, rounded once; ``None`` when input or output is unknown."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        read, created = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        reasoning = usage.reasoning_output_tokens or 0
        femtos = (
            max(usage.input_tokens - read - created, 0) * self.input
            + read * (self.input if self.cache_read is None else self.cache_read)
            + created * (self.input if self.cache_creation is None else self.cache_creation)
            + max(usage.output_tokens - reasoning, 0) * self.output
            + reasoning * (self.output if self.reasoning is None else self.reasoning)
        )
        return round_to_nanos(femtos + self.request * FEMTOS_PER_NANO)

    def bound(self, input_tokens: int, output_tokens: int) -> Nanos:
        """Return the most that so many tokens can cost under these rates, in nano-USD, rounded up."""
        dear_in = max(self.input, self.cache_read or 0, self.cache_creation or 0)
        dear_out = max(self.output, self.reasoning or 0)
        return ceil_to_nanos(input_tokens * dear_in + output_tokens * dear_out) + self.request

    def __str__(self) -> str:
        return (
            f"${per_million(self.input).normalize():f}/${per_million(self.output).normalize():f} per M ({self.layer})"
        )


class Candidate(NamedTuple):
    """One model as the router saw it: its score as named terms, or the reason it was rejected.

    ``input_tokens`` is the prompt in this model's own tokens; ``bound`` the most the call can cost, in nano-USD;
    ``propensity`` the probability with which the policy would have put it first. A tuple, because a plan over fifty
    models makes fifty of them on every call.
    """

    model: str
    provider: str
    score: float | None = None
    terms: tuple[tuple[str, float], ...] = ()
    propensity: float = 0.0
    input_tokens: TokenCount | None = None
    context_window: int | None = None
    bound: Nanos | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A routing decision before anything is sent: eligible candidates best first, then the rejected ones with reasons.

    Upper bounds hold for answers of ``max_output_tokens``, as asked for; ``None``: for the longest each model can give.
    ``notes`` tell what else would happen: that the answer is in the cache, or what is sent instead of the prompt.
    """

    candidates: tuple[Candidate, ...]
    strategy: str
    max_output_tokens: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def eligible(self) -> tuple[Candidate, ...]:
        """The candidates that may be tried, in the order they would be."""
        return tuple(c for c in self.candidates if c.rejected is None)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """The candidates that may not, each with its reason."""
        return tuple(c for c in self.candidates if c.rejected is not None)

    @property
    def choice(self) -> Candidate | None:
        """The candidate that would be tried first; ``None`` when all are rejected."""
        return next((c for c in self.candidates if c.rejected is None), None)

    @property
    def upper_bound(self) -> Decimal | None:
        """The most the first choice can cost in USD; ``None`` when it has no known price."""
        return None if self.choice is None else usd(self.choice.bound)

    def __repr__(self) -> str:
        if self.choice is None:
            return f"Plan(no candidate of {len(self.candidates)} is eligible)"
        share = f"{len(self.eligible)} of {len(self.candidates)} eligible"
        return f"Plan({self.choice.model}, at most {show_usd(self.choice.bound)}, {share})"

    def __str__(self) -> str:
        from tokenkit._html import plan_text

        return plan_text(self)

    def _repr_html_(self) -> str:
        from tokenkit._html import plan_card

        return plan_card(self)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one model: ``waited`` seconds slept before it, ``first_chunk`` seconds to the first of its answer."""

    model: str
    provider: str
    started_at: int
    seconds: float = 0.0
    first_chunk: float | None = None
    waited: float = 0.0
    status: Status = "ok"
    http_status: int | None = None
    error_type: str | None = None
    error: str | None = None
    request_id: str | None = None
    response_model: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_nanos: Nanos | None = None
    price: PriceReceipt | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one compression stage did, in tokens of the target model; ``skipped`` says why where it did nothing."""

    stage: str
    before: int
    after: int
    seconds: float
    lossless: bool
    exact: bool = True
    skipped: str | None = None

    @property
    def saved(self) -> int:
        """Tokens this stage took away."""
        return self.before - self.after

    @property
    def ratio(self) -> float | None:
        """Share of tokens kept; ``None`` for an empty input."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy said: ``outcome`` is ``allow``, ``warn``, ``throttle``, ``reroute``, ``shrink`` or ``block``."""

    policy: str
    outcome: str
    message: str = ""


class Charge(NamedTuple):
    """What a call took from one budget's account in one period: nano-USD or tokens, as ``unit`` says (usd, tokens).

    ``held`` is the most that its last try could take, reserved before it was sent; ``charged`` what all its tries did
    take, less than nothing in a correction. Summed over all receipts, an account's charges are what it has spent.
    """

    account: str
    period: str
    unit: str
    held: int = 0
    charged: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """One logical call, however many tries it took. Times are Unix nanoseconds; durations are seconds.

    ``usage`` and ``cost_nanos`` sum all attempts that were billed; ``cached_from`` is the id of the call whose answer
    was given again, where nothing was asked; ``rating`` is what a receipt of one says, 0 to 1.
    """

    id: str
    started_at: int
    seconds: float
    status: Status
    requested_model: str
    model: str | None = None
    provider: str | None = None
    operation: str = "chat"
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_nanos: Nanos | None = None
    price: PriceReceipt | None = None
    plan: Plan | None = None
    attempts: tuple[Attempt, ...] = ()
    stages: tuple[StageReport, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    charges: tuple[Charge, ...] = ()
    notes: tuple[str, ...] = ()
    error_type: str | None = None
    error: str | None = None
    cached: bool = False
    cached_from: str | None = None
    streamed: bool = False
    user: str | None = None
    session: str | None = None
    endpoint_name: str | None = None
    prompt: str | None = None
    answer: str | None = None
    prompt_sha256: str | None = None
    parent: str | None = None
    rating: float | None = None

    @property
    def cost(self) -> Decimal | None:
        """What the call cost in USD, exactly; ``None`` when the price or the usage is unknown."""
        return usd(self.cost_nanos)

    @property
    def saved_tokens(self) -> int:
        """Input tokens that compression took away."""
        return sum(stage.saved for stage in self.stages)

    def reprice(self, price: PriceReceipt | None = None) -> Nanos | None:
        """Recompute the cost in nano-USD from the receipt alone, or under another ``price``."""
        costs = [
            rate.cost(a.usage) for a in self.attempts if a.usage is not None and (rate := price or a.price) is not None
        ]
        return None if not costs or None in costs else sum(c for c in costs if c is not None)

    def __repr__(self) -> str:
        u = self.usage or Usage()
        counted, written = ("?" if n is None else f"{n:,}" for n in (u.input_tokens, u.output_tokens))
        counts = f"{counted} in, {written} out"
        via = self.model or self.requested_model
        mark = "~" if u.source != "reported" else ""
        tries = f", {len(self.attempts)} attempts" if len(self.attempts) > 1 else ""
        spent = f"{show_usd(self.cost_nanos)}, {self.seconds:.2f} s"
        return f"Receipt({self.id[-8:]} {self.status}, {via}, {mark}{counts}, {spent}{tries})"

    def _repr_html_(self) -> str:
        from tokenkit._html import receipt_card

        return receipt_card(self)

    def to_json(self) -> str:
        """Return the receipt as one line of JSON; ``from_json`` gives back an equal receipt."""
        return encode(plain(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Read a receipt written by ``to_json``; fields of later versions are ignored."""
        return _receipt(json.loads(text))


@dataclass(slots=True)
class Trail:
    """What has happened to a call so far; layers append, the recorded layer freezes it into a Receipt.

    ``shown`` counts the deltas the caller has seen: once it is not 0, no retry and no fallback may follow.
    ``deadline`` is a ``time.monotonic()`` instant; ``waited`` the seconds slept since the last attempt; ``receipt``
    and ``response`` are there once the call has been settled; ``pending`` settles the try that began last; ``answered``
    is the model and provider whose earlier answer it was, where no try was made.
    """

    id: str = ""
    plan: Plan | None = None
    attempts: list[Attempt] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: int = 0
    cached: bool = False
    cached_from: str | None = None
    answered: tuple[str | None, str | None] = (None, None)
    deadline: float | None = None
    waited: float = 0.0
    parent: str | None = None
    operation: str = "chat"
    receipt: Receipt | None = None
    response: Response | None = None
    pending: Callable[[], Attempt] | None = None

    def __post_init__(self) -> None:
        self.id = self.id or new_id()

    def settled(self) -> tuple[Attempt, ...]:
        """Return every try, the last one settled here if a stop came before it could settle itself."""
        last = None if self.pending is None else self.pending()
        known = last is None or any(attempt.started_at == last.started_at for attempt in self.attempts)
        return tuple(self.attempts) if last is None or known else (*self.attempts, last)


def new_id() -> str:
    """Return a fresh identifier: 32 hex digits that sort by time of creation (a UUID version 7 without dashes)."""
    millis = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (millis << 80) | (7 << 76) | ((noise >> 68) & 0xFFF) << 64 | (0b10 << 62) | (noise & (2**62 - 1))
    return f"{value:032x}"


shaped(PriceReceipt, Candidate, Plan, Attempt, StageReport, Verdict, Charge, Receipt, Usage)


def _many(build: Any, rows: Iterable[Any] | None) -> tuple[Any, ...]:
    return tuple(build(row) for row in rows or ())


def _usage(data: Mapping[str, Any] | None) -> Usage | None:
    return None if data is None else make(Usage, data)


def _price(data: Mapping[str, Any] | None) -> PriceReceipt | None:
    return None if data is None else make(PriceReceipt, data)


def _candidate(data: Mapping[str, Any]) -> Candidate:
    count = data.get("input_tokens")
    terms = tuple((str(name), float(value)) for name, value in data.get("terms", ()))
    return make(Candidate, data, terms=terms, input_tokens=None if count is None else TokenCount(*count))  # type: ignore[no-any-return]


def _attempt(data: Mapping[str, Any]) -> Attempt:
    nested = {
        "usage": _usage(data.get("usage")),
        "price": _price(data.get("price")),
        "notes": tuple(data.get("notes", ())),
    }
    return make(Attempt, data, **nested)  # type: ignore[no-any-return]


def _plan(data: Mapping[str, Any]) -> Plan:
    candidates = _many(_candidate, data.get("candidates"))
    return make(Plan, data, candidates=candidates, notes=tuple(data.get("notes", ())))  # type: ignore[no-any-return]


def _receipt(data: Mapping[str, Any]) -> Receipt:
    plan = data.get("plan")
    return make(  # type: ignore[no-any-return]
        Receipt,
        data,
        usage=_usage(data.get("usage")),
        price=_price(data.get("price")),
        plan=None if plan is None else _plan(plan),
        attempts=_many(_attempt, data.get("attempts")),
        stages=_many(lambda row: make(StageReport, row), data.get("stages")),
        verdicts=_many(lambda row: make(Verdict, row), data.get("verdicts")),
        charges=_many(lambda row: make(Charge, row), data.get("charges")),
        notes=tuple(data.get("notes", ())),
    )
