"""What a caller says and what a model answers: requests, messages, responses, usage, deltas.

Frozen, slotted and free of behaviour beyond small conversions. Counts are tokens, times are seconds, names are those
of the OpenTelemetry GenAI conventions with dots as underscores. Unknown is ``None``, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tokenkit.errors import UserError

if TYPE_CHECKING:
    from tokenkit.receipts import Plan, Receipt

UsageSource = Literal["reported", "counted", "estimated"]


class Secret:
    """A key that shows itself to nobody: not in repr, str, format, pickle, copy or comparison of text."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Return the key itself; called at the last moment, where the header is written."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("A Secret cannot be pickled or copied to another process.")


@dataclass(frozen=True, slots=True)
class Image:
    """A picture inside a message: a URL, or base64 ``data`` with its ``media_type``."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool; ``arguments`` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function a model may call; ``parameters`` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``content`` is text, or a tuple of text and :class:`Image` parts."""

    role: str
    content: str | tuple[str | Image, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the message, pictures left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures of the message, in order."""
        return () if isinstance(self.content, str) else tuple(p for p in self.content if isinstance(p, Image))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model. Everything a *layer* needs beyond this is given to the layer, not put here.

    ``model`` is ``"auto"``, a model name, or ``provider/name``; ``max_tokens`` bounds the answer in tokens;
    ``deadline`` is seconds for the whole call, retries and fallbacks included; ``extra`` goes to the wire as it is.
    ``budget`` is a limit for this request alone, ``compress`` what to shorten before it is planned; with ``changes``
    only edits to an earlier text of its session go out where that is cheaper; ``cache`` is how old an answer may be
    that is given again, in seconds. ``plan`` is written by the routed layer, for the layers inside it.
    """

    messages: tuple[Message, ...]
    model: str = "auto"
    provider: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    response_format: Mapping[str, Any] | None = None
    stream: bool = False
    deadline: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None
    session: str | None = None
    endpoint_name: str | None = None
    budget: Any = None
    compress: Any = None
    changes: bool = False
    cache: float | None = None
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer: ``input_tokens`` *includes* cache reads and creations, ``output_tokens`` reasoning.

    ``source`` is ``reported`` (by the provider), ``counted`` (exactly, by us) or ``estimated``.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    source: UsageSource = "reported"

    @property
    def total_tokens(self) -> int | None:
        """Input plus output; ``None`` when either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Add two usages; a count unknown in both stays unknown, and the weaker source wins."""
        weakest = max(self.source, other.source, key=("reported", "counted", "estimated").index)
        return Usage(
            _add(self.input_tokens, other.input_tokens),
            _add(self.output_tokens, other.output_tokens),
            _add(self.cache_read_input_tokens, other.cache_read_input_tokens),
            _add(self.cache_creation_input_tokens, other.cache_creation_input_tokens),
            _add(self.reasoning_output_tokens, other.reasoning_output_tokens),
            weakest,
        )


class TokenCount(NamedTuple):
    """A count of tokens: how many, whether it is exact for the model, and by which encoding."""

    tokens: int
    exact: bool
    encoding: str

    @property
    def upper_bound(self) -> int:
        """A count no provider should exceed: the count itself where exact, else with a third on top plus 16."""
        return self.tokens if self.exact else self.tokens + -(-self.tokens // 3) + 16


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of a tool call; fragments with one ``index`` belong together, ``arguments`` is appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of a streamed answer. A field that the step does not carry is empty or ``None``.

    ``phase`` opens a phase of a run made of several calls; the deltas after it belong to it.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    phase: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer. ``model`` is what the provider says answered; ``receipt`` is attached by the recorded layer."""

    text: str
    model: str | None = None
    provider: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    id: str | None = None
    receipt: Receipt | None = None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        head = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"Response({head!r}, model={self.model!r}, finish_reason={self.finish_reason!r})"

    def _repr_html_(self) -> str:
        from tokenkit._html import answer

        card = self.receipt._repr_html_() if self.receipt is not None else ""
        return answer(self.text) + card


Prompt = str | Message | Mapping[str, Any] | Iterable[Any]
"""What a caller may write where messages are wanted: text, a message, a dict, or a list of any of them."""


def messages_of(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """Turn what a caller wrote (text, a message, or a list of either, OpenAI-style dicts included) into messages.

    Raises UserError for an empty prompt, a message without a role, or content of an unknown shape.
    """
    head = () if system is None else (Message("system", system),)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError("The prompt is empty: there is nothing to send.")
        return (*head, Message("user", prompt))
    if isinstance(prompt, Message):
        return (*head, prompt)
    if isinstance(prompt, Mapping):
        return (*head, _message(prompt, 0))
    if isinstance(prompt, bytes | bytearray) or not isinstance(prompt, Iterable):
        raise UserError(f"A prompt is a text, a message or a list of messages, not {_kind(prompt)}.")
    messages = tuple(_message(item, i) for i, item in enumerate(prompt))
    if not messages:
        raise UserError("The list of messages is empty: there is nothing to send.")
    return head + messages


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"


def _message(item: Any, position: int) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, str):
        return Message("user", item)
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        raise UserError(
            f"Message {position} needs a 'role' and 'content', as in {{'role': 'user', 'content': 'Hello'}}."
        )
    if "content" not in item and not item.get("tool_calls"):
        raise UserError(f"Message {position} (role {item['role']!r}) has no 'content'.")
    calls = tuple(
        ToolCall(c.get("id", ""), c["function"]["name"], _as_json(c["function"].get("arguments", "")))
        for c in item.get("tool_calls") or ()
    )
    return Message(
        item["role"], _content(item.get("content"), position), item.get("name"), calls, item.get("tool_call_id")
    )


def _content(content: Any, position: int) -> str | tuple[str | Image, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return tuple(_part(part, position) for part in content)
    raise UserError(f"Message {position}: content must be text or a list of parts, not {type(content).__name__}.")


def _part(part: Any, position: int) -> str | Image:
    if isinstance(part, str | Image):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "image_url":
        link = part["image_url"]
        url, detail = (link, None) if isinstance(link, str) else (link["url"], link.get("detail"))
        return image_from_url(url, detail)
    raise UserError(f"Message {position}: a part of type {kind!r} is not understood; 'text' and 'image_url' are.")


def image_from_url(url: str, detail: str | None = None) -> Image:
    """Read an image part from a web address or a ``data:`` URL."""
    if url.startswith("data:") and ";base64," in url:
        media_type, data = url[5:].split(";base64,", 1)
        return Image(data=data, media_type=media_type or "image/png", detail=detail)
    return Image(url=url, detail=detail)


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _add(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


__all__ = [
    "Delta", "Image", "Message", "Request", "Response", "Secret", "TokenCount", "Tool", "ToolCall", "ToolCallDelta",
    "Usage", "UsageSource", "image_from_url", "messages_of", "replace",
]  # fmt: skip
