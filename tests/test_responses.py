"""OpenAI's Responses API and Azure: what is written on the wire, where to, and how streams and errors end."""

from __future__ import annotations

import json

import pytest

from tokenkit.errors import ContentFiltered, ProviderError, RateLimited, ServerError, UserError
from tokenkit.providers import azure, openai, responses
from tokenkit.providers.base import gather
from tokenkit.types import Image, Message, Request, Secret, Tool, ToolCall

OPEN = responses.provider()
HELLO = (Message("user", "Hi"),)


def written(request: Request) -> tuple[dict[str, object], tuple[str, ...]]:
    wire = OPEN.encode(request, OPEN)
    assert wire.url == "https://api.openai.com/v1/responses"
    return json.loads(wire.body), wire.notes


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def test_a_conversation_is_a_list_of_items() -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", ("What?", Image(data="aGk=", media_type="image/jpeg", detail="low"))),
        Message("assistant", "Let me see.", tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'),)),
        Message("tool", "sunny", tool_call_id="c1"),
    )
    body, notes = written(Request(talk, "gpt-4o", max_tokens=5, temperature=0.5, tools=(Tool("f"),), tool_choice="f"))
    assert body == {
        "model": "gpt-4o",
        "store": False,
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What?"},
                    {"type": "input_image", "image_url": "data:image/jpeg;base64,aGk=", "detail": "low"},
                ],
            },
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "temperature": 0.5,
        "max_output_tokens": 5,
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        "tool_choice": {"type": "function", "name": "f"},
    }
    assert notes == ()


def test_what_it_does_not_take_is_noted() -> None:
    body, notes = written(Request(HELLO, "o3", stop=("END",), seed=1, temperature=0.1))
    assert not body.keys() & {"stop", "seed", "temperature"}
    for word in ("stop", "seed", "temperature"):
        assert any(note.startswith(word) for note in notes), word


def test_reasoning_models_are_known_at_regional_addresses_too_and_nowhere_else() -> None:
    asked = Request(HELLO, "o3", temperature=0.1)
    for base_url, takes in (("https://eu.api.openai.com/v1", False), ("https://relay.example/v1", True)):
        provider = responses.provider(base_url=base_url)
        wire = provider.encode(asked, provider)
        assert ("temperature" in json.loads(wire.body)) is takes
        assert bool(wire.notes) is not takes


def test_a_schema_goes_under_text_with_its_name_and_strictness() -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert written(Request(HELLO, "m", response_format=asked))[0]["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    }


@pytest.mark.parametrize(
    ("reason", "wanted"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "incomplete")]
)
def test_an_incomplete_answer_says_why(reason: str | None, wanted: str) -> None:
    told = {"status": "incomplete", "incomplete_details": {"reason": reason}, "output": []}
    assert OPEN.decode(json.dumps(told).encode()).finish_reason == wanted
    assert gather(OPEN.feed()(event("response.incomplete", response=told))).finish_reason == wanted


def test_arguments_told_only_when_the_call_is_done() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
    added = event("response.output_item.added", output_index=0, item=item | {"arguments": ""})
    done = event("response.output_item.done", output_index=0, item=item)
    assert gather(OPEN.feed()(added + done)).tool_calls == (ToolCall("c", "f", '{"a": 1}'),)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"code": "rate_limit_exceeded", "message": "Slow down", "param": None}, RateLimited),
        ({"error": {"code": "server_error", "message": "It broke"}}, ServerError),
        ({"code": "content_filter", "message": "No"}, ContentFiltered),
    ],
)
def test_an_error_event_flat_or_nested_fails_the_call(fields: dict[str, object], kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        OPEN.feed()(event("error", **fields))


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        (
            "https://x.openai.azure.com/",
            "https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://x.openai.azure.com/openai?api-version=2025-04-01-preview",
            "https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2025-04-01-preview",
        ),
        ("https://x.openai.azure.com/openai/v1/", "https://x.openai.azure.com/openai/v1/chat/completions"),
    ],
)
def test_azure_names_the_deployment_in_the_address(base: str, wanted: str) -> None:
    there = azure.provider(base_url=base, key=Secret("k"))
    wire = there.encode(Request(HELLO, "my gpt", stream=True), there)
    assert wire.url == wanted
    assert wire.auth is not None
    assert wire.auth[:2] == ("api-key", "")
    assert wire.body == openai.encode(Request(HELLO, "my gpt", stream=True), openai.provider()).body


def test_azure_without_an_address_says_what_to_set() -> None:
    nowhere = azure.provider(key=Secret("k"))
    with pytest.raises(UserError, match="AZURE_OPENAI_ENDPOINT"):
        nowhere.encode(Request(HELLO, "m"), nowhere)


def test_azure_treats_the_models_of_openai_as_openai_does() -> None:
    there = azure.provider(base_url="https://x.openai.azure.com")
    wire = there.encode(Request(HELLO, "o3", max_tokens=5, temperature=0.0), there)
    assert json.loads(wire.body)["max_completion_tokens"] == 5
    assert "temperature" in wire.notes[0]


def test_azures_content_filter_is_a_refusal() -> None:
    said = {"code": "content_filter", "message": "The response was filtered", "innererror": {}, "status": 400}
    assert type(azure.provider().classify(400, {}, json.dumps({"error": said}).encode())) is ContentFiltered
