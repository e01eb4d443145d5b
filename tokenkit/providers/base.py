"""What a provider is: a record and four pure functions; and what all share: folding a stream, reading Retry-After."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from tokenkit.effects import LocalCall, WireRequest
from tokenkit.errors import ProviderError
from tokenkit.types import Delta, Request, Response, Secret, ToolCall, ToolCallDelta, Usage

Feed = Callable[[bytes], list[Delta]]
"""A fresh decoder of one stream: fed bytes as they come, and ``b""`` at the end, where it raises if it was cut."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One place that answers. The four functions are the dialect; the rest says where and with which key.

    ``encode`` gets a request whose ``model`` is already the provider's own name for it; ``decode`` a whole body;
    ``feed`` makes a decoder for one stream; ``classify`` turns a failure status into an error. ``auth`` is the header
    and the prefix the key goes behind; ``local`` answers inside this process instead of the network; ``spare_keys``
    take turns with ``key``. Prompts are cached by themselves, or, where ``cache_field`` names one, for requests that
    have this field (as ``extra``).
    """

    name: str
    base_url: str
    encode: Callable[[Request, Provider], WireRequest]
    decode: Callable[[bytes], Response]
    feed: Callable[[], Feed]
    classify: Callable[[int, Mapping[str, str], bytes], ProviderError]
    key: Secret | None = None
    auth: tuple[str, str] = ("authorization", "Bearer ")
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    key_env: tuple[str, ...] = ()
    local: LocalCall | None = field(default=None, repr=False)
    spare_keys: tuple[Secret, ...] = field(default=(), repr=False)
    cache_field: str = ""

    def __repr__(self) -> str:
        return f"Provider({self.name}, {self.base_url}{', with a key' if self.key else ''})"

    def credentials(self) -> tuple[str, str, Secret] | None:
        """Return what the driver writes as the last header: name, prefix, key; ``None`` without a key."""
        return None if self.key is None else (*self.auth, self.key)


def gather(deltas: Iterable[Delta]) -> Response:
    """Fold the deltas of a stream into one response. Of each usage figure the last one that is known counts."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    usage: Usage | None = None
    finish = model = identifier = None
    for delta in deltas:
        texts.append(delta.text)
        thoughts.append(delta.reasoning)
        for part in delta.tool_calls:
            so_far = calls.get(part.index, ToolCallDelta(part.index))
            calls[part.index] = ToolCallDelta(
                part.index, so_far.id or part.id, so_far.name or part.name, so_far.arguments + part.arguments
            )
        usage = latest(usage, delta.usage)
        finish, model, identifier = delta.finish_reason or finish, delta.model or model, delta.id or identifier
    return Response(
        "".join(texts),
        model=model,
        finish_reason=finish,
        usage=usage,
        tool_calls=tuple(ToolCall(c.id or "", c.name or "", c.arguments) for _, c in sorted(calls.items())),
        reasoning="".join(thoughts),
        id=identifier,
    )


def latest(before: Usage | None, after: Usage | None) -> Usage | None:
    """Return the later usage, its unknown figures filled from the earlier: streams report totals, never increments."""
    if before is None or after is None:
        return after or before

    def pick(old: int | None, new: int | None) -> int | None:
        return old if new is None else new

    return Usage(
        pick(before.input_tokens, after.input_tokens),
        pick(before.output_tokens, after.output_tokens),
        pick(before.cache_read_input_tokens, after.cache_read_input_tokens),
        pick(before.cache_creation_input_tokens, after.cache_creation_input_tokens),
        pick(before.reasoning_output_tokens, after.reasoning_output_tokens),
        after.source,
    )


LONGEST_WAIT = 24 * 3600.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds a provider asks to wait, from whichever header says so; ``None`` where none does sensibly.

    Reads ``retry-after-ms``, ``retry-after`` in seconds or as a date, and OpenAI's ``x-ratelimit-reset-*`` durations
    such as ``6m0s``. ``now`` is Unix seconds. Negative, endless and malformed values are ignored.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return _sane(millis / 1000)
    said = headers.get("retry-after")
    if said is not None:
        seconds = _number(said)
        return _sane(seconds) if seconds is not None else _until(said, time.time() if now is None else now)
    resets = [_duration(headers[n]) for n in ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens") if n in headers]
    known = [seconds for seconds in resets if seconds is not None]
    return max(known) if known else None


def _number(text: str | None) -> float | None:
    return (
        float(text)
        if text is not None and re.fullmatch(r"\s*[+-]?(?:\d{1,300}\.?\d{0,300}|\.\d{1,300})\s*", text, re.ASCII)
        else None
    )


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_WAIT and not math.isnan(seconds) else None


def _until(date: str, now: float) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:  # HTTP dates are in GMT, said or not: never in the time of this machine
        when = when.replace(tzinfo=UTC)
    return _sane(max(when.timestamp() - now, 0.0))


def _duration(text: str) -> float | None:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return _sane(sum(float(number) * _UNITS[unit] for number, unit in parts))
