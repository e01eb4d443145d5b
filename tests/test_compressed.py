"""Compression within a call: what is shortened, what stays, what the receipt says, and when it does not pay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from shells import Cells, Spy, cells, shell

from tokenkit import Kit
from tokenkit.catalog import Model
from tokenkit.compress.diff import HEADER
from tokenkit.errors import UserError
from tokenkit.layers.compressed import CACHE_SECONDS, Sent
from tokenkit.pricing import flat
from tokenkit.providers import simulated
from tokenkit.types import Message

__all__ = ["cells", "shell"]

LINES = "The  Danube   flows through ten countries.   It is long.\n\n"
TABLE = "| a    |   b  |\n|------|------|\n| 1    |  2   |\n\n"
QUESTION = "Which river  flows through ten countries?"
PROMPT = LINES * 3 + TABLE * 2 + QUESTION


@pytest.fixture
def spy() -> Spy:
    return Spy()


@pytest.fixture
def kit(spy: Spy, tmp_path: Any) -> Iterator[Kit]:
    with Kit(home=tmp_path, providers=[spy.provider], models=simulated.models(), environ={}) as made:
        yield made


def test_a_lone_prompt_is_shortened_and_its_question_stays(kit: Kit, spy: Spy) -> None:
    answer = kit.call(PROMPT, compress=["normalize", "dedupe"], max_tokens=10)
    assert spy.prompt.endswith(QUESTION)
    assert len(spy.prompt) < len(PROMPT)
    receipt = answer.receipt
    assert [stage.stage for stage in receipt.stages] == ["normalize", "dedupe"]
    assert receipt.saved_tokens == receipt.stages[0].before - receipt.stages[-1].after > 0
    assert receipt.prompt == spy.prompt or receipt.prompt == PROMPT
    rows = kit.ledger.sql("select stage, tokens_before - tokens_after as saved from stages order by position")
    assert rows["saved"].sum() == receipt.saved_tokens
    by_stage = kit.ledger.sql("select * from compression_by_stage")
    assert set(by_stage["stage"]) == {"normalize", "dedupe"}


def test_without_asking_nothing_is_touched(kit: Kit, spy: Spy) -> None:
    kit.call(PROMPT, max_tokens=10)
    assert spy.prompt == PROMPT


def test_of_a_conversation_the_system_prompt_and_the_last_turn_stay(kit: Kit, spy: Spy) -> None:
    messages = [
        {"role": "system", "content": LINES},
        {"role": "user", "content": LINES * 2},
        {"role": "assistant", "content": "It  is   long."},
        {"role": "user", "content": "Why   is that?"},
    ]
    kit.call(messages, compress="normalize", max_tokens=10)
    sent = [message["content"] for message in spy.sent[-1]["messages"]]
    assert (sent[0], sent[3]) == (LINES, "Why   is that?")
    assert "  " not in sent[1]
    kit.call(messages, compress="normalize", max_tokens=10, compress_all=True)
    assert "  " not in spy.sent[-1]["messages"][3]["content"]


def test_a_later_version_goes_as_a_diff_and_says_so(kit: Kit, spy: Spy) -> None:
    old = "\n".join(f"Line {n} of the plan says what to do on day {n}." for n in range(60))
    new = old.replace("day 30", "day 31")
    messages = [Message("user", old), Message("assistant", "Noted."), Message("user", new)]
    receipt = kit.call(messages, compress="diff", compress_all=True, max_tokens=10).receipt
    assert spy.prompt.startswith(HEADER)
    assert receipt.stages[0].lossless
    from tokenkit.compress import apply

    assert apply(old, spy.prompt) == new


def test_the_plan_is_for_what_will_be_sent(kit: Kit) -> None:
    whole = kit.plan(PROMPT, model="sage").choice.input_tokens.tokens
    short = kit.plan(PROMPT, model="sage", compress="normalize,dedupe").choice.input_tokens.tokens
    sent = kit.call(PROMPT, model="sage", compress="normalize,dedupe", max_tokens=5).usage.input_tokens
    assert short == sent < whole


def test_compress_alone_makes_no_call(kit: Kit, spy: Spy) -> None:
    made = kit.compress(PROMPT, ["normalize"])
    assert made.text != PROMPT
    assert made.saved > 0
    assert spy.sent == []
    assert "normalize" in made._repr_html_()


def test_a_stage_of_your_own_is_a_function(kit: Kit, spy: Spy) -> None:
    def shout(messages: Any, aim: Any) -> Any:
        return [Message("user", messages[0].content.replace("  ", " "))]

    def fails(messages: Any, aim: Any) -> Any:
        raise RuntimeError("no such luck")

    receipt = kit.call(LINES * 3, compress=[fails, shout], max_tokens=5).receipt
    assert "failed: RuntimeError" in receipt.stages[0].skipped
    assert receipt.stages[1].skipped is None


def test_a_cached_beginning_is_left_alone_where_changing_it_costs_more(tmp_path: Any) -> None:
    price = flat("user", "m", input=10, output=10, cache_read=1)
    spy = Spy()
    models = [Model("simulated", "sage", price=price, context_window=100_000)]
    long = "The Danube flows  through ten countries, and its delta is a wide one. " * 120
    turns = [Message("user", long), Message("assistant", "I see."), Message("user", "Which sea?")]
    with Kit(home=tmp_path, providers=[spy.provider], models=models, environ={}) as kit:
        cold = kit.call(turns, compress="normalize", max_tokens=5).receipt
        assert cold.stages[0].skipped is None
        kit.call(turns, max_tokens=5)
        warm = kit.call(turns, compress="normalize", max_tokens=5).receipt
        assert "in the provider's cache" in warm.stages[0].skipped
        assert warm.saved_tokens == 0
        assert "in the provider&#x27;s cache" in warm._repr_html_()  # not only where --verbose shows every stage
        assert "in the provider" not in cold._repr_html_()
        assert spy.sent[-1]["messages"][0]["content"] == long


def test_what_was_sent_is_known_for_as_long_as_caches_last() -> None:
    sent, first, second = Sent(), Message("user", "one " * 300), Message("assistant", "two " * 300)
    sent.remember([first, second], now=0.0)
    assert sent.known([first, second, first], now=1.0) == 2
    assert sent.known([first], now=1.0) == 1
    assert sent.known([second], now=1.0) == 0
    assert sent.known([first], now=CACHE_SECONDS + 1) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compress": "normalise"}, "Did you mean 'normalize'"),
        ({"compress": [3]}, "a name or a function"),
        ({"target": 0.4}, "Say which stages"),
        ({"compress": "normalize", "target": 4}, "above 0 and at most 1"),
        ({"compress": "normalize", "target": 0}, "above 0 and at most 1"),
        ({"compress": "normalize", "target": "half"}, "must be a number"),
        ({"compress": "normalize", "target": 0.5, "target_tokens": 9}, "Say one of"),
        ({"compress": "normalize", "target_tokens": 0}, "at least 1 token"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(kit: Kit, spy: Spy, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        kit.call(PROMPT, **options)
    assert spy.sent == []


def test_the_magic_compresses_and_verbose_shows_every_stage(cells: Cells) -> None:
    seen = cells.run(
        f"%%route --compress normalize,dedupe --target 0.9 --verbose --max-tokens 10\n{PROMPT}", kernel=True
    )
    assert seen.error is None
    html = json.dumps([output.data.get("text/html", "") for output in seen.outputs])
    assert "dedupe" in html
    assert "normalize" in html
    assert cells.spy.prompt.endswith(QUESTION)
    assert "Did you mean" in cells.run("%%route --compress nromalize\nhi").line


def test_llm_is_a_call_of_its_own_budgeted_and_linked(kit: Kit, spy: Spy) -> None:
    text = "The Danube flows through ten countries and is long. " * 40
    kit.budgets.set("1 USD")
    receipt = kit.call(f"{text}\n\n{QUESTION}", compress=["normalize", "llm"], target=0.3, max_tokens=5).receipt
    rows = kit.ledger.sql("select operation, parent, cost_nanos from calls order by seq")
    assert rows["operation"].tolist() == ["compress", "chat"]
    assert rows["parent"].tolist()[0] == receipt.id
    assert [stage.stage for stage in receipt.stages] == ["normalize", "llm"]
    assert receipt.stages[1].skipped is None
    assert not receipt.stages[1].lossless
    assert spy.prompt.endswith(QUESTION)
    assert kit.budgets.status()[0].spent == rows["cost_nanos"].sum()


def test_llm_in_async_code_and_without_a_call(kit: Kit, spy: Spy) -> None:
    import asyncio

    text = "The Danube flows through ten countries and is long. " * 40
    made = asyncio.run(kit.acall(text, compress="llm", target=0.3, max_tokens=5))
    assert made.receipt.stages[0].saved > 0
    assert kit.compress(text, ["llm"], target=0.3).saved > 0
    sent = len(spy.sent)
    assert kit.plan(text, compress="llm").choice is not None
    assert len(spy.sent) == sent


def test_a_model_that_does_not_answer_costs_no_more_than_its_stage(tmp_path: Any) -> None:
    text = "The Danube flows through ten countries and is long. " * 40
    with Kit.simulated(pace=0, faults=[simulated.Fault(status=400)], home=tmp_path) as kit:
        made = kit.compress(text, ["llm"], target=0.3)
        assert made.text == text
        assert "did not answer" in (made.reports[0].skipped or "")


def test_the_file_says_how_calls_are_shortened_and_a_call_may_say_otherwise(spy: Spy, tmp_path: Any) -> None:
    file = tmp_path / "tokenkit.toml"
    file.write_text('[defaults]\ncompress = ["normalize", "summarize"]\ntarget = 0.4\nmax_tokens = 5\n')
    with Kit(file, home=tmp_path, providers=[spy.provider], models=simulated.models(), environ={}) as kit:

        def ran(**options: Any) -> list[str]:
            return [stage.stage for stage in kit.call(PROMPT, **options).receipt.stages]

        assert ran() == ["normalize", "summarize"]
        assert ran(compress="dedupe") == ["dedupe"]
        assert ran(target=0.9) == ran(target_tokens=30) == ran(target_recall=0.8) == ["normalize", "summarize"]
        for none in ("", [], ()):
            assert ran(compress=none) == []
            assert spy.prompt == PROMPT
        assert ran(changes=True, session="s") == []  # edits belong to a text that goes whole
        assert kit.ledger.sql("select runs + skips as n from compression_by_stage where stage = 'dedupe'")["n"][0] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": 3}, "^Stages are a list of names or functions"),
        ({"stages": {"normalize", "dedupe"}}, "^Stages are a list"),  # a set has another order in each process
        ({"stages": b"normalize"}, "^Stages are a list"),
        ({"query": 5}, "^query must be text, not 5"),
        ({"keep": [5]}, "^keep is a text or a list of texts"),
        ({"keep": 5}, "^keep is a text or a list of texts"),
        ({"model": None}, "^model must be text"),
        ({"target": True}, "^target is a share"),
    ],
)
def test_what_is_of_the_wrong_kind_is_told_in_a_line(kit: Kit, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        kit.compress(PROMPT, **options)


def test_stages_that_come_one_by_one_all_run(kit: Kit) -> None:
    made = kit.compress(PROMPT, (name for name in ("normalize", "dedupe")))  # type: ignore[arg-type]
    assert [report.stage for report in made.reports] == ["normalize", "dedupe"]
