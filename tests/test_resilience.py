"""Retries, budgets, breakers and limits together, against seeded faults and a fake clock: the promises as numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit.breaker import Breaker
from tokenkit.effects import Call, Sleep
from tokenkit.errors import AllFailed, BrokenOff, ConfigError, Overloaded, ServerError, TokenkitError
from tokenkit.layers import Limits, Watch, broken_off, compose, falling_back, limited, retrying, watched
from tokenkit.limits import Bucket, RetryBudget
from tokenkit.receipts import Candidate, Plan, Trail
from tokenkit.types import Message, Request, Response, TokenCount, Usage

ASKED = Request((Message("user", "hello"),))


class Clock:
    """A clock that only moves when a flow sleeps, or when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(flow: Generator[Any, Any, Response], clock: Clock) -> Response:
    try:
        effect = next(flow)
        while True:
            assert isinstance(effect, Sleep)
            clock.now += effect.seconds
            effect = flow.send(None)
    except StopIteration as end:
        return end.value


def asked(*models: str) -> Request:
    candidates = tuple(Candidate(f"{m}/m", m, 1.0, input_tokens=TokenCount(10, True, "x")) for m in models)
    return replace(ASKED, plan=Plan(candidates, "score"))


def world(clock: Clock, watch: Watch, answer: Callable[[str], bool], tries: Counter[str], breakers: bool) -> Call:
    """The kit's own stack over a provider that fails as ``answer`` says."""

    def send(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        tries[request.provider or ""] += 1
        if answer(request.provider or ""):
            return Response("fine", usage=Usage(10, 5))
        raise ServerError("it broke")
        yield

    chance = random.Random(5)
    around = [broken_off(watch.breaker, clock)] if breakers else []
    stack = compose(
        falling_back(),
        watched(watch, clock),
        *around,
        retrying(3, chance=chance.random, clock=clock, budget=watch.retry_budget),
    )
    return stack(send)


def simulate(
    calls: int, providers: tuple[str, ...], failing: float, *, breakers: bool = True
) -> tuple[int, Counter[str]]:
    """Return how many of ``calls`` succeeded, and how often each provider was asked."""
    clock, watch, tries = Clock(), Watch(), Counter[str]()
    faults = random.Random(11)
    call = world(clock, watch, lambda provider: faults.random() >= failing, tries, breakers)
    fine = 0
    for _ in range(calls):
        clock.now += 0.01
        try:
            run(call(asked(*providers), Trail()), clock)
            fine += 1
        except TokenkitError:
            pass
    return fine, tries


def test_five_percent_errors_on_one_provider_hardly_show() -> None:
    fine, _ = simulate(20_000, ("a",), 0.05)
    assert fine / 20_000 >= 0.9995


def test_thirty_percent_errors_on_three_providers_are_survived() -> None:
    fine, _ = simulate(20_000, ("a", "b", "c"), 0.30)
    assert fine / 20_000 >= 0.97


def test_a_total_outage_does_not_become_a_storm() -> None:
    fine, tries = simulate(10_000, ("a",), 1.0, breakers=False)
    assert fine == 0
    assert tries["a"] <= 11_000 + 10


def test_with_the_breaker_an_outage_is_probed_once_a_window() -> None:
    clock, watch, tries = Clock(), Watch(), Counter[str]()
    call = world(clock, watch, lambda provider: False, tries, True)
    for _ in range(5):
        with pytest.raises(TokenkitError):
            run(call(asked("a"), Trail()), clock)
    assert watch.breaker("a/m").barred(clock())
    tries.clear()
    began = clock.now
    while clock.now < began + 300:
        clock.now += 0.5
        with pytest.raises(TokenkitError):
            run(call(asked("a"), Trail()), clock)
    # A probe is one call, which may itself be retried as far as the retry budget goes: none is left here.
    assert tries["a"] <= 300 / 30 + 10


def test_a_provider_that_recovers_is_used_again_after_one_probe() -> None:
    clock, watch, tries = Clock(), Watch(), Counter[str]()
    well = [False]
    call = world(clock, watch, lambda provider: well[0], tries, True)
    for _ in range(6):
        with pytest.raises(TokenkitError):
            run(call(asked("a"), Trail()), clock)
    well[0] = True
    with pytest.raises(BrokenOff):
        run(call(asked("a"), Trail()), clock)
    clock.now += 31
    assert run(call(asked("a"), Trail()), clock).text == "fine"
    assert watch.breaker("a/m").barred(clock()) is None


def test_plans_know_why_a_model_is_barred() -> None:
    clock, watch, tries = Clock(), Watch(), Counter[str]()
    call = world(clock, watch, lambda provider: False, tries, True)
    for _ in range(6):
        with pytest.raises(TokenkitError):
            run(call(asked("a"), Trail()), clock)
    health = watch.health(clock())["a/m"]
    assert "breaker is open" in (health.barred or "")
    assert health.in_flight == 0


def test_all_down_ends_with_every_cause_listed() -> None:
    clock, watch, tries = Clock(), Watch(), Counter[str]()
    call = world(clock, watch, lambda provider: False, tries, True)
    with pytest.raises(AllFailed) as caught:
        run(call(asked("a", "b", "a", "c"), Trail()), clock)
    assert [model for model, _ in caught.value.causes] == ["a/m", "b/m", "a/m", "c/m"]


# Breaker: at most one probe is ever out.

actions = st.lists(st.tuples(st.sampled_from(["admit", "succeed", "fail", "release"]), st.floats(0, 20)), max_size=60)


@given(actions)
def test_a_half_open_breaker_lets_one_probe_out_per_window(steps: list[tuple[str, float]]) -> None:
    breaker, now, probes = Breaker(failures=2, window=10.0), 0.0, []
    opened = False
    for action, pause in steps:
        now += pause
        if action == "admit":
            opened = breaker.barred(now) is not None or "Breaker(closed" not in repr(breaker)
            if breaker.admit(now) and opened:
                probes.append(now)
        elif action == "succeed":
            breaker.succeeded()
            probes.clear()
        elif action == "fail":
            breaker.failed(now)
        else:
            breaker.released()
            probes.clear()
    assert all(later - earlier >= 10.0 for earlier, later in pairwise(probes))


def test_a_lost_probe_does_not_bar_a_model_for_ever() -> None:
    breaker = Breaker(failures=1, window=10)
    breaker.failed(0)
    assert breaker.admit(10)
    assert not breaker.admit(15)
    assert breaker.admit(20)


# Bucket: never more than the rate plus one bucketful, whatever the clock does.


@given(st.lists(st.tuples(st.floats(0.1, 30), st.floats(-5, 30)), max_size=80))
def test_a_bucket_never_gives_more_than_its_rate(takes: list[tuple[float, float]]) -> None:
    bucket, now, given_, times = Bucket(60), 100.0, 0.0, [100.0 + (takes[0][1] if takes else 0.0)]
    for amount, step in takes:
        now += step
        times.append(now)
        if bucket.take(amount, now) == 0:
            given_ += amount
    assert given_ <= 60 + (max(times) - times[0]) + 1e-6


def test_a_bucket_says_exactly_how_long_to_wait() -> None:
    bucket = Bucket(60)
    assert bucket.take(60, 0) == 0
    assert bucket.take(30, 0) == pytest.approx(30)
    assert bucket.take(30, 29.9) > 0
    assert bucket.take(30, 30) == 0


def test_a_prompt_larger_than_a_minutes_tokens_goes_when_the_bucket_is_full() -> None:
    bucket = Bucket(60)
    assert bucket.take(100, 0) == 0
    assert bucket.take(1, 0) == pytest.approx(41)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_means_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="per minute"):
        Bucket(rate)


@given(st.integers(0, 500))
def test_a_retry_budget_is_a_tenth_plus_the_floor(calls: int) -> None:
    budget = RetryBudget(cap=10_000)
    for _ in range(calls):
        budget.called()
    spent = 0
    while budget.spend():
        spent += 1
    assert spent == 10 + calls // 10


# limited


def test_a_limit_waits_in_sight_and_gives_back_what_was_not_used() -> None:
    clock = Clock()
    limits = Limits(tokens=Bucket(600))

    def send(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        return Response("fine", usage=Usage(10, 5))
        yield

    call = limited(lambda model: limits, clock=clock)(send)
    request = replace(asked("a"), model="a/m", max_tokens=590)
    run(call(request, Trail()), clock)
    flow = call(request, Trail())
    pause = next(flow)
    assert isinstance(pause, Sleep)
    assert "tokens per minute" in pause.reason
    # 600 were expected and 15 used, so only 15 tokens are missing: a second and a half at ten a second.
    assert pause.seconds == pytest.approx(1.5)


def test_a_limit_that_would_wait_too_long_lets_another_model_answer() -> None:
    clock = Clock()
    busy, free = Limits(requests=Bucket(1)), Limits()
    asked_of: list[str] = []

    def send(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        asked_of.append(request.model)
        return Response("fine", usage=Usage(1, 1))
        yield

    stack = compose(falling_back(), limited(lambda m: busy if m == "a/m" else free, patience=5, clock=clock))
    for _ in range(2):
        run(stack(send)(asked("a", "b"), Trail()), clock)
    assert asked_of == ["a/m", "b/m"]


def test_calls_at_once_are_bounded_and_a_cancelled_one_makes_room() -> None:
    clock = Clock()
    limits = Limits(at_once=1)

    def send(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        yield Sleep(1, "working")
        return Response("fine", usage=Usage(1, 1))

    call = limited(lambda model: limits, clock=clock)(send)
    request = replace(asked("a"), model="a/m")
    first, second = call(request, Trail()), call(request, Trail())
    assert next(first) == Sleep(1, "working")
    assert "calls at once" in next(second).reason
    first.close()
    assert second.send(None) == Sleep(1, "working")
    second.close()
    assert limits.in_flight == 0


def test_overload_is_not_the_callers_fault_and_a_bad_key_is_not_the_models() -> None:
    from tokenkit.errors import AuthError

    clock, breaker = Clock(), Breaker(failures=1)
    for error, opens in ((AuthError("no"), False), (Overloaded("full"), True)):

        def send(request: Request, trail: Trail, error: Exception = error) -> Generator[Any, Any, Response]:
            raise error
            yield

        with pytest.raises(type(error)):
            run(broken_off(lambda model: breaker, clock)(send)(ASKED, Trail()), clock)
        assert (breaker.barred(clock()) is not None) == opens
