"""What every dialect must do alike: read one answer the same whole, streamed and cut anywhere, and never crash.

The payloads beside this file were written by us after the vendors' API references. Each dialect's ``whole`` and
``stream`` tell the same answer: the same text, thoughts and tool call, 1000 tokens in (700 of them read from a cache)
and 150 out (90 of them reasoning).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tokenkit.errors import (
    AuthError,
    ContextOverflow,
    Overloaded,
    ProtocolError,
    ProviderError,
    RateLimited,
    ServerError,
    TokenkitError,
)
from tokenkit.pricing import flat
from tokenkit.providers import anthropic, azure, gemini, ollama, openai, responses
from tokenkit.providers.base import Provider, gather
from tokenkit.providers.sse import BOM
from tokenkit.types import Message, Request, Response, Secret, Usage

PAYLOADS = Path(__file__).parent / "payloads"
TEXT = "Grüße, 世界 👋 — let me look."
THOUGHTS = "The user greets; a tool fits."

DIALECTS: dict[str, Provider] = {
    "anthropic": anthropic.provider(key=Secret("canary")),
    "gemini": gemini.provider(key=Secret("canary")),
    "ollama": ollama.provider(key=Secret("canary")),
    "openai": openai.provider(key=Secret("canary")),
    "responses": responses.provider(key=Secret("canary")),
    "azure": azure.provider(base_url="https://x.openai.azure.com", key=Secret("canary")),
}
STREAMS = {name: "stream.ndjson" if name == "ollama" else "stream.sse" for name in DIALECTS}
HIDES_THOUGHTS = {"azure"}
EVERY = pytest.mark.parametrize("name", sorted(DIALECTS))


def payload(name: str, file: str) -> bytes:
    return (PAYLOADS / name / file).read_bytes()


def told(response: Response) -> tuple[object, ...]:
    """What must be equal however the bytes came."""
    calls = [(c.id, c.name, json.loads(c.arguments)) for c in response.tool_calls]
    return response.text, response.reasoning, calls, response.finish_reason, response.usage, response.model, response.id


def streamed(provider: Provider, pieces: list[bytes]) -> Response:
    feed = provider.feed()
    return gather([delta for piece in (*pieces, b"") for delta in feed(piece)])


def body(provider: Provider, request: Request) -> dict[str, object]:
    found: dict[str, object] = json.loads(provider.encode(request, provider).body)
    return found


@EVERY
def test_a_whole_answer_and_a_streamed_one_tell_the_same(name: str) -> None:
    provider = DIALECTS[name]
    whole = provider.decode(payload(name, "whole.json"))
    assert told(whole) == told(streamed(provider, [payload(name, STREAMS[name])]))
    assert whole.text == TEXT
    assert whole.finish_reason == "tool_calls"
    assert [(c.name, json.loads(c.arguments)) for c in whole.tool_calls] == [("weather", {"city": "Zürich"})]
    assert whole.reasoning == ("" if name in HIDES_THOUGHTS else THOUGHTS)


@EVERY
def test_one_call_has_one_usage_and_one_cost_through_every_dialect(name: str) -> None:
    usage = DIALECTS[name].decode(payload(name, "whole.json")).usage
    assert usage is not None
    # Only Anthropic tells what it wrote to the cache, here 0; to the others that figure is unknown.
    assert usage.cache_creation_input_tokens == (0 if name == "anthropic" else None)
    if name == "ollama":  # tells neither what was cached nor what was thought, and costs nothing
        assert usage == Usage(1000, 150)
        return
    assert replace(usage, cache_creation_input_tokens=None) == Usage(1000, 150, 700, None, 90)
    price = flat("test", name, input=3.0, output=15.0, cache_read=0.3, cache_creation=3.75)
    assert price.receipt(usage.input_tokens).cost(usage) == 300 * 3_000 + 700 * 300 + 150 * 15_000


def disguised(name: str, ends: bytes) -> bytes:
    """A stream behind a byte-order mark, with other line ends, and a comment (in JSON lines, an empty one) before each.

    A comment after an event's name, and before its data, is a comment too.
    """
    filler = b"\n" if name == "ollama" else b": keep-alive, data: no\n"
    lines = payload(name, STREAMS[name]).splitlines(keepends=True)
    return BOM + b"".join(part for line in lines for part in (filler, line)).replace(b"\n", ends)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("disguise", [False, True], ids=["plain", "with BOM and comments"])
@EVERY
def test_every_cut_of_a_stream_reads_the_same(name: str, disguise: bool, ends: bytes) -> None:
    provider = DIALECTS[name]
    stream = disguised(name, ends) if disguise else payload(name, STREAMS[name]).replace(b"\n", ends)
    wanted = told(provider.decode(payload(name, "whole.json")))
    for cut in range(len(stream) + 1):
        pieces = [piece for piece in (stream[:cut], stream[cut:]) if piece]
        assert told(streamed(provider, pieces)) == wanted, f"cut at {cut}"
    assert told(streamed(provider, [stream[i : i + 1] for i in range(len(stream))])) == wanted


@EVERY
def test_a_stream_that_ends_early_is_a_failure_not_an_answer(name: str) -> None:
    stream = payload(name, STREAMS[name])
    whole_lines = stream[: stream.index(b"\n", len(stream) // 3) + 1]
    with pytest.raises(ProtocolError, match="ended before"):
        streamed(DIALECTS[name], [whole_lines])
    with pytest.raises(ProtocolError):
        streamed(DIALECTS[name], [whole_lines[:-9]])


@EVERY
def test_an_error_inside_a_stream_of_200_fails_the_call(name: str) -> None:
    stream = next((PAYLOADS / name).glob("broken.*")).read_bytes()
    seen = []
    feed = DIALECTS[name].feed()
    with pytest.raises(ProviderError) as caught:
        seen = [delta for piece in (stream, b"") for delta in feed(piece)]
    assert seen == []
    assert caught.value.transient
    assert caught.value.status in (None, 503, 500)


@EVERY
@pytest.mark.parametrize("nothing", [b"", b"  \n", b"[]", b"{}", b"null", b"<html>Bad gateway</html>", b"{" * 5000])
def test_what_is_no_answer_is_a_protocol_error(name: str, nothing: bytes) -> None:
    with pytest.raises(ProtocolError):
        DIALECTS[name].decode(nothing)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mangled(draw: st.DrawFn, original: bytes) -> bytes:
    """A payload with some of its values replaced by anything JSON can hold."""

    def walk(value: object) -> object:
        if draw(st.integers(0, 11)) == 0:
            return draw(JSON)
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items() if draw(st.integers(0, 15))}
        if isinstance(value, list):
            return [walk(v) for v in value]
        return value

    return json.dumps(walk(json.loads(original))).encode()


def lines_of(stream: bytes) -> list[bytes]:
    return [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith((b"data: {", b"{"))]


@EVERY
@settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_hostile_bytes_raise_nothing_but_ours(name: str, data: st.DataObject) -> None:
    provider = DIALECTS[name]
    stream = payload(name, STREAMS[name])
    prefix = b"data: " if STREAMS[name].endswith("sse") else b""
    lines = [prefix + data.draw(mangled(line)) + b"\n\n" for line in lines_of(stream)]
    hostile = data.draw(
        st.one_of(st.binary(max_size=200), st.just(b"".join(lines)), st.binary(max_size=40).map(lambda b: stream + b))
    )
    for read in (
        lambda: provider.decode(data.draw(st.one_of(st.binary(max_size=60), mangled(payload(name, "whole.json"))))),
        lambda: streamed(provider, [hostile]),
        lambda: raise_(provider.classify(data.draw(st.integers(300, 599)), {}, hostile)),
        lambda: raise_(
            provider.classify(400, {}, data.draw(mangled(b'{"error":{"message":"m","code":1,"status":""}}')))
        ),
    ):
        try:
            answer = read()
        except TokenkitError:
            continue
        assert isinstance(answer.text, str)
        assert isinstance(answer.reasoning, str)
        counts = (answer.usage.input_tokens, answer.usage.output_tokens) if answer.usage else ()
        assert all(n is None or n >= 0 for n in counts)


@EVERY
def test_half_a_character_is_never_handed_on(name: str) -> None:
    """JSON can escape half of a character; text that holds one cannot be printed or written to a file."""
    provider = DIALECTS[name]

    def halved(data: bytes) -> bytes:
        return (
            data.replace("Grüße".encode(), rb"\ud83d").replace(b"The user", rb"\udfff").replace(b"weather", rb"\ud83d")
        )

    whole = provider.decode(halved(payload(name, "whole.json")))
    live = streamed(provider, [halved(payload(name, STREAMS[name]))])
    for found in (whole, live):
        assert found.text == TEXT.replace("Grüße", "\ufffd")
        assert [call.name for call in found.tool_calls] == ["\ufffd"]
        assert (found.text + found.reasoning + found.tool_calls[0].arguments).encode()
    with pytest.raises(ProviderError) as caught:
        raise_(provider.classify(500, {}, rb'{"error": {"message": "\ud83d", "code": "\ud83d"}}'))
    assert f"{caught.value} {caught.value.code}".encode()


def raise_(error: ProviderError) -> Response:
    raise error


@EVERY
def test_the_key_is_nowhere_but_in_its_own_field(name: str) -> None:
    provider = DIALECTS[name]
    wire = provider.encode(Request((Message("user", "Hi"),), "m"), provider)
    assert "canary" not in repr(wire)
    assert b"canary" not in wire.body
    assert "canary" not in wire.url
    if wire.auth is not None:
        assert wire.auth[2].reveal() == "canary"


@EVERY
def test_extra_goes_to_the_wire_as_it_is(name: str) -> None:
    assert body(DIALECTS[name], Request((Message("user", "Hi"),), "m", extra={"zzz": [1]}))["zzz"] == [1]


@EVERY
@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "no such key", AuthError),
        (429, "slow down", RateLimited),
        (500, "it broke", ServerError),
        (503, "busy", Overloaded),
        (529, "busy", Overloaded),
        (400, "prompt is too long: 205000 tokens > 200000 maximum", ContextOverflow),
    ],
)
def test_a_failure_is_called_what_it_is(name: str, status: int, text: str, kind: type[ProviderError]) -> None:
    error = DIALECTS[name].classify(status, {"retry-after": "7"}, json.dumps({"error": {"message": text}}).encode())
    assert type(error) is kind
    assert error.status == status
    assert error.retry_after == 7.0
    if isinstance(error, ContextOverflow):
        assert (error.need, error.limit) == (205000, 200000)
