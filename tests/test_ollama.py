"""Ollama's chat: what is written on the wire, where it is sent, and counts that may be missing."""

from __future__ import annotations

import json

import pytest

from tokenkit.errors import BadRequest, UserError
from tokenkit.providers import ollama
from tokenkit.providers.registry import from_environment
from tokenkit.types import Image, Message, Request, Secret, Tool, ToolCall, Usage

LLAMA = ollama.provider()
HELLO = (Message("user", "Hi"),)
WEATHER = Tool("weather", "Tells", {"properties": {"city": {"type": "string"}}})


def written(request: Request) -> tuple[dict[str, object], tuple[str, ...]]:
    wire = LLAMA.encode(request, LLAMA)
    assert wire.url == "http://127.0.0.1:11434/api/chat"
    assert wire.auth is None
    return json.loads(wire.body), wire.notes


def test_a_conversation_with_tools_and_a_picture() -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", ("What?", Image(data="aGk="))),
        Message("assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'),)),
        Message("tool", "sunny", tool_call_id="c1"),
    )
    body, notes = written(Request(talk, "m", max_tokens=9, stop=("END",), seed=1, temperature=0.0, tools=(WEATHER,)))
    call = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert body == {
        "model": "m",
        "stream": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What?", "images": ["aGk="]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "sunny", "tool_name": "weather"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "Tells", "parameters": parameters}}
        ],
        "options": {"temperature": 0.0, "num_predict": 9, "stop": ["END"], "seed": 1},
    }
    assert notes == ()


def test_output_formats() -> None:
    schema = {"type": "object"}
    asked = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert written(Request(HELLO, "m", response_format=asked))[0]["format"] == schema
    assert written(Request(HELLO, "m", response_format={"type": "json_object"}))[0]["format"] == "json"
    with pytest.raises(UserError, match="xml"):
        written(Request(HELLO, "m", response_format={"type": "xml"}))


def test_options_given_as_extra_are_added_to_ours() -> None:
    body, _ = written(Request(HELLO, "m", seed=1, extra={"options": {"num_ctx": 4096}, "think": False}))
    assert body["options"] == {"seed": 1, "num_ctx": 4096}
    assert body["think"] is False


def test_what_it_does_not_take_is_noted_or_refused() -> None:
    _, notes = written(Request(HELLO, "m", tools=(WEATHER,), tool_choice="required"))
    assert "tool_choice" in notes[0]
    body, notes = written(Request(HELLO, "m", tools=(WEATHER,), tool_choice="none"))
    assert "tools" not in body
    assert "tools" in notes[0]
    with pytest.raises(UserError, match="base64"):
        written(Request((Message("user", (Image(url="https://x.example/a.png"),)),), "m"))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("http://box:11434", "http://box:11434"),
        ("https://ollama.example/", "https://ollama.example"),
        ("box", "http://box:11434"),
        ("box:1234", "http://box:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:99", "http://127.0.0.1:99"),
        ("http://0.0.0.0:99", "http://127.0.0.1:99"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:7", "http://127.0.0.1:7"),
        (":7", "http://127.0.0.1:7"),
        ("http://box:11434/api", "http://box:11434"),
        ("http://box:11434/v1/", "http://box:11434"),
        ("box/behind", "http://box:11434/behind"),
    ],
)
def test_addresses(said: str, wanted: str) -> None:
    assert ollama.address(said) == wanted
    assert ollama.address(wanted) == wanted


@pytest.mark.parametrize("variable", ["OLLAMA_BASE_URL", "OLLAMA_HOST"])
def test_an_address_in_the_environment_is_a_provider(variable: str) -> None:
    (found,) = from_environment({variable: "box"})
    assert (found.name, found.base_url, found.key) == ("ollama", "http://box:11434", None)
    assert from_environment({}) == ()


def test_a_key_for_the_cloud_goes_behind_bearer() -> None:
    cloud = ollama.provider(base_url="https://ollama.com", key=Secret("k"))
    auth = cloud.encode(Request(HELLO, "m"), cloud).auth
    assert auth is not None
    assert auth[:2] == ("authorization", "Bearer ")


def test_counts_left_out_after_a_cache_hit_are_unknown() -> None:
    last = {"message": {"content": "Hi"}, "done": True, "done_reason": "stop", "eval_count": 3}
    assert LLAMA.decode(json.dumps(last).encode()).usage == Usage(None, 3)
    assert LLAMA.decode(json.dumps(last | {"eval_count": None}).encode()).usage is None


def test_a_last_line_without_its_end_is_still_read() -> None:
    feed = LLAMA.feed()
    assert feed(b'{"message":{"content":"Hi"},"done":true}') == []
    assert [d.text for d in feed(b"")] == ["Hi"]


def test_a_model_that_is_not_there() -> None:
    error = LLAMA.classify(404, {}, b'{"error":"model \'nope\' not found"}')
    assert type(error) is BadRequest
    assert "nope" in str(error)
