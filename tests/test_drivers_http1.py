"""The reader of HTTP/1.1 answers: the same at every cut of the bytes, strict about where an answer ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.drivers.http1 import LARGEST_HEAD, Incoming
from tokenkit.errors import ProtocolError, TransportError

bodies = st.binary(max_size=60)
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def arriving(*pieces: bytes) -> Incoming:
    """An answer whose bytes come in these pieces; then the server closes."""
    waiting = [piece for piece in pieces if piece]
    return Incoming(lambda: waiting.pop(0) if waiting else b"")


def read(answer: Incoming) -> tuple[int, dict[str, str], bytes]:
    status, headers = answer.head()
    body = b"".join(iter(answer.some, b""))
    assert answer.done
    assert answer.some() == b""
    return status, headers, body


def chunked(body: bytes, sizes: list[int], extension: bytes, trailer: bytes) -> bytes:
    def pieces() -> Iterator[bytes]:
        at = 0
        for size in sizes:
            if piece := body[at : at + size]:
                yield piece
            at += size
        if body[at:]:
            yield body[at:]

    rows = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces())
    return rows + b"0" + extension + b"\r\n" + trailer + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """The bytes of an answer, its body, and whether its end can be told without the connection's."""
    body = draw(bodies)
    head = b"".join(draw(st.lists(st.sampled_from([b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n"]), max_size=2)))
    head += b"HTTP/1.1 " + draw(st.sampled_from([b"200 OK", b"429", b"500 Broken: so \xe4"])) + b"\r\nX-Kind: a: b\r\n"
    framing = draw(st.sampled_from(["length", "chunked", "closed"]))
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body, True
    if framing == "closed":
        return head + b"\r\n" + body, body, False
    sizes = draw(st.lists(st.integers(1, 20), max_size=5))
    extension, trailer = draw(st.sampled_from([b"", b";a=b"])), draw(st.sampled_from([b"", b"x: y\r\n"]))
    return head + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(body, sizes, extension, trailer), body, True


@settings(deadline=None, max_examples=300)
@given(answers(), st.data())
def test_an_answer_reads_the_same_at_every_cut(made: tuple[bytes, bytes, bool], data: st.DataObject) -> None:
    raw, body, told = made
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    answer = arriving(*pieces)
    assert read(answer)[2] == body
    assert answer.keep == told
    each = arriving(*(raw[i : i + 1] for i in range(len(raw))))
    assert read(each) == read(arriving(raw))


@settings(deadline=None, max_examples=200)
@given(answers().filter(lambda made: made[2]), st.data())
def test_an_answer_cut_short_is_never_taken_for_whole(made: tuple[bytes, bytes, bool], data: st.DataObject) -> None:
    raw, _, _ = made
    answer = arriving(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(TransportError, match="cut"):
        read(answer)


@settings(deadline=None)
@given(answers().filter(lambda made: made[2]), st.binary(min_size=1, max_size=9))
def test_what_comes_after_an_answer_ends_the_connection(made: tuple[bytes, bytes, bool], more: bytes) -> None:
    """Else the next call on it would read somebody else's words as its own answer."""
    raw, body, _ = made
    answer = arriving(raw + more)
    assert read(answer)[2] == body
    assert not answer.keep


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=80) | bodies.map(lambda tail: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + tail)
)
def test_any_bytes_end_in_an_answer_or_an_error_of_ours(raw: bytes) -> None:
    with contextlib.suppress(TransportError, ProtocolError):
        read(arriving(raw))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_the_connection_is_kept_as_the_server_says(said: bytes, kept: bool) -> None:
    answer = arriving(said + b"content-length: 2\r\n\r\nhi")
    assert read(answer)[2] == b"hi"
    assert answer.keep == kept


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_over_with_its_head(status: int) -> None:
    answer = arriving(b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\n" % status)
    assert answer.head()[0] == status
    assert answer.done
    assert answer.keep


def test_a_folded_header_is_one_value() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Long: a\r\n  b\r\nContent-Length: 0\r\n\r\n"
    assert arriving(raw).head() == (200, {"x-long": "a b", "content-length": "0"})


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiho\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * LARGEST_HEAD + b"aaaaaa",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * LARGEST_HEAD + b"aaaa",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 25,
    ],
)
def test_what_is_ambiguous_or_no_http_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(arriving(raw))
