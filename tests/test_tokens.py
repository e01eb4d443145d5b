"""Encoding: id for id like tiktoken and two independent tokenizers, in linear time, remembered within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import pytest
import tiktoken
from growth import grows_linearly
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit import tokens
from tokenkit.errors import TokenkitError, UserError
from tokenkit.types import Message, TokenCount

ENCODINGS = ("cl100k_base", "o200k_base")
tokens.install()

CORPUS = (
    "",
    " ",
    "\n",
    "The quick brown fox jumps over the lazy dog. It's what we'll do; they'd've DON'T 'S 'Ll.",
    "Grüße aus Köln: Straße, Äpfel, naïve façade — „Zitat“ … 3,50 €",
    "Ελληνικά και Русский текст, українська мова, Türkçe İstanbul ığdır",
    "日本語の文章です。カタカナとひらがな、漢字。お誕生日おめでとう！",
    "我能吞下玻璃而不伤身体。中文没有空格，所以一个片段可以很长。",
    "한국어 문장은 띄어쓰기가 있습니다. 모든 국민은 법 앞에 평등하다.",
    "العربية لغة جميلة، والأرقام ١٢٣٤٥ — עברית מימין לשמאל",
    "हिन्दी में लिखा हुआ वाक्य। தமிழ் மொழி ไทยไม่มีช่องว่างระหว่างคำ Tiếng Việt có dấu",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 👍🏽 1️⃣ ❤️ 😀😃😄 ☃ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀",
    "def f(x: int) -> int:\n    # sum\n\treturn x + 1  \n\n\n\nif __name__ == '__main__':\n    print(f(41))\n",
    '{"a":[1,2,3],"b":{"c":null,"d":"\\u00e9\\n"},"url":"https://example.org/a/b?c=d&e=%20#frag"}',
    "SELECT * FROM t WHERE a<>b AND c!=d;--x\r\n\r\n/* ... */ ////\n//// !!!\n/// <html><!-- --></html>",
    "ＦＵＬＬ　ｗｉｄｔｈ\u3000\u00a0\u2003\u2028\u2029\x85\x0b\x0c\x1c\x1d\x00\x7f\ufeff\u200b\u200d\ufffd\ufffe",
    "e\u0301e\u0301\u0301 \u0301x ǅ ʰ ª º ² ½ Ⅷ ٣ 0000000 1234567890123",
    "<|endoftext|><|fim_prefix|><|im_start|>system<|endofprompt|>",
    "    four    spaces\t\ttabs \t mixed   \n   \n trailing   ",
    "fooBarBAZquxHTTPServerÀÉîÖ的A的aBCあDé",
)


@cache
def references(encoding: str) -> tuple[Callable[[str], list[int]], ...]:
    """Two tokenizers that share no code with tiktoken; rs_bpe only where its wheel exists."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bpe_openai opens its data the old way
        from bpe_openai._bindings import tokenizer_for_encoding  # its Python face refuses long texts

        found = [tokenizer_for_encoding(encoding).encode]
    try:
        from rs_bpe.bpe import openai as rs
    except ImportError:
        return tuple(found)
    return (*found, getattr(rs, encoding)().encode)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", CORPUS)
def test_the_corpus_id_for_id(text: str, encoding: str) -> None:
    ids = tokens.encode(text, encoding)
    for reference in references(encoding):
        assert ids == reference(text)
    assert tokens.decode(ids, encoding) == text
    assert tokens.count(text, encoding) == len(ids)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=80) | st.text("aB '\n\t/!1的é😀\u3000", max_size=80))
def test_any_text_id_for_id(encoding: str, text: str) -> None:
    ids = tokens.encode(text, encoding)
    for reference in references(encoding):
        assert ids == reference(text)
    assert tokens.decode(ids, encoding) == text


KINDS = (
    " \t\u3000\xa0",
    "\r\n",
    "abcxyzéжω",
    "ABCZ",
    "的一あ한ن",
    "!?'-=😀─",
    "/",
    "1٣",
    "\u0301\ufe0f",
    "ʰǅÀЖ",
    "aB的",
    "'s",
)


@st.composite
def texts_of_runs(draw: st.DrawFn) -> str:
    """Strings of runs of like characters, some long against a window of 48, in every order."""
    random = draw(st.randoms(use_true_random=False))
    lengths = (1, 2, 3, 150, 300, 500)
    parts = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(lengths)), min_size=1, max_size=7))
    return "".join("".join(random.choices(kind, k=length)) for kind, length in parts)


def test_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_STRIDE", 48)
    monkeypatch.setattr(tokens, "_BACK", 9)
    joined = []
    inner = tokens._stitched
    monkeypatch.setattr(tokens, "_stitched", lambda *given: joined.append(inner(*given)) or joined[-1])

    @settings(max_examples=250, deadline=None)
    @given(text=texts_of_runs())
    def whole_and_in_windows(text: str) -> None:
        for encoding in ENCODINGS:
            assert tokens.encode(text, encoding) == tiktoken.get_encoding(encoding).encode_ordinary(text)

    whole_and_in_windows()
    assert sum(ids is not None for ids in joined) > 100, "hardly a text was encoded in windows: nothing was tested"


@pytest.mark.parametrize("run", ["\u3000 ", "\n", "\n\n\r", "ABC", "xyz", "的一是", "-=", "!/", "😀"])
def test_a_run_meets_every_neighbour(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_STRIDE", 48)
    monkeypatch.setattr(tokens, "_BACK", 9)
    before = ("", "!", "!\n", "\n  ", "的", "bA", "'", "1")
    after = ("", "/", "//", "/*", "\n", "  \n", " \n x", " x", "A", "Ab", "的A", "ʰA", "\u0301A", "'s", "!!", "1", "é")
    for head, tail, length in product(before, after, range(150, 182, 4)):
        text = head + (run * length)[:length] + tail
        for encoding in ENCODINGS:
            assert tokens.encode(text, encoding) == tiktoken.get_encoding(encoding).encode_ordinary(text)


def test_the_runs_hold_what_their_names_say() -> None:
    names = {
        "lower": {"Ll"},
        "upper": {"Lu"},
        "other": {"Lo"},
        "sign": {"Po", "Ps", "Pe", "Pc", "Pd", "Sm", "Sc", "Sk", "So"},
    }
    seen = set()
    for code in range(sys.maxunicode + 1):
        match = tokens._RUN.match(chr(code))
        if match and match.lastgroup in names:
            seen.add(match.lastgroup)
            assert unicodedata.category(chr(code)) in names[match.lastgroup], f"U+{code:04X} is no {match.lastgroup}"
    assert seen == set(names)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("tail", ["", "x", "\n", "\nx", "\u3000é"])
def test_a_million_spaces(encoding: str, tail: str) -> None:
    text = "a" + " " * 1_000_000 + tail
    ids = tokens.encode(text, encoding)
    assert ids == references(encoding)[0](text)
    assert tokens.decode(ids, encoding) == text


@pytest.mark.parametrize(
    "piece", ["a", "A", "\n", "\t ", "😀", "的一是不了在人有我他", "-", "=#*", "xyzzy", "ab ", " \n", "aA", "\u0301"]
)
def test_long_runs_match_tiktoken(piece: str) -> None:
    text = piece * (120_000 // len(piece))
    for encoding in ENCODINGS:
        assert tokens.encode(text, encoding) == tiktoken.get_encoding(encoding).encode_ordinary(text)


@pytest.mark.parametrize("piece", ["a", " ", "😀", "的一是不了在人有我他", "lorem ipsum, "])
def test_time_grows_with_the_text(piece: str) -> None:
    small, large = (piece * (size // len(piece)) + "." for size in (25_000, 400_000))
    grows_linearly(tokens.encode, small, large)


def test_surrogates_count_as_what_is_sent() -> None:
    assert tokens.encode("a\ud800b") == tokens.encode("a\ufffdb")
    assert tokens.encode("\ud83d\ude00") == tokens.encode("😀")
    torn = "\ud83d\ude00" * 30_000 + "\udfff"
    assert tokens.encode(torn) == tokens.encode("😀" * 30_000 + "\ufffd")
    assert tokens.count_text(torn, "gpt-4o").exact


def test_special_tokens_are_text() -> None:
    assert tokens.count("<|endoftext|>") == 7
    assert tokens.count_text("<|endoftext|>", "gpt-4") == TokenCount(7, True, "cl100k_base")
    assert tokens.decode([199999]) == "<|endoftext|>"


def test_ids_that_are_none() -> None:
    for bad in ([10**9], [-1]):
        with pytest.raises(UserError, match="is a token of o200k_base"):
            tokens.decode(bad)


@pytest.mark.parametrize("name", ["p50k_base", "r50k_base", "gpt2", "o200k", ""])
def test_encodings_we_do_not_carry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: pytest.fail("tiktoken was asked, and would download"))
    for ask in (tokens.count, tokens.encode):
        with pytest.raises(UserError, match=r"does not carry the encoding .*o200k_base"):
            ask("hello", name)
    with pytest.raises(UserError, match="does not carry"):
        tokens.decode([1], name)


class PanicException(BaseException):
    """What a panic in Rust looks like from Python."""


def test_a_panic_of_tiktoken_becomes_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "o200k_base"

        def encode_ordinary(self, text: str) -> list[int]:
            raise PanicException(text)

    monkeypatch.setattr(tokens, "_encoding", lambda name: Broken())
    monkeypatch.setattr(
        tokens, "_seen", tokens._Remembered(entries=9, room=999)
    )  # other tests must not see these counts
    assert tokens.count_text("pänic 71", "gpt-4o") == TokenCount(9, False, "o200k_base")
    assert not tokens.count_messages((Message("user", "pänic 72"),), "gpt-4o").exact
    with pytest.raises(TokenkitError, match="could not encode a text of 8 characters"):
        tokens.encode("pänic 73")
    monkeypatch.setattr(Broken, "encode_ordinary", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tokens.encode("stop")


def test_a_text_is_counted_once_and_not_held_when_large(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tokens._Remembered(entries=3, room=100_000)
    monkeypatch.setattr(tokens, "_seen", memory)
    asked = []
    inner = tokens.encode
    monkeypatch.setattr(tokens, "encode", lambda *given: asked.append(given) or inner(*given))
    large = "word " * 20_000
    for _ in range(3):
        assert tokens.count("small") == 1
        assert tokens.count(large) == 20_001
        assert tokens.count("small", "cl100k_base") == 1
    assert len(asked) == 3
    assert memory.held < 100, "the large text must be remembered by its digest"
    for n in range(20):
        tokens.count(f"text {n}" + "x" * 5000)
        assert len(memory.counts) <= 3
        assert memory.held == sum(len(key[1]) for key in memory.counts)


def test_room_bounds_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tokens._Remembered(entries=1000, room=50_000)
    monkeypatch.setattr(tokens, "_seen", memory)
    for n in range(50):
        tokens.count(f"{n} " * 3000)
        assert memory.held <= 50_000
    assert len(memory.counts) > 1


def test_many_threads_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_seen", tokens._Remembered(entries=16, room=20_000))
    texts = [f"{n} " * (n * 7 % 400) + CORPUS[n % len(CORPUS)] for n in range(60)]
    expected = [len(tiktoken.get_encoding("o200k_base").encode_ordinary(text)) for text in texts]
    start = threading.Barrier(8)

    def work(seed: int) -> list[int]:
        start.wait()
        order = sorted(range(60), key=lambda n: hash((seed, n)))
        counts = {n: tokens.count(texts[n]) for n in order for _ in range(3)}
        return [counts[n] for n in range(60)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [expected] * 8
    memory = tokens._seen
    assert memory.held == sum(len(key[1]) for key in memory.counts)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_another_thread_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import os, signal, tokenkit.tokens as tokens
        tokens.count("warm")
        tokens._seen.lock.acquire()  # as another thread might hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if tokens.count("in the child") == 3 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "0", run.stderr
