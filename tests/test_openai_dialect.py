"""OpenAI's dialect: requests as its API reference draws them, answers of every server that speaks it, hostile ones too.

The payloads were written by us after OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit.errors import (
    AuthError,
    Overloaded,
    ProtocolError,
    ProviderError,
    ServerError,
    UserError,
)
from tokenkit.providers import openai
from tokenkit.providers.base import gather
from tokenkit.types import Image, Message, Request, Response, Secret, Tool, ToolCall, Usage

PAYLOADS = Path(__file__).parent / "payloads" / "openai"
GOLDEN = json.loads((PAYLOADS / "requests.json").read_bytes())
WHOLE = (PAYLOADS / "whole.json").read_bytes()
OPENAI = openai.provider(key=Secret("sk-canary-9wXy"))
ELSEWHERE = openai.provider(name="here", base_url="http://localhost:8000/v1/")


def ask(*messages: Message, **fields: Any) -> Request:
    return Request(messages or (Message("user", "Think."),), **{"model": "gpt-4o-mini", **fields})


def sent(request: Request, provider: openai.Provider = OPENAI) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openai.encode(request, provider).body)
    return found


def answer(message: Any = None, **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"} if message is None else message}
    return json.dumps({"choices": [choice | {"finish_reason": "stop"}], **fields}).encode()


def streamed(*chunks: Any) -> Response:
    feed = openai.feed()
    data = b"".join(b"data: " + (c if isinstance(c, bytes) else json.dumps(c).encode()) + b"\n\n" for c in chunks)
    return gather([delta for piece in (data, b"") for delta in feed(piece)])


# Asking


def test_a_plain_request_holds_nothing_that_was_not_asked_for() -> None:
    wire = openai.encode(ask(Message("user", "Hello 👋")), OPENAI)
    assert json.loads(wire.body) == GOLDEN["plain"]
    assert (wire.method, wire.url) == ("POST", "https://api.openai.com/v1/chat/completions")
    assert wire.headers == (("content-type", "application/json"),)
    assert wire.notes == ()
    assert wire.auth is not None
    name, prefix, key = wire.auth
    assert (name, prefix, key.reveal()) == ("authorization", "Bearer ", "sk-canary-9wXy")
    assert "9wXy" not in repr(wire)
    assert "9wXy" not in repr(OPENAI)


def test_everything_that_can_be_asked_is_written_as_the_reference_draws_it() -> None:
    schema = GOLDEN["everything"]["tools"][0]["function"]["parameters"]
    request = ask(
        Message("system", "Be brief."),
        Message(
            "user",
            (
                "What is this?",
                Image(url="https://example.org/a.png", detail="low"),
                Image(data="/9j/4AAQ", media_type="image/jpeg"),
            ),
            name="ada",
        ),
        Message("assistant", tool_calls=(ToolCall("call_1", "weather", '{"city": "Zürich"}'),)),
        Message("tool", '{"celsius": 7}', tool_call_id="call_1"),
        Message("assistant", "Seven degrees.", tool_calls=(ToolCall("call_2", "now", ""),)),
        Message("tool", "noon", tool_call_id="call_2"),
        max_tokens=64,
        temperature=0.0,
        top_p=0.5,
        stop=("END", "\n\n"),
        seed=7,
        tools=(Tool("weather", "Tell the weather.", schema), Tool("now")),
        tool_choice="weather",
        response_format=GOLDEN["everything"]["response_format"],
        stream=True,
    )
    assert sent(request) == GOLDEN["everything"]
    assert sent(request, ELSEWHERE) == GOLDEN["everything"]
    # What is ours alone, a user, a session, a deadline, stays here.
    assert sent(replace(request, user="u", session="s", endpoint_name="e", deadline=1.0)) == GOLDEN["everything"]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_of_tools_by_word_goes_as_it_is(choice: str) -> None:
    assert sent(ask(tool_choice=choice))["tool_choice"] == choice


def test_extra_goes_last_and_wins() -> None:
    request = ask(temperature=0.1, max_tokens=5, extra={"temperature": 0.9, "max_tokens": None, "logprobs": True})
    body = sent(request)
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0.9, None, True)
    assert list(body)[-1] == "logprobs"


def test_a_reasoning_model_gets_what_it_takes_and_a_note_of_what_was_left_out() -> None:
    request = ask(
        model="o4-mini", max_tokens=64, temperature=0.2, top_p=0.5, stop=("END",), seed=7,
        extra={"reasoning_effort": "low"},
    )  # fmt: skip
    wire = openai.encode(request, OPENAI)
    assert json.loads(wire.body) == GOLDEN["reasoning"]
    assert wire.notes == tuple(f"{f} was left out: o4-mini does not take it" for f in ("temperature", "top_p", "stop"))


@pytest.mark.parametrize("model", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-mini", "ft:o4-mini:org::1"])
@pytest.mark.parametrize("base_url", ["https://api.openai.com/v1", "https://eu.api.openai.com/v1/"])
def test_reasoning_models_are_known_on_openais_own_addresses(model: str, base_url: str) -> None:
    wire = openai.encode(ask(model=model, max_tokens=9, temperature=1.0), openai.provider(base_url=base_url))
    body = json.loads(wire.body)
    assert body["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature"} & body.keys()
    assert len(wire.notes) == 1


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("gpt-4o", openai.BASE_URL),
        ("gpt-5-chat-latest", openai.BASE_URL),
        ("omni-1", openai.BASE_URL),
        ("o4-mini", "http://localhost:1234/v1"),
        ("gpt-5", "https://api.openai.com.example.org/v1"),
    ],
)
def test_other_models_and_addresses_get_every_field_as_it_was_asked(model: str, base_url: str) -> None:
    wire = openai.encode(ask(model=model, max_tokens=9, temperature=0.5), openai.provider(base_url=base_url))
    body = json.loads(wire.body)
    assert (body["max_tokens"], body["temperature"]) == (9, 0.5)
    assert wire.notes == ()


def test_what_json_cannot_hold_is_the_callers_mistake() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    for odd in (object(), {1, 2}, float("nan"), b"bytes", loop):
        with pytest.raises(UserError, match="cannot be written as JSON"):
            openai.encode(ask(extra={"odd": odd}), OPENAI)


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_any_text_arrives_as_it_was_written(text: str, name: str) -> None:
    body = sent(ask(Message("user", text, name=name), stop=(text,), tools=(Tool(name or "x", text),)))
    assert body["messages"] == [{"role": "user", "content": text, "name": name}]
    assert body["stop"] == [text]


def test_an_address_with_or_without_a_slash_is_one_address() -> None:
    assert openai.encode(ask(), ELSEWHERE).url == "http://localhost:8000/v1/chat/completions"
    assert openai.encode(ask(), ELSEWHERE).auth is None


# Being answered


def test_a_whole_answer_and_a_streamed_one_tell_the_same() -> None:
    feed = openai.feed()
    data = (PAYLOADS / "stream.sse").read_bytes()
    whole = openai.decode(WHOLE)
    assert gather([delta for piece in (data, b"") for delta in feed(piece)]) == whole
    assert whole == Response(
        "Grüße, 世界 👋 — let me look.",
        model="gpt-4o-2024-08-06",
        finish_reason="tool_calls",
        usage=Usage(1000, 150, 700, None, 90),
        tool_calls=(ToolCall("call_7Kq", "weather", '{"city":"Zürich"}'),),
        reasoning="The user greets; a tool fits.",
        id="chatcmpl-Bx7YvQ2",
    )


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (None, None),
        ({}, None),
        ("n", None),
        ([1], None),
        ({"prompt_tokens": 5}, Usage(5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": "5", "completion_tokens": 2.5}, None),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": 5.0, "completion_tokens": 1e400}, Usage(5)),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, Usage(5)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": "x"}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(5, 2, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, Usage(5, 2, 4)),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(5, 9, reasoning_output_tokens=7),
        ),
        # xAI: 32 + 9 + 94 = 135, the reasoning beside the completion
        (
            {
                "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 103, reasoning_output_tokens=94),
        ),
        # OpenAI: the reasoning within
        (
            {
                "prompt_tokens": 32, "completion_tokens": 103, "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 103, reasoning_output_tokens=94),
        ),
    ],
)  # fmt: skip
def test_usage_is_what_was_reported_and_nothing_else(usage: Any, wanted: Usage | None) -> None:
    assert openai.decode(answer(usage=usage)).usage == wanted
    chunk = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert streamed(chunk).usage == wanted
    assert streamed(chunk | {"usage": None}, {"choices": [], "usage": usage}).usage == wanted
    assert streamed(chunk | {"usage": None, "x_groq": {"usage": usage}}).usage == wanted


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"content": None, "refusal": "I cannot."}, Response("I cannot.")),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 7, {"text": None}]},
            Response("ab"),
        ),
        ({"content": "a", "reasoning": "r"}, Response("a", reasoning="r")),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]}, {"text": "a"}]},
            Response("a", reasoning="r"),
        ),
        (
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]},
            Response("", tool_calls=(ToolCall("1", "f", '{"a": 1}'),)),
        ),
        ({"tool_calls": [None, {"function": None}]}, Response("", tool_calls=(ToolCall("", "", ""),))),
        ("x", Response("")),
        ([], Response("")),
        ({"content": 5, "tool_calls": 5, "reasoning_content": {}}, Response("")),
    ],
)
def test_messages_of_every_server(message: Any, wanted: Response) -> None:
    wanted = replace(wanted, finish_reason="stop")
    assert openai.decode(answer(message)) == wanted
    assert streamed({"choices": [{"delta": message, "finish_reason": "stop"}]}) == wanted


def test_a_server_that_ignores_the_wish_for_a_stream_is_understood() -> None:
    for cut in (0, 1, 7, len(WHOLE) // 2):
        feed = openai.feed()
        pieces = [piece for piece in (WHOLE[:cut], WHOLE[cut:]) if piece]
        assert gather([delta for piece in (*pieces, b"") for delta in feed(piece)]) == openai.decode(WHOLE)
    feed = openai.feed()
    assert feed(b'\n {"error": {"message": "no", "code": "invalid_api_key"}}') == []
    with pytest.raises(AuthError):
        feed(b"")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", ProtocolError),
        (b" \r\n", ProtocolError),
        (b"<html>Sign in</html>", ProtocolError),
        (b"[]", ProtocolError),
        (b"{}", ProtocolError),
        (b"null", ProtocolError),
        (b'"text"', ProtocolError),
        (b"[" * 200_000, ProtocolError),
        (b'{"a":' * 200_000, ProtocolError),
        (b'{"choices": ' + b"9" * 5000 + b"}", ProtocolError),
        (b"\xff\xfe{}", ProtocolError),
        (b'{"choices": []}', ProtocolError),
        (b'{"choices": [null]}', ProtocolError),
        (b'{"choices": {"0": {}}}', ProtocolError),
        (b'{"choices": "x"}', ProtocolError),
        (b'{"error": "it broke"}', ServerError),
        (b'{"error": {"message": "full", "code": 503}, "choices": null}', Overloaded),
        (b'{"object": "error", "message": "bad key", "code": 401}', AuthError),
        (b'{"choices": [{"error": {"message": "it broke", "code": 502}}]}', ServerError),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, wanted: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        openai.decode(body)
    assert type(caught.value) is wanted


def test_what_an_answer_begins_with_is_shown_without_keys() -> None:
    with pytest.raises(ProtocolError) as caught:
        openai.decode(b"Incorrect API key provided: sk-proj-abcdefghijklmnop9wXy. " + b"x" * 500)
    assert "9wXy" not in str(caught.value)
    assert "Incorrect" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_character_cut_in_two_by_a_server_is_joined_and_half_a_one_is_marked() -> None:
    def chunk(text: str) -> dict[str, Any]:
        return {"choices": [{"delta": {"content": text, "reasoning": text}}]}

    found = streamed(chunk("a\ud83d"), chunk(""), chunk("\ude00b"), chunk("\ude00"), chunk("\ud83d"), b"[DONE]")
    assert found.text == "a😀b\ufffd\ufffd"
    assert streamed(chunk("\ud83d"), chunk("x"), b"[DONE]").text == "\ufffdx"
    whole = openai.decode(answer({"content": "a\ud83d\ude00\ud83d", "reasoning": "\udfff"}))
    assert (whole.text, whole.reasoning) == ("a😀\ufffd", "\ufffd")
