"""What budgets mean: limits, scopes, periods across clock changes, worst cases, and books that always add up."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tokenkit.accounts import Accounts
from tokenkit.budget import Ask, Budget, Who, account, affordable, ask, asking, parse_limit, period, worst_usage
from tokenkit.catalog import Model
from tokenkit.errors import ConfigError
from tokenkit.journal import Journal
from tokenkit.pricing import PriceRule, flat
from tokenkit.pricing.rules import Rates
from tokenkit.receipts import Attempt, Receipt
from tokenkit.types import Message, Request, TokenCount, Usage

LONG = os.environ.get("TOKENKIT_LONG") == "1"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana")
MOMENTS = st.integers(1_600_000_000, 2_000_000_000).map(lambda seconds: seconds * 10**9)


# What a budget is.


@pytest.mark.parametrize(
    ("limit", "amount", "unit"),
    [
        ("5 USD", 5 * 10**9, "usd"),
        ("$0.05", 50_000_000, "usd"),
        (2, 2 * 10**9, "usd"),
        (Decimal("0.000000001"), 1, "usd"),
        ("10000 tokens", 10_000, "tokens"),
        ("10k tokens", 10_000, "tokens"),
        ("1_000 tokens", 1_000, "tokens"),
        ("2M tokens", 2_000_000, "tokens"),
        (0, 0, "usd"),
    ],
)
def test_limits_are_money_or_tokens(limit: Any, amount: int, unit: str) -> None:
    assert parse_limit(limit) == (amount, unit)
    assert Budget(**Budget(limit).as_table()).amount == amount


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limit": "5 EUR"}, "not an amount in USD"),
        ({"limit": "-1"}, "not an amount"),
        ({"limit": "many tokens"}, "no number of tokens"),
        ({"limit": "-3 tokens"}, "no number of tokens"),
        ({"limit": float("nan")}, "not a finite"),
        ({"limit": float("inf")}, "not a finite"),
        ({"limit": True}, "not an amount"),
        ({"limit": "99999999999 USD"}, "more than anybody"),
        ({"limit": 1, "window": "week"}, "one of request, cell, hour"),
        ({"limit": 1, "action": "explode"}, "one of block, warn"),
        ({"limit": 1, "timezone": "Mars/Base"}, "no time zone"),
        ({"limit": 1, "timezone": "../etc/passwd"}, "no time zone"),
        ({"limit": 1, "warn_at": 1.5}, "between 0 and 1"),
        ({"limit": 1, "user": ""}, "is a name"),
    ],
)
def test_bad_budgets_say_which_field_and_why(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Budget(**fields)


def test_scopes_narrow_and_each_has_its_own_account() -> None:
    alice = Who("alice", "openai", "openai/gpt-4o", "s1", "demo")
    assert account(Budget(1), alice) == "USD in total"
    assert account(Budget(1, user="alice", endpoint="demo"), alice) is not None
    assert account(Budget(1, user="bob"), alice) is None
    assert account(Budget(1, user="alice", session="s2"), alice) is None
    assert account(Budget(1, model="gpt-4o"), alice) == account(Budget(1, model="gpt-4o"), alice) is not None
    assert account(Budget(1, model="openai/gpt-4o"), alice) is not None
    assert account(Budget(1, model="4o"), alice) is None
    each = Budget(1, window="day", user="*")
    assert account(each, alice) != account(each, alice._replace(user="bob"))
    assert account(each, alice._replace(user=None)) is not None


# Periods.


@given(MOMENTS, st.sampled_from(ZONES), st.sampled_from(["hour", "day", "month"]))
def test_a_moment_is_within_its_period_and_periods_meet(now: int, zone: str, window: Any) -> None:
    found = period(window, now, zone)
    assert found.start is not None
    assert found.end is not None
    assert found.start <= now < found.end
    following = period(window, found.end, zone)
    assert following.start == found.end
    assert following.name != found.name
    assert period(window, found.end - 1, zone).name == found.name


@given(st.lists(MOMENTS, min_size=2, max_size=40), st.sampled_from(ZONES), st.sampled_from(["hour", "day", "month"]))
def test_however_the_clock_jumps_a_name_is_always_the_same_stretch(jumps: list[int], zone: str, window: Any) -> None:
    stretches: dict[str, tuple[Any, Any]] = {}
    for now in jumps:
        found = period(window, now, zone)
        assert stretches.setdefault(found.name, (found.start, found.end)) == (found.start, found.end)


def test_days_of_23_and_25_hours_are_one_day_and_the_repeated_hour_is_two() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    autumn = datetime(2026, 10, 25, tzinfo=berlin)
    hours = [autumn.astimezone(UTC) + timedelta(hours=n, minutes=30) for n in range(25)]
    moments = [int(hour.timestamp()) * 10**9 for hour in hours]
    assert len({period("day", now, "Europe/Berlin").name for now in moments}) == 1
    assert len({period("hour", now, "Europe/Berlin").name for now in moments}) == 25
    day = period("day", moments[0], "Europe/Berlin")
    assert day.end is not None
    assert day.start is not None
    assert day.end - day.start == 25 * 3600 * 10**9
    spring = period("day", int(datetime(2026, 3, 29, 12, tzinfo=berlin).timestamp()) * 10**9, "Europe/Berlin")
    assert spring.end is not None
    assert spring.start is not None
    assert spring.end - spring.start == 23 * 3600 * 10**9
    february = period("month", int(datetime(2028, 2, 29, 23, 59, tzinfo=UTC).timestamp()) * 10**9)
    assert february.name == "2028-02"


# Worst cases.

RATES = st.integers(0, 10**11)
PRICES = st.builds(
    lambda a, b, tiers: PriceRule("user", "m", tuple(Rates(i * 1000, *row) for i, row in enumerate([(a, b), *tiers]))),
    RATES,
    RATES,
    st.lists(st.tuples(RATES, RATES, st.none() | RATES, st.none() | RATES, st.none() | RATES), max_size=2),
)


@given(PRICES, st.integers(0, 5000), st.integers(0, 5000), st.data())
def test_no_usage_within_the_ask_costs_more_than_the_ask(
    price: PriceRule, size: int, longest: int, data: st.DataObject
) -> None:
    most = asking(price, size, longest, 0).nanos
    assert most is not None
    read = data.draw(st.integers(0, size))
    usage = Usage(
        size,
        data.draw(st.integers(0, longest)),
        cache_read_input_tokens=read,
        cache_creation_input_tokens=data.draw(st.integers(0, size - read)),
    )
    cost = price.receipt(usage.input_tokens).cost(usage)
    assert cost is not None
    assert cost <= most
    worst = price.receipt(size)
    worst_cost = worst.cost(worst_usage(worst, size, longest))
    assert worst_cost is not None
    assert cost <= worst_cost <= most


@given(PRICES, st.integers(0, 3000), st.integers(0, 10**9), st.sampled_from(["usd", "tokens"]), st.integers(1, 4))
def test_what_is_affordable_fits_and_one_token_more_does_not(
    price: PriceRule, size: int, left: int, unit: Any, copies: int
) -> None:
    model = Model("p", "m", price=price, max_output_tokens=50_000)
    request = Request((Message("user", "x"),), extra={"n": copies} if copies > 1 else {})
    tokens = TokenCount(size, True, "o200k_base")
    found = affordable(request, model, tokens, left, unit, 0)
    assert 0 <= found <= 50_000
    if found:
        cost = asking(price, size, found * copies, 0).of(unit)
        assert cost is not None
        assert cost <= left
    if found < 50_000:
        cost = asking(price, size, (found + 1) * copies, 0).of(unit)
        assert cost is not None
        assert cost > left


def test_what_extra_asks_for_is_in_the_bound() -> None:
    model = Model("p", "m", price=flat("user", "m", input=1, output=1), max_output_tokens=100)
    tokens = TokenCount(10, True, "o200k_base")

    def output(**extra: Any) -> int:
        found = ask(Request((Message("user", "x"),), max_tokens=50, extra=extra), model, tokens, 0)
        assert found is not None
        return found.output_tokens

    assert output() == 50
    assert output(n=3) == 150
    assert output(max_completion_tokens=400) == 400
    assert output(generationConfig={"maxOutputTokens": 80, "candidateCount": 2}) == 160


# The books.


def receipt(call: str, *tries: tuple[int, int], status: Any = "ok") -> Receipt:
    """A receipt of tries that cost so many nano-USD and tokens."""
    attempts = tuple(Attempt("p/m", "p", n, usage=Usage(t, 0), cost_nanos=c) for n, (c, t) in enumerate(tries))
    return Receipt(call, 1, 0.0, status, "p/m", cost_nanos=sum(cost for cost, _ in tries), attempts=attempts)


class Running(NamedTuple):
    """A call under way: the most its present try can take, and what the ones before took."""

    kernel: int
    call: str
    caller: Who
    nanos: int
    tokens: int
    tries: tuple[tuple[int, int], ...] = ()


class Books(RuleBasedStateMachine):
    """Two kernels, three budgets, calls that end well, fail, die and are found again: spent and held always add up."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = 1_790_000_000 * 10**9
        self.budgets = (
            Budget("0.00001 USD", name="money"),
            Budget("9000 tokens", name="tokens", window="day"),
            Budget("0.000004 USD", name="alice", user="alice", action="shrink"),
            Budget("0.000001 USD", name="soft", action="warn"),
        )
        self.journals = [Journal(Path(self.folder.name) / "journal.sqlite3") for _ in range(2)]
        self.kernels = [
            Accounts(lambda journal=journal: journal, self.budgets, lease=100.0, now=lambda: self.clock)
            for journal in self.journals
        ]
        self.count = 0
        self.dead: set[str] = set()

    @rule(
        target=running,
        kernel=st.integers(0, 1),
        nanos=st.integers(0, 6000),
        tokens=st.integers(0, 5000),
        user=st.sampled_from(["alice", "bob"]),
    )
    def reserve(self, kernel: int, nanos: int, tokens: int, user: str) -> Running | None:
        self.count += 1
        call, accounts = f"call-{self.count}", self.kernels[kernel]
        before = accounts.status()
        asked = Ask(tokens, 0, nanos)
        lost = receipt(call, (nanos, tokens), status="unknown")
        overdue = accounts.sweep() if self.count % 3 == 0 else 0
        assert overdue >= 0
        caller = Who(user, "p", "p/m", None, None)
        short = accounts.reserve(accounts.rules(), caller, call, asked, lambda: lost)
        fits = all(
            one.free >= (asked.of(one.budget.unit) or 0)
            for one in before
            if one.budget.hard and account(one.budget, caller) is not None
        )
        if fits:
            assert not short, "a call that fits was refused"
        if short:
            accounts.forget(lost)
            return None
        return Running(kernel, call, caller, nanos, tokens)

    @rule(one=consumes(running), part=st.floats(0, 1))
    def end(self, one: Running | None, part: float) -> None:
        if one is not None:
            tries = (*one.tries, (int(one.nanos * part), int(one.tokens * part)))
            written = self.kernels[one.kernel].charged(receipt(one.call, *tries))
            self.kernels[one.kernel].write(written)

    @rule(target=running, one=consumes(running), part=st.floats(0, 1), nanos=st.integers(0, 6000))
    def fail_and_try_again(self, one: Running | None, part: float, nanos: int) -> Running | None:
        if one is None:
            return None
        accounts = self.kernels[one.kernel]
        tries = (*one.tries, (int(one.nanos * part), int(one.tokens * part)))
        accounts.settle(one.call, *tries[-1], lambda: receipt(one.call, *tries))
        lost = receipt(one.call, *tries, (nanos, one.tokens), status="unknown")
        asked = Ask(one.tokens, 0, nanos)
        if accounts.reserve(accounts.rules(), one.caller, one.call, asked, lambda: lost):
            accounts.write(accounts.charged(receipt(one.call, *tries)))
            return None
        return one._replace(nanos=nanos, tries=tries)

    @rule(one=consumes(running))
    def die(self, one: Running | None) -> None:
        """Its process is gone: nothing in memory is left of the call."""
        if one is not None:
            self.kernels[one.kernel]._open.pop(one.call, None)
            self.dead.add(one.call)

    @rule(seconds=st.sampled_from([1, 50, 101]))
    def pass_time(self, seconds: int) -> None:
        self.clock += seconds * 10**9

    @rule()
    def reconcile(self) -> None:
        """Somebody finds out that a dead kernel's call was never billed."""
        for lost in [one for one in self.kernels[0].unknown() if one.id.split("-unknown")[0] in self.dead][:1]:
            self.kernels[0].correct(lost.id, 0, 0)

    @invariant()
    def hard_limits_hold_and_kernels_agree(self) -> None:
        first, second = (kernel.status() for kernel in self.kernels)
        assert [tuple(one)[1:] for one in first] == [tuple(one)[1:] for one in second]
        for one in first:
            assert one.spent >= 0
            assert one.held >= 0
            assert one.violations == 0
            assert one.spent + one.held + one.free == one.budget.amount
            if one.budget.hard:
                assert one.free >= 0, f"{one!r} is overdrawn"

    @invariant()
    def money_and_log_agree(self) -> None:
        money = next(one for one in self.kernels[0].status() if one.account == "money")
        logged = sum(entry.receipt.cost_nanos or 0 for entry in self.journals[0].rows(limit=10_000))
        going_on = 0  # tries that failed, of calls whose receipt is still to come
        for state, body in self.journals[0].ask("SELECT state, body FROM asked WHERE state IN ('held', 'settled')"):
            tries = Receipt.from_json(body).attempts
            going_on += sum(one.cost_nanos or 0 for one in (tries[:-1] if state == "held" else tries))
        assert logged + going_on == money.spent

    @invariant()
    def every_account_is_the_sum_of_its_charges(self) -> None:
        journal = self.journals[0]
        open_calls = journal.ask("SELECT body FROM asked WHERE state IN ('held', 'settled')")
        receipts = [entry.receipt for entry in journal.rows(limit=10_000)]
        receipts += [Receipt.from_json(body) for (body,) in open_calls]
        charged: Counter[tuple[str, str]] = Counter()
        for one in receipts:
            charged.update({charge[:2]: charge.charged for charge in one.charges})
        spent = {
            (account, when): spent
            for account, when, spent in journal.ask("SELECT account, period, spent FROM accounts")
        }
        assert {place: amount for place, amount in charged.items() if amount} == {
            place: amount for place, amount in spent.items() if amount
        }

    def teardown(self) -> None:
        self.kernels[0].sweep(everything=True)
        assert all(one.held == 0 for one in self.kernels[0].status()), "a hold leaked"
        for journal in self.journals:
            journal.close()
        self.folder.cleanup()


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=10_000 if LONG else 40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_call_reconciled_too_early_is_charged_when_it_comes_back(tmp_path: Path) -> None:
    journal, clock = Journal(tmp_path / "journal.sqlite3"), [1_790_000_000 * 10**9]
    accounts = Accounts(lambda: journal, [Budget("1 USD", name="money")], lease=1.0, now=lambda: clock[0])
    caller = Who("bob", "p", "p/m", None, None)
    accounts.reserve(accounts.rules(), caller, "c", Ask(1, 1, 100), lambda: receipt("c", (100, 2), status="unknown"))
    clock[0] += 10**10
    assert accounts.sweep() == 1
    accounts.correct("c", 0)
    assert accounts.status()[0].spent == 0
    accounts.write(receipt("c", (60, 2)))
    assert accounts.status()[0].spent == 60
    assert sum(entry.receipt.cost_nanos or 0 for entry in journal.rows()) == 60
    journal.close()
