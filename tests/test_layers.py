"""The layers, driven by hand with next() and send(): no clock, no network, no luck."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit.catalog import Model
from tokenkit.effects import Call, Drain, Open, Reply, Show, Sleep, WireRequest
from tokenkit.errors import (
    AllFailed,
    AuthError,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    DeadlineExceeded,
    LedgerError,
    NoRoute,
    Overloaded,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TokenkitError,
    TransportError,
)
from tokenkit.layers import compose, falling_back, recorded, retrying, routed, send
from tokenkit.pricing import PriceRule
from tokenkit.providers.base import Provider
from tokenkit.receipts import Candidate, Plan, Receipt, Trail
from tokenkit.types import Delta, Message, Request, Response, Usage

ASKED = Request((Message("user", "hello world"),))


def run(
    flow: Generator[Any, Any, Response], answers: Callable[[Any], Any] = lambda effect: None
) -> tuple[Response, list[Any]]:
    """Drive a flow with a function from effect to answer; an exception as answer is thrown in."""
    effects: list[Any] = []
    try:
        effect = next(flow)
        while True:
            effects.append(effect)
            answer = answers(effect)
            effect = flow.throw(answer) if isinstance(answer, BaseException) else flow.send(answer)
    except StopIteration as end:
        return end.value, effects


def scripted(*outcomes: Response | BaseException, show_first: bool = False) -> Call:
    """A call that gives these outcomes in turn, and repeats the last."""
    left = list(outcomes)

    def call(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if show_first:
            trail.shown += 1
            yield Show(Delta("x"))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
        yield

    return call


FINE = Response("fine", finish_reason="stop", usage=Usage(3, 1))


def planned(*windows: int | None) -> Plan:
    return Plan(tuple(Candidate(f"p{i}/m", f"p{i}", 1.0, context_window=w) for i, w in enumerate(windows)), "score")


# retrying


@given(st.integers(1, 6), st.integers(0, 8))
def test_retrying_asks_at_most_so_often_and_stops_at_success(attempts: int, failures: int) -> None:
    call = retrying(attempts, chance=lambda: 0.5)(scripted(*[Overloaded("full")] * failures, FINE))
    flow = call(ASKED, Trail())
    if failures >= attempts:
        with pytest.raises(Overloaded):
            run(flow)
    else:
        response, effects = run(flow)
        assert response is FINE
        assert [e.seconds for e in effects] == [0.5 * min(30, 0.5 * 2**n) for n in range(failures)]


@pytest.mark.parametrize(
    "error", [AuthError("no"), BadRequest("no"), QuotaExceeded("no"), ContextOverflow("no"), ContentFiltered("no")]
)
def test_retrying_leaves_alone_what_time_does_not_heal(error: ProviderError) -> None:
    with pytest.raises(type(error)):
        run(retrying(5)(scripted(error, FINE))(ASKED, Trail()))


def test_retrying_obeys_retry_after_exactly_and_says_why() -> None:
    _, effects = run(retrying(2)(scripted(RateLimited("slow down", retry_after=7.5), FINE))(ASKED, Trail()))
    assert effects == [Sleep(7.5, "auto: RateLimited, asking again")]


def test_retrying_gives_up_when_told_to_wait_longer_than_we_wait() -> None:
    with pytest.raises(RateLimited):
        run(retrying(2, longest=30)(scripted(RateLimited("later", retry_after=31), FINE))(ASKED, Trail()))


def test_retrying_never_sleeps_past_the_deadline() -> None:
    trail = Trail(deadline=100.0)
    call = retrying(2, chance=lambda: 1.0, clock=lambda: 99.6)(scripted(Overloaded("full"), FINE))
    with pytest.raises(Overloaded):
        run(call(ASKED, trail))


def test_nothing_is_retried_once_the_caller_has_seen_a_delta() -> None:
    with pytest.raises(ServerError):
        run(retrying(3)(scripted(ServerError("cut"), FINE, show_first=True))(ASKED, Trail()))


# falling back


def aimed(request: Request, plan: Plan) -> Request:
    from dataclasses import replace

    return replace(request, plan=plan)


@pytest.mark.parametrize(
    "error", [AuthError("x"), QuotaExceeded("x"), ServerError("x"), TransportError("x"), RateLimited("x")]
)
def test_failures_another_provider_may_mend_escalate_along_the_plan(error: TokenkitError) -> None:
    seen: list[str] = []

    def call(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        seen.append(request.model)
        if len(seen) < 3:
            raise error
        return FINE
        yield

    response, _ = run(falling_back()(call)(aimed(ASKED, planned(None, None, None)), Trail()))
    assert response is FINE
    assert seen == ["p0/m", "p1/m", "p2/m"]


@pytest.mark.parametrize("error", [BadRequest("x"), ContentFiltered("x"), DeadlineExceeded("x")])
def test_failures_no_other_model_would_mend_do_not_escalate(error: TokenkitError) -> None:
    with pytest.raises(type(error)):
        run(falling_back()(scripted(error, FINE))(aimed(ASKED, planned(None, None)), Trail()))


def test_overflow_goes_once_to_a_strictly_larger_window() -> None:
    seen: list[str] = []

    def call(request: Request, trail: Trail) -> Generator[Any, Any, Response]:
        seen.append(request.model)
        raise ContextOverflow("too long")
        yield

    with pytest.raises(ContextOverflow):
        run(falling_back()(call)(aimed(ASKED, planned(8_000, 8_000, 4_000, None, 32_000, 64_000)), Trail()))
    assert seen == ["p0/m", "p4/m"]


def test_all_failed_lists_every_candidate_and_cause() -> None:
    with pytest.raises(AllFailed) as caught:
        run(
            falling_back()(scripted(AuthError("bad key"), Overloaded("full")))(
                aimed(ASKED, planned(None, None)), Trail()
            )
        )
    assert [model for model, _ in caught.value.causes] == ["p0/m", "p1/m"]
    assert "bad key" in str(caught.value)
    assert "full" in str(caught.value)


def test_a_lone_candidates_own_error_is_not_wrapped() -> None:
    with pytest.raises(AuthError):
        run(falling_back()(scripted(AuthError("bad key")))(aimed(ASKED, planned(None)), Trail()))


# routed


def test_routed_sends_nothing_when_all_are_rejected_and_says_why() -> None:
    plan = Plan((Candidate("p/m", "p", rejected="too small"),), "score")
    with pytest.raises(NoRoute, match="p/m: too small"):
        run(routed(lambda request: plan)(scripted(FINE))(ASKED, Trail()))


# recorded: every way a call can end leaves exactly one receipt


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += 1.0
        return self.at


PRICE = PriceRule("user", "m", ((0, 10**9, 2 * 10**9, None, None, None),))
MODEL = Model("p", "m", price=PRICE, context_window=1000)
WIRE = WireRequest("POST", "http://127.0.0.1/x", b"{}")


def feeder() -> Callable[[bytes], list[Delta]]:
    return lambda data: [Delta(data.decode())] if data else [Delta(finish_reason="stop", usage=Usage(5, 7))]


PROVIDER = Provider(
    "p",
    "http://127.0.0.1",
    encode=lambda request, provider: WIRE,
    decode=lambda body: Response(body.decode(), finish_reason="stop", usage=Usage(5, 7)),
    feed=feeder,
    classify=lambda status, headers, body: Overloaded("full", status=status),
)


def whole(receipts: list[Receipt]) -> Call:
    plan = Plan((Candidate("p/m", "p", 1.0),), "score")
    stack = compose(recorded(receipts.append), routed(lambda r: plan), falling_back(), retrying(2, chance=lambda: 0.0))
    return stack(send(lambda request: (PROVIDER, MODEL), clock=Clock()))


def answers(status: int = 200, chunks: tuple[bytes, ...] = (b"one ", b"two", b"")) -> Callable[[Any], Any]:
    left = list(chunks)

    def answer(effect: Any) -> Any:
        if isinstance(effect, Open):
            return Reply(status, {"x-request-id": "r1"}, "source")
        if isinstance(effect, Drain):
            return b"whole" if effect.whole else left.pop(0)
        return None

    return answer


def test_an_answered_call_leaves_one_receipt_with_its_cost() -> None:
    receipts: list[Receipt] = []
    response, _ = run(whole(receipts)(ASKED, Trail()), answers())
    (receipt,) = receipts
    assert response.receipt == receipt
    assert receipt.status == "ok"
    assert receipt.cost_nanos == (5 * 10**9 + 7 * 2 * 10**9) // 10**6
    assert receipt.reprice() == receipt.cost_nanos
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_a_failed_call_leaves_one_receipt_with_an_attempt_row_per_try() -> None:
    receipts: list[Receipt] = []
    with pytest.raises(Overloaded):
        run(whole(receipts)(ASKED, Trail()), answers(503))
    (receipt,) = receipts
    assert (receipt.status, receipt.error_type, len(receipt.attempts)) == ("error", "overloaded", 2)
    assert receipt.cost_nanos == 0
    assert receipt.usage is None


def broken(flow: Generator[Any, Any, Response], error: BaseException) -> None:
    """Throw the error in at every effect from here on; only a pause between tries is answered."""
    while True:
        if isinstance(flow.throw(error), Sleep):
            flow.send(None)


STOPS = [KeyboardInterrupt, GeneratorExit, SystemExit, ValueError, TransportError]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_at_any_effect_leaves_exactly_one_settled_receipt(stop: type[BaseException], stream: bool) -> None:
    from dataclasses import replace

    asked = replace(ASKED, stream=stream)
    _, effects = run(whole([])(asked, Trail()), answers())
    assert len(effects) >= 2
    for at in range(len(effects)):
        receipts: list[Receipt] = []
        flow = whole(receipts)(asked, Trail())
        answer = answers()
        effect = next(flow)
        for _ in range(at):
            effect = flow.send(answer(effect))
        with pytest.raises(stop):
            broken(flow, stop("stopped"))
        (receipt,) = receipts
        assert receipt.status == ("error" if issubclass(stop, Exception) else "cancelled")
        assert receipt.usage is not None
        assert receipt.usage.source == "estimated"
        assert receipt.usage.input_tokens
        assert receipt.cost_nanos


def test_closing_a_flow_that_waits_for_a_retry_settles_it() -> None:
    receipts: list[Receipt] = []
    flow = whole(receipts)(ASKED, Trail())
    answer = answers(503)
    effect = next(flow)
    while not isinstance(effect, Sleep):
        effect = flow.send(answer(effect))
    flow.close()
    assert [r.status for r in receipts] == ["cancelled"]


def test_what_was_shown_is_what_a_stopped_stream_is_charged_for() -> None:
    from dataclasses import replace

    receipts: list[Receipt] = []
    flow = whole(receipts)(replace(ASKED, stream=True), Trail())
    answer = answers(chunks=(b"four words are here", b""))
    effect = next(flow)
    while not isinstance(effect, Show):
        effect = flow.send(answer(effect))
    flow.close()
    assert receipts[0].usage is not None
    assert receipts[0].usage.output_tokens == 4


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupt_inside_the_write_neither_loses_nor_doubles_the_receipt(times: int) -> None:
    written: dict[str, Receipt] = {}
    left = [times]

    def write(receipt: Receipt) -> None:
        written[receipt.id] = receipt
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recorded(write)(scripted(FINE))(ASKED, Trail()))
    assert [r.status for r in written.values()] == ["ok"]


def test_a_broken_ledger_does_not_cost_the_answer() -> None:
    def write(receipt: Receipt) -> None:
        raise LedgerError("the disk is full")

    response, _ = run(recorded(write)(scripted(FINE))(ASKED, Trail()))
    assert response.text == "fine"
    assert response.receipt is not None
    assert "not recorded: the disk is full" in response.receipt.notes


def test_prompts_can_stay_out_of_the_record() -> None:
    receipts: list[Receipt] = []
    run(recorded(receipts.append, store_prompts=False)(scripted(FINE))(ASKED, Trail()))
    assert "hello" not in receipts[0].to_json()
    assert "fine" not in receipts[0].to_json()
    assert receipts[0].prompt_sha256


def test_a_broken_redact_hook_drops_the_texts_rather_than_the_answer() -> None:
    receipts: list[Receipt] = []
    response, _ = run(recorded(receipts.append, redact=lambda r: 1 // 0)(scripted(FINE))(ASKED, Trail()))  # type: ignore[arg-type,return-value]
    assert response.text == "fine"
    assert "hello" not in receipts[0].to_json()
    assert "texts dropped: the redact hook raised ZeroDivisionError" in receipts[0].notes


def test_missing_usage_becomes_a_flagged_estimate_never_zero() -> None:
    from dataclasses import replace

    mute = replace(PROVIDER, decode=lambda body: Response("two words"))
    receipts: list[Receipt] = []
    call = recorded(receipts.append)(send(lambda request: (mute, MODEL)))
    response, _ = run(call(replace(ASKED, model="p/m", provider="p"), Trail()), answers())
    assert response.usage is not None
    assert response.usage.source == "estimated"
    assert response.usage.input_tokens
    assert response.usage.output_tokens == 2
