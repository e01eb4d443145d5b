"""What somebody else's client answered, read by our own dialects: its objects become the JSON they came from.

Only named fields are looked at, each once, so that whatever has them is understood (an SDK's models, dictionaries,
namespaces, mocks), and no property runs that would count, warn or fetch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from functools import lru_cache, reduce
from operator import add
from typing import Any, NamedTuple

from tokenkit.errors import ProtocolError, ProviderError
from tokenkit.providers import anthropic, completions, gemini, openai, responses
from tokenkit.providers.base import Feed, gather
from tokenkit.providers.shapes import body_of, count, record, word
from tokenkit.types import Delta, Response, Usage

Fields = Mapping[str, Any]
"""Which fields to read: ``None`` is a plain value, ``any`` whatever JSON can say, a mapping what lies within."""


class Dialect(NamedTuple):
    """How one kind of answer is read. ``usage`` reads the figures alone, where the rest is beyond us.

    ``rounds``: the client asks again by itself, so that one stream holds several answers, each with its usage.
    """

    fields: Fields
    decode: Callable[[bytes], Response]
    feed: Callable[[], Feed]
    usage: Callable[[Mapping[str, Any]], Usage | None]
    camel: bool = False
    rounds: bool = False


def _plainly(names: str, **inner: Any) -> Fields:
    return {**dict.fromkeys(names.split()), **inner}


_FUNCTION = _plainly("index id type", function=_plainly("name arguments"))
_SAID = _plainly("content refusal reasoning_content reasoning", content=any, tool_calls=_FUNCTION)
_CHAT = _plainly(
    "id model",
    choices=_plainly("index finish_reason", message=_SAID, delta=_SAID),
    usage=_plainly(
        "prompt_tokens completion_tokens total_tokens prompt_cache_hit_tokens",
        prompt_tokens_details=_plainly("cached_tokens cache_write_tokens"),
        completion_tokens_details=_plainly("reasoning_tokens"),
    ),
    error=_plainly("message type code"),
)

_COMPLETION = {**_CHAT, "choices": _plainly("index finish_reason text")}
_EMBEDDED = _plainly(
    "model",
    usage=_plainly("prompt_tokens"),
    usage_metadata=_plainly("prompt_token_count"),
    error=_plainly("message type code"),
)

_TEXTS = _plainly("type text refusal")
_ITEM = _plainly("type call_id name arguments", content=_TEXTS, summary=_TEXTS)
_RESPONSE = _plainly(
    "id model status",
    output=_ITEM,
    incomplete_details=_plainly("reason"),
    usage=_plainly(
        "input_tokens output_tokens",
        input_tokens_details=_plainly("cached_tokens"),
        output_tokens_details=_plainly("reasoning_tokens"),
    ),
    error=_plainly("message type code"),
)

_USED = _plainly(
    "input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens",
    output_tokens_details=_plainly("thinking_tokens"),
)
_BLOCK = _plainly("type id name text thinking", input=any)
_MESSAGE = _plainly("id model stop_reason", content=_BLOCK, usage=_USED, error=_plainly("message type"))

_PART = _plainly("text thought", function_call=_plainly("id name", args=any))
_USAGE_METADATA = _plainly(
    "prompt_token_count tool_use_prompt_token_count candidates_token_count thoughts_token_count total_token_count "
    "cached_content_token_count"
)


def _embedded(said: Mapping[str, Any]) -> Response:
    """Read what an answer with vectors cost; the vectors themselves are the caller's, and nothing was written."""
    used = count(record(said.get("usage")).get("prompt_tokens"))
    if used is None:
        used = count(record(said.get("usage_metadata")).get("prompt_token_count"))
    usage = Usage(used, 0)
    return Response("", model=word(said.get("model")), finish_reason="stop", usage=usage)


DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(_CHAT, openai.decode, openai.feed, lambda said: openai.usage_of(said.get("usage"))),
    "responses": Dialect(
        # An event has a response within; its delta is text.
        {**_plainly("type delta output_index", item=_ITEM, response=_RESPONSE), **_RESPONSE},
        responses.decode,
        responses.feed,
        lambda said: responses.usage_of(said.get("usage") or record(said.get("response")).get("usage")),
    ),
    "completions": Dialect(
        _COMPLETION, completions.decode, completions.feed, lambda said: openai.usage_of(said.get("usage"))
    ),
    "embeddings": Dialect(
        _EMBEDDED, lambda body: _embedded(body_of(body)), openai.feed, lambda said: _embedded(said).usage
    ),
    "anthropic": Dialect(
        {
            **_plainly("type index", message=_MESSAGE, content_block=_BLOCK),
            "delta": _plainly("type text thinking partial_json stop_reason"),
            **_MESSAGE,
        },
        anthropic.decode,
        anthropic.feed,
        lambda said: anthropic.usage_of(record(said.get("usage"))),
    ),
    "gemini": Dialect(
        _plainly(
            "model_version response_id",
            candidates=_plainly("finish_reason", content={"parts": _PART}),
            usage_metadata=_USAGE_METADATA,
            prompt_feedback=_plainly("block_reason"),
        ),
        gemini.decode,
        gemini.feed,
        lambda said: gemini.usage_of(record(said.get("usageMetadata")), final=True),
        camel=True,
        rounds=True,
    ),
}
"""By the name of the shape."""


def plain(value: Any, fields: Any, camel: bool = False) -> Any:
    """Return ``value`` as JSON has it, as far as ``fields`` name it; what is of another kind is left out."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name  # an older SDK numbers its enums
    if isinstance(value, str | int | float):
        return value
    if isinstance(fields, Mapping):
        if _is_list(value):
            return [plain(one, fields, camel) for one in value]
        found = ((name, one, inner) for name, inner in fields.items() if (one := field(value, name)) is not None)
        read = ((name, plain(one, inner, camel)) for name, one, inner in found)
        return {_camel(name) if camel else name: one for name, one in read if one is not None}
    if fields is any and (isinstance(value, Mapping) or _is_list(value)):
        return json.loads(json.dumps(_whole(value)))
    return None


def field(value: Any, name: str) -> Any:
    """Return a field of an object or a mapping; None where it has none, or will not give it."""
    try:
        if isinstance(value, Mapping):
            return value.get(name)
        if type(extra := getattr(value, "__pydantic_extra__", None)) is dict:  # pydantic is slow to say that it has not
            return vars(value).get(name, extra.get(name))
        return getattr(value, name, None)
    except Exception:  # a property of somebody else's may raise anything
        return None


def _is_list(value: Any) -> bool:
    return _holds_items(type(value))  # type: ignore[arg-type]  # a class is hashable, Any's too


@lru_cache(maxsize=512)
def _holds_items(kind: type) -> bool:
    # A repeated field of protobuf is no list, but has its methods; a mock has all of them. Asking a class of pydantic's
    # for a name that it lacks takes longer than reading a chunk.
    return issubclass(kind, list | tuple) or (issubclass(kind, Iterable) and hasattr(kind, "insert"))


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _whole(one) for name, one in value.items()}
    if _is_list(value):
        return [_whole(one) for one in value]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return {name: _whole(one) for name, one in vars(value).items() if not name.startswith("_")}
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def is_raw(result: Any) -> bool:
    """Return whether this is an SDK's raw response, which gives the answer when it is told to parse itself."""
    return field(result, "http_response") is not None and hasattr(type(result), "parse")


class Hearing:
    """What has come of one answer, whole or in parts; ``refused`` is the provider's own word that it failed."""

    def __init__(self, dialect: str) -> None:
        self._dialect = DIALECTS[dialect]
        self._feed = self._dialect.feed()
        self._rounds: list[list[Delta]] = [[]]
        self._whole: Response | None = None
        self.refused: ProviderError | None = None

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self._whole is not None or self._rounds != [[]]

    @property
    def finished(self) -> bool:
        """Whether the answer has come to its end, read to there or not."""
        return self._whole is not None or self.response.finish_reason is not None

    @property
    def response(self) -> Response:
        """What came so far: empty, where nothing did."""
        if self._whole is not None:
            return self._whole
        answer = gather(delta for deltas in self._rounds for delta in deltas)
        used = [usage for deltas in self._rounds if (usage := gather(deltas).usage) is not None]
        return answer if len(used) < 2 else replace(answer, usage=reduce(add, used))

    def whole(self, answer: Any) -> None:
        """Take in a whole answer. Raises ProtocolError for one of another shape, its usage kept where it has one."""
        said = plain(answer, self._dialect.fields, self._dialect.camel)
        try:
            self._whole = self._dialect.decode(json.dumps(said).encode())
        except ProviderError as error:
            text, usage = field(answer, "text"), self._dialect.usage(record(said))
            self._whole = Response(text if isinstance(text, str) else "", usage=usage)
            if isinstance(error, ProtocolError):
                if usage is None and not self._whole.text:
                    raise
                return  # not all of it is there, as in a mock; what is there counts
            self.refused = error

    def part(self, chunk: Any) -> None:
        """Take in one part of a stream. Raises ProtocolError for one of another shape."""
        said = plain(chunk, self._dialect.fields, self._dialect.camel)
        try:
            deltas = self._feed(b"data: " + json.dumps(said).encode() + b"\n\n")
        except ProtocolError:
            raise
        except ProviderError as error:
            deltas = [Delta(usage=self._dialect.usage(record(said)))]
            self.refused = error
        for delta in deltas:
            if self._dialect.rounds and _begins_anew(self._rounds[-1], delta):
                self._rounds.append([])
            self._rounds[-1].append(delta)


def _begins_anew(deltas: list[Delta], delta: Delta) -> bool:
    """Return whether a delta is of another answer than those before, which had ended."""
    ended = any(one.finish_reason is not None for one in deltas)
    return ended and delta.id is not None and all(one.id != delta.id for one in deltas)
