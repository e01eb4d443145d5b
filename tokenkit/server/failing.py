"""From an error to the status and the words an OpenAI client understands; nothing of ours or of a provider's leaks out.

Statuses and codes by OpenAI's guide, "Error codes"; its SDKs obey ``x-should-retry`` before they judge for themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokenkit import errors
from tokenkit.errors import AllFailed, NoRoute, ProviderError, TokenkitError, UserError
from tokenkit.providers.masking import safe, sound
from tokenkit.server.fields import Malformed
from tokenkit.server.writing import headers_of

LONGEST = 600
"""Characters of a message: what a client sent may come back in it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that says what went wrong. ``again`` says whether the same request may succeed, and ``after`` when."""

    status: int
    message: str
    kind: str
    code: str | None = None
    param: str | None = None
    again: bool = False
    after: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        said = sound(self.message if len(self.message) <= LONGEST else self.message[: LONGEST - 1] + "…")
        return {"error": {"message": said, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self, receipt: Any = None) -> dict[str, str]:
        """The headers beside it: whether and when to try again, and the receipt of the call that failed."""
        made = {"x-should-retry": "true" if self.again else "false", **headers_of(receipt)}
        if self.again and self.status in (429, 503):
            made["retry-after"] = str(max(1, math.ceil(self.after or 1)))
        return made


def bad(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Failure:
    """Return the failure for a request that is itself at fault."""
    return Failure(status, message, "invalid_request_error", code, param)


BUSY = Failure(503, "This server is as busy as it may be: try again in a moment.", "overloaded_error", "server_busy",
               again=True)  # fmt: skip
BROKEN = Failure(500, "This server made a mistake, which its log describes.", "server_error", "internal_error")


def failure_of(error: TokenkitError) -> Failure:
    """Return what to answer for an error of the kit's."""
    if isinstance(error, UserError):
        return _of_caller(error)
    if isinstance(error, errors.BudgetExceeded):
        return Failure(429, str(error), "insufficient_quota", "budget_exceeded")
    if isinstance(error, AllFailed):
        return _of_all(error)
    if isinstance(error, ProviderError):
        return _of_provider(error)
    if isinstance(error, errors.DeadlineExceeded):
        return Failure(504, str(error), "timeout_error", "deadline_exceeded")
    if isinstance(error, errors.TransportError):
        return Failure(502, f"The provider could not be reached: {error}", "upstream_error", "upstream_unreachable",
                       again=True)  # fmt: skip
    if isinstance(error, errors.LedgerError):
        # Its words name files of this machine.
        return Failure(503, "The ledger cannot be read or written just now.", "server_error", "ledger", again=True)
    return BROKEN


def _of_caller(error: UserError) -> Failure:
    if isinstance(error, Malformed):
        return bad(str(error), error.param)
    if isinstance(error, errors.UnknownModel):
        return bad(str(error), "model", "model_not_found", 404)
    if isinstance(error, errors.VaultError):
        return Failure(503, "The vault with the keys is not open.", "server_error", "vault")
    if isinstance(error, NoRoute):
        if any("breaker" in why for _, why in error.reasons):
            return Failure(503, str(error), "overloaded_error", "no_route", again=True, after=30)
        return bad(str(error), "model", "no_route")
    return bad(str(error))


def _of_provider(error: ProviderError) -> Failure:
    name = error.provider or "the provider"
    match error:
        case errors.AuthError():
            # Not 401, which would send the caller looking for a mistake in a key of its own.
            said = f"{name} did not accept the key this server has for it: whoever runs the server must mend that."
            return Failure(502, said, "upstream_error", "upstream_auth")
        case errors.QuotaExceeded():
            return Failure(429, _said(error), "insufficient_quota", "insufficient_quota")
        case errors.RateLimited():
            return Failure(429, _said(error), "rate_limit_error", "rate_limit_exceeded", None, True, error.retry_after)
        case errors.ContextOverflow():
            return bad(_said(error), "messages", "context_length_exceeded")
        case errors.ContentFiltered():
            return bad(_said(error), "messages", "content_filter")
        case errors.BadRequest():
            return bad(_said(error), None, _code(error), 404 if error.status == 404 else 400)
        case errors.Overloaded() | errors.BrokenOff():
            return Failure(503, _said(error), "overloaded_error", "overloaded", None, True, error.retry_after)
    return Failure(502, _said(error), "upstream_error", "upstream_error", again=error.transient)


def _of_all(error: AllFailed) -> Failure:
    """Judge a plan that failed whole by its most hopeful failure: what may pass with time makes all of it so."""
    found = [
        (model, failure_of(cause)) if isinstance(cause, TokenkitError) else (model, BROKEN)
        for model, cause in error.causes
    ]
    if not found:
        return Failure(502, "No model answered.", "upstream_error", "all_failed")
    lines = "; ".join(f"{model}: {failure.message.rstrip('.')}" for model, failure in found)
    said = f"All {len(found)} models failed. {lines}."
    statuses = {failure.status for _, failure in found}
    waits = [failure.after or 1 for _, failure in found if failure.again and failure.status in (429, 503)]
    if len(statuses) == 1:
        first = found[0][1]
        after = min(waits) if waits else None
        return Failure(first.status, said, first.kind, first.code, first.param, first.again, after)
    if waits:
        return Failure(503, said, "overloaded_error", "all_failed", None, True, min(waits))
    return Failure(502, said, "upstream_error", "all_failed", again=any(failure.again for _, failure in found))


def _said(error: ProviderError) -> str:
    text = safe(str(error))
    return f"{error.provider}: {text}" if error.provider else text


def _code(error: ProviderError) -> str | None:
    return None if error.code is None else safe(str(error.code))[:80]
