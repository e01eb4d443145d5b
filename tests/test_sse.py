"""Streams in pieces: whatever the cuts, the line ends, the comments and the byte-order mark, the same comes out."""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenkit.errors import (
    AuthError,
    ContentFiltered,
    ContextOverflow,
    Overloaded,
    ProtocolError,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerError,
)
from tokenkit.providers import openai, sse
from tokenkit.providers.base import gather
from tokenkit.types import Delta, ToolCall, Usage

PAYLOADS = Path(__file__).parent / "payloads" / "openai"
STREAMS = ("stream", "usage_beside_choices", "without_done", "without_usage")
ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def lines(*pieces: bytes) -> list[bytes]:
    feed = sse.lines()
    return [line for piece in (*pieces, b"") for line in feed(piece)]


def events(*pieces: bytes) -> list[tuple[str, bytes]]:
    feed = sse.events()
    return [event for piece in (*pieces, b"") for event in feed(piece)]


def deltas(*pieces: bytes) -> list[Delta]:
    feed = openai.feed()
    return [delta for piece in (*pieces, b"") for delta in feed(piece)]


def split_at(data: bytes, *cuts: int) -> list[bytes]:
    """Cut where told; pieces are never empty, for an empty one is the end."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    return [data[a:b] for a, b in pairwise(edges)]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def plain_lines(data: bytes) -> list[bytes]:
    """What the lines are, by one regular expression over the whole: what the splitter is measured by."""
    *whole, last = re.split(rb"\r\n|\r|\n", data.removeprefix(sse.BOM))
    return whole + ([last] if last else [])


def stream(name: str, ends: bytes = b"\n", mark: bytes = b"") -> bytes:
    return mark + (PAYLOADS / f"{name}.sse").read_bytes().replace(b"\n", ends)


def test_every_short_text_of_line_ends_splits_the_same_at_every_pair_of_cuts() -> None:
    for size in range(7):
        for letters in product((b"a", b"\r", b"\n"), repeat=size):
            data = b"".join(letters)
            wanted = plain_lines(data)
            assert lines(*byte_by_byte(data)) == wanted, data
            for first in range(size + 1):
                for second in range(first, size + 1):
                    assert lines(*split_at(data, first, second)) == wanted, (data, first, second)


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([b"a\r\n", b"b\r\n"], [b"a", b"b"]),
        ([b"a\r", b"\nb\r", b"\n"], [b"a", b"b"]),
        ([b"a\r", b"b"], [b"a", b"b"]),
        ([b"a\r", b"\r", b"\n", b"\n"], [b"a", b"", b""]),
        ([b"a\r", b"\n", b"\n"], [b"a", b""]),
        ([b"\r"], [b""]),
        ([b"\xef", b"\xbb", b"\xbf", b"a"], [b"a"]),
        ([b"\xef\xbb", b"x"], [b"\xef\xbbx"]),
        ([b"\xef"], [b"\xef"]),
        ([b"a", b"\xef\xbb\xbf"], [b"a\xef\xbb\xbf"]),
        ([], []),
    ],
)
def test_a_held_carriage_return_and_a_held_mark(pieces: list[bytes], wanted: list[bytes]) -> None:
    assert lines(*pieces) == wanted


def test_a_line_ended_by_a_lone_carriage_return_does_not_wait_for_the_next_piece() -> None:
    feed = sse.events()
    assert feed(b"data: a\r\r") == [("", b"a")]
    assert feed(b"\n") == []
    assert feed(b"data: b\r\n\r") == [("", b"b")]
    assert feed(b"\n") == []
    assert feed(b"") == []


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: x", b":c", b"event:e", b"\xef\xbb\xbf", b"\xf0\x9f"])),
    st.lists(st.integers(0, 80)),
)
@example([b"data: a", b"\r\n", b"data: b", b"\r\n"], [9])
def test_any_text_gives_equal_lines_and_events_at_any_cuts(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    pieces = split_at(data, *cuts)
    assert lines(*pieces) == plain_lines(data)
    assert events(*pieces) == events(data) == events(*byte_by_byte(data))


def test_a_line_in_a_million_pieces_is_not_copied_a_million_times() -> None:
    feed = sse.lines()
    piece = b"x" * 16
    for _ in range(300_000):  # a splitter that joins at each piece would copy 700 GB here, and meet the timeout
        assert feed(piece) == []
    assert [len(line) for line in feed(b"\n")] == [4_800_000]


def test_a_line_or_an_event_without_end_is_refused() -> None:
    mebibyte = b"x" * 1024 * 1024
    with pytest.raises(ProtocolError, match="16 MiB"):
        lines(*[mebibyte] * 18)
    with pytest.raises(ProtocolError, match="16 MiB"):
        events(*[b"data: " + mebibyte + b"\n"] * 18)


def test_fields_as_the_standard_reads_them() -> None:
    text = b"event: one\ndata:  two\ndata:three\nid: 4\nretry: 5\nnonsense\n\n:data: no\nevent: lost\n\ndata: last"
    assert events(text) == [("one", b" two\nthree"), ("", b"last")]


def told(found: list[Delta]) -> tuple[object, ...]:
    response = gather(found)
    return (
        response.text,
        response.reasoning,
        response.tool_calls,
        response.finish_reason,
        response.usage,
        response.model,
        response.id,
    )


WANTED = {
    "stream": (
        "Grüße, 世界 👋 — let me look.",
        "The user greets; a tool fits.",
        (ToolCall("call_7Kq", "weather", '{"city":"Zürich"}'),),
        "tool_calls",
        Usage(1000, 150, 700, None, 90),
        "gpt-4o-2024-08-06",
        "chatcmpl-Bx7YvQ2",
    ),
    "usage_beside_choices": (
        "",
        "Two cities.",
        (ToolCall("a", "weather", '{"city":"Bern"}'), ToolCall("b", "weather", '{"city":"Genève 🏔️"}')),
        "tool_calls",
        Usage(31, 44, 16, None, 12),
        "deepseek/deepseek-r1",
        "gen-1760",
    ),
    "without_done": (
        "naïve Ω≈ç√ 👩‍👩‍👧\u2028line\u0085",
        "",
        (),
        "stop",
        Usage(8, 5),
        "tiny-random",
        "cmpl-0",
    ),
    "without_usage": ("Good day, 日本.", "", (), "stop", None, "qwen2.5-0.5b.gguf", "chatcmpl-llama"),
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("name", STREAMS)
def test_every_single_cut_gives_the_same_deltas(name: str, ends: str) -> None:
    data = stream(name, ENDS[ends], sse.BOM if ends == "CRLF" else b"")
    wanted = deltas(data)
    assert told(wanted) == WANTED[name]
    assert deltas(*byte_by_byte(data)) == wanted
    for cut in range(1, len(data)):
        assert deltas(data[:cut], data[cut:]) == wanted, f"cut at {cut}"


@given(st.sampled_from(STREAMS), st.sampled_from(sorted(ENDS)), st.booleans(), st.lists(st.integers(1, 4000)))
def test_many_cuts_give_the_same_deltas(name: str, ends: str, marked: bool, cuts: list[int]) -> None:
    data = stream(name, ENDS[ends], sse.BOM if marked else b"")
    assert deltas(*split_at(data, *cuts)) == deltas(stream(name))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_complete_from_its_finish_reason_on_wherever_it_breaks_off(name: str) -> None:
    data = stream(name)
    finish = re.search(rb'"finish_reason":"[^\n]*', data)
    assert finish is not None
    text = WANTED[name][0]
    for cut in range(len(data) + 1):
        if cut < finish.end():
            with pytest.raises(ProtocolError):
                deltas(*split_at(data[:cut]))
        else:
            assert told(deltas(data[:cut]))[0] == text, f"broken off at {cut}"


def test_a_usage_that_arrives_torn_is_unknown_and_not_a_failure() -> None:
    data = stream("stream")
    torn = data[: data.index(b'"cached_tokens"')]
    assert gather(deltas(torn)).usage is None
    assert gather(deltas(torn)).text == WANTED["stream"][0]


def test_done_alone_ends_a_stream_and_nothing_but_comments_does_not() -> None:
    assert gather(deltas(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n')).text == "x"
    assert deltas(b"data: [DONE]") == []
    for empty in (b"", b"\n", b": ping\n\n", b"event: x\n\n", sse.BOM):
        with pytest.raises(ProtocolError):
            deltas(*split_at(empty))


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        ('{"error":{"message":"Overloaded","type":"overloaded_error"}}', Overloaded),
        ('{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}', RateLimited),
        ('{"error":{"message":"Slow down","code":429}}', RateLimited),
        ('{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}', QuotaExceeded),
        ('{"error":{"message":"No auth credentials found","code":401}}', AuthError),
        ('{"error":{"message":"Provider returned error","code":502},"choices":[]}', ServerError),
        ('{"error":"the model crashed"}', ServerError),
        ('{"error":{"message":"This model\'s maximum context length is 10 tokens"}}', ContextOverflow),
        ('{"error":{"message":"blocked","code":"content_filter"}}', ContentFiltered),
        ('{"error":["odd"]}', ServerError),
        ("not JSON at all", ProtocolError),
        ("[1]", ProtocolError),
    ],
)
def test_an_error_event_inside_a_stream_of_200_fails_the_call(event: str, wanted: type[ProviderError]) -> None:
    feed = openai.feed()
    assert "".join(map(str, feed(b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'))) == "Hello"
    with pytest.raises(ProviderError) as caught:
        feed(f"data: {event}\n\n".encode())
    assert type(caught.value) is wanted
