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
