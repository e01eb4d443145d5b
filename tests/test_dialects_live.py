"""Every dialect over a real socket: the request a server sees, and the attempt a call leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from faults import FaultServer, reply, streamed

from tokenkit.catalog import Model
from tokenkit.drivers import World, drive
from tokenkit.errors import Overloaded, ProtocolError
from tokenkit.layers import send
from tokenkit.providers import anthropic, azure, gemini, ollama, responses
from tokenkit.providers.base import Provider
from tokenkit.receipts import Trail
from tokenkit.types import Delta, Message, Request, Response, Secret

PAYLOADS = Path(__file__).parent / "payloads"
KEY = Secret("canary-7f3a")

# What each server must be asked for, and the header that carries the key.
WIRE = {
    "anthropic": (anthropic.provider, "/v1/messages", "/v1/messages", "x-api-key"),
    "azure": (
        azure.provider,
        "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        "api-key",
    ),
    "gemini": (
        gemini.provider,
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "x-goog-api-key",
    ),
    "ollama": (ollama.provider, "/api/chat", "/api/chat", "authorization"),
    "responses": (responses.provider, "/responses", "/responses", "authorization"),
}
EVERY = pytest.mark.parametrize("name", sorted(WIRE))
ASKED = Request((Message("system", "Be brief."), Message("user", "Hi")), "m", max_tokens=9)


def ask(provider: Provider, request: Request, shown: list[Delta]) -> tuple[Response, Trail]:
    trail = Trail()
    return asking(provider, request, trail, shown), trail


def asking(provider: Provider, request: Request, trail: Trail, shown: list[Delta]) -> Response:
    world = World()
    try:
        return drive(send(lambda _: (provider, Model(provider.name, "m")))(request, trail), world, shown.append)
    finally:
        world.close()


def stream_of(name: str) -> bytes:
    return (PAYLOADS / name / ("stream.ndjson" if name == "ollama" else "stream.sse")).read_bytes()


@EVERY
def test_whole_and_streamed_answers_leave_one_attempt_with_one_usage(name: str) -> None:
    make, path, stream_path, header = WIRE[name]
    shown: list[Delta] = []
    with FaultServer(reply(body=(PAYLOADS / name / "whole.json").read_bytes()), streamed(stream_of(name))) as server:
        provider = make(base_url=server.url, key=KEY)
        whole, first = ask(provider, ASKED, shown)
        assert shown == []
        live, second = ask(provider, replace(ASKED, stream=True), shown)
    assert [seen.line for seen in server.requests] == [f"POST {path} HTTP/1.1", f"POST {stream_path} HTTP/1.1"]
    for seen in server.requests:
        assert seen.headers[header].removeprefix("Bearer ") == KEY.reveal()
        assert [k for k, v in seen.headers.items() if KEY.reveal() in v] == [header]
        assert "Be brief." in json.dumps(json.loads(seen.body))
    assert (whole.text, whole.reasoning, whole.usage) == (live.text, live.reasoning, live.usage)
    assert "".join(delta.text for delta in shown) == whole.text
    assert [len(t.attempts) for t in (first, second)] == [1, 1]
    assert first.attempts[0].usage == second.attempts[0].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.source == "reported"


@EVERY
def test_a_stream_that_breaks_fails_and_its_use_is_an_estimate_never_nothing(name: str) -> None:
    make = WIRE[name][0]
    stream = stream_of(name)
    whole_lines = stream[: stream.index(b"\n", len(stream) // 2) + 1]
    trail = Trail()
    with FaultServer(streamed(whole_lines)) as server:
        provider = make(base_url=server.url, key=KEY)
        with pytest.raises(ProtocolError):
            asking(provider, replace(ASKED, stream=True), trail, [])
    (attempt,) = trail.attempts
    assert attempt.usage is not None
    assert attempt.usage.source == "estimated"
    assert (attempt.usage.input_tokens or 0) > 0
    assert (attempt.usage.output_tokens or 0) > 3


@EVERY
def test_a_refusal_is_classified_and_costs_nothing(name: str) -> None:
    trail = Trail()
    body = json.dumps({"error": {"message": "Overloaded", "type": "overloaded_error"}}).encode()
    with FaultServer(reply(529, body)) as server:
        provider = WIRE[name][0](base_url=server.url, key=KEY)
        with pytest.raises(Overloaded) as caught:
            asking(provider, ASKED, trail, [])
    assert (caught.value.status, caught.value.provider) == (529, name)
    assert trail.attempts[0].usage is None
    assert KEY.reveal() not in repr(caught.value) + repr(trail)
