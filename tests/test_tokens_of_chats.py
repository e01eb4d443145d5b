"""Which encoding counts for which model, and what messages, tools and pictures cost beyond their text."""

from __future__ import annotations

import base64
import struct

import pytest
from tiktoken import model as tiktoken_models

from tokenkit import tokens
from tokenkit.types import Image, Message, TokenCount, Tool, ToolCall


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-4", "cl100k_base", True),
        ("gpt-4-turbo-2024-04-09", "cl100k_base", True),
        ("gpt-4-32k", "cl100k_base", True),
        ("gpt-3.5-turbo", "cl100k_base", True),
        ("azure/gpt-35-turbo-16k", "cl100k_base", True),
        ("ft:gpt-3.5-turbo-0125:acme::id", "cl100k_base", True),
        ("ft:gpt-4o-mini-2024-07-18:acme::id", "o200k_base", True),
        ("openai/GPT-4o", "o200k_base", True),
        ("openrouter/openai/gpt-4o-mini", "o200k_base", True),
        ("gpt-4.1-nano", "o200k_base", True),
        ("gpt-5", "o200k_base", True),
        ("gpt-5.1-codex", "o200k_base", True),
        ("o1-preview", "o200k_base", True),
        ("o3", "o200k_base", True),
        ("o4-mini-2025-04-16", "o200k_base", True),
        ("chatgpt-4o-latest", "o200k_base", True),
        ("gpt-oss-120b", "o200k_harmony", True),
        ("text-embedding-3-large", "cl100k_base", True),
        ("text-embedding-ada-002", "cl100k_base", True),
        ("claude-sonnet-4-5", "cl100k_base", False),
        ("anthropic/claude-3-haiku", "cl100k_base", False),
        ("bedrock/us.anthropic.claude-3-5-sonnet-v2:0", "cl100k_base", False),
        ("models/gemini-2.5-pro", "o200k_base", False),
        ("ollama/llama3.2:3b", "chars", False),
        ("Ollama/gpt-oss:20b", "chars", False),
        ("simulated/swift", "o200k_base", True),
        ("mistral-large", "o200k_base", False),
        ("gpt-4all", "o200k_base", False),
        ("o10", "o200k_base", False),
        ("o1x", "o200k_base", False),
        ("auto", "o200k_base", False),
        ("", "o200k_base", False),
        ("cl100k_base", "cl100k_base", True),
        ("chars", "chars", False),
    ],
)
def test_which_encoding_a_model_has(model: str, encoding: str, exact: bool) -> None:
    assert tokens.encoding_of(model) == (encoding, exact)


def test_the_table_agrees_with_tiktokens() -> None:
    for model, encoding in tiktoken_models.MODEL_TO_ENCODING.items():
        ours, exact = tokens.encoding_of(model)
        if encoding in tokens.CARRIED:
            assert (ours, exact) == (encoding, True), model
        else:
            assert not exact, f"{model} has {encoding}, which we do not carry"
    for prefix, encoding in tiktoken_models.MODEL_PREFIX_TO_ENCODING.items():
        assert tokens.encoding_of(prefix) == (encoding, True), prefix


# The example conversation of OpenAI's cookbook, "How to count tokens with tiktoken", with the counts its API reported.
COOKBOOK = tuple(
    Message(role, content, name=name)
    for role, name, content in (
        (
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
        ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
    )
)
WEATHER = Tool(
    "get_current_weather",
    "Get the current weather in a given location",
    {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
)
ASKING = (
    Message("system", "You are a helpful assistant that can answer to questions about the weather."),
    Message("user", "What's the weather like in San Francisco?"),
)


def test_messages_cost_what_openai_reports() -> None:
    for model in ("gpt-3.5-turbo-0613", "gpt-4-0613", "gpt-4"):
        assert tokens.count_messages(COOKBOOK, model) == TokenCount(129, True, "cl100k_base")
    for model in ("gpt-4o", "gpt-4o-mini", "simulated/any"):
        assert tokens.count_messages(COOKBOOK, model) == TokenCount(124, True, "o200k_base")


def test_tools_cost_what_the_cookbook_reports() -> None:
    assert tokens.count_messages(ASKING, "gpt-4", (WEATHER,)) == TokenCount(105, False, "cl100k_base")
    assert tokens.count_messages(ASKING, "gpt-4o", (WEATHER,)) == TokenCount(101, False, "o200k_base")
    nested = Tool(
        "f", "", {"properties": {"a": {"type": "array", "items": {"type": "string", "description": "x " * 50}}}}
    )
    flat = Tool("f", "", {"properties": {"a": {"type": "array"}}})
    odd = Tool("f", "", {"properties": ["not", "a", "schema"]})
    deep, shallow, none = (tokens.count_messages(ASKING, "gpt-4o", (tool,)).tokens for tool in (nested, flat, odd))
    assert deep > shallow + 50 > none


def test_what_is_guessed_is_marked() -> None:
    hello = (Message("user", "Hello"),)
    assert tokens.count_messages(hello, "gpt-4o") == TokenCount(8, True, "o200k_base")
    assert tokens.count_messages((), "gpt-4o") == TokenCount(3, True, "o200k_base")
    assert tokens.count_messages(hello, "gpt-5") == TokenCount(7, False, "o200k_base")
    assert not tokens.count_messages(hello, "claude-haiku-4-5").exact
    call = Message("assistant", "", tool_calls=(ToolCall("id", "f", '{"a": 1}'),))
    result = Message("tool", "42", tool_call_id="id")
    parts = Message("user", ("one", "two"))
    for message in (call, result, parts):
        counted = tokens.count_messages((message,), "gpt-4o")
        assert not counted.exact
        assert counted.tokens > 7


def test_four_characters_to_a_token() -> None:
    assert tokens.count_text("abcde", "ollama/llama3") == TokenCount(2, False, "chars")
    assert [tokens.count("x" * n, "chars") for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert tokens.count_messages((Message("user", "abcd"),), "ollama/llama3") == TokenCount(8, False, "chars")


def png(width: int, height: int) -> str:
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\0" * 20).decode()


def jpeg(width: int, height: int) -> str:
    exif = b"\xff\xe1" + struct.pack(">H", 1002) + b"e" * 1000
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\0" * 12
    return base64.b64encode(b"\xff\xd8" + exif + frame).decode()


@pytest.mark.parametrize(
    ("image", "model", "cost"),
    [
        (Image(url="https://example.org/a.png"), "gpt-4o", 765),
        (Image(url="https://example.org/a.png", detail="low"), "gpt-4o", 85),
        (Image(data=png(1024, 1024)), "gpt-4o", 765),
        (Image(data=png(2048, 4096)), "gpt-4o", 1105),  # the second example of OpenAI's vision guide
        (Image(data=jpeg(512, 512)), "gpt-4o", 255),
        (Image(data=base64.b64encode(b"GIF89a" + struct.pack("<HH", 100, 600)).decode()), "gpt-4o", 425),
        (Image(data=png(128, 64)), "gpt-4o-mini", 8500),
        (Image(data=png(300, 250)), "claude-sonnet-4-5", 100),
        (Image(url="https://example.org/a.png"), "claude-sonnet-4-5", 1600),
        (Image(data="not base64 \ud800"), "gpt-4o", 765),
        (Image(data=png(0, 0)), "gpt-4o", 765),
        (Image(data=base64.b64encode(b"\xff\xd8\xff").decode()), "gpt-4o", 765),
        (Image(data=base64.b64encode(b"\xff\xd8" + b"\xff\xe0\0\0" * 9).decode()), "gpt-4o", 765),
    ],
)
def test_pictures(image: Image, model: str, cost: int) -> None:
    counted = tokens.count_messages((Message("user", (image,)),), model)
    assert counted.tokens - tokens.count_messages((Message("user", ()),), model).tokens == cost
    assert not counted.exact
