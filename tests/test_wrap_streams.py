"""The vendors' own helpers, over real sockets: whichever way a stream is read, left or broken, it is counted once."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultServer, completion, error, events, reply, streamed
from wraps import ASKED, CLAUDE, all_of, anthropic, last, openai, serving, used

import tokenkit as tk
from tokenkit.errors import BudgetExceeded

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # the SDK's own, of a model's age


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tk.Kit]:
    said: set[str] = set()
    monkeypatch.setattr("tokenkit.wrap.calls._said", said)
    with tk.Kit.simulated(pace=0, home=tmp_path) as made:
        yield made
    assert not said, "something of ours failed, and said so"


server = pytest.fixture(serving)


def rows(*payloads: dict[str, Any]) -> bytes:
    return "".join(f"event: {row['type']}\ndata: {json.dumps(row)}\n\n" for row in payloads).encode()


def message(*words: str, end: bool = True) -> bytes:
    """A message of Anthropic's, as events: 25 tokens in of which 5 are read from a cache, 9 out."""
    used = {"input_tokens": 20, "cache_read_input_tokens": 5, "output_tokens": 1}
    head = {"id": "m", "type": "message", "role": "assistant", "model": CLAUDE, "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": used}  # fmt: skip
    told: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    told.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for word in words:
        told.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    if end:
        told.append({"type": "content_block_stop", "index": 0})
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        told += [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]
    return rows(*told)


def responded(text: str = "The Danube.", **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": "r1", "object": "response", "created_at": 1, "model": "gpt-4o-2024-08-06", "status": "completed",
        "output": [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [part]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
                  "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16},
    } | more  # fmt: skip


def response_events(*words: str) -> bytes:
    told: list[dict[str, Any]] = [{"type": "response.created", "response": responded() | {"output": []}}]
    item = {"type": "message", "id": "m1", "role": "assistant", "status": "in_progress", "content": []}
    told.append({"type": "response.output_item.added", "output_index": 0, "item": item})
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    told.append({"type": "response.content_part.added", **place, "part": part})
    told += [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in words]
    told.append({"type": "response.completed", "response": responded("".join(words))})
    return rows(*({**one, "sequence_number": n} for n, one in enumerate(told)))


# Every way to read a helper's stream.

OPENAI_WAYS = {
    "iterate": lambda stream: [event.type for event in stream],
    "final": lambda stream: stream.get_final_completion().choices[0].message.content,
    "until done": lambda stream: stream.until_done(),
    "next": lambda stream: [next(stream) for _ in range(3)] and stream.until_done(),
}


@pytest.mark.parametrize("way", OPENAI_WAYS)
@pytest.mark.parametrize("path", ["chat", "beta.chat"])
def test_openai_chat_helper(kit: tk.Kit, server: FaultServer, way: str, path: str) -> None:
    server.script(streamed(events(" one", " two"), size=90))
    client = tk.track(openai(server), kit=kit)
    chat = client.beta.chat if path != "chat" else client.chat
    options = {"include_usage": True}
    with chat.completions.stream(model="gpt-4o", messages=ASKED, stream_options=options) as stream:
        assert type(stream).__name__ == "ChatCompletionStream"
        OPENAI_WAYS[way](stream)
    assert stream.get_final_completion().choices[0].message.content == " one two"
    assert [used(one) for one in all_of(kit)] == [("ok", 9, 2, "reported")]
    assert last(kit).streamed
    assert last(kit).answer == " one two"


ANTHROPIC_WAYS = {
    "iterate": lambda stream: [event.type for event in stream],
    "text": lambda stream: list(stream.text_stream),
    "final message": lambda stream: stream.get_final_message(),
    "final text": lambda stream: stream.get_final_text(),
    "until done": lambda stream: stream.until_done(),
}


@pytest.mark.parametrize("way", ANTHROPIC_WAYS)
@pytest.mark.parametrize("beta", [False, True])
def test_anthropic_helper(kit: tk.Kit, server: FaultServer, way: str, beta: bool) -> None:
    server.script(streamed(message(" the", " Rhine"), size=90))
    client = tk.track(anthropic(server), kit=kit)
    messages = client.beta.messages if beta else client.messages
    with messages.stream(model=CLAUDE, max_tokens=50, messages=ASKED) as stream:
        assert type(stream).__name__ == ("BetaMessageStream" if beta else "MessageStream")
        ANTHROPIC_WAYS[way](stream)
        assert stream.get_final_text() == " the Rhine"
    assert [used(one) for one in all_of(kit)] == [("ok", 25, 9, "reported")]
    receipt = last(kit)
    assert receipt.usage is not None
    assert receipt.usage.cache_read_input_tokens == 5
    assert receipt.cost_nanos == 20 * 3_000 + 5 * 300 + 9 * 15_000


def test_responses_helper(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(response_events("The", " Danube"), size=90))
    client = tk.track(openai(server), kit=kit)
    with client.responses.stream(model="gpt-4o", input="Name a river.") as stream:
        assert stream.get_final_response().output_text == "The Danube"
    assert [used(one) for one in all_of(kit)] == [("ok", 11, 5, "reported")]
    assert last(kit).answer == "The Danube"


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_async_helpers(kit: tk.Kit, server: FaultServer, vendor: str) -> None:
    server.script(streamed(message(" a", " b") if vendor == "anthropic" else events(" a", " b"), size=90))

    async def read() -> str:
        if vendor == "anthropic":
            client = tk.track(anthropic(server, "AsyncAnthropic"), kit=kit)
            helper = client.messages.stream(model=CLAUDE, max_tokens=9, messages=ASKED)
            async with client, helper as stream:
                return "".join([text async for text in stream.text_stream])
        client = tk.track(openai(server, "AsyncOpenAI"), kit=kit)
        async with client, client.chat.completions.stream(model="gpt-4o", messages=ASKED) as stream:
            return (await stream.get_final_completion()).choices[0].message.content

    assert asyncio.run(read()) == " a b"
    assert [one.status for one in all_of(kit)] == ["ok"]


# Left, broken, refused.


def test_a_helper_left_early_is_charged_for_what_came(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(message(*[" the"] * 60), size=300, delay=0.002))
    client = tk.track(anthropic(server), kit=kit)
    with client.messages.stream(model=CLAUDE, max_tokens=90, messages=ASKED) as stream:
        for n, _ in enumerate(stream.text_stream):
            if n == 20:
                break
    status, into, out, source = used(last(kit))
    assert (status, into, source) == ("cancelled", 25, "estimated")
    assert out is not None
    assert 20 <= out < 60


def test_an_exception_within_is_the_callers_and_what_came_is_charged(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(*[" the"] * 40), size=120, delay=0.002))
    client = tk.track(openai(server), kit=kit)
    with pytest.raises(ZeroDivisionError), client.chat.completions.stream(model="gpt-4o", messages=ASKED) as stream:
        print(next(iter(stream)), 1 / 0)
    assert [one.status for one in all_of(kit)] == ["cancelled"]
    assert last(kit).cost_nanos


def test_a_stream_that_breaks_raises_the_clients_error_and_is_charged(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(*[" the"] * 9, done=False, usage=False), size=120, end=False))
    client = openai(server)
    stream = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True)
    with pytest.raises(Exception, match="onnection") as stop:
        list(stream)
    assert type(stop.value).__name__ in ("APIConnectionError", "RemoteProtocolError")
    status, into, out, source = used(last(kit))
    assert (status, source) == ("error", "estimated")
    assert into
    assert out == 9


def test_a_helper_entered_twice_is_two_calls(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(" one"), size=200), streamed(events(" one", " two"), size=200))
    manager = tk.track(openai(server), kit=kit).chat.completions.stream(model="gpt-4o", messages=ASKED)
    assert not all_of(kit)
    for _ in range(2):
        with manager as stream:
            stream.until_done()
    assert [used(one)[:3] for one in all_of(kit)] == [("ok", 9, 1), ("ok", 9, 2)]
    assert len({one.id for one in all_of(kit)}) == 2


def test_a_helper_that_is_never_entered_or_is_refused_sends_nothing(kit: tk.Kit, server: FaultServer) -> None:
    client = tk.track(openai(server), kit=kit)
    with kit.budgets.cap("0.0001 USD") as cap:
        manager = client.chat.completions.stream(model="gpt-4o", messages=ASKED, max_tokens=1000)
        with pytest.raises(BudgetExceeded), manager:
            pass
        assert kit.budgets.standing(cap).held == 0
    assert not server.requests
    assert not all_of(kit)


def test_an_error_at_the_door_is_the_clients(kit: tk.Kit, server: FaultServer) -> None:
    server.script(error(429))
    client = tk.track(anthropic(server), kit=kit)
    with pytest.raises(Exception, match="429") as stop:
        client.messages.stream(model=CLAUDE, max_tokens=9, messages=ASKED).__enter__()
    assert type(stop.value).__name__ == "RateLimitError"
    assert (last(kit).status, last(kit).cost_nanos, last(kit).attempts[0].http_status) == ("error", 0, 429)


def test_reading_to_the_last_word_and_no_further_is_an_answer(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(" one", " two"), size=90))
    client = openai(server)
    stream = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True)
    for part in stream:
        if part.choices[0].finish_reason:
            break
    stream.close()
    assert used(last(kit)) == ("ok", 11, 2, "estimated")  # the usage came behind the end, which was not read


def test_closing_an_async_stream_is_awaited(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(*[" the"] * 40), size=120, delay=0.002))

    async def read() -> None:
        async with openai(server, "AsyncOpenAI") as client:
            track = tk.track(client, kit=kit)
            stream = await track.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
            async for _ in stream:
                break
            await stream.close()
            assert stream.response.is_closed

    asyncio.run(read())
    assert [one.status for one in all_of(kit)] == ["cancelled"]


def test_a_stream_in_a_cycle_is_settled_when_garbage_is_collected_within_a_write(
    kit: tk.Kit, server: FaultServer
) -> None:
    server.script(streamed(events(*[" the"] * 40), size=120, delay=0.002))
    client = openai(server)
    stream = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True)
    next(stream)
    cycle: dict[str, Any] = {"stream": stream}
    cycle["self"] = cycle
    del stream, cycle
    with kit.journal.transaction():
        gc.collect()  # waits a little for another thread, which cannot write yet, and goes on
    give_up = time.monotonic() + 20
    while not all_of(kit) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert [one.status for one in all_of(kit)] == ["cancelled"]


LEFT_OPEN = """
import sys, openai, tokenkit as tk
from pathlib import Path
kit = tk.Kit.simulated(pace=0, home=Path(sys.argv[2]))
client = tk.track(openai.OpenAI(api_key="sk-test", base_url=sys.argv[1]), kit=kit)
ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Name a river."}]}
stream = client.chat.completions.create(**ask, stream=True)
helper = client.chat.completions.stream(**ask)
entered = helper.__enter__()
print(next(stream).id, next(entered).type)
"""


def test_streams_still_open_at_the_end_of_everything_are_settled_and_hold_nothing_up(
    tmp_path: Path, server: FaultServer
) -> None:
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    server.script(streamed(events(*[" the"] * 40), size=120, delay=0.002))
    command = [sys.executable, "-c", LEFT_OPEN, f"{server.url}/v1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "c1 chunk", "")
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        assert [used(one)[::3] for one in all_of(kit)] == [("cancelled", "estimated")] * 2


def test_a_forked_child_leaves_its_parents_streams_alone(kit: tk.Kit, server: FaultServer) -> None:
    server.script(streamed(events(" one", " two"), size=90))
    client = openai(server)
    stream = tk.tracked_completion(model="gpt-4o", messages=ASKED, provider_client=client, kit=kit, stream=True)
    next(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the server's threads are not needed in the child
        child = os.fork()
    if child == 0:
        stream._tk_call.left()
        stream._tk_call.forgotten()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not all_of(kit)
    assert len(list(stream)) == 3
    assert [used(one)[:3] for one in all_of(kit)] == [("ok", 9, 2)]


# Raw responses.


def test_raw_responses_are_counted_and_parse_as_ever(kit: tk.Kit, server: FaultServer) -> None:
    server.script(reply(body=completion("Yes.")), streamed(events(" a", " b"), size=200))
    client = tk.track(openai(server), kit=kit)
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASKED)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "Yes."
    raw = client.with_raw_response.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
    assert raw.parse() is raw.parse()
    assert len(list(raw.parse())) == 4
    assert [used(one)[:3] for one in all_of(kit)] == [("ok", 9, 3), ("ok", 9, 2)]
    assert len(server.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_raw_responses_of_async_clients(kit: tk.Kit, server: FaultServer, stream: bool) -> None:
    body = {"id": "m", "type": "message", "role": "assistant", "model": CLAUDE, "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": "The Rhine."}],
            "usage": {"input_tokens": 5, "output_tokens": 7}}  # fmt: skip
    whole = reply(body=json.dumps(body).encode())
    server.script(streamed(message(" the", " Rhine"), size=90) if stream else whole)

    async def read() -> int:
        async with tk.track(anthropic(server, "AsyncAnthropic"), kit=kit) as client:
            make = client.messages.with_raw_response.create
            raw = await make(model=CLAUDE, max_tokens=9, messages=ASKED, stream=stream)
            answer = await raw.parse()
            return len([event async for event in answer]) if stream else len(answer.content)

    assert asyncio.run(read()) == (7 if stream else 1)
    assert [used(one)[:3] for one in all_of(kit)] == [("ok", 25, 9) if stream else ("ok", 5, 7)]
