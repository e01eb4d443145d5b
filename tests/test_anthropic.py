"""Anthropic's Messages API: what is written on the wire, and the traps of its usage and errors."""

from __future__ import annotations

import json

import pytest

from tokenkit.errors import AuthError, BadRequest, Overloaded, QuotaExceeded, RateLimited, UserError
from tokenkit.providers import anthropic
from tokenkit.providers.base import gather
from tokenkit.types import Image, Message, Request, Tool, ToolCall, Usage

CLAUDE = anthropic.provider()
HELLO = (Message("user", "Hi"),)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


def written(request: Request) -> tuple[dict[str, object], tuple[str, ...]]:
    wire = CLAUDE.encode(request, CLAUDE)
    assert wire.url == "https://api.anthropic.com/v1/messages"
    assert ("anthropic-version", "2023-06-01") in wire.headers
    return json.loads(wire.body), wire.notes


def test_a_conversation_with_tools_and_a_picture() -> None:
    talk = (
        Message("system", "Be brief."),
        Message(
            "user", ("What is this?", Image(data="aGk=", media_type="image/jpeg"), Image(url="https://x.example/a"))
        ),
        Message(
            "assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'), ToolCall("c2", "time", ""))
        ),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("tool", "noon", tool_call_id="c2"),
    )
    body, notes = written(Request(talk, "claude", max_tokens=50, tools=(Tool("weather", "Tells"),), stop=("END",)))
    assert body == {
        "model": "claude",
        "max_tokens": 50,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "aGk="}},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/a"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
                    {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "noon"}]},
                ],
            },
        ],
        "tools": [{"name": "weather", "description": "Tells", "input_schema": {"type": "object"}}],
        "stop_sequences": ["END"],
    }
    assert notes == ()


@pytest.mark.parametrize("address", ["https://relay.example", "https://relay.example/", "https://relay.example/v1"])
def test_the_address_may_come_with_or_without_the_version(address: str) -> None:
    relay = anthropic.provider(base_url=address)
    assert relay.encode(Request(HELLO, "m"), relay).url == "https://relay.example/v1/messages"


def test_what_is_left_out_or_added_is_noted() -> None:
    late = (*HELLO, Message("system", "Late."))
    body, notes = written(Request(late, "m", seed=3, response_format={"type": "json_object"}))
    assert body["max_tokens"] == anthropic.MAX_TOKENS
    assert body["system"] == "Late."
    assert "seed" not in body
    for word in ("max_tokens", "seed", "json_object", "moved"):
        assert any(word in note for note in notes), word


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        ("claude-3-7-sonnet-20250219", {"temperature", "top_p"}),
        ("claude-opus-4-20250514", {"temperature", "top_p"}),
        ("claude-opus-4-1-20250805", {"temperature"}),
        ("claude-sonnet-4-5", {"temperature"}),
        ("claude-haiku-4-5-20251001", {"temperature"}),
        ("anthropic/claude-opus-4.6", {"temperature"}),
        ("claude-opus-4-7", set()),
        ("claude-opus-5", set()),
        ("claude-sonnet-5-20270101", set()),
        ("somebody-elses-model", {"temperature", "top_p"}),
    ],
)
def test_sampling_goes_only_to_models_that_take_it_and_what_does_not_go_is_noted(model: str, taken: set[str]) -> None:
    body, notes = written(Request(HELLO, model, max_tokens=1, temperature=0.0, top_p=0.5))
    assert body.keys() & {"temperature", "top_p"} == taken
    assert [note.split()[0] for note in notes] == sorted({"temperature", "top_p"} - taken)
    if "top_p" not in taken and taken:  # alone, it goes
        alone, notes = written(Request(HELLO, model, max_tokens=1, top_p=0.5))
        assert (alone["top_p"], notes) == (0.5, ())


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("weather", {"type": "tool", "name": "weather"}),
    ],
)
def test_tool_choices(choice: str, wanted: dict[str, str]) -> None:
    assert written(Request(HELLO, "m", tool_choice=choice))[0]["tool_choice"] == wanted


def test_a_json_schema_is_asked_for_in_its_own_words() -> None:
    body, notes = written(Request(HELLO, "m", max_tokens=1, response_format=SCHEMA))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert notes == ()


def test_arguments_that_are_no_object_are_refused() -> None:
    talk = (Message("assistant", "", tool_calls=(ToolCall("c", "f", "[1]"),)),)
    with pytest.raises(UserError, match="call of f"):
        CLAUDE.encode(Request(talk, "m"), CLAUDE)


def test_both_kinds_of_cached_tokens_are_added_to_the_input() -> None:
    told = {"input_tokens": 100, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 200, "output_tokens": 4}
    assert anthropic.usage_of(told) == Usage(1000, 4, 700, 200)
    assert anthropic.usage_of({"cache_read_input_tokens": 700}) == Usage(None, None, 700)
    assert anthropic.usage_of({}) is None


def test_a_cut_stream_does_not_report_the_placeholder_output() -> None:
    start = b'data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
    usage = gather(CLAUDE.feed()(start)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, None)


def test_the_last_usage_that_is_not_null_counts() -> None:
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 5}}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 10, "input_tokens": None}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
    ]
    stream = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    answer = gather(CLAUDE.feed()(stream))
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (14, 25)
    assert answer.finish_reason == "stop"


def test_a_tool_without_arguments_streams_an_empty_object() -> None:
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
        {"type": "content_block_stop", "index": 0},
    ]
    stream = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    assert gather(CLAUDE.feed()(stream)).tool_calls == (ToolCall("t", "f", "{}"),)


@pytest.mark.parametrize(
    ("status", "kind", "message", "wanted"),
    [
        (529, "overloaded_error", "Overloaded", Overloaded),
        (429, "rate_limit_error", "This request would exceed your rate limit", RateLimited),
        (401, "authentication_error", "invalid x-api-key", AuthError),
        (400, "invalid_request_error", "messages: at least one message is required", BadRequest),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", QuotaExceeded),
        (404, "not_found_error", "model: nope", BadRequest),
    ],
)
def test_errors_of_answers_and_of_streams(status: int, kind: str, message: str, wanted: type) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()
    assert type(CLAUDE.classify(status, {}, body)) is wanted
    with pytest.raises(wanted) as caught:
        CLAUDE.feed()(b"event: error\ndata: " + body + b"\n\n")
    assert caught.value.status is None
    assert caught.value.request_id == "req_1"
