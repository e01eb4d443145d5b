"""What somebody else's client answered, read by our own dialects: its objects become the JSON they came from.

Only named fields are looked at, each once, so that whatever has them is understood (an SDK's models, dictionaries,
namespaces, mocks), and no property runs that would count, warn or fetch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from tokenkit.errors import ProtocolError, ProviderError
from tokenkit.providers import anthropic, gemini, openai, responses
from tokenkit.providers.base import Feed, gather
from tokenkit.providers.shapes import record
from tokenkit.types import Delta, Response, Usage

Fields = Mapping[str, Any]
"""Which fields to read: ``None`` is a plain value, ``any`` whatever JSON can say, a mapping what lies within."""


class Dialect(NamedTuple):
    """How one kind of answer is read. ``usage`` reads the figures alone, where the rest is beyond us."""

    fields: Fields
    decode: Callable[[bytes], Response]
    feed: Callable[[], Feed]
    usage: Callable[[Mapping[str, Any]], Usage | None]
    camel: bool = False


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

DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(_CHAT, openai.decode, openai.feed, lambda said: openai.usage_of(said.get("usage"))),
    "responses": Dialect(
        # An event has a response within; its delta is text.
        {**_plainly("type delta output_index", item=_ITEM, response=_RESPONSE), **_RESPONSE},
        responses.decode,
        responses.feed,
        lambda said: responses.usage_of(said.get("usage")),
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
    ),
}
"""By the name of the shape."""


def plain(value: Any, fields: Any, camel: bool = False) -> Any:
    """Return ``value`` as JSON has it, as far as ``fields`` name it; what is of another kind is left out."""
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name  # an older SDK numbers its enums
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(fields, Mapping):
        if _is_list(value):
            return [plain(one, fields, camel) for one in value]
        found = ((name, plain(_field(value, name), inner, camel)) for name, inner in fields.items())
        return {_camel(name) if camel else name: one for name, one in found if one is not None}
    if fields is any and (isinstance(value, Mapping) or _is_list(value)):
        return json.loads(json.dumps(_whole(value)))
    return None


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _is_list(value: Any) -> bool:
    # A repeated field of protobuf is no list, but has its methods; a mock has all of them.
    return isinstance(value, list | tuple) or (isinstance(value, Iterable) and hasattr(type(value), "insert"))


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


class Hearing:
    """What has come of one answer, whole or in parts; ``refused`` is the provider's own word that it failed."""

    def __init__(self, shape: str) -> None:
        self._dialect = DIALECTS[shape]
        self._feed = self._dialect.feed()
        self._deltas: list[Delta] = []
        self._whole: Response | None = None
        self.refused: ProviderError | None = None

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self._whole is not None or bool(self._deltas)

    @property
    def response(self) -> Response:
        """What came so far: empty, where nothing did."""
        return self._whole if self._whole is not None else gather(self._deltas)

    def whole(self, answer: Any) -> None:
        """Take in a whole answer. Raises ProtocolError for one of another shape, its usage kept where it has one."""
        said = plain(answer, self._dialect.fields, self._dialect.camel)
        try:
            self._whole = self._dialect.decode(json.dumps(said).encode())
        except ProviderError as error:
            text, usage = _field(answer, "text"), self._dialect.usage(record(said))
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
            self._deltas += self._feed(b"data: " + json.dumps(said).encode() + b"\n\n")
        except ProtocolError:
            raise
        except ProviderError as error:
            self._deltas.append(Delta(usage=self._dialect.usage(record(said))))
            self.refused = error
