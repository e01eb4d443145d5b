"""What vendors say when they refuse: the class, the tokens, the wait, and never a key, as their own words have it.

The bodies are worded after the vendors' published API references and what their users report; organisations, requests
and keys in them are invented.
"""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenkit.errors import (
    AuthError,
    BadRequest,
    ContextOverflow,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerError,
)
from tokenkit.providers.base import LONGEST_WAIT, parse_retry_after
from tokenkit.providers.failures import classify, failure, need_and_limit, safe
from tokenkit.providers.masking import LONGEST_MESSAGE

CASES = json.loads((Path(__file__).parent / "payloads" / "openai" / "failures.json").read_bytes())


def said(message: str, kind: str | None = None, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


@pytest.mark.parametrize("case", CASES, ids=[f"{i:02d} {c['vendor']} {c['status']}" for i, c in enumerate(CASES)])
def test_what_a_vendor_says_is_what_is_raised(case: dict[str, Any]) -> None:
    error = classify(case["status"], case.get("headers", {}), json.dumps(case["body"]).encode())
    assert type(error).__name__ == case["means"], error
    assert error.status == case["status"]
    assert error.retry_after == case.get("wait")
    assert (getattr(error, "need", None), getattr(error, "limit", None)) == (case.get("need"), case.get("limit"))
    assert str(error) not in ("", "the provider gave no reason")


def test_the_table_covers_every_class_and_every_vendor_named() -> None:
    assert {c["vendor"] for c in CASES} >= {
        "OpenAI", "Azure", "vLLM", "llama.cpp", "Groq", "Mistral", "DeepSeek", "OpenRouter", "xAI", "Together",
    }  # fmt: skip
    assert len({c["means"] for c in CASES}) == 8


@pytest.mark.parametrize(
    ("status", "body", "means", "shows"),
    [
        (502, b"<html><title>502 Bad Gateway</title><style>p{color:x}</style></html>", ServerError, "502 Bad Gateway"),
        (503, b"upstream connect error", Overloaded, "upstream connect error"),
        (504, b"", ServerError, "an empty body"),
        (413, b"<h1>Request Entity Too Large</h1>", ContextOverflow, "Too Large"),
        (429, b"null", RateLimited, "null"),
        (401, b'"go away"', AuthError, "go away"),
        (400, b"[]", BadRequest, "[]"),
        (500, b"[" * 100_000, ServerError, "[[["),
        (500, b"\xff\xfe\x00", ServerError, "500"),
        (302, b"moved", ProviderError, "moved"),
        (500, b"{}", ServerError, "no reason"),
        (500, b'{"error":null}', ServerError, "no reason"),
    ],
)  # fmt: skip
def test_what_is_no_error_object_is_told_by_its_status(
    status: int, body: bytes, means: type[ProviderError], shows: str
) -> None:
    error = classify(status, {}, body)
    assert isinstance(error, means)
    assert shows in str(error)
    assert "color" not in str(error)


def test_a_redirect_is_told_with_its_address_and_not_tried_again() -> None:
    error = classify(308, {"location": f"https://new.example/v1?key={KEY}"}, b'{"error": {"message": "Rate limited"}}')
    assert "https://new.example/v1" in str(error)
    assert "base_url" in str(error)
    assert "9wXy" not in str(error)
    assert (error.status, error.transient) == (308, False)


def test_the_error_of_a_stream_has_no_status_but_is_read_by_the_number_in_it() -> None:
    error = failure(None, {}, said("Slow down", code="429"))
    assert type(error) is RateLimited
    assert error.status is None
    assert type(failure(None, {}, said("bad schema", "invalid_request_error"))) is BadRequest
    assert type(failure(None, {}, said("it broke"))) is ServerError


KEY = "sk-proj-T3stK3yThatIsLongEnough-9wXy"
SHAPES = [
    "Incorrect API key provided: {}.",
    "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com/account/api-keys.",
    "invalid x-api-key: {}",
    "Authorization: Bearer {}",
    'headers {{"authorization": "Bearer {}"}}',
    "api_key={}&model=x",
    '{{"api_key": "{}"}}',
    "your api key: {} is invalid",
    "The key '{}' was revoked",
    "https://generativelanguage.googleapis.com/v1?key={}",
    "x" * 380 + " {}",
    "x " * 190 + "{}",
]
FORMS = [
    KEY,
    "sk-abc***xyz9wXy",
    "sk-proj-********************9wXy",
    "my-secre*****9wXy",
    "xa***9wXy",
    "****9wXy",
    "**9wXy",
    "sk-...9wXy",
    "sk-ab…9wXy",
    "...9wXy",
    "abcd...9wXy",
    "ab............9wXy",
    "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ...9wXy",
    "gsk_abcdefghijklmnop9wXy",
    "xai-abcdef9wXy",
    "AIzaSyabcdef-ghi_9wXy",
    "hf_abcdefghi9wXy",
    "0123456789abcdef01234567899wXy9wXy",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_in_a_message_survives_in_no_form(shape: str, form: str) -> None:
    message = shape.format(form)
    for body in (
        said(message),
        said("no", code=message),
        said("no", message),
        {"error": message},
        {"detail": [message]},
    ):
        for status in (400, 401, 429, 500):
            error = classify(status, {}, json.dumps(body).encode())
            assert "9wXy" not in f"{error} {error.code} {error!r} {error.__dict__}"
    assert "9wXy" not in str(classify(502, {}, message.encode()))
    assert "9wXy" not in str(classify(502, {}, f"<p>{message}</p>".encode()))


def test_a_key_told_by_its_last_characters_alone_is_gone_too() -> None:
    assert "9wXy" not in safe("The API key ending in 9wXy is disabled.")
    assert "9wXy" not in safe("No such key, it ends with 9wXy.")


@pytest.mark.parametrize(
    "plain",
    [
        "The keyword argument 'top_k' is not known.",
        "A skeptical skeleton asked for gpt-4o-mini-2024-07-18.",
        "Unrecognized key: 'max_completion_tokens'",
        "This model's maximum context length is 8192 tokens.",
        "meta-llama/Llama-3.1-8B-Instruct was not found.",
    ],
)
def test_words_that_are_no_keys_stay(plain: str) -> None:
    assert safe(plain) == plain


@given(st.text(max_size=6000))
def test_a_message_is_never_longer_than_can_be_read(text: str) -> None:
    assert len(safe(text)) <= LONGEST_MESSAGE


NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7.5 "}, 7.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "-0.5"}, None),
        ({"retry-after": str(int(LONGEST_WAIT))}, LONGEST_WAIT),
        ({"retry-after": "86401"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "1" * 400}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": formatdate(NOW + 90).replace("-0000", "").strip()}, 90.0),
        ({"retry-after": formatdate(NOW + 90)}, 90.0),
        ({"retry-after": time.asctime(time.gmtime(NOW + 90))}, 90.0),
        ({"retry-after": formatdate(NOW + 90_000, usegmt=True)}, None),
        ({"retry-after": "Fri, 99 Foo 99999 99:99:99 GMT"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-5", "retry-after": "9"}, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "1m1.5s"}, 61.5),
        ({"x-ratelimit-reset-tokens": "12ms"}, 0.012),
        ({"x-ratelimit-reset-tokens": "12"}, None),
        ({"x-ratelimit-reset-tokens": "9" * 400 + "s"}, None),
    ],
)  # fmt: skip
def test_retry_after_in_every_form(
    headers: dict[str, str], wanted: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        found = parse_retry_after(headers, NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == (None if wanted is None else pytest.approx(wanted))


@given(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-requests"]), st.text() | st.floats().map(str)
)
def test_no_header_whatever_asks_for_a_wait_that_makes_no_sense(name: str, value: str) -> None:
    found = parse_retry_after({name: value})
    assert found is None or 0 <= found <= LONGEST_WAIT


WORDS = [w for c in CASES for w in json.dumps(c["body"]).split()] + ["9" * 5000, "1,2,3", ",", "tokens", "{", "[", '"']


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), st.sampled_from([None, 200, 400, 413, 429, 500]))
@example("maximum context length is " + "9" * 5000 + " tokens. However, you requested " + "9" * 5000, 400)
@example("maximum context length is ,, tokens. However, you requested ,,,", 400)
@example("1" * 300_000, 400)
@example("*" * 300_000, 500)
@example("key " * 100_000, 500)
def test_any_wording_is_understood_as_something(text: str, status: int | None) -> None:
    assert isinstance(failure(status, {}, said(text)), ProviderError)
    need, limit = need_and_limit(text, {})
    assert need is None or limit is None or need > limit


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "status", "detail", "n_ctx"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([301, 400, 401, 413, 429, 500, 503]))
def test_an_error_body_of_any_shape_is_an_error_of_ours(body: object, status: int) -> None:
    error = classify(status, {"x-request-id": "r1"}, json.dumps(body).encode())
    assert isinstance(error, ProviderError)
    assert error.status == status
    assert error.code is None or isinstance(error.code, str)


@given(st.binary())
def test_any_bytes_are_an_error_of_ours(body: bytes) -> None:
    assert isinstance(classify(500, {}, body), ServerError)
