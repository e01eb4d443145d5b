"""OpenAI's dialect against answers nobody would send on purpose: read or refused, never a crash."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.errors import (
    ProviderError,
    TokenkitError,
)
from tokenkit.providers import openai
from tokenkit.providers.base import gather
from tokenkit.types import Delta, Response

PAYLOADS = Path(__file__).parent / "payloads" / "openai"
WHOLE = (PAYLOADS / "whole.json").read_bytes()
STREAMS = sorted(PAYLOADS.glob("*.sse"))


def streamed(*chunks: Any) -> Response:
    feed = openai.feed()
    data = b"".join(b"data: " + (c if isinstance(c, bytes) else json.dumps(c).encode()) + b"\n\n" for c in chunks)
    return gather([delta for piece in (data, b"") for delta in feed(piece)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mangled(draw: st.DrawFn) -> Any:
    """A chunk or an answer with some of its values replaced by anything JSON can hold, or gone."""
    rows = [json.loads(WHOLE)] + [
        json.loads(line[6:]) for path in STREAMS for line in path.read_bytes().split(b"\n") if line[:7] == b"data: {"
    ]

    def walk(value: Any) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return draw(JSON)
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items() if draw(st.integers(0, 15))}
        return [walk(v) for v in value] if isinstance(value, list) else value

    return walk(draw(st.sampled_from(rows)))


def check(response: Response) -> None:
    """Everything in an answer has the type it says it has, whatever the server sent."""
    assert isinstance(response.text, str)
    assert isinstance(response.reasoning, str)
    (response.text + response.reasoning).encode()  # no half of a character, which nothing can print
    for word in (response.model, response.finish_reason, response.id):
        assert word is None or isinstance(word, str)
    for call in response.tool_calls:
        assert all(isinstance(part, str) for part in (call.id, call.name, call.arguments))
    if response.usage is not None:
        for figure in (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens):
            assert figure is None or (type(figure) is int and figure >= 0)


@given(mangled())
@settings(max_examples=400)
def test_a_mangled_answer_is_read_or_refused(body: Any) -> None:
    data = json.dumps(body).encode()
    with contextlib.suppress(TokenkitError):
        check(openai.decode(data))
    assert isinstance(openai.classify(500, {}, data), ProviderError)


@given(st.lists(mangled(), max_size=4), st.booleans())
@settings(max_examples=200)
def test_a_mangled_stream_is_read_or_refused(chunks: list[Any], done: bool) -> None:
    with contextlib.suppress(TokenkitError):
        check(streamed(*chunks, *([b"[DONE]"] if done else [])))


@given(st.lists(st.binary(min_size=1) | st.sampled_from([b"data: ", b"\n\n", b"[DONE]", b"{", b'{"choices":[{}]}'])))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    for read in (openai.decode, lambda body: openai.classify(400, {}, body)):
        with contextlib.suppress(TokenkitError):
            read(b"".join(pieces))
    feed = openai.feed()
    try:
        for piece in (*pieces, b""):
            assert all(isinstance(delta, Delta) for delta in feed(piece))
    except TokenkitError:
        pass


@given(st.sampled_from([WHOLE, *(path.read_bytes() for path in STREAMS)]), st.data())
def test_a_flipped_byte_is_read_or_refused(original: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(original) - 1))
    flipped = original[:place] + bytes([data.draw(st.integers(0, 255))]) + original[place + 1 :]
    feed = openai.feed()
    with contextlib.suppress(TokenkitError):
        check(gather([delta for piece in (flipped, b"") for delta in feed(piece)]))
