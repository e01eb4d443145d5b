"""From a failed answer to the one error that says what it means: by status, by the provider's code, by its wording."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenkit.errors import (
    AuthError,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    Overloaded,
    ProtocolError,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerError,
)
from tokenkit.providers.base import parse_retry_after

LONGEST_MESSAGE = 400

_KEYLIKE = re.compile(r"\b(?:sk|pk|rk|gsk|xai|key|AIza)[-_A-Za-z0-9*.…]{6,}|[Bb]earer\s+\S+|\b[A-Za-z0-9_-]{32,}\b")
# How vendors word an overflow: OpenAI and vLLM, Anthropic, Gemini, llama.cpp, Mistral, Groq, xAI, OpenRouter, Ollama.
_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:allowed )?context|prompt is too long|"
    r"input is too long|too many (?:input )?tokens|token count .{0,40}exceeds|maximum prompt length|too large for model"
    r"|exceeds? the (?:available )?context|reduce the length of the (?:messages|prompt|input)",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[ _](?:quota|balance|funds|credit)|credit balance|billing|exceeded your current quota", re.I
)
_FILTERED = re.compile(r"content[ _](?:filter|policy|management)|safety system|moderation|blocked by", re.IGNORECASE)
_LIMIT_THEN_NEED = (
    re.compile(
        r"(?:length|window|size) (?:is|of) ([\d,]+).{0,80}?(?:requested|resulted in|contains?|has) (?:about )?([\d,]+)",
        re.S,
    ),
)
_NEED_THEN_LIMIT = (
    re.compile(r"([\d,]+) tokens? (?:>|is more than|exceeds) (?:the )?(?:maximum )?(?:of )?([\d,]+)"),
    re.compile(r"\(([\d,]+)(?: tokens)?\) exceeds? the .{0,60}?\(([\d,]+)(?: tokens)?\)"),
    re.compile(r"([\d,]+) tokens.{0,60}?(?:maximum|limit)\D{0,40}([\d,]+)", re.S),
    re.compile(r"contains ([\d,]+) tokens.{0,80}?(?:maximum|limit)\D{0,40}([\d,]+)", re.S),
)


_BY_CODE: Mapping[str, type[ProviderError]] = {
    "authentication": AuthError,
    "invalid_api_key": AuthError,
    "permission": AuthError,
    "unauthenticated": AuthError,
    "rate_limit": RateLimited,
    "resource_exhausted": RateLimited,
    "overloaded": Overloaded,
    "unavailable": Overloaded,
}


def classify(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Turn a failure status into the error it means; the message is the provider's own, shortened and without keys."""
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, Mapping):
        return _not_json(status, headers, body)
    return failure(status, headers, data)


def failure(status: int | None, headers: Mapping[str, str], data: Mapping[str, Any]) -> ProviderError:
    """Turn an error object, of a failed answer or out of the middle of a stream, into the error it means."""
    inner = data.get("error")
    error = inner if isinstance(inner, Mapping) else {"message": inner if isinstance(inner, str) else _first(data)}
    message = str(error.get("message") or error.get("type") or "the provider gave no reason")
    code = next((str(v) for k in ("code", "type", "status") if (v := error.get(k)) not in (None, "")), None)
    numeric = error.get("code")
    if status is None and isinstance(numeric, int) and 400 <= numeric < 600:
        status = numeric
    kind = _kind(status, f"{code or ''} {error.get('type') or ''}".lower(), message)
    made = kind(
        safe(message),
        status=status,
        code=None if code is None else safe(code),
        retry_after=parse_retry_after(headers),
        request_id=headers.get("x-request-id") or headers.get("request-id"),
    )
    if isinstance(made, ContextOverflow):
        made.need, made.limit = need_and_limit(message, error)
    return made


def _kind(status: int | None, code: str, message: str) -> type[ProviderError]:
    """Pick the class: the provider's own code first, its wording where the status leaves doubt, then the status."""
    if "context_length" in code or (status in (None, 400, 413, 422, 500) and _OVERFLOW.search(message)):
        return ContextOverflow
    if _QUOTA.search(code) or status == 402 or (status in (None, 400, 403, 429) and _QUOTA.search(message)):
        return QuotaExceeded
    if _FILTERED.search(code) or (status in (None, 400, 403) and _FILTERED.search(message)):
        return ContentFiltered
    return next((kind for word, kind in _BY_CODE.items() if word in code), None) or _by_status(status)


def _by_status(status: int | None) -> type[ProviderError]:
    if status is None:
        return ServerError
    if status in (401, 403):
        return AuthError
    if status == 429:
        return RateLimited
    if status in (503, 529):
        return Overloaded
    if status >= 500 or status == 408:
        return ServerError
    return BadRequest if status >= 400 else ProtocolError


def _not_json(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    text = re.sub(r"<[^>]*>|\s+", " ", body[:4000].decode("utf-8", "replace")).strip()
    kind = ContextOverflow if status == 413 else _by_status(status)
    shown = f": {safe(re.sub(r' +', ' ', text))}" if text else " and an empty body"
    return kind(f"HTTP {status}{shown}", status=status, retry_after=parse_retry_after(headers))


def need_and_limit(message: str, error: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many tokens were needed and how many fit, from fields where there are any, else from the wording."""
    need, limit = error.get("n_prompt_tokens"), error.get("n_ctx")
    if isinstance(need, int) and isinstance(limit, int):
        return need, limit
    for pattern in _LIMIT_THEN_NEED:
        if match := pattern.search(message):
            return _int(match[2]), _int(match[1])
    for pattern in _NEED_THEN_LIMIT:
        if match := pattern.search(message):
            return _int(match[1]), _int(match[2])
    return None, None


def safe(text: str) -> str:
    """Shorten a provider's words and take out what looks like a key, even a shortened one."""
    text = _KEYLIKE.sub("[key]", text)
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def _int(text: str) -> int:
    return int(text.replace(",", ""))


def _first(data: Mapping[str, Any]) -> str:
    said = next((data[k] for k in ("message", "detail", "error_message", "msg") if data.get(k)), "")
    return said if isinstance(said, str) else json.dumps(said)[:LONGEST_MESSAGE]
