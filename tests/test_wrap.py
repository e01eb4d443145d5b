"""tracked_completion around the vendors' own SDKs, over real sockets: the caller notices nothing, the books all."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as N
from typing import Any

import pytest
from faults import FaultServer, completion, error, events, reply, streamed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wraps import ASKED, last

import tokenkit as tk
from tokenkit.errors import BudgetExceeded, UserError


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[tk.Kit]:
    with tk.Kit.simulated(pace=0, home=tmp_path) as made:
        yield made


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as made:
        yield made


def openai(server: FaultServer, name: str = "OpenAI") -> Any:
    module = pytest.importorskip("openai", reason="the openai SDK is not installed")
    return getattr(module, name)(api_key="sk-test", base_url=f"{server.url}/v1", max_retries=0)


def test_openai_answers_as_ever_and_is_in_the_books(kit: tk.Kit, server: FaultServer) -> None:
    server.script(reply(body=completion("The Danube.", prompt_tokens=9, completion_tokens=4)))
    client = openai(server)
    answer = tk.tracked_completion(
        model="gpt-4o",
        messages=ASKED,
        endpoint_name="demo",
        provider_client=client,
        kit=kit,
        user="alice",
        max_tokens=9,
    )
    assert type(answer).__name__ == "ChatCompletion"
    assert answer.choices[0].message.content == "The Danube."
    sent = json.loads(server.requests[0].body)
    assert sent == {"model": "gpt-4o", "messages": ASKED, "user": "alice", "max_tokens": 9}
    receipt = last(kit)
    assert (receipt.model, receipt.user, receipt.endpoint_name) == ("openai/gpt-4o", "alice", "demo")
    assert receipt.cost_nanos == receipt.reprice() == 9 * 2_500 + 4 * 10_000
    assert receipt.answer == "The Danube."
    assert kit.ledger.verify()


def test_a_stream_is_the_clients_own_and_counted_when_it_ends(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(" one", " two", " three"), size=200))
    stream = tk.tracked_completion(
        model="gpt-4o", messages=ASKED, provider_client=openai(server), kit=kit, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    assert stream.response.status_code == 200
    text = "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
    assert text == " one two three"
    receipt = last(kit)
    assert (receipt.status, receipt.streamed, receipt.usage.source) == ("ok", True, "reported")
    assert receipt.usage.output_tokens == 3


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_a_stopped_stream_is_charged_for_what_came(kit: tk.Kit, server: FaultServer, how: str) -> None:
    server.script(streamed(events(*[" the"] * 40), size=120, delay=0.002))
    client = openai(server)
    stream = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True)
    if how == "with":
        with stream:
            next(stream)
    else:
        next(stream)
        if how == "close":
            stream.close()
        else:
            del stream
            gc.collect()
    receipt = last(kit)
    assert (receipt.status, receipt.usage.source, receipt.usage.output_tokens) == ("cancelled", "estimated", 1)
    client.close()  # a forgotten stream keeps the client's connection, which is the client's to close


def test_async_clients_and_streams(kit: tk.Kit, server: FaultServer) -> None:
    server.script(reply(body=completion("Yes.")), streamed(events(" a", " b"), size=300))
    client = openai(server, "AsyncOpenAI")

    async def both() -> tuple[str, str]:
        answer = await tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit)
        stream = await tk.tracked_completion(
            model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True
        )
        text = "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])
        await client.close()
        return answer.choices[0].message.content, text

    assert asyncio.run(both()) == ("Yes.", " a b")
    assert kit.ledger.sql("select status from calls")["status"].tolist() == ["ok", "ok"]


def test_the_clients_error_passes_through_and_is_recorded(kit: tk.Kit, server: FaultServer) -> None:
    server.script(error(429))
    client = openai(server)
    with pytest.raises(Exception, match="429") as stop:
        tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit)
    assert type(stop.value).__name__ == "RateLimitError"
    receipt = last(kit)
    assert (receipt.status, receipt.error_type, receipt.cost_nanos) == ("error", "RateLimitError", 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own, about the model's age
def test_anthropic_input_includes_what_was_cached(kit: tk.Kit, server: FaultServer) -> None:
    module = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    body = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "The Rhine."}],
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
                  "output_tokens": 7},
    }  # fmt: skip
    server.script(reply(body=json.dumps(body).encode()))
    client = module.Anthropic(api_key="sk-ant-test", base_url=server.url, max_retries=0)
    answer = tk.track(client, kit=kit, endpoint_name="tracked").messages.create(
        model="claude-sonnet-4-5", max_tokens=20, messages=ASKED
    )
    assert answer.content[0].text == "The Rhine."
    receipt = last(kit)
    assert (receipt.usage.input_tokens, receipt.usage.cache_read_input_tokens) == (125, 100)
    assert receipt.cost_nanos == 5 * 3_000 + 100 * 300 + 20 * 3_750 + 7 * 15_000
    assert receipt.endpoint_name == "tracked"


def test_google_output_includes_thoughts(kit: tk.Kit) -> None:
    usage = N(prompt_token_count=10, candidates_token_count=4, thoughts_token_count=6, cached_content_token_count=None)
    client = N(models=N(generate_content=lambda **kw: N(text="Loire", usage_metadata=usage, candidates=[1], **kw)))
    answer = tk.tracked_completion(model="gemini-2.5-flash", messages="Name a river.", provider_client=client, kit=kit)
    assert answer.contents == "Name a river."
    assert last(kit).usage.output_tokens == 10
    assert last(kit).provider == "google"


def test_a_budget_stops_it_before_it_is_sent_and_a_cap_holds(kit: tk.Kit, server: FaultServer) -> None:
    server.script(reply(body=completion("Yes.", prompt_tokens=9, completion_tokens=4)))
    client = openai(server)

    def ask() -> Any:
        return tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, max_tokens=60)

    with kit.budgets.cap("0.001 USD") as cap:
        assert ask().choices
        assert ask().choices
        for _ in range(20):
            try:
                ask()
            except BudgetExceeded:
                break
        with pytest.raises(BudgetExceeded, match="this cell"):
            ask()
    stands = kit.budgets.standing(cap)
    assert 0 < stands.spent <= 1_000_000
    assert stands.held == 0
    assert stands.calls == len(server.requests)


def test_nothing_of_ours_breaks_the_caller(kit: tk.Kit, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(reply(body=completion("Yes.")))
    client = openai(server)
    monkeypatch.setattr("tokenkit.wrap.calls._said", set())
    kit.journal.close()
    for file in kit.home.glob("journal.sqlite3*"):
        file.unlink()
    (kit.home / "journal.sqlite3").write_bytes(b"no database" * 500)
    with pytest.warns(RuntimeWarning, match="could not write down a tracked call"):
        answer = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit)
    assert answer.choices[0].message.content == "Yes."
    answer = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit)  # said once
    odd = N(chat=N(completions=N(create=lambda **kw: "a bare string")))
    with pytest.warns(RuntimeWarning, match="could not read a client's answer"):
        assert tk.tracked_completion(model="m", messages=object(), provider_client=odd, kit=kit) == "a bare string"
    with pytest.raises(UserError, match="is no client known here"):
        tk.tracked_completion(model="m", messages=ASKED, provider_client=object(), kit=kit)


def test_keys_and_prompts_stay_where_they_belong(tmp_path: Path, server: FaultServer) -> None:
    server.script(reply(body=completion("Yes.")))
    (tmp_path / "tokenkit.toml").write_text("[ledger]\nstore_prompts = false\n")
    with tk.Kit(tmp_path / "tokenkit.toml", home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=openai(server), kit=kit)
        assert last(kit).prompt is None
        assert last(kit).answer is None
    assert b"sk-test" not in b"".join(file.read_bytes() for file in tmp_path.glob("journal*"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own, about the model's age
def test_a_stopped_anthropic_stream_is_not_charged_at_its_placeholder(kit: tk.Kit, server: FaultServer) -> None:
    module = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    head = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 25, "output_tokens": 1},
    }  # fmt: skip
    rows: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    rows.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    word = {"type": "text_delta", "text": " the"}
    rows += [{"type": "content_block_delta", "index": 0, "delta": word} for _ in range(60)]
    body = "".join(f"event: {row['type']}\ndata: {json.dumps(row)}\n\n" for row in rows).encode()
    server.script(streamed(body, size=400, delay=0.002))
    client = module.Anthropic(api_key="sk-ant-test", base_url=server.url, max_retries=0)
    stream = tk.tracked_completion(
        model="claude-sonnet-4-5", messages=ASKED, provider_client=client, kit=kit, stream=True, max_tokens=99
    )
    for n, _ in enumerate(stream):
        if n == 30:
            stream.close()
            break
    usage = last(kit).usage
    assert (usage.input_tokens, usage.source) == (25, "estimated")
    assert usage.output_tokens > 20


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def test_a_call_for_a_tool_is_an_answer_without_text(kit: tk.Kit, server: FaultServer) -> None:
    body = json.loads(completion("", prompt_tokens=20, completion_tokens=7))
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    body["choices"][0] |= {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}
    body["choices"][0]["finish_reason"] = "tool_calls"
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 12}
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
    server.script(reply(body=json.dumps(body).encode()))
    client = openai(server)
    answer = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, tools=TOOLS)
    assert answer.choices[0].message.tool_calls[0].function.name == "look"
    receipt = last(kit)
    assert (receipt.status, receipt.finish_reason, receipt.answer) == ("ok", "tool_calls", None)
    assert receipt.notes == ("called tools: look",)
    used = receipt.usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.reasoning_output_tokens) == (20, 12, 3)


def test_the_responses_api_is_tracked_too(kit: tk.Kit, server: FaultServer) -> None:
    said = {
        "id": "r1", "object": "response", "created_at": 1, "model": "gpt-4o-2024-08-06", "status": "completed",
        "output": [{"type": "message", "id": "m1", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": "The Danube.", "annotations": []}]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
                  "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16},
    }  # fmt: skip
    server.script(reply(body=json.dumps(said).encode()), reply(body=completion("Yes.")))
    client = tk.track(openai(server), kit=kit, endpoint_name="demo")
    answer = client.responses.create(model="gpt-4o", input="Name a river.", max_output_tokens=50)
    assert answer.output_text == "The Danube."
    receipt = last(kit)
    assert (receipt.status, receipt.answer, receipt.prompt) == ("ok", "The Danube.", "Name a river.")
    assert (receipt.usage.input_tokens, receipt.usage.output_tokens) == (11, 5)
    assert receipt.cost is not None
    assert client.chat.completions.create(model="gpt-4o", messages=ASKED).choices[0].message.content == "Yes."
    assert len(kit.ledger.df()) == 2
    assert client.models is not None


class Odd:
    """An object that answers to every name, in the way it was told to."""

    def __init__(self, how: Any) -> None:
        self._how = how

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._how is RuntimeError:
            raise RuntimeError("hostile")
        return self if self._how == "self" else self._how


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["self", RuntimeError, None, "x", 3, [], {}]).map(Odd),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "content", "usage", "text", "message", "prompt_tokens"]), inner)
    | st.dictionaries(st.sampled_from(["choices", "content", "usage", "candidates", "output"]), inner).map(
        lambda fields: N(**fields)
    ),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:tokenkit could not")
@pytest.mark.parametrize("path", ["chat.completions.create", "messages.create", "models.generate_content"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS)
def test_whatever_a_client_answers_the_caller_gets_that_very_object(kit: tk.Kit, path: str, answer: Any) -> None:
    client: Any = N()
    at = client
    *folders, name = path.split(".")
    for folder in folders:
        setattr(at, folder, N())
        at = getattr(at, folder)
    setattr(at, name, lambda **kw: answer)
    before = len(kit.journal.rows())
    assert tk.tracked_completion(model="m", messages=ASKED, provider_client=client, kit=kit) is answer
    assert len(kit.journal.rows()) == before + 1


@pytest.mark.filterwarnings("ignore:tokenkit could not")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(ANSWERS, max_size=4), path=st.sampled_from(["chat.completions", "responses", "messages"]))
def test_whatever_a_client_streams_the_caller_gets_those_very_objects(kit: tk.Kit, path: str, parts: list[Any]) -> None:
    client = N(create=lambda **kw: iter(parts))
    for folder in reversed(path.split(".")):
        client = N(**{folder: client})
    before = len(kit.journal.rows())
    stream = tk.tracked_completion(model="m", messages=ASKED, provider_client=client, kit=kit, stream=True)
    got = list(stream)
    assert len(got) == len(parts)
    assert all(one is part for one, part in zip(got, parts, strict=True))
    assert len(kit.journal.rows()) == before + 1
