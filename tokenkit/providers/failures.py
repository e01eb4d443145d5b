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
from tokenkit.providers.masking import LONGEST_READ, safe
from tokenkit.providers.shapes import count

# How vendors word an overflow: OpenAI and vLLM, Anthropic, Gemini, llama.cpp, Mistral, Groq, xAI, OpenRouter, Ollama,
# Together.
_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:allowed )?context|prompt (?:is )?too long|"
    r"input is too long|too many (?:input )?tokens|token count .{0,40}exceeds|maximum prompt length|too large for model"
    r"|exceeds? the (?:available )?context|reduce the length of the (?:messages|prompt|input)"
    r"|input tokens exceed|tokens.{0,40} must be <=",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[ _](?:quota|balance|funds|credit)|credit balance|billing|exceeded your current quota"
    r"|spending limit|(?:any|no|out of|available|purchase) credits",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content[ _](?:filter|policy|management)|safety system|moderation|blocked by", re.IGNORECASE)
# xAI and Gemini say 400 to a wrong key.
_UNAUTHENTIC = re.compile(r"(?:incorrect|invalid) api[ _-]?key|api[ _-]?key not valid", re.IGNORECASE)
_COUNT = r"(\d[\d,]{0,14})"
_LIMIT_THEN_NEED = (
    re.compile(
        rf"(?:length|window|size|limit) (?:is|of) {_COUNT}.{{0,80}}?(?:requested|resulted in|contains?|has)"
        rf" (?:about )?{_COUNT}",
        re.DOTALL,
    ),
    re.compile(rf"must be <= {_COUNT}\. Given: {_COUNT}"),
    re.compile(rf"Limit {_COUNT}, Requested {_COUNT}"),
)
_NEED_THEN_LIMIT = (
    re.compile(rf"{_COUNT} tokens? (?:>|is more than|exceeds) (?:the )?(?:maximum )?(?:of )?{_COUNT}"),
    re.compile(rf"\({_COUNT}(?: tokens)?\) exceeds? the .{{0,60}}?\({_COUNT}(?: tokens)?\)"),
    re.compile(rf"contains {_COUNT} tokens.{{0,60}}? with {_COUNT} maximum", re.DOTALL),
    re.compile(rf"{_COUNT} tokens.{{0,60}}?(?:maximum|limit)\D{{0,40}}{_COUNT}", re.DOTALL),
)
_WAIT = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d+(?:\.\d+)?) ?s(?:econds?)?\b|((?:\d+(?:\.\d+)?(?:ms|[smhd]))+))"
)

_BY_CODE: Mapping[str, type[ProviderError]] = {
    "authentication": AuthError,
    "invalid_api_key": AuthError,
    "permission": AuthError,
    "unauthenticated": AuthError,
    "rate_limit": RateLimited,
    "resource_exhausted": RateLimited,
    "overloaded": Overloaded,
    "capacity": Overloaded,
    "unavailable": Overloaded,
}


def classify(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Turn a failure status into the error it means; the message is the provider's own, shortened and without keys."""
    if 300 <= status < 400:
        return _moved(status, headers)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, Mapping):
        return _not_json(status, headers, body)
    return failure(status, headers, data)


def failure(status: int | None, headers: Mapping[str, str], data: Mapping[str, Any]) -> ProviderError:
    """Turn an error object, of a failed answer or out of the middle of a stream, into the error it means.

    A stream has no ``status`` to give; the error of one has none either, but is read by the number in its code.
    """
    error = _error_in(data)
    message = _said(error) or "the provider gave no reason"
    words = [str(v) for k in ("code", "type", "status") if isinstance(v := error.get(k), str | int) and v != ""]
    number = next((int(w) for w in words if re.fullmatch(r"[45]\d\d", w)), None) if status is None else status
    kind = _kind(number, status is None, " ".join(words).lower()[:LONGEST_READ], message)
    made = kind(
        safe(message),
        status=status,
        code=safe(words[0]) if words else None,
        retry_after=_wait(headers, message),
        request_id=headers.get("x-request-id") or headers.get("request-id"),
    )
    if isinstance(made, ContextOverflow):
        made.need, made.limit = need_and_limit(message, error)
    return made


def _error_in(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error object: under ``error``, or the whole, as vLLM, Mistral and FastAPI have it."""
    inner = data.get("error")
    if isinstance(inner, Mapping):
        return inner
    return {**data, "message": inner} if isinstance(inner, str) and inner else data


def _said(error: Mapping[str, Any]) -> str:
    """Return what an error object says, in the first of the fields where vendors say it."""
    said = next((error[k] for k in ("message", "detail", "error_message", "msg", "error", "type") if error.get(k)), "")
    return (said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))[:LONGEST_READ]


def _wait(headers: Mapping[str, str], message: str) -> float | None:
    """Return the seconds to wait: as Retry-After says, else as the message words it, else as other headers do.

    OpenAI's headers tell when a limit is whole again, its message when the next request may come.
    """
    if "retry-after" not in headers and "retry-after-ms" not in headers and (match := _WAIT.search(message)):
        return parse_retry_after({"retry-after": match[1]} if match[1] else {"x-ratelimit-reset-tokens": match[2]})
    return parse_retry_after(headers)


def _kind(status: int | None, streamed: bool, code: str, message: str) -> type[ProviderError]:
    """Pick the class: the provider's own code first, its wording where the status leaves doubt, then the status."""
    if "context_length" in code or (status in (None, 400, 413, 422, 500) and _OVERFLOW.search(message)):
        return ContextOverflow
    # OpenAI's advice on how to raise a rate limit speaks of billing.
    doubtful = status in (None, 400, 403, 429) and "rate_limit" not in code
    if _QUOTA.search(code) or status == 402 or (doubtful and _QUOTA.search(message)):
        return QuotaExceeded
    if _FILTERED.search(code) or (status in (None, 400, 403) and _FILTERED.search(message)):
        return ContentFiltered
    if status in (None, 400) and _UNAUTHENTIC.search(message):
        return AuthError
    found = next((kind for word, kind in _BY_CODE.items() if word in code), None)
    if found is None and status is None and streamed and ("invalid" in code or "bad_request" in code):
        return BadRequest
    return found or _by_status(status)


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


def _moved(status: int, headers: Mapping[str, str]) -> ProviderError:
    place = f" to {safe(headers['location'])}" if "location" in headers else ""
    error = ProtocolError(
        f"HTTP {status}: this address has moved{place}. A key follows no redirect: set base_url to the new address.",
        status=status,
    )
    error.transient = False  # asked again, it says the same
    return error


def _not_json(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    page = body[:LONGEST_READ].decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style)\b.*?(?:</\1>|$)|<[^>]*>|\s+", " ", page)
    text = re.sub(r" +", " ", text).strip()
    kind = ContextOverflow if status == 413 else _by_status(status)
    shown = f": {safe(text)}" if text else " and an empty body"
    return kind(f"HTTP {status}{shown}", status=status, retry_after=parse_retry_after(headers))


def need_and_limit(message: str, error: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many tokens were needed and how many fit, from fields where there are any, else from the wording.

    A need that would fit is none: vLLM, for one, tells the prompt alone where prompt and answer together are too much.
    """
    need, limit = count(error.get("n_prompt_tokens")), count(error.get("n_ctx"))  # llama.cpp
    if need is not None and limit is not None:
        return need, limit
    need, limit = _worded(message[:LONGEST_READ])
    return (None if need is not None and limit is not None and need <= limit else need), limit


def _worded(message: str) -> tuple[int | None, int | None]:
    for pattern in _LIMIT_THEN_NEED:
        if match := pattern.search(message):
            return _int(match[2]), _int(match[1])
    for pattern in _NEED_THEN_LIMIT:
        if match := pattern.search(message):
            return _int(match[1]), _int(match[2])
    # OpenAI and vLLM may tell the limit and leave it at that.
    match = re.search(rf"(?:length|window|size|limit) (?:is|of) {_COUNT}", message)
    return None, _int(match[1]) if match else None


def _int(text: str) -> int:
    return int(text.replace(",", ""))


__all__ = ["classify", "failure", "need_and_limit", "safe"]
