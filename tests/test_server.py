"""A kit behind OpenAI's HTTP API, asked over real sockets: by httpx, by the openai SDK, and by hand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra tokenkit[server] is not installed")
pytest.importorskip("uvicorn", reason="the extra tokenkit[server] is not installed")

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.errors import UserError
from tokenkit.kit import Kit
from tokenkit.providers import openai as dialect
from tokenkit.providers import simulated
from tokenkit.providers.simulated import Fault
from tokenkit.receipts import Receipt
from tokenkit.server import Serving, serving

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "swift", "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 12}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with Kit.simulated(pace=0, home=tmp_path_factory.mktemp("kit")) as made:
        yield made


@pytest.fixture(scope="module")
def server(kit: Kit) -> Iterator[Serving]:
    with serving(kit) as made:
        yield made


@pytest.fixture(scope="module")
def http(server: Serving) -> Iterator[httpx.Client]:
    with client(server) as made:
        yield made


def client(server: Serving, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=server.address, headers=headers, trust_env=False, timeout=30)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def events_of(text: str) -> list[str]:
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]


def until(found: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it never came")


# Asking.


def test_an_answer_is_openais_and_says_what_it_cost(http: httpx.Client, kit: Kit) -> None:
    headers = {"x-tokenkit-session": "s1", "x-tokenkit-endpoint": "reports"}
    answer = http.post(CHAT, json=ASK | {"user": "ada", "seed": 3, "temperature": 0.5}, headers=headers)
    data = answer.json()
    assert answer.status_code == 200
    assert data["object"] == "chat.completion"
    assert data["choices"][0]["message"]["content"].startswith("[simulated by swift")
    assert data["choices"][0]["finish_reason"] == "length"
    receipt = kit.receipt(answer.headers["x-tokenkit-receipt"])
    assert receipt is not None
    assert (receipt.user, receipt.session, receipt.endpoint_name) == ("ada", "s1", "reports")
    assert data["tokenkit"]["receipt"] == receipt.id
    assert data["tokenkit"]["cost_usd"] == answer.headers["x-tokenkit-cost-usd"] == f"{receipt.cost:f}"
    assert data["model"] == answer.headers["x-tokenkit-model"] == "simulated/swift"
    assert receipt.usage is not None
    assert data["usage"]["total_tokens"] == receipt.usage.total_tokens
    assert data["usage"]["completion_tokens"] == 12


def test_auto_routes_and_a_name_pins(http: httpx.Client, kit: Kit) -> None:
    routed = http.post(CHAT, json=ASK | {"model": "auto"}).json()["tokenkit"]
    choice = kit.plan("Name a river.", max_tokens=12).choice
    assert choice is not None
    assert routed["requested_model"] == "auto"
    assert routed["model"] == choice.model
    assert http.post(CHAT, json=ASK | {"model": "simulated/tiny"}).json()["model"] == "simulated/tiny"


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_says_what_the_whole_answer_says(http: httpx.Client, kit: Kit, usage: bool) -> None:
    whole = http.post(CHAT, json=ASK).json()
    more = {"stream_options": {"include_usage": True}} if usage else {}
    answer = http.post(CHAT, json=ASK | {"stream": True} | more)
    events = events_of(answer.text)
    chunks = [json.loads(event) for event in events[:-1]]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    told = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(one["delta"].get("content", "") for one in told) == whole["choices"][0]["message"]["content"]
    assert [one["delta"].get("role") for one in told] == ["assistant"] + [None] * (len(told) - 1)
    assert [one["finish_reason"] for one in told] == [None] * (len(told) - 1) + ["length"]
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("chatcmpl-" + answer.headers["x-tokenkit-receipt"], "simulated/swift", "chat.completion.chunk")
    }
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == ([whole["usage"]] if usage else [])
    assert all(chunk["choices"] for chunk in chunks) is not usage
    account = next(chunk["tokenkit"] for chunk in chunks if "tokenkit" in chunk)
    assert account["cost_usd"] == whole["tokenkit"]["cost_usd"]
    receipt = kit.receipt(account["receipt"])
    assert receipt is not None
    assert receipt.streamed


def test_text_completions_are_answered_too(http: httpx.Client) -> None:
    ask = {"model": "swift", "prompt": "Name a river.", "max_tokens": 12}
    whole = http.post("/v1/completions", json=ask).json()
    assert whole["object"] == "text_completion"
    text = whole["choices"][0]["text"]
    assert text == http.post(CHAT, json=ASK).json()["choices"][0]["message"]["content"]
    events = events_of(http.post("/v1/completions", json=ask | {"stream": True}).text)
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == text


def test_an_adversarial_run_is_one_request(http: httpx.Client, kit: Kit) -> None:
    ask = {"prompt": "Plan a bridge.", "planner": "steady", "critic": "swift", "rounds": 2, "max_tokens": 40}
    answer = http.post("/v1/adversarial", json=ask)
    run = answer.json()
    assert (run["planner"], run["critic"]) == ("steady", "swift")
    assert run["plan"].startswith("[simulated by steady")
    assert run["critique"].startswith("[simulated by swift] Objections")
    assert run["refined"] == run["rounds"][-1]["refined"]
    assert [one["operation"] for one in run["receipts"]] == ["plan", "critique", "refine", "critique", "refine"]
    receipts = [kit.receipt(one["receipt"]) for one in run["receipts"]]
    assert all(one is not None and one.parent == run["id"] for one in receipts)
    assert sum(one.cost for one in receipts if one is not None and one.cost) == kit_money(run["cost_usd"])
    assert answer.headers["x-tokenkit-cost-usd"] == run["cost_usd"]
    assert error_of(http.post("/v1/adversarial", json=ask | {"rounds": 0}))["param"] == "rounds"
    assert http.post("/v1/adversarial", json=ask | {"critic": "swfit"}).status_code == 404


def kit_money(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def test_models_and_health_are_listed(http: httpx.Client, kit: Kit) -> None:
    listed = [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert listed == ["auto", *(model.id for model in kit.models)]
    assert http.get("/v1/models/simulated/sage").json()["owned_by"] == "simulated"
    assert http.get("/v1/models/auto").json()["id"] == "auto"
    assert error_of(http.get("/v1/models/swfit"))["message"].endswith("Did you mean 'swift'?")
    http.post(CHAT, json=ASK)
    told = http.get("/health").json()
    assert told["status"] == "ok"
    assert told["providers"]["simulated"]["models"]["simulated/swift"]["breaker"] == "closed"
    assert "well" not in told["providers"]["simulated"]
    assert http.get("/health?ask=true").json()["providers"]["simulated"]["well"] is True


def test_what_a_kit_cannot_carry_is_named(http: httpx.Client) -> None:
    plain = {"frequency_penalty": 0, "logprobs": False, "store": False, "response_format": {"type": "text"}}
    assert "ignored" not in http.post(CHAT, json=ASK | plain).json()["tokenkit"]
    odd = {"logprobs": True, "metadata": {"a": 1}, "frequency_penalty": 0.5}
    assert http.post(CHAT, json=ASK | odd).json()["tokenkit"]["ignored"] == ["logprobs", "metadata"]


def test_a_prompt_is_compressed_where_a_header_asks(http: httpx.Client) -> None:
    text = "The same line again and again.\n" * 60 + "\nWhat does it say?"
    messages = [{"role": "user", "content": text}, {"role": "user", "content": "Answer in a word."}]
    answer = http.post(CHAT, json=ASK | {"messages": messages}, headers={"x-tokenkit-compress": "dedupe"}).json()
    assert answer["tokenkit"]["saved_tokens"] > 100
    wrong = http.post(CHAT, json=ASK, headers={"x-tokenkit-compress": "dedup"})
    assert wrong.status_code == 400
    assert "dedupe" in error_of(wrong)["message"]


class Upstream:
    """A provider in this process that keeps what it is sent, and answers with what it is given."""

    def __init__(self, *replies: dict[str, Any] | list[dict[str, Any]] | LocalAnswer) -> None:
        self.replies, self.bodies = list(replies), list[dict[str, Any]]()

    def __call__(self, wire: WireRequest) -> LocalAnswer:
        self.bodies.append(json.loads(wire.body))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, LocalAnswer):
            return reply
        if isinstance(reply, list):
            chunks = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in reply] + [b"data: [DONE]\n\n"]
            return LocalAnswer(200, {"content-type": "text/event-stream"}, 0, [(0.0, chunk) for chunk in chunks])
        return LocalAnswer(200, {"content-type": "application/json"}, 0, [(0.0, json.dumps(reply).encode())])

    def kit(self, home: Path) -> Kit:
        from dataclasses import replace

        provider = replace(dialect.provider("simulated", "simulated://simulated"), local=self, key_env=())
        return Kit(home=home, providers=[provider], models=simulated.models(), environ={})


USAGE = {"prompt_tokens": 30, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 10}}
CALL = {"id": "call_7", "type": "function", "function": {"name": "level", "arguments": '{"river": "Elbe"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "level", "description": "Water level", "parameters": {"type": "object"}, "strict": True},
}


def called() -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look it up."}
    return {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE, "model": "up"}


def called_in_parts() -> list[dict[str, Any]]:
    def part(**call: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}

    return [
        part(id="call_7", type="function", function={"name": "level", "arguments": ""}),
        part(function={"arguments": '{"river": '}),
        part(function={"arguments": '"Elbe"}'}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": USAGE},
    ]


def test_tools_go_out_and_their_calls_come_back(tmp_path: Path) -> None:
    upstream = Upstream(called(), {"choices": [{"message": {"content": "High."}, "finish_reason": "stop"}]})
    with upstream.kit(tmp_path) as kit, serving(kit) as server, client(server) as http:
        choice = {"type": "function", "function": {"name": "level"}}
        first = http.post(CHAT, json=ASK | {"tools": [TOOL], "tool_choice": choice, "top_k": 4}).json()
        message = first["choices"][0]["message"]
        assert message["content"] is None
        assert message["tool_calls"] == [CALL]
        assert message["reasoning_content"] == "Look it up."
        assert first["choices"][0]["finish_reason"] == "tool_calls"
        assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 10}
        assert first["tokenkit"]["ignored"] == ["tools[0].function.strict"]
        result = {"role": "tool", "tool_call_id": "call_7", "content": "4.2 m"}
        picture = [{"type": "text", "text": "And here?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        messages = [
            {"role": "system", "content": "Be short."}, *ASK["messages"], {"role": "assistant", "tool_calls": [CALL]},
            result, {"role": "user", "content": picture},
        ]  # fmt: skip
        wanted = {"type": "json_schema", "json_schema": {"name": "level", "schema": {"type": "object"}}}
        more = {"tools": [TOOL], "response_format": wanted, "stop": ["\n"], "max_completion_tokens": 5}
        ask = {"model": "swift", "messages": messages, **more}
        assert http.post(CHAT, json=ask).json()["choices"][0]["message"]["content"] == "High."
    sent, again = upstream.bodies
    assert sent["tool_choice"] == choice
    assert sent["tools"][0]["function"]["parameters"] == {"type": "object"}
    assert sent["top_k"] == 4
    assert [m["role"] for m in again["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert again["messages"][2]["tool_calls"] == [CALL]
    assert again["messages"][3] == result
    assert again["messages"][4]["content"][1]["image_url"]["url"] == PIXEL
    assert (again["response_format"], again["stop"], again["max_tokens"]) == (wanted, ["\n"], 5)


PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def test_calls_of_tools_are_streamed_in_parts(tmp_path: Path) -> None:
    with Upstream(called_in_parts()).kit(tmp_path) as kit, serving(kit) as server, client(server) as http:
        events = events_of(http.post(CHAT, json=ASK | {"tools": [TOOL], "stream": True}).text)
    told = [json.loads(event)["choices"][0] for event in events[:-1]]
    parts = [part for one in told for part in one["delta"].get("tool_calls", ())]
    assert [part.get("id") for part in parts] == ["call_7", None, None]
    assert parts[0]["function"]["name"] == "level"
    assert "".join(part["function"]["arguments"] for part in parts) == '{"river": "Elbe"}'
    assert told[-1]["finish_reason"] == "tool_calls"


def test_the_openai_sdk_is_served(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    with Kit.simulated(pace=0, home=tmp_path) as kit, serving(kit, token="let-me-in-please") as server:
        sdk = openai.OpenAI(
            base_url=server.url,
            api_key="let-me-in-please",
            max_retries=2,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )
        with sdk:
            raw = sdk.chat.completions.with_raw_response.create(**ASK, user="ada")
            answer = raw.parse()
            assert answer.choices[0].message.content.startswith("[simulated by swift")
            assert answer.usage.completion_tokens == 12
            assert raw.headers["x-tokenkit-receipt"] == answer.tokenkit["receipt"]
            stream = sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
            chunks = list(stream)
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
                answer.choices[0].message.content
            )
            assert chunks[-1].usage == answer.usage
            assert sdk.completions.create(model="swift", prompt="Name a river.", max_tokens=12).choices[0].text
            assert "simulated/sage" in [model.id for model in sdk.models.list()]
            with pytest.raises(openai.NotFoundError, match="Did you mean"):
                sdk.chat.completions.create(**ASK | {"model": "swfit"})
            with pytest.raises(openai.BadRequestError, match="temperature must be a number"):
                sdk.chat.completions.create(**ASK, temperature=7)
            before = len(kit.ledger.df())
            kit.budgets.set("1 token", window="day", name="tight")
            with pytest.raises(openai.RateLimitError, match="tight") as caught:
                sdk.chat.completions.create(**ASK)
            assert caught.value.code == "budget_exceeded"
            # The SDK tries a 429 again unless it is told not to; each refusal would leave a receipt.
            assert len(kit.ledger.df()) <= before + 1


@pytest.mark.parametrize("break_after", [0, 3])
def test_a_stream_that_breaks_says_so(tmp_path: Path, break_after: int) -> None:
    fault = Fault("swift", break_after=break_after)
    with Kit.simulated(pace=0, home=tmp_path, faults=[fault]) as kit, serving(kit) as server, client(server) as http:
        answer = http.post(CHAT, json=ASK | {"stream": True})
        if not break_after:
            assert answer.status_code == 502
            return
        events = events_of(answer.text)
        told = json.loads(events[-1])
        assert answer.status_code == 200
        assert "It broke" in told["error"]["message"]
        receipt = kit.receipt(told["tokenkit"]["receipt"])
        assert receipt is not None
        assert receipt.status == "error"


# What goes wrong.


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model": None}, "model", "model is missing"),
        ({"model": 7}, "model", "text"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "text or a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "needs it"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]", "image_url"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/x"}}]}]},
            "messages[0].content[0].image_url",
            "http address",
        ),
        ({"n": 2}, "n", "one answer"),
        ({"temperature": "hot"}, "temperature", "from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "whole number"),
        ({"max_tokens": 10**30}, "max_tokens", "whole number"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "not both"),
        ({"stop": [1]}, "stop", "texts"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "function"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "name one"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_object"),
        ({"functions": [{"name": "x"}]}, "functions", "tools"),
        ({"user": ["ada"]}, "user", "text"),
    ],
)
def test_a_mistake_is_one_sentence(http: httpx.Client, change: dict[str, Any], param: str, said: str) -> None:
    answer = http.post(CHAT, json={**ASK, **change})
    error = error_of(answer)
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert (error["param"].removesuffix(".url"), said in error["message"]) == (param, True)
    assert len(re.findall(r"[.!?](?:\s|$)", error["message"])) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post(CHAT, content=body)
    assert answer.status_code == 400
    assert "JSON" in error_of(answer)["message"]


def test_other_places_and_methods_are_refused_in_the_same_words(http: httpx.Client) -> None:
    assert (http.get("/v1/nothing").status_code, http.get(CHAT).status_code) == (404, 405)
    assert error_of(http.get("/v1/nothing"))["code"] == "not_found"
    assert http.delete("/health").status_code == 405
    assert error_of(http.options(CHAT))["code"] == "not_found"


def test_a_budget_refuses_with_429(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit, serving(kit) as server, client(server) as http:
        own = http.post(CHAT, json=ASK, headers={"x-tokenkit-budget": "0.000000001 USD"})
        error = error_of(own)
        assert own.status_code == 429
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")
        assert own.headers["x-should-retry"] == "false"
        kit.budgets.set("1 token", window="day", user="ada")
        for stream in (False, True):
            assert http.post(CHAT, json=ASK | {"user": "ada", "stream": stream}).status_code == 429
        assert http.post(CHAT, json=ASK | {"user": "bob"}).status_code == 200
        wrong = http.post(CHAT, json=ASK, headers={"x-tokenkit-budget": "plenty"})
        assert (wrong.status_code, error_of(wrong)["param"]) == (400, "x-tokenkit-budget")


@pytest.mark.parametrize(
    ("fault", "status", "code", "again"),
    [
        (Fault(status=401, code="invalid_api_key"), 502, "upstream_auth", "false"),
        (Fault(status=403), 502, "upstream_auth", "false"),
        (Fault(status=429, retry_after=0.01), 429, "rate_limit_exceeded", "true"),
        (Fault(status=429, code="insufficient_quota"), 429, "insufficient_quota", "false"),
        (Fault(status=503, retry_after=0.01), 503, "overloaded", "true"),
        (Fault(status=500), 502, "upstream_error", "true"),
        (Fault(refuse=True), 502, "upstream_unreachable", "true"),
        (Fault(status=400, code="odd"), 400, "odd", "false"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Fault) else None,
)
def test_failures_of_providers_keep_their_meaning(
    tmp_path: Path, fault: Fault, status: int, code: str, again: str
) -> None:
    faults = [fault]
    with Kit.simulated(pace=0, home=tmp_path, faults=faults) as kit, serving(kit) as server, client(server) as http:
        for stream in (False, True):
            answer = http.post(CHAT, json=ASK | {"stream": stream})
            assert (answer.status_code, error_of(answer)["code"]) == (status, code)
            assert answer.headers["x-should-retry"] == again
            assert ("retry-after" in answer.headers) is (status in (429, 503) and again == "true")
            receipt = kit.receipt(answer.headers["x-tokenkit-receipt"])
            assert receipt is not None
            assert receipt.status == "error"


def test_a_plan_that_fails_whole_is_one_answer(tmp_path: Path) -> None:
    faults = [Fault(status=503, retry_after=0.01)]
    with Kit.simulated(pace=0, home=tmp_path, faults=faults) as kit, serving(kit) as server, client(server) as http:
        answer = http.post(CHAT, json=ASK | {"model": "auto"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "simulated/sage" in error_of(answer)["message"]


def test_a_deadline_that_passes_is_504(tmp_path: Path) -> None:
    (tmp_path / "tokenkit.toml").write_text("[defaults]\ndeadline = 0.2\n")
    slow = simulated.provider(faults=[Fault(delay=30)])
    with (
        Kit(tmp_path / "tokenkit.toml", home=tmp_path, providers=[slow], models=simulated.models(), environ={}) as kit,
        serving(kit) as server,
        client(server) as http,
    ):
        answer = http.post(CHAT, json=ASK)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")


def test_a_providers_key_is_in_no_answer(tmp_path: Path) -> None:
    from dataclasses import replace

    from tokenkit.types import Secret

    key = "sk-live-2f9c71e0b4d8a6"

    def echo(wire: WireRequest) -> LocalAnswer:
        said = {"error": {"message": f"Incorrect API key provided: {key}, ends with {key[-4:]}", "code": f"for {key}"}}
        return LocalAnswer(status, {"content-type": "application/json"}, 0, [(0.0, json.dumps(said).encode())])

    made = dialect.provider("simulated", "simulated://simulated", Secret(key))
    provider = replace(made, local=echo)
    with (
        Kit(home=tmp_path, providers=[provider], models=simulated.models(), environ={}) as kit,
        serving(kit) as server,
        client(server) as http,
    ):
        for status in (400, 401, 404, 429, 500):
            answer = http.post(CHAT, json=ASK)
            assert answer.status_code in (400, 404, 429, 502)
            assert key not in answer.text + str(answer.headers)
            assert key[-4:] not in answer.text
