"""The same request, the same answer, no cost, no try; anything else is asked; and no cache can fail a call."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.cache import Cache
from tokenkit.errors import UserError
from tokenkit.layers.cached import Remembered, key_of
from tokenkit.providers.simulated import Fault
from tokenkit.types import Message, Request, Response, ToolCall


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[tk.Kit]:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        yield kit


def tries(kit: tk.Kit) -> int:
    return sum(kit._providers["simulated"].local.calls.values())  # type: ignore[union-attr]


def test_a_second_time_costs_nothing_and_says_where_it_came_from(kit: tk.Kit) -> None:
    kit.budgets.set("1 USD", window="day")
    first = kit.call("Name three rivers.", max_tokens=40, cache=True)
    spent = kit.budgets.status()[0].spent
    again = kit.call("Name three rivers.", max_tokens=40, cache=True, user="somebody else")
    assert (again.text, again.finish_reason, again.provider) == (first.text, first.finish_reason, "simulated")
    assert tries(kit) == 1
    assert (again.receipt.cached, again.receipt.cost_nanos, again.receipt.attempts) == (True, 0, ())
    assert again.receipt.cached_from == first.receipt.id
    assert again.receipt.model == first.receipt.model
    assert "from the cache: the answer given a moment ago" in again.receipt.notes[0]
    assert "none: nothing was sent" in again.receipt._repr_html_()
    assert kit.budgets.status()[0].spent == spent
    saved = kit.ledger.sql("select answers, saved_usd from saved_by_cache").iloc[0]
    assert (saved["answers"], saved["saved_usd"]) == (1, float(first.receipt.cost))


def test_the_plan_says_that_nothing_would_be_sent(kit: tk.Kit) -> None:
    assert kit.plan("Hello", max_tokens=9, cache=True).notes == ()
    kit.call("Hello", max_tokens=9, cache=True)
    plan = kit.plan("Hello", max_tokens=9, cache=True)
    assert "nothing would be sent: from the cache" in plan.notes[0]
    assert "nothing would be sent" in str(plan)
    assert "nothing would be sent" in plan._repr_html_()
    assert kit.plan("Hello", max_tokens=9).notes == ()
    assert tries(kit) == 1


def test_streams_and_async_calls_are_answered_from_it_too(kit: tk.Kit) -> None:
    first = kit.call("Hello", max_tokens=9, cache=True)
    with kit.stream("Hello", max_tokens=9, cache=True) as stream:
        assert "".join(delta.text for delta in stream) == first.text
    assert stream.receipt.cached
    assert asyncio.run(kit.acall("Hello", max_tokens=9, cache=True)).text == first.text

    async def streamed() -> str:
        return "".join([delta.text async for delta in kit.astream("Hello", max_tokens=9, cache=True)])

    assert asyncio.run(streamed()) == first.text
    assert tries(kit) == 1
    assert len(kit.ledger.df()) == 4


@pytest.mark.parametrize(
    "other",
    [{"max_tokens": 8}, {"temperature": 0.5}, {"system": "Be brief."}, {"model": "sage"}, {"seed": 3}, {"stop": "x"},
     {"extra": {"top_k": 3}}, {"compress": ["normalize"]}, {"cache": False}, {"cache": None}],
    ids=str,
)  # fmt: skip
def test_whatever_may_change_the_answer_is_another_request(kit: tk.Kit, other: dict[str, Any]) -> None:
    said = {"max_tokens": 9, "cache": True}
    kit.call("Hello", **said)
    kit.call("Hello", **said | other)
    assert tries(kit) == 2


def test_another_policy_may_choose_another_model_so_it_is_asked(kit: tk.Kit) -> None:
    first = kit.call("Hello", max_tokens=9, cache=True)
    kit.policy = tk.Policy(weights={"tiny": 99.0})
    assert kit.call("Hello", max_tokens=9, cache=True).receipt.model != first.receipt.model


def test_an_answer_that_is_too_old_is_asked_for_again(kit: tk.Kit) -> None:
    kit.call("Hello", max_tokens=9, cache="2h")
    with sqlite3.connect(kit.cache.path) as rows:
        rows.execute("UPDATE answers SET at = at - 3 * 3600")
    rows.close()
    assert "given 3 hours ago" in kit.call("Hello", max_tokens=9, cache="4h").receipt.notes[0]
    assert not kit.call("Hello", max_tokens=9, cache="2h").receipt.cached


def test_what_failed_or_was_cut_off_is_not_kept(tmp_path: Path) -> None:
    faults = (Fault(model="tiny", calls=(1,), status=400), Fault(model="tiny", calls=(2,), break_after=2))
    with tk.Kit.simulated(pace=0, home=tmp_path, faults=faults) as kit:
        said: Any = {"model": "tiny", "cache": True, "max_tokens": 40}
        with pytest.raises(tk.errors.ProviderError):
            kit.call("Hello", **said)
        with pytest.raises(tk.errors.TokenkitError), kit.stream("Hello", **said) as stream:
            list(stream)
        with kit.stream("Hello", **said) as stream:
            next(iter(stream))
        assert len(kit.cache) == 0
        kit.call("Hello", **said)
        assert len(kit.cache) == 1


@pytest.mark.parametrize("harm", ["garbage", "folder", "table", "body"])
def test_a_broken_cache_costs_nothing_but_the_saving(kit: tk.Kit, harm: str) -> None:
    first = kit.call("Hello", max_tokens=9, cache=True)
    path = kit.cache.path
    if harm == "garbage":
        kit.cache.clear()
        path.write_bytes(b"not a database" * 100)
    elif harm == "folder":
        kit.cache.clear()
        path.mkdir()
    else:
        with sqlite3.connect(path) as rows:
            rows.execute("DROP TABLE answers" if harm == "table" else "UPDATE answers SET body = '{}'")
        rows.close()
    again = kit.call("Hello", max_tokens=9, cache=True)
    assert again.text == first.text
    assert not again.receipt.cached
    repr(kit.cache)


def test_it_outlives_the_process_and_is_nobody_else_s_to_read(kit: tk.Kit) -> None:
    kit.call("Hello", max_tokens=9, cache=True)
    code = (
        "import sys, tokenkit as tk\nwith tk.Kit.simulated(pace=0, home=sys.argv[1]) as kit:\n"
        "    print(kit.call('Hello', max_tokens=9, cache=True).receipt.cached)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(kit.home)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert os.stat(kit.cache.path).st_mode & 0o777 == 0o600
    assert kit.cache.clear() == 1
    assert len(kit.cache) == 0
    assert not kit.call("Hello", max_tokens=9, cache=True).receipt.cached


def test_where_no_text_may_be_kept_it_refuses(tmp_path: Path) -> None:
    file = tmp_path / "tokenkit.toml"
    file.write_text("[ledger]\nstore_prompts = false\n")
    environ = {"TOKENKIT_SIMULATED": "1"}
    with tk.Kit(file, home=tmp_path, environ=environ) as kit, pytest.raises(UserError, match="forbids it"):
        kit.call("Hello", cache=True)
    hook = tk.Kit(home=tmp_path, environ=environ, redact=lambda receipt: receipt)
    with hook as kit, pytest.raises(UserError, match="forbids it"):
        kit.call("Hello", cache=True)


@pytest.mark.parametrize("wrong", ["soon", "7", "d", 3, 1.5, "-1d"])
def test_an_age_that_is_none_is_one_sentence(kit: tk.Kit, wrong: Any) -> None:
    with pytest.raises(UserError, match="cache is True, False, or an age"):
        kit.call("Hello", cache=wrong)


def test_the_least_used_go_when_there_is_no_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "answers.sqlite3", most=20_000)
    for n in range(60):
        cache.keep(bytes([n]), Remembered(Response("x" * 1000), "r", "p/m", 1, float(n + 1)))
        assert cache.find(b"\x00", 0), "what is used all the time went"
    assert len(cache) < 20
    with sqlite3.connect(cache.path) as rows:
        assert rows.execute("SELECT sum(bytes) FROM answers").fetchone()[0] <= 20_000
    rows.close()
    assert cache.find(bytes([59]), 0)
    assert cache.find(bytes([59]), 60.0) is None, "since is when it was given"


@settings(deadline=None, max_examples=60)
@given(
    st.text(), st.none() | st.text(), st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=3),
    st.none() | st.integers(0, 2**60),
)  # fmt: skip
def test_an_answer_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str, model: str | None, calls: Any, cost: int | None
) -> None:
    cache = Cache(tmp_path_factory.getbasetemp() / "roundtrip.sqlite3")
    response = Response(text, model, "p", "stop", tool_calls=tuple(ToolCall(*c) for c in calls), reasoning=text)
    found = Remembered(response, "receipt", "p/m", cost, 5.0)
    cache.keep(b"key", found)
    assert cache.find(b"key", 0) == found


def test_every_field_of_a_request_is_part_of_the_key_or_left_out_on_purpose() -> None:
    left_out = {"stream", "deadline", "user", "session", "endpoint_name", "budget", "changes", "cache", "plan"}
    other: dict[str, Any] = {
        "messages": (Message("user", "b"),), "model": "m", "provider": "p", "max_tokens": 1, "temperature": 0.1,
        "top_p": 0.1, "stop": ("x",), "seed": 1, "tools": (tk.Tool("t", "", {}),), "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "extra": {"a": 1}, "compress": "x",
    }  # fmt: skip
    base = Request((Message("user", "a"),))
    assert {field.name for field in fields(Request)} == left_out | set(other)
    for name, value in other.items():
        assert key_of(replace(base, **{name: value})) != key_of(base), name
    for name in left_out:
        assert key_of(replace(base, **{name: 5})) == key_of(base), name
