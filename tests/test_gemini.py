"""Gemini: what is written on the wire, and the traps of its usage, blocks and quotas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenkit.errors import AuthError, ContentFiltered, ProviderError, QuotaExceeded, RateLimited
from tokenkit.providers import gemini
from tokenkit.providers.base import gather
from tokenkit.types import Image, Message, Request, Tool, ToolCall, Usage

GOOGLE = gemini.provider()
HELLO = (Message("user", "Hi"),)
PAYLOADS = Path(__file__).parent / "payloads" / "gemini"
PLAIN = {"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}}


def written(request: Request) -> tuple[dict[str, object], tuple[str, ...]]:
    wire = GOOGLE.encode(request, GOOGLE)
    return json.loads(wire.body), wire.notes


def test_a_conversation_with_tools_and_pictures() -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", ("What?", Image(data="aGk=", media_type="image/jpeg"))),
        Message(
            "assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'), ToolCall("c2", "time", ""))
        ),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("tool", '{"hour": 12}', tool_call_id="c2"),
    )
    request = Request(talk, "gemini-2.5-flash", max_tokens=5, temperature=0.5, top_p=0.9, seed=7, stop=("END",))
    body, notes = written(request)
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "What?"}, {"inlineData": {"mimeType": "image/jpeg", "data": "aGk="}}],
            },
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "weather", "args": {"city": "Bern"}}},
                    {"functionCall": {"name": "time", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"result": "sunny"}}},
                    {"functionResponse": {"name": "time", "response": {"hour": 12}}},
                ],
            },
        ],
        "generationConfig": {
            "temperature": 0.5, "topP": 0.9, "maxOutputTokens": 5, "stopSequences": ["END"], "seed": 7,
        },
    }  # fmt: skip
    assert notes == ()


@pytest.mark.parametrize(
    ("base", "model", "stream", "wanted"),
    [
        ("https://g.example/v1beta", "m", False, "https://g.example/v1beta/models/m:generateContent"),
        ("https://g.example/v1/", "m", True, "https://g.example/v1/models/m:streamGenerateContent?alt=sse"),
        ("https://g.example", "tunedModels/x", False, "https://g.example/v1beta/tunedModels/x:generateContent"),
        ("https://g.example/v1", "a?key=b#c", False, "https://g.example/v1/models/a%3Fkey%3Db%23c:generateContent"),
    ],
)
def test_addresses(base: str, model: str, stream: bool, wanted: str) -> None:
    there = gemini.provider(base_url=base)
    assert there.encode(Request(HELLO, model, stream=stream), there).url == wanted


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (PLAIN, "responseSchema"),
        ({**PLAIN, "additionalProperties": False}, "responseJsonSchema"),
        ({"type": "object", "properties": {"n": {"type": ["string", "null"]}}}, "responseJsonSchema"),
    ],
)
def test_a_schema_goes_by_the_field_that_can_hold_it_unchanged(schema: dict[str, object], field: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body, _ = written(Request(HELLO, "m", response_format=wanted))
    assert body["generationConfig"] == {"responseMimeType": "application/json", field: schema}


def test_tools_and_choices() -> None:
    tools = (Tool("f", "Does f", PLAIN), Tool("g"))
    body, _ = written(Request(HELLO, "m", tools=tools, tool_choice="f"))
    assert body["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "Does f", "parameters": PLAIN}, {"name": "g"}]}
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}


def test_extra_settings_are_added_to_ours() -> None:
    extra = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}
    body, _ = written(Request(HELLO, "m", temperature=0.0, extra=extra))
    assert body["generationConfig"] == {"temperature": 0.0, "thinkingConfig": {"thinkingBudget": 0}}


def test_a_newer_model_gets_its_calls_back_with_the_word_for_no_signature() -> None:
    talk = (*HELLO, Message("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),)))
    body, notes = written(Request(talk, "gemini-3.8-flash"))
    assert "skip_thought_signature_validator" in json.dumps(body)
    assert "signature" in notes[0]


def test_a_blocked_prompt_is_a_refusal_whole_and_streamed() -> None:
    blocked = b'{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 5}}'
    with pytest.raises(ContentFiltered, match="PROHIBITED_CONTENT"):
        GOOGLE.decode(blocked)
    with pytest.raises(ContentFiltered):
        GOOGLE.feed()(b"data: " + blocked + b"\n\n")


def test_an_answer_of_no_tokens_is_zero_and_an_untold_one_unknown() -> None:
    assert gemini.usage_of({"promptTokenCount": 9, "totalTokenCount": 9}, final=True) == Usage(9, 0)
    assert gemini.usage_of({"promptTokenCount": 9}, final=True) == Usage(9, None)
    cut = b'data: {"candidates": [], "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}}\n\n'
    assert gather(GOOGLE.feed()(cut)).usage == Usage(9, None)


def test_a_quota_per_minute_passes_and_one_per_day_does_not() -> None:
    body = (PAYLOADS / "limited.json").read_bytes()
    error = GOOGLE.classify(429, {}, body)
    assert type(error) is RateLimited
    assert (error.retry_after, error.code) == (34.5, "RESOURCE_EXHAUSTED")
    assert type(GOOGLE.classify(429, {}, body.replace(b"PerMinute", b"PerDay"))) is QuotaExceeded
    alone = json.dumps(json.loads(body)[0]).encode()
    assert type(GOOGLE.classify(429, {}, alone)) is RateLimited


def test_a_wrong_key_is_a_matter_of_authentication_though_the_status_is_400() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}
    assert type(GOOGLE.classify(400, {}, json.dumps({"error": error}).encode())) is AuthError


def test_an_overflow_tells_need_and_limit() -> None:
    said = "The input token count (1198398) exceeds the maximum number of tokens allowed (1048576)."
    error: ProviderError = GOOGLE.classify(400, {}, json.dumps({"error": {"code": 400, "message": said}}).encode())
    assert (error.kind, getattr(error, "need", 0), getattr(error, "limit", 0)) == ("context_overflow", 1198398, 1048576)
