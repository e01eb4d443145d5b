"""In a session, an edited text goes out as edits where the provider's cache makes that cheaper, and only there."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.compress.diff import apply
from tokenkit.errors import UserError
from tokenkit.layers import Sessions
from tokenkit.layers.compressed import Sent
from tokenkit.layers.continued import ASKS
from tokenkit.providers import anthropic, openai, simulated
from tokenkit.receipts import PriceReceipt
from tokenkit.types import Message, Request

LINES = [f"Line {i}: the harbour master counts {i * 7} ships and {i * 3} boats before noon." for i in range(200)]
TEXT = "\n".join(LINES) + "\nSum up."
SAME = {"session": "s", "changes": True, "model": "steady", "max_tokens": 40}


@pytest.fixture
def kit():
    with tk.Kit.simulated(pace=0, prompt_cache=True) as kit:
        yield kit


def edited(*places: int) -> str:
    return "\n".join(f"{line} (checked)" if i in places else line for i, line in enumerate(LINES)) + "\nSum up."


def test_an_edit_near_the_start_costs_a_fraction_and_the_receipt_says_so(kit):
    first = kit.call(TEXT, **SAME)
    assert first.receipt.notes == ()
    second = kit.call(edited(3), **SAME)
    assert "tokens of edits" in second.receipt.notes[0]
    assert second.receipt.prompt == edited(3)  # what was asked, whatever was sent
    whole = kit.call(edited(3) + " ", model="steady", max_tokens=40)
    assert second.receipt.cost < whole.receipt.cost
    assert second.receipt.cost < first.receipt.cost / 3
    expected = Decimal(second.receipt.notes[0].split("$")[1].split(" ")[0])
    billed = second.usage.input_tokens - second.usage.cache_read_input_tokens
    paid = (billed * Decimal("2.5") + second.usage.cache_read_input_tokens * Decimal("0.25")) / 10**6
    assert abs(paid - expected) < Decimal("0.0005"), "what was expected is not what was paid"


def test_the_model_is_given_the_earlier_text_its_answer_and_edits_that_make_the_new_text(tmp_path):
    bodies = []
    world = simulated.provider(pace=0, prompt_cache=True)

    def seen(wire):
        bodies.append(json.loads(wire.body)["messages"])
        return world.local(wire)

    provider = tk.Provider(**{name: getattr(world, name) for name in tk.Provider.__slots__} | {"local": seen})
    with tk.Kit(providers=[provider], models=simulated.models(prompt_cache=True), environ={}, home=tmp_path) as kit:
        answer = kit.call(TEXT, system="Be brief.", **SAME)
        kit.call(edited(5, 150), system="Be brief.", **SAME)
        kit.call(edited(5, 150), system="Be verbose.", **SAME)
    system, earlier, said, asked = bodies[1]
    assert (system["content"], earlier["content"], said["content"]) == ("Be brief.", TEXT, answer.text)
    assert apply(earlier["content"], asked["content"].removeprefix(f"{ASKS}\n")) == edited(5, 150)
    assert [message["role"] for message in bodies[2]] == ["system", "user"]  # another beginning: nothing to build on


def test_nothing_cached_nothing_saved(kit):
    with tk.Kit.simulated(pace=0) as plain:  # its provider keeps no prompts
        plain.call(TEXT, **SAME)
        told = plain.call(edited(3), **SAME).receipt.notes
        assert "sent whole: the earlier text is not in the provider's cache" in told[0]
    kit.call("A short text\nof two lines, for a start.", **SAME)
    assert "sent whole" in kit.call("A short text\nof two lines, for an end.", **SAME).receipt.notes[0]


def test_an_edit_at_the_very_end_is_sent_whole_because_the_cache_has_the_beginning_anyway(kit):
    kit.call(TEXT, **SAME)
    told = kit.call(TEXT.replace("Sum up.", "Sum it up."), **SAME).receipt.notes
    assert told and "sent whole" in told[0]  # noqa: PT018


def test_other_sessions_users_and_models_know_nothing_of_it(kit):
    kit.call(TEXT, user="ann", **SAME)
    assert kit.call(edited(3), user="bob", **SAME).receipt.notes == ()
    assert kit.call(edited(3), user="ann", **SAME | {"session": "t"}).receipt.notes == ()
    told = kit.call(edited(4), user="ann", **SAME | {"model": "sage"}).receipt.notes
    assert "simulated/steady that was given the earlier text" in told[0]


def test_the_plan_shows_what_would_be_sent(kit):
    kit.call(TEXT, **SAME)
    alone = kit.plan(edited(3), model="steady", max_tokens=40).choice
    with_changes = kit.plan(edited(3), **SAME).choice
    assert "it would be sent as" in kit.plan(edited(3), **SAME).notes[0]
    assert with_changes.input_tokens.tokens > alone.input_tokens.tokens  # the earlier text goes along, from the cache


def test_streams_and_async_calls_build_on_the_same_texts(kit):
    with kit.stream(TEXT, **SAME) as stream:
        list(stream)

    async def later():
        return await kit.acall(edited(3), **SAME)

    import asyncio

    assert "tokens of edits" in asyncio.run(later()).receipt.notes[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"changes": True}, "needs a session"),
        ({"changes": True, "session": "s", "compress": ["normalize"]}, "exclude each other"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(kit, options, sentence):
    with pytest.raises(UserError, match=sentence):
        kit.call("Hello", **options)
    with pytest.raises(UserError, match=sentence):
        kit.plan("Hello", **options)
    assert kit.receipt() is None  # a mistake of the caller's is no call


def test_anthropic_caches_only_what_it_is_asked_to(kit):
    assert anthropic.provider().cache_field == "cache_control"
    assert openai.provider().cache_field == ""


PRICE = PriceReceipt("user", "p/m", 10**9, 10**9, cache_read=10**8)


EDITS = st.lists(
    st.tuples(st.integers(0, 199), st.sampled_from(["", "x", "```", "@1 1", "a\nb", LINES[0]])), max_size=9
)


def test_whatever_is_edited_what_goes_out_is_the_text_or_edits_that_make_it():
    shortened = []

    @settings(deadline=None, max_examples=60)
    @given(st.lists(EDITS, min_size=2, max_size=5))
    def check(versions):
        clock, sent = [0.0], Sent()
        sessions = Sessions(lambda request: ("p/m", PRICE), sent, clock=lambda: clock[0])
        for edits in versions:
            lines = dict(enumerate(LINES)) | dict(edits)
            text = "\n".join(lines.values())
            request = Request((Message("user", text),), model="p/m", session="s", changes=True)
            made, told = sessions.shorter(request)
            if made is request:
                assert not told or told.startswith("sent whole")
            else:
                shortened.append(edits)
                assert apply(made.messages[0].text, made.messages[-1].text.removeprefix(f"{ASKS}\n")) == text
                assert sessions._costs(made) < sessions._costs(request)
            sent.remember(made.messages, clock[0])
            sessions.remember(request, made, Message("assistant", "Yes."), "p/m")
            clock[0] += 60

    check()
    assert shortened, "no version was ever sent as edits: this test proved nothing"
