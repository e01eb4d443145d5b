"""budgeted: reserve the most a try can cost before it is sent, and settle what it did cost.

Each try reserves for itself, so retries and fallbacks never hold twice. A try whose end nobody saw (stopped before an
answer came, or a connection that broke after the request was out) may have been billed in full: so it is charged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from random import random
from typing import NoReturn, Protocol

from tokenkit.budget import SHORTEST_ANSWER, Ask, Budget, Who, affordable, ask, asking, surcharge, who, worst_usage
from tokenkit.catalog import Model
from tokenkit.effects import Call, Effect, Flow, Layer, Show, Sleep
from tokenkit.errors import BudgetExceeded, LedgerError, TokenkitError
from tokenkit.money import Nanos
from tokenkit.providers.base import gather
from tokenkit.receipts import Attempt, Receipt, Status, Trail, Verdict
from tokenkit.standing import Alert, Short, Standing, refused
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Delta, Request, Response, TokenCount

PATIENCE = 60.0
"""Seconds that ``throttle`` waits for running calls where the call has no deadline."""

STALL = 10.0
"""Seconds without any running call settling, after which other budgets refuse: what is held may well come back, and a
refusal before it does would be a false one."""

POLL = (0.02, 0.5)
"""Seconds between two looks while waiting: at first, and at most."""

RENEW_SECONDS = 300.0

Rules = tuple[tuple[Budget, str], ...]
"""Budgets a call is under, each with the id of its cell, if it has one."""


class Books(Protocol):
    """Where amounts are kept; ``tokenkit.accounts`` keeps them."""

    def rules(self, own: Budget | None = None) -> Rules: ...
    def reserve(
        self, rules: Rules, caller: Who, call: str, asked: Ask, lost: Callable[[], Receipt]
    ) -> tuple[Short, ...]: ...
    def settle(
        self, call: str, nanos: Nanos | None, tokens: int | None, lost: Callable[[], Receipt]
    ) -> list[Alert]: ...
    def renew(self, call: str) -> None: ...
    def stand(self, rules: Rules, caller: Who, call: str = "") -> tuple[Standing, ...]: ...


def budgeted(
    books: Books,
    model_of: Callable[[Request], Model],
    *,
    told: Callable[[list[Alert]], None] = lambda alerts: None,
    now: Callable[[], int] = time.time_ns,
    clock: Callable[[], float] = time.monotonic,
) -> Layer:
    """Hold each try to the budgets it is under; ``told`` is given the notices that are due."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            try:
                rules = books.rules(own_budget(request))
            except LedgerError as error:
                raise BudgetExceeded(f"Nothing was sent, because the budgets cannot be read: {error}") from error
            if not rules:
                return (yield from call(request, trail))
            model = model_of(request)
            began = _Try(request, trail, model, clock(), now())
            asked = yield from _admitted(books, rules, began, now, clock)
            before = len(trail.attempts)
            try:
                return (yield from _kept(call(began.request, trail), books, began, clock))
            except BaseException as stop:
                if len(trail.attempts) > before and asked is not None:
                    trail.attempts[-1] = _in_full(trail.attempts[-1], began, asked)
                if isinstance(stop, TokenkitError):  # any other ends the call, and is settled with its receipt
                    _settle(books, began, told)
                raise

        return flow

    return layer


@dataclass(slots=True)
class _Try:
    """One try: ``request`` may be shortened before it is sent; ``began`` is monotonic, ``at`` Unix nanoseconds."""

    request: Request
    trail: Trail
    model: Model
    began: float
    at: int


def _admitted(
    books: Books, rules: Rules, this: _Try, now: Callable[[], int], clock: Callable[[], float]
) -> Generator[Effect, None, Ask | None]:
    """Reserve, shortening or waiting where the budgets say so. Raises BudgetExceeded when it cannot be."""
    trail, model, waits = this.trail, this.model, _Waits(this.began, this.trail.deadline)
    tokens = _counted(this.request, model)
    while True:
        asked = _bounded(this.request, model, tokens, rules, now())
        lost = _lost(this, asked, now())
        try:
            short = books.reserve(rules, who(this.request), trail.id, asked, lost)
        except LedgerError as error:
            if any(budget.hard for budget, _ in rules):
                raise BudgetExceeded(f"Nothing was sent, because the budgets cannot be checked: {error}") from error
            trail.notes.append(f"budgets were not checked: {error}")
            return None
        if not short:
            trail.waited += waits.slept
            _warn(books, rules, this, asked)
            return asked
        smaller = _shrunk(this.request, model, tokens, short, now())
        if smaller is not None:
            trail.verdicts.append(_shrinking(this.request, smaller, short))
            this.request = smaller
            continue
        pause = waits.pause(short, clock())
        if pause is None:
            _refuse(trail, short)
        if not waits.slept:
            trail.verdicts.append(Verdict(_names(short), "throttle", "; ".join(map(str, short))))
        yield Sleep(pause, f"budget {_names(short)}: waiting for running calls to settle")
        waits.slept += pause


@dataclass(slots=True)
class _Waits:
    """How long a try may wait for money that running calls hold; all in monotonic seconds."""

    began: float
    deadline: float | None
    slept: float = 0.0
    seen: tuple[tuple[int, int], ...] = ()
    changed: float = 0.0

    def pause(self, short: tuple[Short, ...], now: float) -> float | None:
        """Return how long to sleep before looking again; None when waiting cannot help, or has been long enough."""
        if not all(lack.waiting_helps for lack in short):
            return None
        seen = tuple((lack.standing.spent, lack.standing.held) for lack in short)
        if seen != self.seen:
            self.seen, self.changed = seen, now
        patient = all(lack.standing.budget.action == "throttle" for lack in short)
        give_up = self.began + PATIENCE if patient else self.changed + STALL
        if self.deadline is not None:
            give_up = self.deadline if patient else min(give_up, self.deadline)
        pause = min(POLL[1], max(POLL[0], self.slept / 2)) * (0.5 + random())
        return None if now + pause > give_up else pause


def _refuse(trail: Trail, short: tuple[Short, ...]) -> NoReturn:
    reroute = all(lack.standing.budget.action == "reroute" for lack in short)
    trail.verdicts.append(Verdict(_names(short), "reroute" if reroute else "block", "; ".join(map(str, short))))
    error = refused(short)
    error.reroute = reroute
    raise error


def _kept(inner: Flow, books: Books, this: _Try, clock: Callable[[], float]) -> Flow:
    """Run the call, renewing its lease, and cut a stream that runs past its bound."""
    renewed, watch = clock(), _Watch(this.request, this.model)
    try:
        effect = next(inner)
        while True:
            if clock() - renewed > RENEW_SECONDS:
                books.renew(this.trail.id)
                renewed = clock()
            try:
                got = yield effect
            except GeneratorExit:
                raise
            except BaseException as stop:
                effect = inner.throw(stop)
                continue
            if isinstance(effect, Show) and watch.over(effect.delta):
                inner.close()
                return _cut(this.trail, watch)
            effect = inner.send(got)
    except StopIteration as end:
        response: Response = end.value
        return response
    finally:
        inner.close()


def _settle(books: Books, this: _Try, told: Callable[[list[Alert]], None]) -> None:
    if not this.trail.attempts:
        return
    attempt = this.trail.attempts[-1]
    used = 0 if attempt.usage is None else attempt.usage.total_tokens
    try:
        told(books.settle(this.trail.id, attempt.cost_nanos, used, lambda: _filed(this, this.at, "cancelled", ())))
    except LedgerError as error:
        this.trail.notes.append(f"a try was not settled, so it stays charged in full: {error}")


def own_budget(request: Request) -> Budget | None:
    """Return the request's own budget: as given, or made of the limit that was given."""
    if request.budget is None:
        return None
    own = request.budget if isinstance(request.budget, Budget) else Budget(request.budget)
    return replace(own, window="request", name=own.name or "this request")


def _counted(request: Request, model: Model) -> TokenCount:
    for candidate in request.plan.candidates if request.plan is not None else ():
        if candidate.model == model.id and candidate.input_tokens is not None:
            return candidate.input_tokens
    return count_messages(request.messages, model.encoding or model.id, request.tools)


def _bounded(request: Request, model: Model, tokens: TokenCount, rules: Rules, now: int) -> Ask:
    """Return the most the try can take, or refuse where a hard budget meets what nobody can bound."""
    hard = [budget for budget, _ in rules if budget.hard]
    found = ask(request, model, tokens, now)
    if not hard:
        return found or Ask(tokens.upper_bound, 0, None)
    if found is None:
        # Nothing says how long its answer can get; the largest affordable one is found when this does not fit.
        found = asking(model.price, tokens.upper_bound, 10**7, now)
    if found.nanos is None and any(budget.unit == "usd" for budget in hard):
        raise BudgetExceeded(
            f"Nothing was sent: {model.id} has no known price, so no budget in USD can hold it. Give it one under "
            f"[[model]] price in tokenkit.toml, or limit tokens instead."
        )
    if (key := surcharge(request)) is not None:
        raise BudgetExceeded(
            f"Nothing was sent: extra[{key!r}] changes the price in a way that no price table tells, so no budget can "
            "hold it. Leave it out, or make the budget action='warn'."
        )
    return found


def _shrunk(request: Request, model: Model, tokens: TokenCount, short: tuple[Short, ...], now: int) -> Request | None:
    """Return the request with the longest answer that fits, where it may be shortened; None where it may not."""
    may = request.max_tokens is None or all(lack.standing.budget.action == "shrink" for lack in short)
    if not may or not model.capabilities & {"chat", "completion"}:
        return None
    sizes = [affordable(request, model, tokens, lack.standing.free, lack.standing.budget.unit, now) for lack in short]
    most = min(sizes)
    if most < SHORTEST_ANSWER or (request.max_tokens is not None and most >= request.max_tokens):
        return None
    return replace(request, max_tokens=most)


def _shrinking(asked: Request, given: Request, short: tuple[Short, ...]) -> Verdict:
    before = "not set" if asked.max_tokens is None else f"{asked.max_tokens:,}"
    return Verdict(_names(short), "shrink", f"max_tokens was {before} and is now {given.max_tokens:,}, what fits")


def _names(short: tuple[Short, ...]) -> str:
    return ", ".join(lack.standing.budget.key for lack in short)


def _warn(books: Books, rules: Rules, this: _Try, asked: Ask) -> None:
    """Note the soft budgets that this try may take past their limit."""
    soft = tuple((budget, own) for budget, own in rules if not budget.hard)
    for stands in books.stand(soft, who(this.request), this.trail.id) if soft else ():
        amount = asked.of(stands.budget.unit)
        if amount is None:
            this.trail.verdicts.append(Verdict(stands.budget.key, "warn", f"{this.model.id} has no known price"))
        elif stands.free < 0:  # what this try asks is held already
            over = f"this call may take it {stands.budget.show(-stands.free)} past its limit"
            this.trail.verdicts.append(Verdict(stands.budget.key, "warn", over))


def _lost(this: _Try, asked: Ask, now: int) -> Callable[[], Receipt]:
    """Return what makes the receipt to file if this process dies in this try: charged in full, status unknown."""
    model = this.model

    def lost() -> Receipt:
        price = None if model.price is None else model.price.receipt(asked.input_tokens, now)
        usage = worst_usage(price, asked.input_tokens, asked.output_tokens)
        cost = None if price is None else price.cost(usage)
        note = ("nobody saw this try end: it is charged in full",)
        last = Attempt(
            model.id, model.provider, now, status="unknown", usage=usage, cost_nanos=cost, price=price, notes=note
        )
        return _filed(this, now, "unknown", (last,))

    return lost


def _filed(this: _Try, now: int, status: Status, more: tuple[Attempt, ...]) -> Receipt:
    """Return a receipt without texts, which the redact hook has not seen, for a call that is not over."""
    request, attempts = this.request, (*this.trail.attempts, *more)
    costs = [attempt.cost_nanos for attempt in attempts]
    last = attempts[-1]
    return Receipt(
        id=this.trail.id,
        started_at=now,
        seconds=0.0,
        status=status,
        requested_model=request.model,
        model=last.model,
        provider=last.provider,
        operation=this.trail.operation,
        usage=last.usage,
        cost_nanos=None if None in costs else sum(cost for cost in costs if cost is not None),
        price=last.price,
        attempts=attempts,
        verdicts=tuple(this.trail.verdicts),
        streamed=request.stream,
        user=request.user,
        session=request.session,
        endpoint_name=request.endpoint_name,
        parent=this.trail.parent,
    )


def _in_full(attempt: Attempt, this: _Try, asked: Ask) -> Attempt:
    """Charge a try in full whose answer may have been made and billed though nobody received it."""
    received = this.request.stream and attempt.http_status is not None
    if attempt.usage is None or received or attempt.status == "ok":
        return attempt
    price = None if this.model.price is None else this.model.price.receipt(asked.input_tokens, attempt.started_at)
    usage = worst_usage(price, asked.input_tokens, asked.output_tokens)
    cost = None if price is None else price.cost(usage)
    note = "its answer may have been made and billed, so it is charged in full"
    return replace(attempt, usage=usage, price=price, cost_nanos=cost, notes=(*attempt.notes, note))


class _Watch:
    """Counts what a stream has brought, and says when it is past its bound: a provider that ignores max_tokens."""

    def __init__(self, request: Request, model: Model) -> None:
        self.most, self.encoding = request.max_tokens, model.encoding or model.id
        self.deltas: list[Delta] = []
        self.text: list[str] = []
        self.length = 0
        self.check_at = self.most or 0

    def over(self, delta: Delta) -> bool:
        """Take in one delta."""
        self.deltas.append(delta)
        if self.most is None:
            return False
        self.text.append(delta.text + delta.reasoning)
        self.length += len(self.text[-1])
        if self.length <= self.check_at:
            return False
        count = count_text("".join(self.text), self.encoding)
        # Where the count is no more than an estimate it must be well past the bound.
        most = self.most + 16 if count.exact else 2 * self.most + 16
        self.check_at = self.length + max(64, most - count.tokens)
        return count.tokens > most


def _cut(trail: Trail, watch: _Watch) -> Response:
    note = f"cut: the provider went on past max_tokens={watch.most}"
    last = trail.attempts[-1]
    trail.attempts[-1] = replace(
        last, status="ok", finish_reason="length", error_type=None, error=None, notes=(*last.notes, note)
    )
    response = gather(watch.deltas)
    return replace(response, finish_reason="length", usage=last.usage, provider=last.provider)
