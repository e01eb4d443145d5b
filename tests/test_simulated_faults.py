"""What the simulated provider acts out, and what a kit makes of it: retries, fallbacks, receipts, estimates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from simulations import ask, streamed, whole, world

import tokenkit as tk
from tokenkit.errors import (
    AllFailed,
    AuthError,
    BadRequest,
    ContextOverflow,
    NoRoute,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TransportError,
    UnknownModel,
)
from tokenkit.providers import simulated
from tokenkit.providers.simulated import Fault
from tokenkit.tokens import count, count_messages
from tokenkit.types import Message


@pytest.fixture
def kit_of() -> Iterator[Any]:
    made: list[tk.Kit] = []

    def make(*faults: Fault, **more: Any) -> tk.Kit:
        made.append(tk.Kit.simulated(pace=0, faults=faults, **more))
        return made[-1]

    yield make
    for kit in made:
        kit.close()


def test_a_rate_limit_is_waited_out_and_is_one_receipt_with_two_attempts(kit_of: Any) -> None:
    kit = kit_of(Fault(calls=(1,), status=429, retry_after=0.01))
    waited = []
    kit.on_sleep = waited.append
    receipt = kit.call("Hello", model="swift").receipt
    assert [sleep.seconds for sleep in waited] == [0.01]
    assert [(a.status, a.http_status, a.error_type, a.cost_nanos) for a in receipt.attempts[:1]] == [
        ("error", 429, "rate_limited", 0)
    ]
    assert [a.status for a in receipt.attempts] == ["error", "ok"]
    assert receipt.attempts[1].waited == 0.01
    assert receipt.status == "ok"
    assert kit.ledger.df().shape[0] == 1
    assert receipt.cost_nanos == receipt.attempts[1].cost_nanos > 0


def test_calls_count_from_one_and_by_model(kit_of: Any) -> None:
    kit = kit_of(Fault("swift", calls=(2,), status=400))
    kit.call("one", model="swift")
    kit.call("one", model="steady")
    with pytest.raises(BadRequest):
        kit.call("two", model="swift")
    kit.call("three", model="swift")
    kit.call("two", model="steady")


def test_the_first_fault_that_fits_counts_and_a_name_may_have_its_provider(kit_of: Any) -> None:
    kit = kit_of(Fault("simulated/swift", calls=(1,), status=401), Fault("swift", status=402), Fault(status=400))
    for model, wanted in (("swift", AuthError), ("swift", QuotaExceeded), ("tiny", BadRequest)):
        with pytest.raises(wanted):
            kit.call("Hello", model=model)


def test_a_fault_for_a_model_that_is_none_of_the_four_is_refused_at_once() -> None:
    with pytest.raises(UnknownModel, match="Did you mean 'swift'"):
        simulated.provider(faults=[Fault("swfit")])


def test_a_function_may_decide_the_faults() -> None:
    seen: list[tuple[str, int]] = []

    def faults(model: str, number: int) -> Fault | None:
        seen.append((model, number))
        return Fault(status=400) if number == 2 else None

    with tk.Kit.simulated(pace=0, faults=faults) as kit:
        kit.call("Hello", model="tiny")
        with pytest.raises(BadRequest):
            kit.call("Hello", model="tiny")
    assert seen == [("tiny", 1), ("tiny", 2)]


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (Fault(status=401), AuthError),
        (Fault(status=403), AuthError),
        (Fault(status=402), QuotaExceeded),
        (Fault(status=429, code="insufficient_quota"), QuotaExceeded),
        (Fault(status=429, retry_after=3600), RateLimited),
        (Fault(status=400), BadRequest),
        (Fault(status=400, code="context_length_exceeded"), ContextOverflow),
        (Fault(status=500), ServerError),
        (Fault(status=200), ServerError),
        (Fault(refuse=True), TransportError),
    ],
    ids=repr,
)
def test_a_status_and_a_code_become_the_error_they_mean(kit_of: Any, fault: Fault, wanted: type[Exception]) -> None:
    kit = kit_of(fault)
    # A deadline gives up before the pauses between tries would make this slow.
    with pytest.raises(wanted) as caught:
        kit.call("Hello", model="swift", deadline=0.4)
    assert caught.value.receipt.status == "error"
    if fault.code is not None:
        assert caught.value.code == fault.code
    if fault.retry_after is not None:
        assert caught.value.retry_after == 3600
        assert len(caught.value.receipt.attempts) == 1


def test_an_overload_escalates_to_the_next_model(kit_of: Any) -> None:
    first = kit_of().plan("Hello").choice.model
    kit = kit_of(Fault(first, status=529, retry_after=60))
    response = kit.call("Hello")
    receipt = response.receipt
    assert [a.error_type for a in receipt.attempts] == ["overloaded", None]
    assert receipt.attempts[0].model == first
    assert receipt.model == receipt.attempts[1].model != first
    assert receipt.cost_nanos == receipt.attempts[1].cost_nanos


def test_when_all_are_full_every_cause_is_told(kit_of: Any) -> None:
    with pytest.raises(AllFailed) as caught:
        kit_of(Fault(status=503, retry_after=60)).call("Hello")
    assert len(caught.value.causes) == 4
    assert len(caught.value.receipt.attempts) == 4
    assert caught.value.receipt.cost_nanos == 0


@pytest.mark.parametrize("fault", [Fault(cut_after=2), Fault(break_after=2)], ids=["cut", "broken"])
def test_a_stream_that_ends_after_text_was_shown_is_an_error_that_costs(kit_of: Any, fault: Fault) -> None:
    kit = kit_of(fault)
    stream = kit.stream("Hello", model="steady")
    shown = []
    with pytest.raises(ProtocolError if fault.cut_after else ServerError) as caught:
        shown.extend(str(delta) for delta in stream)
    text = "".join(shown)
    assert len(shown) == 2
    assert whole(ask("Hello", "steady")).text.startswith(text)
    receipt = caught.value.receipt
    assert len(receipt.attempts) == 1
    assert receipt.status == "error"
    assert receipt.usage.source == "estimated"
    assert receipt.usage.output_tokens == count(text) == 8
    assert receipt.usage.input_tokens == count_messages((Message("user", "Hello"),), "simulated/steady").tokens
    assert receipt.cost_nanos == receipt.reprice() > 0
    assert kit.ledger.df().shape[0] == 1


@pytest.mark.parametrize("fault", [Fault(calls=(1,), cut_after=0), Fault(calls=(1,), break_after=0)])
def test_a_stream_that_ends_before_anything_was_shown_is_asked_again(kit_of: Any, fault: Fault) -> None:
    stream = kit_of(fault).stream("Hello", model="steady")
    assert "".join(map(str, stream)) == whole(ask("Hello", "steady")).text
    assert [a.status for a in stream.receipt.attempts] == ["error", "ok"]


def test_a_cut_may_come_right_before_the_end_and_one_after_it_never_comes() -> None:
    chunks = -(-whole(ask()).usage.output_tokens // 4)
    with pytest.raises(ProtocolError):
        streamed(ask(), world(faults=[Fault(cut_after=chunks)]))
    assert streamed(ask(), world(faults=[Fault(cut_after=chunks + 1)])) == whole(ask())
    assert whole(ask(), world(faults=[Fault(cut_after=0, break_after=0)])) == whole(ask())  # only a stream can be cut


@pytest.mark.parametrize("streaming", [False, True])
def test_a_mute_provider_leaves_an_estimate_and_never_zero(kit_of: Any, streaming: bool) -> None:
    kit = kit_of(Fault(mute=True))
    if streaming:
        stream = kit.stream("Hello 👋", model="steady")
        text, receipt = "".join(map(str, stream)), stream.receipt
    else:
        response = kit.call("Hello 👋", model="steady")
        text, receipt = response.text, response.receipt
    assert receipt.usage.source == "estimated"
    assert receipt.usage.output_tokens == count(text)
    assert receipt.usage.input_tokens == count_messages((Message("user", "Hello 👋"),), "simulated/steady").tokens
    assert receipt.cost_nanos > 0
    assert kit.ledger.df()["usage_source"].tolist() == ["estimated"]


def test_a_prompt_too_large_for_one_window_goes_to_a_larger_one(kit_of: Any) -> None:
    # The plan knows the windows; a provider that says otherwise is believed, and only a larger one is asked after it.
    windows = {m.id: m.context_window for m in simulated.models()}
    overflow = Fault("swift", status=400, code="context_length_exceeded")
    dear_last = tk.Policy(weights={"tiny": 1, "swift": 10, "steady": 5, "sage": 4})
    kit, broken = kit_of(overflow), kit_of(overflow, Fault(status=503, retry_after=60))
    kit.policy = broken.policy = dear_last
    assert kit.plan("Hello").choice.model == "simulated/swift"
    receipt = kit.call("Hello").receipt
    assert [a.error_type for a in receipt.attempts] == ["context_overflow", None]
    assert windows[receipt.model] > windows["simulated/swift"]
    with pytest.raises(AllFailed) as caught:
        broken.call("Hello")
    assert sorted(model for model, _ in caught.value.causes) == [f"simulated/{n}" for n in ("sage", "steady", "swift")]


def test_a_prompt_larger_than_every_window_is_never_sent(kit_of: Any) -> None:
    kit = kit_of()
    with pytest.raises(NoRoute):
        kit.call("word " * 200_100)
    small = kit.plan("word " * 5_000)
    assert {c.model for c in small.rejected} == {"simulated/tiny"}


def test_a_refused_connection_costs_nothing_and_escalates(kit_of: Any) -> None:
    first = kit_of().plan("Hello").choice.model
    kit = kit_of(Fault(first, refuse=True))
    receipt = kit.call("Hello", deadline=30).receipt
    refused = [a for a in receipt.attempts if a.model == first]
    assert refused
    assert all(a.error_type == "transport_error" and a.cost_nanos == 0 and a.usage is None for a in refused)
    assert receipt.status == "ok"
    assert receipt.model != first


def test_two_simulations_in_one_kit_keep_their_own_faults(tmp_path: Any) -> None:
    sick = simulated.provider(name="sick", pace=0, faults=[Fault(status=400)])
    well = simulated.provider(name="well", pace=0)
    with tk.Kit(home=tmp_path, providers=[sick, well], environ={}) as kit:
        assert kit.call("Hello", model="swift", provider="well").text
        with pytest.raises(BadRequest):
            kit.call("Hello", model="swift", provider="sick")


def test_a_simulation_is_safe_to_share_between_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    simulation = world()
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: whole(ask(), simulation).text, range(200)))
    assert len(texts) == 1
    assert simulation.calls == {"swift": 200}
