"""The simulated provider: honest about what it is, the same for the same seed, and counted with a real tokenizer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hashseeds import printed
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import answered, ask, streamed, whole, world

import tokenkit as tk
from tokenkit.errors import (
    BadRequest,
    ContextOverflow,
    TransportError,
    UserError,
)
from tokenkit.providers import openai, simulated
from tokenkit.providers.simulated import CHARACTERS, Fault, Simulation
from tokenkit.tokens import count, count_messages
from tokenkit.types import Message, Request, Tool

NAMES = tuple(CHARACTERS)
PROMPTS = st.text(st.characters(), min_size=1, max_size=300) | st.lists(
    st.sampled_from(["👩‍👩‍👧‍👦", "世界", "token", "🏔️", "\ud83d", "\u202e", "naïve", "{x}", "%s", "\n"]), min_size=1
).map(" ".join)


# Honest


@pytest.mark.parametrize("model", NAMES)
def test_every_answer_says_that_no_model_was_asked(model: str) -> None:
    critic = ask("You are the critic. Find what is wrong.", model)
    for request in (ask(model=model), critic):
        for response in (whole(request), streamed(request)):
            assert response.text.startswith(f"[simulated by {model}")
            assert response.model == f"{model} (simulated)"
            assert response.id is not None
            assert response.id.startswith("simulated-")
    with tk.Kit.simulated(pace=0) as kit:
        receipt = kit.call("Hello", model=model).receipt
    assert receipt.price.layer == "simulated"
    assert receipt.attempts[0].response_model == f"{model} (simulated)"


def test_an_error_says_so_too() -> None:
    for fault in (Fault(status=500), Fault(status=429)):
        _, body = answered(ask(), world(faults=[fault]))
        assert "simulated" in json.loads(body)["error"]["message"]
    with pytest.raises(TransportError, match="simulated"):
        answered(ask(), world(faults=[Fault(refuse=True)]))


def test_the_four_models_differ_in_all_that_a_choice_is_made_by() -> None:
    models = simulated.models()
    assert len(models) == 4
    prices = {m.price.cost_per_1k for m in models if m.price is not None}
    windows = {m.context_window for m in models}
    speeds = {(c.first_token, c.per_token) for c in CHARACTERS.values()}
    assert len(prices) == len(windows) == len(speeds) == len({m.weight for m in models}) == 4
    lengths = {}
    for name in NAMES:
        lengths[name] = sum(whole(ask(f"Question {i}", name)).usage.output_tokens for i in range(20)) / 20
    assert sorted(lengths, key=lengths.__getitem__) == list(NAMES)
    assert lengths["sage"] > 3 * lengths["tiny"]


# Deterministic


def test_the_same_seed_gives_the_same_answer_in_another_process() -> None:
    code = (
        "import tokenkit as tk\n"
        "with tk.Kit.simulated(seed=7, pace=0) as kit:\n"
        "    for m in ('tiny', 'swift', 'steady', 'sage'):\n"
        "        r = kit.call('Grüße, why is the sky blue?', model=m); print(ascii((r.text, r.id, r.usage)))\n"
    )
    (made,) = printed(code)
    assert len(made.splitlines()) == 4


def test_another_seed_model_or_prompt_gives_another_answer() -> None:
    base = whole(ask()).text
    assert whole(ask(), Simulation(seed=1)).text != base
    assert whole(ask(model="steady")).text != base
    assert whole(ask("Why is the sky dark?")).text != base
    assert whole(ask(temperature=0.3)).text == base


@given(PROMPTS, st.sampled_from(NAMES), st.none() | st.integers(1, 60), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_streamed_answer_is_the_whole_one(prompt: str, model: str, most: int | None, seed: int) -> None:
    request = ask(prompt, model, max_tokens=most)
    simulation = world(seed=seed)
    assert streamed(request, simulation) == whole(request, simulation)


def test_the_order_of_calls_and_other_faults_change_no_text() -> None:
    simulation = world(faults=lambda model, number: Fault(status=500) if number % 2 else None)
    for _ in range(3):
        assert answered(ask(), simulation)[0] == 500
        assert whole(ask(), simulation) == whole(ask())


# Counted


@given(PROMPTS, st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_tokens_are_those_of_the_tokenizer(prompt: str, model: str) -> None:
    response = whole(ask(prompt, model))
    assert response.usage is not None
    assert response.usage.input_tokens == count_messages((Message("user", prompt),), f"simulated/{model}").tokens
    assert response.usage.output_tokens == count(response.text)
    assert response.usage.source == "reported"
    assert response.finish_reason == "stop"


def test_tools_and_pictures_are_counted_as_the_plan_counts_them() -> None:
    tools = (Tool("weather", "Tell the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}),)
    picture = tk.Image(data="iVBORw0KGgo=", media_type="image/png")
    messages = (Message("system", "Be brief."), Message("user", ("What is this?", picture), name="ada"))
    with tk.Kit.simulated(pace=0) as kit:
        response = kit.call(messages, model="swift", tools=tools)
        planned = response.receipt.plan.choice.input_tokens
        assert (
            response.usage.input_tokens == planned.tokens == count_messages(messages, "simulated/swift", tools).tokens
        )
        assert "iVBOR" not in response.text
        assert response.receipt.cost_nanos == response.receipt.reprice()


@pytest.mark.parametrize("most", [1, 2, 7, 19])
def test_max_tokens_cuts_and_says_so(most: int) -> None:
    response = whole(ask(max_tokens=most))
    assert (response.usage.output_tokens, response.finish_reason) == (most, "length")
    assert whole(ask()).text.startswith(response.text)
    same = ask(extra={"max_completion_tokens": most})
    assert whole(same) == response


def test_max_tokens_that_are_enough_cut_nothing() -> None:
    full = whole(ask())
    exact = whole(ask(max_tokens=full.usage.output_tokens))
    assert exact == full
    assert exact.finish_reason == "stop"


def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    full = whole(ask()).text
    cut = whole(ask(stop=("]", "model")))
    assert cut.text == full[: full.index("model")]
    assert cut.usage.output_tokens == count(cut.text)
    assert streamed(ask(stop=("]", "model"))) == cut
    assert whole(ask(stop=("\x00",))).text == full
    assert whole(ask(stop=("[simulated",))).text == ""


def test_an_answer_leaves_the_window_whole() -> None:
    prompt = "word " * 4070
    used = count_messages((Message("user", prompt),), "simulated/tiny").tokens
    assert 4096 - 40 < used < 4096
    response = whole(ask(prompt, "tiny"))
    assert response.usage.total_tokens <= 4096
    status, body = answered(ask("word " * 4096, "tiny"), world())
    assert status == 400
    error = openai.classify(status, {}, body)
    assert isinstance(error, ContextOverflow)
    assert (error.need, error.limit) == (
        count_messages((Message("user", "word " * 4096),), "simulated/tiny").tokens,
        4096,
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "text"}, {"messages": [{}]}, {"messages": []}, {"messages": None}, {"max_tokens": "many"},
        {"max_tokens": -1}, {"tools": [1]}, {"tools": [{"function": {}}]},
        {"messages": [{"role": "user", "content": 5}]},
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused_as_a_server_would(odd: dict[str, Any]) -> None:
    status, body = answered(ask(extra=odd), world())
    if odd == {"messages": "text"}:  # one text is what a caller may write, and is one message
        assert status == 200
    else:
        assert isinstance(openai.classify(status, {}, body), BadRequest)


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    status, body = answered(ask(model="gpt-4o"), world())
    assert status == 404
    assert all(name in body.decode() for name in NAMES)


# Paced


def test_pace_scales_every_wait_and_nothing_else() -> None:
    def waits(pace: float, request: Request, *faults: Fault) -> tuple[float, list[float], bytes]:
        answer = Simulation(pace=pace, faults=faults)(openai.encode(request, simulated.provider()))
        chunks = list(answer.chunks)
        return answer.seconds, [seconds for seconds, _ in chunks], b"".join(data for _, data in chunks)

    for request in (ask(), ask(stream=True)):
        for fault in (Fault(), Fault(delay=2.0), Fault(status=500), Fault(status=500, delay=2.0)):
            first, between, data = waits(1.0, request, fault)
            assert waits(0.0, request, fault) == (0.0, [0.0] * len(between), data)
            assert waits(0.5, request, fault) == (first / 2, [seconds / 2 for seconds in between], data)
            assert first >= fault.delay
    plain, delayed = waits(1.0, ask())[0], waits(1.0, ask(), Fault(delay=2.0))[0]
    assert delayed == pytest.approx(plain + 2.0)


@pytest.mark.parametrize("pace", [-1, float("nan")])
def test_a_pace_below_nothing_is_refused(pace: float) -> None:
    with pytest.raises(UserError, match="pace"):
        simulated.provider(pace=pace)
