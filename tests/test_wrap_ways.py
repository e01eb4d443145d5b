"""Every other method that costs money, by the vendors' own SDKs over real sockets."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import warnings
from typing import Any

import pytest
from faults import FaultServer, completion, error, hang, reply, streamed
from wraps import ASKED, all_of, google, keeping, last, openai, saying, serving, used

import tokenkit as tk
from tokenkit.errors import BudgetExceeded

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # the SDK's own, of a model's age

said = pytest.fixture(saying)
kit = pytest.fixture(keeping)
server = pytest.fixture(serving)


def body(**fields: Any) -> Any:
    return reply(body=json.dumps(fields).encode())


# OpenAI.


@pytest.mark.parametrize("path", ["chat.completions.parse", "beta.chat.completions.parse"])
def test_parsed_answers(kit: tk.Kit, server: FaultServer, path: str) -> None:
    pydantic = pytest.importorskip("pydantic", reason="comes with the SDKs")
    river = pydantic.create_model("River", name=(str, ...))
    server.script(reply(body=completion('{"name": "Danube"}')))
    make: Any = tk.track(openai(server), kit=kit)
    for name in path.split("."):
        make = getattr(make, name)
    assert make(model="gpt-4o", messages=ASKED, response_format=river).choices[0].message.parsed.name == "Danube"
    assert [used(one) for one in all_of(kit)] == [("ok", 9, 3, "reported")]


def test_an_answer_that_cannot_be_parsed_was_paid_for(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    pydantic = pytest.importorskip("pydantic", reason="comes with the SDKs")
    river = pydantic.create_model("River", name=(str, ...))
    cut = json.loads(completion('{"name": "Dan'))
    cut["choices"][0]["finish_reason"] = "length"
    server.script(reply(body=json.dumps(cut).encode()), reply(body=completion("no JSON")))
    client = tk.track(openai(server), kit=kit)
    with pytest.raises(Exception, match="length limit") as stop:
        client.chat.completions.parse(model="gpt-4o", messages=ASKED, response_format=river)
    assert type(stop.value).__name__ == "LengthFinishReasonError"
    assert used(last(kit)) == ("error", 9, 3, "reported")
    with pytest.raises(pydantic.ValidationError):
        client.chat.completions.parse(model="gpt-4o", messages=ASKED, response_format=river)
    assert used(last(kit)) == ("error", 11, None, "estimated")
    assert last(kit).cost is None  # nobody saw how long the answer was
    assert not said


def test_completions_embeddings_and_parsed_responses(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    head = {"id": "c", "created": 1, "model": "m"}
    server.script(
        body(**head, object="text_completion", usage={"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
             choices=[{"index": 0, "text": " the sea", "finish_reason": "stop", "logprobs": None}]),
        body(object="list", model="text-embedding-3-small", usage={"prompt_tokens": 7, "total_tokens": 7},
             data=[{"object": "embedding", "index": 0, "embedding": [0.0] * 1536}]),
        body(id="r", object="response", created_at=1, model="gpt-4o", status="completed", tools=[], tool_choice="auto",
             parallel_tool_calls=True, usage={"input_tokens": 8, "output_tokens": 6, "total_tokens": 14,
             "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
             output=[{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [
                 {"type": "output_text", "text": '{"name": "Elbe"}', "annotations": []}]}]),
    )  # fmt: skip
    client = tk.track(openai(server), kit=kit)
    make = client.completions.create
    assert make(model="gpt-3.5-turbo-instruct", prompt="Rivers reach", max_tokens=9).choices[0].text == " the sea"
    assert client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).data[0].embedding[0] == 0
    pydantic = pytest.importorskip("pydantic", reason="comes with the SDKs")
    river = pydantic.create_model("River", name=(str, ...))
    parsed = client.responses.parse(model="gpt-4o", input="Name one.", text_format=river)
    assert parsed.output_parsed.name == "Elbe"
    text, vectors, response = all_of(kit)
    assert used(text) == ("ok", 4, 2, "reported")
    assert text.answer == " the sea"
    assert used(vectors) == ("ok", 7, 0, "reported")
    assert (vectors.operation, vectors.cost_nanos) == ("embeddings", 7 * 20)
    assert used(response) == ("ok", 8, 6, "reported")
    assert not said


def test_an_embedding_is_held_at_its_input_alone(kit: tk.Kit, server: FaultServer) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.0]}]
    server.script(body(object="list", model="m", data=data, usage={"prompt_tokens": 8_000, "total_tokens": 8_000}))
    client = tk.track(openai(server), kit=kit)
    with kit.budgets.cap("0.0005 USD"):
        client.embeddings.create(model="text-embedding-3-small", input=[list(range(8_000))])
        with pytest.raises(BudgetExceeded):
            client.embeddings.create(model="text-embedding-3-small", input=[list(range(30_000))])
    assert len(server.requests) == 1


def test_the_clients_own_retries_are_one_call(kit: tk.Kit, server: FaultServer) -> None:
    server.script(error(500, retry_after_ms="1"), error(429, retry_after_ms="1"), reply(body=completion("Yes.")))
    client = tk.track(openai(server, max_retries=2), kit=kit)
    assert client.chat.completions.create(model="gpt-4o", messages=ASKED).choices
    assert len(server.requests) == 3
    assert [used(one) for one in all_of(kit)] == [("ok", 9, 3, "reported")]
    assert len(last(kit).attempts) == 1


def test_a_client_with_other_options_is_tracked_too_and_looks_like_one(kit: tk.Kit, server: FaultServer) -> None:
    server.script(reply(body=completion("Yes.")))
    plain = openai(server)
    client = tk.track(plain, kit=kit).with_options(timeout=9)
    assert client.timeout == 9
    client.timeout = 8
    assert client._tk_inner.timeout == 8
    assert isinstance(client, type(plain))
    assert "chat" in dir(client)
    assert "messages" in str(inspect.signature(client.chat.completions.create))
    assert client.chat.completions.create.__doc__ == plain.chat.completions.create.__doc__
    with client as entered:
        entered.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert len(all_of(kit)) == 1


def test_a_call_that_sends_nothing_leaves_nothing(kit: tk.Kit, server: FaultServer) -> None:
    client = tk.track(openai(server), kit=kit)
    with pytest.raises(TypeError, match="required"):
        client.chat.completions.create()
    with pytest.raises(TypeError, match="required"):
        client.chat.completions.create(model="gpt-4o")
    assert [one.cost_nanos for one in all_of(kit)] == [0]

    async def never() -> None:
        async with openai(server, "AsyncOpenAI") as other:
            tk.track(other, kit=kit).chat.completions.create(model="gpt-4o", messages=ASKED).close()

    with kit.budgets.cap("1 USD") as cap, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the client's coroutine says that it was never awaited
        asyncio.run(never())
        gc.collect()
    assert kit.budgets.standing(cap).held == 0
    assert not server.requests


def test_stopped_and_timed_out_calls_cost_at_least_their_input(kit: tk.Kit, server: FaultServer) -> None:
    server.script(hang)

    async def cancelled() -> None:
        async with openai(server, "AsyncOpenAI") as client:
            make = tk.track(client, kit=kit).chat.completions.create
            async with asyncio.timeout(0.3):
                await make(model="gpt-4o", messages=ASKED)

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert used(last(kit)) == ("cancelled", 11, 0, "estimated")
    with pytest.raises(Exception, match="timed out") as stop:
        tk.track(openai(server, timeout=0.3), kit=kit).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert type(stop.value).__name__ == "APITimeoutError"
    assert used(last(kit)) == ("error", 11, 0, "estimated")
    closed = openai(server, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(Exception, match="Connection error"):
        tk.track(closed, kit=kit).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert (last(kit).cost_nanos, last(kit).usage) == (0, None)


# Google.


def gemini(text: str, *, finish: str | None = "STOP", call: str | None = None, id: str = "g1", **usage: int) -> Any:  # noqa: A002
    part = {"functionCall": {"name": call, "args": {"name": "Elbe"}}} if call else {"text": text}
    candidate = {"content": {"role": "model", "parts": [part]}, "index": 0}
    told = {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "totalTokenCount": 20} | usage
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": told, "modelVersion": "gemini-2.5-flash", "responseId": id,
    }  # fmt: skip


def sse(*chunks: Any) -> Any:
    return streamed("".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks).encode(), size=90)


def test_google(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    stream = [gemini("The", finish=None), gemini(" Loire")]
    server.script(body(**gemini("Loire")), sse(*stream), sse(*stream))
    plain = google(server)
    client = tk.track(plain, kit=kit, endpoint_name="demo")
    ask = {"model": "models/gemini-2.5-flash", "contents": "Name a river."}
    answer = client.models.generate_content(**ask, config={"max_output_tokens": 90, "system_instruction": "Be brief."})
    assert answer.text == "Loire"
    receipt = last(kit)
    assert used(receipt) == ("ok", 10, 10, "reported")
    assert (receipt.model, receipt.provider) == ("google/gemini-2.5-flash", "google")
    assert receipt.prompt == "system: Be brief.\n\nuser: Name a river."
    assert receipt.cost_nanos == 10 * 300 + 10 * 2_500
    assert "".join(part.text for part in client.models.generate_content_stream(**ask)) == "The Loire"
    again = tk.tracked_completion(
        model="gemini-2.5-flash", messages="Name a river.", provider_client=plain, kit=kit, stream=True
    )
    assert next(again).text == "The"
    del again
    assert [one.status for one in all_of(kit)] == ["ok", "ok", "cancelled"]
    assert used(all_of(kit)[1]) == ("ok", 10, 10, "reported")
    assert not said


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # google-genai's own, of its aiohttp
def test_google_async(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    stream = [gemini("The", finish=None), gemini(" Loire")]
    server.script(body(**gemini("Loire")), sse(*stream), sse(*stream))
    client = google(server)
    tracked = tk.track(client, kit=kit)
    ask = {"model": "gemini-2.5-flash", "contents": [{"role": "user", "parts": [{"text": "Name a river."}]}]}

    async def read() -> tuple[str, str, str]:
        whole = await tracked.aio.models.generate_content(**ask)
        parts = [part.text async for part in await tracked.aio.models.generate_content_stream(**ask)]
        aio = client.aio
        other = await tk.tracked_completion(
            model="gemini-2.5-flash", messages="Name a river.", provider_client=aio, kit=kit, stream=True
        )
        more = [part.text async for part in other]
        await aio.aclose()
        return whole.text, "".join(parts), "".join(more)

    assert asyncio.run(read()) == ("Loire", "The Loire", "The Loire")
    assert [used(one) for one in all_of(kit)] == [("ok", 10, 10, "reported")] * 3
    assert all_of(kit)[0].prompt == "Name a river."
    assert not said


def test_googles_embeddings(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    server.script(body(embeddings=[{"values": [0.5]}], embedding={"values": [0.5]}))
    plain = google(server)
    made = tk.track(plain, kit=kit).models.embed_content(model="gemini-embedding-001", contents=["one", "two"])
    assert made.embeddings[0].values == [0.5]
    assert used(last(kit))[::2] == ("ok", 0)
    assert last(kit).operation == "embeddings"
    assert not said


def wide(name: str) -> str:
    """Say how wide a river is."""
    return f"{name}: 300 m"


def test_what_googles_client_asks_by_itself_is_counted_too(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    first, second = gemini("", call="wide", id="g1"), gemini("300 m.", id="g2", promptTokenCount=30)
    server.script(body(**first), body(**second), sse(first), sse(second))
    plain = google(server)
    client = tk.track(plain, kit=kit)
    ask = {"model": "gemini-2.5-flash", "contents": "How wide is the Elbe?", "config": {"tools": [wide]}}
    assert client.models.generate_content(**ask).text == "300 m."
    status, into, out, source = used(last(kit))
    assert (status, source) == ("ok", "estimated")
    assert into is not None
    assert out is not None
    assert into > 30
    assert out > 10
    assert "by itself" in last(kit).notes[0]
    list(client.models.generate_content_stream(**ask))
    assert used(last(kit)) == ("ok", 40, 20, "reported")  # in a stream each request tells its own
    assert len(server.requests) == 4
    assert not said
