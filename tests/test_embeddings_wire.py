"""Vectors and model lists on the wire: what is asked of each dialect, and what is read from its answer."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit.errors import ProtocolError, RateLimited, TokenkitError, UserError
from tokenkit.providers import anthropic, azure, compatible, embeddings, gemini, listing, ollama, openai, responses
from tokenkit.providers.base import Provider
from tokenkit.types import Secret, Usage

KEY = Secret("canary")
AZURE = azure.provider(base_url="https://x.openai.azure.com", key=KEY)
VERSION = f"?api-version={azure.API_VERSION}"
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("provider", "url", "body"),
    [
        (
            openai.provider(key=KEY),
            "https://api.openai.com/v1/embeddings",
            {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3},
        ),
        (
            AZURE,
            f"https://x.openai.azure.com/openai/deployments/m/embeddings{VERSION}",
            {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3},
        ),
        (
            compatible.provider("vllm", key=KEY),
            "http://127.0.0.1:8000/v1/embeddings",
            {"model": "m", "input": ["a", "b"], "dimensions": 3},
        ),
        (
            ollama.provider(key=KEY),
            "http://127.0.0.1:11434/api/embed",
            {"model": "m", "input": ["a", "b"], "truncate": False, "dimensions": 3},
        ),
        (
            gemini.provider(key=KEY),
            "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents",
            {
                "requests": [
                    {"model": "models/m", "content": {"parts": [{"text": text}]}, "outputDimensionality": 3}
                    for text in "ab"
                ]
            },
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Provider) else "",
)
def test_what_is_asked(provider: Provider, url: str, body: dict[str, object]) -> None:
    wire = embeddings.embedder_of(provider).encode(["a", "b"], provider, "m", 3)
    assert (wire.method, wire.url) == ("POST", url)
    assert json.loads(wire.body) == body
    assert wire.auth == provider.credentials()
    assert "canary" not in repr(wire)
    plain = json.loads(embeddings.embedder_of(provider).encode(["a"], provider, "m", None).body)
    assert not {"dimensions", "outputDimensionality"} & (plain.keys() | plain.get("requests", [{}])[0].keys())


@given(rows=st.lists(FLOATS, min_size=1, max_size=4), data=st.data())
def test_openais_vectors_come_back_exactly_in_the_order_of_the_texts(
    rows: list[list[float]], data: st.DataObject
) -> None:
    as_text = data.draw(st.booleans())
    shapes = [base64.b64encode(struct.pack("<3f", *row)).decode() if as_text else row for row in rows]
    told = data.draw(st.permutations([{"index": i, "embedding": shape} for i, shape in enumerate(shapes)]))
    body = json.dumps({"data": told, "usage": {"prompt_tokens": 7, "total_tokens": 7}}).encode()
    assert embeddings.OPENAI.decode(body) == (rows, Usage(7, 0))


def test_the_others_are_read_from_their_own_fields_and_untold_usage_is_unknown() -> None:
    body = b'{"embeddings": [[0.5, 1], [2, 3.5]], "prompt_eval_count": 4}'
    assert embeddings.OLLAMA.decode(body) == ([[0.5, 1.0], [2.0, 3.5]], Usage(4, 0))
    body = b'{"embeddings": [{"values": [0.5]}, {"values": [2]}]}'
    assert embeddings.GEMINI.decode(body) == ([[0.5], [2.0]], Usage(None, 0))


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": [1.0, "x"]}],
        [{"index": 0, "embedding": [float("nan")]}],
        [{"index": 0, "embedding": "AAA"}],
        [{"index": 0, "embedding": "AAAAAAA="}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0, 3.0]}],
        [{"index": "0", "embedding": [1.0]}],
        "nonsense",
    ],
)
def test_vectors_that_cannot_be_right_are_refused(data: object) -> None:
    with pytest.raises(ProtocolError):
        embeddings.OPENAI.decode(json.dumps({"data": data}).encode())


@given(
    hostile=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.sampled_from(["data", "embedding", "AAAA", "x"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["data", "embeddings", "embedding", "values", "index", "usage", "error", "models", "id"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_hostile_answers_raise_nothing_but_ours(hostile: bytes) -> None:
    for read in (embeddings.OPENAI.decode, embeddings.GEMINI.decode, embeddings.OLLAMA.decode, listing.decode):
        try:
            read(hostile)
        except TokenkitError:
            continue


@pytest.mark.parametrize("texts", [[], "one text", [""], ["a", ""]])
def test_texts_that_cannot_be_embedded_are_refused_before_anything_is_sent(texts: list[str]) -> None:
    with pytest.raises(UserError, match="list of texts"):
        embeddings.OPENAI.encode(texts, openai.provider(), "m", None)


def test_anthropic_makes_none_and_an_error_in_an_answer_is_raised() -> None:
    with pytest.raises(UserError, match="openai"):
        embeddings.embedder_of(anthropic.provider())
    with pytest.raises(RateLimited):
        embeddings.OPENAI.decode(b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        (openai.provider(key=KEY), "https://api.openai.com/v1/models"),
        (responses.provider(key=KEY), "https://api.openai.com/v1/models"),
        (AZURE, f"https://x.openai.azure.com/openai/models{VERSION}"),
        (anthropic.provider(key=KEY), "https://api.anthropic.com/v1/models?limit=1000"),
        (gemini.provider(key=KEY), "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"),
        (ollama.provider(key=KEY), "http://127.0.0.1:11434/api/tags"),
        (compatible.provider("groq", key=KEY), "https://api.groq.com/openai/v1/models"),
    ],
    ids=lambda value: value.name if isinstance(value, Provider) else "",
)
def test_where_models_are_listed(provider: Provider, url: str) -> None:
    wire = listing.encode(provider)
    assert (wire.method, wire.url, wire.body, wire.auth) == ("GET", url, b"", provider.credentials())
    assert set(provider.headers) <= set(wire.headers)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"object": "list", "data": [{"id": "gpt-4o"}, {"id": "o3"}, {"id": "o3"}]}, ("gpt-4o", "o3")),
        ({"models": [{"name": "models/gemini-2.5-flash", "displayName": "x"}]}, ("gemini-2.5-flash",)),
        ({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]}, ("qwen3:8b",)),
        ({"data": []}, ()),
    ],
)
def test_the_names_are_read_as_a_request_names_them(body: object, wanted: tuple[str, ...]) -> None:
    assert listing.decode(json.dumps(body).encode()) == wanted


def test_an_answer_without_a_list_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="list of models"):
        listing.decode(b"{}")
