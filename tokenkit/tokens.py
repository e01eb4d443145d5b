"""Count tokens offline: exactly where a model's vocabulary is public, as a marked estimate everywhere else.

tiktoken does the counting. Its two current vocabularies travel with this package, so nothing is ever downloaded;
``install`` makes every ``tiktoken.get_encoding`` of the process read them too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tokenkit.errors import TokenkitError, UserError
from tokenkit.types import Image, Message, TokenCount, Tool
from tokenkit.vocab import CARRIED, constructors, ranks

if TYPE_CHECKING:
    from tiktoken import Encoding

CHARS = "chars"
"""The name of the approximation by characters: four to a token, rounded up."""

_built: dict[str, Encoding] = {}

# Which encoding a bare model name means, first match wins; the flag says whether its vocabulary is that model's own.
# OpenAI's rows follow tiktoken's model table, which the tests hold them against.
_FAMILIES = tuple(
    (re.compile(pattern), encoding, exact)
    for pattern, encoding, exact in (
        (r"(chat)?gpt-4o(?![a-z\d])|gpt-4\.[15](?!\d)|gpt-5(?!\d)|o[134](?![a-z\d])", "o200k_base", True),
        (r"gpt-oss", "o200k_harmony", True),
        (r"gpt-4(?![\w.])|gpt-3\.?5(?![a-z\d])", "cl100k_base", True),
        (r"text-embedding-(3-|ada-002)|ada-002|(davinci|babbage)-002", "cl100k_base", True),
        (r"(.*\.)?claude", "cl100k_base", False),  # Bedrock writes us.anthropic.claude-…
        (r"gemini", "o200k_base", False),
    )
)
_CHAT = re.compile(r"gpt-3|gpt-4|chatgpt-4o")  # whose message overhead OpenAI documents
_REASONING = re.compile(r"o[134]|gpt-5")


def encoding_of(model: str) -> tuple[str, bool]:
    """Name the encoding that counts for ``model`` (``name`` or ``provider/name``), and whether it is the model's own.

    Names match whatever their case, date, ``ft:`` mark or provider. ``ollama/…`` counts by characters; an unknown
    model counts with o200k_base, inexactly. The name of an encoding stands for any model that has it. Of OpenAI's
    reasoning models the text counts exactly, the overhead of their messages is not documented.
    """
    provider, name = _parts(model)
    if name in CARRIED or name == CHARS:
        return name, name != CHARS
    if provider == "ollama":
        return CHARS, False
    if provider == "simulated":
        return "o200k_base", True
    for pattern, encoding, exact in _FAMILIES:
        if pattern.match(name):
            return encoding, exact
    return "o200k_base", False


def count_text(text: str, model: str) -> TokenCount:
    """Count the tokens of ``text`` for ``model``; a special token's name in it counts as the ordinary text it is."""
    encoding, exact = encoding_of(model)
    tokens, sure = _tokens(text, encoding)
    return TokenCount(tokens, exact and sure, encoding)


@lru_cache(maxsize=4096)
def counts_like(model: str) -> tuple[str, bool, int]:
    """Return what decides a chat's count, pictures aside: encoding, documented overhead or not, priming tokens."""
    encoding, exact = encoding_of(model)
    provider, name = _parts(model)
    documented = exact and (provider == "simulated" or _CHAT.match(name) is not None)
    # Reasoning models report one token less than the formula: their priming ends before the channel is chosen.
    return encoding, documented, 2 if _REASONING.match(name) else 3


def count_messages(messages: Sequence[Message], model: str, tools: Sequence[Tool] = ()) -> TokenCount:
    """Count the tokens of a chat as the provider will bill it, the overhead of each message included.

    The overhead is what OpenAI documents for its chat models (cookbook, "How to count tokens with tiktoken"): 3 for
    each message, 1 for each name, 3 to prime the answer. Tools, tool calls, pictures and several parts in one message
    are estimated, which makes the whole count inexact; so is the overhead of models other than the documented ones.
    """
    (encoding, exact, total), name = counts_like(model), _parts(model)[1]
    for message in messages:
        parts = (message.content,) if isinstance(message.content, str) else message.content
        texts = [message.role, *(part for part in parts if isinstance(part, str))]
        if message.name is not None:
            texts.append(message.name)
            total += 1
        for call in message.tool_calls:
            texts += [call.name, call.arguments]
            total += 3
        counted = [_tokens(text, encoding) for text in texts]
        total += 3 + sum(tokens for tokens, _ in counted) + sum(_image_tokens(i, name) for i in message.images)
        plain = len(parts) <= 1 and not message.images and not message.tool_calls and message.tool_call_id is None
        exact = exact and plain and all(sure for _, sure in counted)
    return TokenCount(total + _tools_tokens(tools, encoding), exact and not tools, encoding)


def count(text: str, encoding: str = "o200k_base") -> int:
    """Count the tokens of ``text``; ``encoding`` is one of ``CARRIED`` or ``"chars"``, any other is a UserError."""
    return _tokens(text, encoding)[0]


def encode(text: str, encoding: str = "o200k_base") -> list[int]:
    """Turn ``text`` into token ids, the same ids as tiktoken's ``encode_ordinary``, in time that grows with its length.

    A lone surrogate becomes U+FFFD. Raises UserError for an encoding that is not carried.
    """
    enc = _encoding(encoding)
    if len(text) >= 3 * _STRIDE:
        text = _sound(text)
        runs = list(_runs(text))
        ids = _stitched(enc, text, runs) if runs else None
        if ids is not None:
            return ids
    return _ordinary(enc, text)


def decode(ids: Sequence[int], encoding: str = "o200k_base") -> str:
    """Turn token ids back into text; bytes that are no UTF-8 (half a character) become U+FFFD.

    Raises UserError for an id the encoding does not have.
    """
    try:
        return _encoding(encoding).decode(ids)
    except (KeyError, OverflowError):
        raise UserError(f"Not every one of these {len(ids)} ids is a token of {encoding}.") from None


def install() -> None:
    """Let every ``tiktoken.get_encoding`` and ``encoding_for_model`` in this process read our vocabularies.

    Idempotent and cheap: a vocabulary is read when its encoding is first asked for. Encodings we do not carry stay
    as tiktoken has them.
    """
    # Imported here because a program that never counts should not pay for tiktoken.
    import tiktoken
    import tiktoken.registry as registry
    import tiktoken_ext.openai_public as public  # type: ignore[import-untyped]  # it ships no types

    tiktoken.list_encoding_names()  # fills the table of constructors
    table = registry.ENCODING_CONSTRUCTORS
    if table is None:  # pragma: no cover - the line above filled it
        raise TokenkitError("tiktoken has no table of encodings: this version of it is not understood.")
    if getattr(table.get("o200k_base"), "__globals__", {}).get("load_tiktoken_bpe") is not ranks:
        table.update(constructors(public))


def _encoding(name: str) -> Encoding:
    if name not in CARRIED:
        raise UserError(
            f"tokenkit does not carry the encoding {name!r} and downloads none. It counts with {', '.join(CARRIED)}, "
            f"or approximately with {CHARS!r}."
        )
    if name not in _built:
        import tiktoken  # here for the reason given in install

        install()
        _built[name] = tiktoken.get_encoding(name)
    return _built[name]


def _tokens(text: str, encoding: str) -> tuple[int, bool]:
    """Count ``text`` once and remember it; False beside a ceiling where tiktoken itself broke."""
    if encoding == CHARS:
        return -(-len(text) // 4), True
    key: tuple[str, str | bytes] = (encoding, text)
    if len(text) > _LONG:
        key = (encoding, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest())
    known = _seen.get(key)
    if known is None:
        try:
            known = len(encode(text, encoding)), True
        except _Panic:
            known = len(text.encode("utf-8", "surrogatepass")), False  # no token is shorter than a byte
        _seen.put(key, known)
    return known


class _Panic(TokenkitError):
    """tiktoken's Rust part panicked: a BaseException, which no ``except Exception`` of a caller would stop."""


def _ordinary(enc: Encoding, text: str) -> list[int]:
    try:
        return enc.encode_ordinary(text)
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _Panic(f"tiktoken could not encode a text of {len(text):,} characters with {enc.name}.") from None


def _sound(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates as tiktoken does, before a slice could part a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# A long run of like characters is one piece to the encoding's regular expression. tiktoken's time grows faster than
# such a piece (quadratically before 0.13), and a million blanks overflow the stack of its regex engine. So a piece is
# encoded in windows. That is exact: a sequence of tokens is the BPE encoding of its bytes if and only if each pair of
# neighbours is the encoding of *its* bytes; a window ends in a token with which the next one begins, so every pair of
# the joined sequence is a pair of some window.
_STRIDE = 8192  # characters in a window; runs shorter than two are left alone
_BACK = 16  # tokens before a window's end where the next begins: more than the 7 its last two characters can be
_RUN = re.compile(
    r"(?P<blank>[\t\x0b\x0c \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+)"
    r"|(?P<line>[\r\n]+)"
    r"|(?P<lower>[a-z\xdf-\xf6\xf8-\xff\u03b1-\u03c9\u0430-\u045f]+)"
    r"|(?P<upper>[A-Z]+)"
    r"|(?P<other>[\u05d0-\u05ea\u0620-\u063f\u0641-\u064a\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf"
    r"\u4e00-\u9fff\uac00-\ud7a3]+)"
    r"|(?P<sign>[!-.:-@\[-`{-~\u2500-\u25ff\U0001f300-\U0001f64f]+)"  # no slash: o200k lets it end an earlier piece
)


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Find the runs that may be cut: ``(some place near the start, end)``, by looking only every ``_STRIDE``."""
    at = 0
    while at < len(text):
        match = _RUN.match(text, at)
        end = match.end() if match else at
        if match and end - at >= 2 * _STRIDE and _cuttable(str(match.lastgroup), text[end : end + 1]):
            yield at, end
        at = max(end, at + _STRIDE)


def _cuttable(kind: str, follow: str) -> bool:
    """Say whether a shorter run before the same character ends its piece at the same place, in both patterns.

    Blanks before a line break belong to its piece; line breaks before blanks or a slash may too, depending on what
    came before; letters without lower case before other letters end where the last caseless one is.
    """
    if not follow or kind in ("lower", "sign"):
        return True
    if kind == "blank":
        return follow not in "\r\n"
    if kind == "line":
        return follow != "/" and not follow.isspace()
    category = unicodedata.category(follow)
    return category[0] not in "LM" and category != "Cn"  # Cn: a newer Unicode may know it as a letter


def _stitched(enc: Encoding, text: str, runs: Sequence[tuple[int, int]]) -> list[int] | None:
    """Encode in windows that share a token with the next; None where two windows disagree about theirs."""
    ids: list[int] = []
    at, shared = 0, None
    for start, end in runs:
        while (stop := max(at, start) + _STRIDE) <= end - _STRIDE:
            follow = text[end : end + 1]
            window = _ordinary(enc, text[at:stop] + follow)
            joint = _joint(enc, window)
            if joint is None or (shared is not None and window[0] != shared):
                return None
            keep, left = joint
            begin = stop + len(follow) - left
            if begin < max(at, start) + 4:  # a contraction or a leading sign may reach this far into a run
                return None
            ids += window[:keep]
            at, shared = begin, window[keep]
    rest = _ordinary(enc, text[at:])
    return None if shared is not None and rest[0] != shared else ids + rest


def _joint(enc: Encoding, window: Sequence[int]) -> tuple[int, int] | None:
    """Find the token near a window's end where a character begins: its index, and the characters from there on."""
    for index in range(len(window) - _BACK, max(len(window) - 2 * _BACK, 0), -1):
        tail = enc.decode_bytes(window[index:])
        if tail[0] & 0xC0 != 0x80:
            return index, len(tail.decode())
    return None


class _Remembered:
    """The last counts, by encoding and text, in a bounded number of entries and of characters held."""

    def __init__(self, entries: int, room: int) -> None:
        self.entries, self.room = entries, room
        self.held, self.counts, self.lock = (
            0,
            OrderedDict[tuple[str, str | bytes], tuple[int, bool]](),
            threading.Lock(),
        )

    def get(self, key: tuple[str, str | bytes]) -> tuple[int, bool] | None:
        with self.lock:
            known = self.counts.get(key)
            if known is not None:
                self.counts.move_to_end(key)
            return known

    def put(self, key: tuple[str, str | bytes], known: tuple[int, bool]) -> None:
        with self.lock:
            if key not in self.counts:
                self.held += len(key[1])
            self.counts[key] = known
            while len(self.counts) > self.entries or self.held > self.room:
                gone, _ = self.counts.popitem(last=False)
                self.held -= len(gone[1])

    def unlock(self) -> None:
        self.lock = threading.Lock()


_LONG = 16_384  # characters; a longer text is remembered by its digest, not held
_seen = _Remembered(entries=8192, room=4_000_000)
if hasattr(os, "register_at_fork"):  # another thread may hold the lock at a fork, and in the child nobody lets it go
    os.register_at_fork(after_in_child=_seen.unlock)


@lru_cache(maxsize=1024)
def _parts(model: str) -> tuple[str, str]:
    provider, _, _ = model.strip().lower().rpartition("/")
    name = model.strip().lower().rpartition("/")[2].removeprefix("ft:")
    return provider.partition("/")[0], name


def _tools_tokens(tools: Sequence[Tool], encoding: str) -> int:
    """Estimate what tool definitions cost, after the formula of OpenAI's cookbook for flat parameters."""
    if not tools:
        return 0

    def cost(text: str) -> int:
        return _tokens(text, encoding)[0]

    total = 12
    for tool in tools:
        total += (10 if encoding == "cl100k_base" else 7) + cost(f"{tool.name}:{tool.description.removesuffix('.')}")
        properties = tool.parameters.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            continue
        total += 3
        for key, value in properties.items():
            schema = value if isinstance(value, Mapping) else {}
            description = str(schema.get("description", "")).removesuffix(".")
            total += 3 + cost(f"{key}:{schema.get('type', '')}:{description}")
            choices = schema.get("enum") or ()
            total += sum(3 + cost(str(choice)) for choice in choices) - (3 if choices else 0)
            if not schema.keys() <= {"type", "description", "enum"}:  # what the formula does not know: as JSON
                total += cost(json.dumps(dict(schema), default=str, ensure_ascii=False))
    return total


def _image_tokens(image: Image, model: str) -> int:
    """Estimate a picture: 85 and 170 for each tile of 512 pixels after scaling (OpenAI's vision guide).

    gpt-4o-mini: 2833 and 5667. Claude: a token for 750 pixels, 1600 at most (Anthropic's vision guide). A picture of
    unknown size is taken as 1024 x 1024, which is 765 tokens, and for Claude as the largest.
    """
    size = _pixels(image.data) if image.data else None
    if "claude" in model:
        return 1600 if size is None else min(1600, -(-size[0] * size[1] // 750))
    base, tile = (2833, 5667) if model.startswith("gpt-4o-mini") else (85, 170)
    if image.detail == "low":
        return base
    width, height = size or (1024, 1024)
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    # Rounded, lest the last bit of a float open another tile.
    return base + tile * math.ceil(round(width * scale, 3) / 512) * math.ceil(round(height * scale, 3) / 512)


def _pixels(data: str) -> tuple[int, int] | None:
    """Read width and height, in pixels, from the head of a base64 PNG, GIF or JPEG; None for anything else."""
    head = data[:160_000]
    try:
        raw = base64.b64decode(head[: len(head) // 4 * 4])
    except ValueError:
        return None
    size = None
    if raw[:8] == b"\x89PNG\r\n\x1a\n":
        size = int.from_bytes(raw[16:20]), int.from_bytes(raw[20:24])
    elif raw[:4] == b"GIF8":
        size = int.from_bytes(raw[6:8], "little"), int.from_bytes(raw[8:10], "little")
    elif raw[:2] == b"\xff\xd8":
        at = 2
        while at + 9 <= len(raw) and raw[at] == 0xFF and size is None:
            # The frame header (C0 to CF, without the tables C4, C8, CC) holds the size; others are skipped by length.
            if raw[at + 1] in range(0xC0, 0xD0) and raw[at + 1] not in (0xC4, 0xC8, 0xCC):
                size = int.from_bytes(raw[at + 7 : at + 9]), int.from_bytes(raw[at + 5 : at + 7])
            at += 2 + int.from_bytes(raw[at + 2 : at + 4])
    return size if size is not None and min(size) > 0 else None
