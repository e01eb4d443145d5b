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
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra tokenkit[server] is not installed")
pytest.importorskip("uvicorn", reason="the extra tokenkit[server] is not installed")

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit import errors
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.errors import UserError
from tokenkit.kit import Kit
from tokenkit.providers import openai as dialect
from tokenkit.providers import simulated
from tokenkit.providers.simulated import Fault
from tokenkit.server import Serving, guarding, running, serving
from tokenkit.server.failing import failure_of
from tokenkit.types import Secret

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "swift", "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 12}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with Kit.simulated(pace=0, home=tmp_path_factory.mktemp("kit")) as made:
        yield made


@pytest.fixture(scope="module")
def server(kit: Kit) -> Iterator[Serving]:
    with serving(kit, names=["MyBox"]) as made:
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
    assert sum(one.cost for one in receipts if one is not None and one.cost) == Decimal(run["cost_usd"])
    assert answer.headers["x-tokenkit-cost-usd"] == run["cost_usd"]
    assert error_of(http.post("/v1/adversarial", json=ask | {"rounds": 0}))["param"] == "rounds"
    assert http.post("/v1/adversarial", json=ask | {"critic": "swfit"}).status_code == 404


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
        provider = replace(dialect.provider("simulated", "simulated://simulated"), local=self, key_env=())
        return Kit(home=home, providers=[provider], models=simulated.models(), environ={})


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6"
    "kgAAAABJRU5ErkJggg=="
)
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
    key = "sk-live-2f9c71e0b4d8a6"

    statuses = iter((400, 401, 404, 429, 500))

    def echo(wire: WireRequest) -> LocalAnswer:
        said = {"error": {"message": f"Incorrect API key provided: {key}, ends with {key[-4:]}", "code": f"for {key}"}}
        return LocalAnswer(
            next(statuses, 500), {"content-type": "application/json"}, 0, [(0.0, json.dumps(said).encode())]
        )

    made = dialect.provider("simulated", "simulated://simulated", Secret(key))
    provider = replace(made, local=echo)
    with (
        Kit(home=tmp_path, providers=[provider], models=simulated.models(), environ={}) as kit,
        serving(kit) as server,
        client(server) as http,
    ):
        for _ in range(5):
            answer = http.post(CHAT, json=ASK)
            assert answer.status_code in (400, 404, 429, 502)
            assert key not in answer.text + str(answer.headers)
            assert key[-4:] not in answer.text


# Every error has its words.


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.AllFailed([]), 502, "all_failed"),
        (errors.AllFailed([("a", errors.AuthError("no")), ("b", errors.AuthError("no"))]), 502, "upstream_auth"),
        (errors.AllFailed([("a", errors.AuthError("no")), ("b", errors.RateLimited("x"))]), 503, "all_failed"),
        (errors.AllFailed([("a", errors.AuthError("no")), ("b", errors.QuotaExceeded("x"))]), 502, "all_failed"),
        (errors.LedgerError("/home/ada/journal.sqlite3 is locked"), 503, "ledger"),
        (errors.VaultError("/home/ada/vault is locked"), 503, "vault"),
        (errors.NoRoute("None.", [("a", "its breaker is open")]), 503, "no_route"),
        (errors.NoRoute("None.", [("a", "it has no eyes")]), 400, "no_route"),
        (errors.ContextOverflow("Too long."), 400, "context_length_exceeded"),
        (errors.ContentFiltered("Refused."), 400, "content_filter"),
        (errors.BrokenOff("Open."), 503, "overloaded"),
        (errors.ProtocolError("Cut."), 502, "upstream_error"),
        (errors.BadRequest("x", status=404, code="sk-" + "a" * 40), 404, "[key]"),
        (errors.TokenkitError("Something of ours at /home/ada."), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_has_a_status_and_tells_no_secret(error: errors.TokenkitError, status: int, code: str) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.code) == (status, code)
    assert "/home/ada" not in failure.body["error"]["message"]
    assert failure.headers()["x-should-retry"] == ("true" if failure.again else "false")


def test_no_class_of_error_is_forgotten() -> None:
    def below(kind: type[errors.TokenkitError]) -> set[type[errors.TokenkitError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__() if one.__module__ == errors.__name__))

    kinds = below(errors.TokenkitError) - {errors.TokenkitError, errors.AllFailed, errors.UnknownModel}
    assert len(kinds) > 15
    assert {kind for kind in kinds if failure_of(kind("x" * 5000)).status == 500} == set()
    assert all(len(failure_of(kind("x y " * 5000)).body["error"]["message"]) <= 600 for kind in kinds)


def test_an_open_breaker_shows_in_health_and_is_503(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit, serving(kit) as server, client(server) as http:
        assert http.post(CHAT, json=ASK).status_code == 200
        for _ in range(20):
            kit._watch.breaker("simulated/swift").failed(time.monotonic())
        answer = http.post(CHAT, json=ASK)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        told = http.get("/health").json()
        assert told["status"] == "degraded"
        assert told["providers"]["simulated"]["models"]["simulated/swift"]["breaker"] == "open"


def test_a_mistake_of_ours_is_500_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(wire: WireRequest) -> LocalAnswer:
        raise RuntimeError("the secret of /home/ada")

    provider = replace(dialect.provider("simulated", "simulated://simulated"), local=broken)
    with (
        Kit(home=tmp_path, providers=[provider], models=simulated.models(), environ={}) as kit,
        serving(kit) as server,
        client(server) as http,
    ):
        for stream in (False, True):
            answer = http.post(CHAT, json=ASK | {"stream": stream})
            assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
            assert "secret" not in answer.text
    assert "was not answered" in caplog.text


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(guarding.TooSlow, match="did not come"):
        asyncio.run(guarding.read(never, None, 100, seconds=0.01))


def test_without_the_extra_one_sentence_says_what_to_install(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tokenkit\[server\]"):
        running.application(kit)


def test_importing_the_server_imports_neither_starlette_nor_uvicorn() -> None:
    code = "import sys, tokenkit.server, tokenkit.cli; print({'starlette', 'uvicorn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# Who may ask.


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::2]:{port}", 403),
        ("", 403),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:{port}", 200),
        ("mybox:{port}", 200),
    ],
)
def test_only_this_machines_names_are_answered(http: httpx.Client, server: Serving, host: str, status: int) -> None:
    answer = http.get("/v1/models", headers={"host": host.format(port=server.port)})
    assert answer.status_code == status
    if status == 403:
        assert error_of(answer)["code"] == "host_refused"


def test_pages_of_other_sites_are_refused(http: httpx.Client, server: Serving, kit: Kit) -> None:
    before = kit.receipt()
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{server.port + 1}", "http://localhost"):
        for path in (CHAT, "/v1/adversarial"):
            answer = http.post(path, json=ASK, headers={"origin": origin})
            assert (answer.status_code, error_of(answer)["code"]) == (403, "origin_refused")
            assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert http.options(CHAT, headers=preflight).status_code == 403
    assert http.get("/health", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert kit.receipt() == before
    assert http.post(CHAT, json=ASK, headers={"origin": server.address}).status_code == 200


def test_a_token_is_asked_for_everywhere(kit: Kit) -> None:
    token = "a-token-of-some-length"
    with serving(kit, token=token) as server, client(server) as http:
        wrong = ["", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", f"Basic {token}", token, "Bearer \xff"]
        for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/health", "GET"), ("/nowhere", "GET")):
            for said in wrong:
                headers = [(b"authorization", said.encode("latin-1"))] if said else []
                answer = http.request(method, path, headers=headers, json=ASK if method == "POST" else None)
                assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert token not in answer.text
            right = http.request(method, path, headers={"authorization": f"bearer {token}"})
            assert right.status_code != 401
        assert token not in repr(server)


def test_other_machines_need_a_token(kit: Kit) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.com"):
        with pytest.raises(UserError, match="TOKENKIT_SERVER_TOKEN"), serving(kit, host):
            pass
        with pytest.raises(UserError, match="TOKENKIT_SERVER_TOKEN"), serving(kit, host, token=""):
            pass
    with serving(kit, "0.0.0.0", token="a-token") as server:
        headers = {"authorization": "Bearer a-token", "host": "any.example"}
        address = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=address, headers=headers, trust_env=False) as http:
            assert http.get("/v1/models").status_code == 200
            assert http.get("/v1/models", headers={"authorization": ""}).status_code == 401


def test_an_address_that_is_taken_is_one_sentence(kit: Kit, server: Serving) -> None:
    with pytest.raises(UserError, match="in use"), serving(kit, port=server.port):
        pass
    with pytest.raises(UserError, match="cannot be served on"), serving(kit, "192.0.2.7", token="a-token"):
        pass


# How much, and how many.


def test_a_body_that_is_too_large_is_413(kit: Kit) -> None:
    with serving(kit, largest_body=200_000) as server, client(server) as http:

        def body(size: int) -> bytes:
            made = json.dumps(ASK).encode()
            return made + b" " * (size - len(made))

        assert http.post(CHAT, content=body(200_000)).status_code == 200
        for size in (200_001, 700_000, 5_000_000):
            assert http.post(CHAT, content=body(size)).status_code == 413
            pieces = iter([body(size)[at : at + 50_000] for at in range(0, size, 50_000)])
            if size < 1_000_000:  # a body without end is not read to its end, so the client may see it cut
                assert http.post(CHAT, content=pieces).status_code == 413
        assert http.post(CHAT, json=ASK).status_code == 200


def test_a_call_more_than_may_run_is_told_to_come_back(tmp_path: Path) -> None:
    came, go = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"{"
        came.set()
        go.wait(20)
        yield b"}"

    with (
        Kit.simulated(pace=0, home=tmp_path) as kit,
        serving(kit, most=1) as server,
        client(server) as http,
        client(server) as other,
    ):
        first = threading.Thread(target=lambda: http.post(CHAT, content=pieces()))
        first.start()
        assert came.wait(20)
        until(lambda: other.get("/health").json()["calls_under_way"] == 1)
        busy = other.post(CHAT, json=ASK)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert error_of(busy)["code"] == "server_busy"
        go.set()
        first.join()
        assert other.post(CHAT, json=ASK | {"stream": True}).status_code == 200
        until(lambda: other.get("/health").json()["calls_under_way"] == 0)
        assert other.post(CHAT, json=ASK).status_code == 200


def test_sixty_four_at_once_are_all_answered_and_filed(tmp_path: Path) -> None:
    async def ask(server: Serving) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=server.address, trust_env=False, timeout=60, limits=limits) as http:
            asks = [
                {"model": "swift", "messages": [{"role": "user", "content": f"River {n}?"}], "stream": n % 2 == 1}
                for n in range(64)
            ]
            return await asyncio.gather(*(http.post(CHAT, json={**a, "max_tokens": 30}) for a in asks))

    with Kit.simulated(home=tmp_path) as kit, serving(kit) as server:
        answers = asyncio.run(ask(server))
        assert [answer.status_code for answer in answers] == [200] * 64
        ids = {answer.headers["x-tokenkit-receipt"] for answer in answers}
        frame = kit.ledger.df()
        assert len(ids) == 64
        assert ids == set(frame["id"])
        assert set(frame["status"]) == {"ok"}


# Who leaves.


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_who_leaves_a_stream_cancels_the_call(tmp_path: Path, path: str) -> None:
    ask = {"model": "sage", "messages": ASK["messages"], "prompt": "Name a river.", "stream": True}
    with Kit.simulated(pace=4, home=tmp_path) as kit, serving(kit) as server:
        with client(server) as http, http.stream("POST", path, json=ask) as answer:
            assert answer.status_code == 200
            assert next(answer.iter_lines()).startswith("data: {")
            made = answer.headers["x-tokenkit-receipt"]
        receipt = until(lambda: kit.receipt(made))
        assert receipt.status == "cancelled"
        assert receipt.cost_nanos > 0
        assert receipt.usage.output_tokens < 100
        assert receipt.id in set(kit.ledger.df()["id"])
        with client(server) as http:
            until(lambda: http.get("/health").json()["calls_under_way"] == 0)


@pytest.mark.parametrize(
    ("path", "ask"),
    [(CHAT, ASK), (CHAT, ASK | {"stream": True}), ("/v1/adversarial", {"prompt": "Plan a bridge.", "planner": "sage"})],
)
def test_who_leaves_before_the_answer_cancels_the_call(tmp_path: Path, path: str, ask: dict[str, Any]) -> None:
    pace = 3 if path != CHAT else 1
    faults = [] if path != CHAT else [Fault(delay=60)]
    with Kit.simulated(pace=pace, home=tmp_path, faults=faults) as kit, serving(kit) as server:
        body = json.dumps(ask).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port)) as sock, client(server) as http:
            sock.sendall(head + body)
            until(lambda: "simulated/s" in http.get("/health").text)
        receipt = until(kit.receipt)
        assert receipt.status == "cancelled"


def test_calls_under_way_are_settled_when_the_server_stops(tmp_path: Path) -> None:
    with Kit.simulated(pace=5, home=tmp_path) as kit:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running, "GOODBYE_SECONDS", 1)
            with serving(kit) as server:
                sock = socket.create_connection(("127.0.0.1", server.port))
                body = json.dumps(ASK | {"model": "sage", "max_tokens": 400, "stream": True}).encode()
                head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                sock.sendall(head + body)
                assert sock.recv(100).startswith(b"HTTP/1.1 200")
        sock.close()
        receipt = kit.receipt()
        assert receipt is not None
        assert receipt.status == "cancelled"


# Anything at all.

WORDS = st.sampled_from(["user", "assistant", "tool", "swift", "auto", "text", "image_url", "function", "x", ""])
FIELDS = st.sampled_from(
    ["role", "content", "type", "text", "image_url", "url", "function", "name", "arguments", "parameters", "id",
     "tool_calls", "tool_call_id", "json_schema", "include_usage", "strict", "description", "odd"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {}, optional={"role": WORDS, "content": JSON, "tool_calls": JSON, "tool_call_id": JSON, "name": JSON}
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        "model": WORDS | JSON,
        "messages": st.lists(TURN, max_size=3) | JSON,
        "prompt": st.text(max_size=20) | JSON,
        **dict.fromkeys(
            [
                "stream", "stream_options", "tools", "tool_choice", "response_format", "temperature", "top_p", "seed",
                "max_tokens", "max_completion_tokens", "stop", "user", "n", "functions", "logit_bias", "extra",
                "rounds", "planner", "critic", "top_k", "metadata",
            ],
            JSON,
        ),
    },
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from([CHAT, "/v1/completions", "/v1/adversarial"]), body=BODY)
def test_no_body_breaks_the_server(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.post(path, content=json.dumps(body).encode())
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert error_of(answer)["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from([*sorted(ASK), "user", "stop", "tools", "stream", "seed"]), value=JSON)
def test_no_field_of_a_good_request_breaks_the_server(http: httpx.Client, name: str, value: Any) -> None:
    answer = http.post(CHAT, content=json.dumps({**ASK, name: value}).encode())
    assert answer.status_code in (200, 400, 404)
    if answer.status_code == 200 and "stream" not in ASK | {name: value}:
        assert answer.json()["choices"][0]["message"]["content"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=40), budget=st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=12))
def test_no_bytes_and_no_header_break_the_server(http: httpx.Client, body: bytes, budget: str) -> None:
    for name in ("budget", "session", "endpoint", "compress"):
        headers = [(f"x-tokenkit-{name}".encode(), budget.encode("latin-1"))]
        assert http.post(CHAT, content=body, headers=headers).status_code == 400
        assert http.post(CHAT, json=ASK, headers=headers).status_code in (200, 400, 429)


# The command.


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    env |= {"TOKENKIT_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "TOKENKIT_SIMULATED": "1"}
    env |= {"TOKENKIT_SERVER_TOKEN": "from-the-environment"}
    command = [sys.executable, "-m", "tokenkit", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as served:
        try:
            assert served.stderr is not None
            said = next(line for line in served.stderr if "base_url" in line)
            port = int(re.findall(r"127\.0\.0\.1:(\d+)/v1", said)[0])
            with client(Serving("127.0.0.1", port), authorization="Bearer from-the-environment") as http:
                assert http.post(CHAT, json=ASK).status_code == 200
                assert http.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
        finally:
            served.send_signal(signal.SIGTERM)
        rest = served.stderr.read()
        assert served.wait(30) == 130
    assert "Traceback" not in rest
    assert "from-the-environment" not in said + rest


def test_the_command_refuses_other_machines_without_a_token(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "TOKENKIT_SERVER_TOKEN"} | {"TOKENKIT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tokenkit", "serve", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60)
    told = [line for line in done.stderr.splitlines() if not line.startswith("tokenkit: no tokenkit.toml")]
    assert done.returncode == 2
    assert len(told) == 1
    assert "TOKENKIT_SERVER_TOKEN" in told[0]
