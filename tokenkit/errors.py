"""Every way a call can fail, as one tree whose messages are prose.

    TokenkitError
    ├── UserError               the caller's mistake: one line, no traceback in a notebook
    │   ├── ConfigError           tokenkit.toml, environment or argument; carries every problem at once
    │   ├── UnknownModel          a model or provider nobody configured; says what was meant
    │   ├── NoRoute               every candidate was rejected before anything was sent
    │   └── VaultError            the key vault is locked, damaged or not there
    ├── BudgetExceeded          a policy said no before anything was sent
    ├── ProviderError           a provider answered, and the answer was a failure
    │   ├── AuthError             401, 403: the key is missing, wrong or revoked
    │   ├── RateLimited           429 that passes with time; retry_after in seconds
    │   ├── QuotaExceeded         429 or 402 that does not pass with time
    │   ├── ContextOverflow       the prompt is larger than the window; need and limit in tokens
    │   ├── Overloaded            503, 529: the provider is full
    │   ├── BadRequest            400, 404, 422: the request itself is at fault
    │   ├── ContentFiltered       the provider refused the content
    │   ├── BrokenOff             not asked at all: its circuit breaker is open
    │   ├── ServerError           500, 502, 504: the provider broke
    │   └── ProtocolError         the bytes were not what the dialect promises
    ├── TransportError          no answer: refused, reset, cut, timed out on one operation
    ├── DeadlineExceeded        the call's own deadline passed
    ├── AllFailed               every candidate of the plan was tried; carries the attempts
    └── LedgerError             the journal or the ledger could not be read or written

``transient`` tells the retrying layer whether the same request may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class TokenkitError(Exception):
    """The root of every error this package raises on purpose.

    ``receipt`` is the receipt of the call that failed, once it has been settled.
    """

    transient: bool = False
    receipt: Any = None

    @property
    def kind(self) -> str:
        """The class name in snake_case: what receipts and the ledger store as ``error_type``."""
        name = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class UserError(TokenkitError):
    """A mistake of the caller's: shown as one line in a notebook."""


class ConfigError(UserError):
    """One or more things wrong with a configuration, all reported together.

    ``problems`` is a tuple of sentences, each naming the file, the key and (never for secrets) the value.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class UnknownModel(UserError):
    """A model or provider name that matches nothing configured."""

    def __init__(self, name: str, known: Sequence[str], what: str = "model") -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(f"There is no {what} {name!r}. {did_you_mean(name, known)}")


class NoRoute(UserError):
    """No candidate is eligible; nothing was sent. ``reasons`` maps model to why it was rejected."""

    def __init__(self, message: str, reasons: Iterable[tuple[str, str]] = ()) -> None:
        self.reasons = tuple(reasons)
        detail = "; ".join(f"{model}: {why}" for model, why in self.reasons)
        super().__init__(f"{message} {detail}".strip())


class BudgetExceeded(TokenkitError):
    """A budget refused the call before anything was sent; with ``reroute`` another model may still take it."""

    reroute = False


class ProviderError(TokenkitError):
    """A provider's answer was a failure.

    ``status`` is the HTTP status (``None`` inside a stream that began with 200), ``retry_after`` seconds,
    ``code`` the provider's own word for it, ``request_id`` its identifier for support.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider, self.model, self.status, self.code = provider, model, status, code
        self.retry_after, self.request_id = retry_after, request_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class AuthError(ProviderError):
    """The key is missing, wrong or revoked: retrying with the same key cannot help."""


class RateLimited(ProviderError):
    """Too many requests or tokens for now; ``retry_after`` says until when, where the provider does."""

    transient = True


class QuotaExceeded(ProviderError):
    """The account has run out of credit or quota: waiting does not help, another provider may."""


class ContextOverflow(ProviderError):
    """The prompt does not fit the model's window. ``need`` and ``limit`` in tokens, where known."""

    need: int | None = None
    limit: int | None = None


class Overloaded(ProviderError):
    """The provider is at capacity."""

    transient = True


class BadRequest(ProviderError):
    """The request itself is at fault; no retry and no other model would make it right."""


class ContentFiltered(ProviderError):
    """The provider's safety system refused the prompt or the answer."""


class BrokenOff(ProviderError):
    """Nothing was sent: the model's circuit breaker is open, or it is over a limit of ours."""


class ServerError(ProviderError):
    """The provider broke while answering."""

    transient = True


class ProtocolError(ProviderError):
    """The answer was not what the dialect promises: HTML, an empty body, a cut or malformed stream."""

    transient = True


class TransportError(TokenkitError):
    """Nothing came back: the connection was refused, reset or cut, or one operation timed out.

    ``sent`` is False only when the request certainly never left: such a try cannot have been billed.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class DeadlineExceeded(TokenkitError):
    """The call's own deadline passed; what had been sent is accounted for."""


class AllFailed(TokenkitError):
    """Every candidate was tried. ``causes`` lists ``(model, error)`` in the order tried."""

    def __init__(self, causes: Iterable[tuple[str, BaseException]]) -> None:
        self.causes = tuple(causes)
        lines = "; ".join(f"{model}: {type(e).__name__}: {e}" for model, e in self.causes)
        super().__init__(f"All {len(self.causes)} candidates failed. {lines}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.causes,)


class VaultError(UserError):
    """The key vault could not be opened, read or written."""


class LedgerError(TokenkitError):
    """The journal or the ledger could not be read or written."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a sentence that offers the nearest known names, or lists them when few."""
    near = get_close_matches(name.lower(), known, n=2, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return "None are known here."
    shown = ", ".join(sorted(known)[:12])
    return f"Known here: {shown}{' …' if len(known) > 12 else ''}."


def _rebuild(cls: type[ProviderError], args: tuple[object, ...], state: dict[str, object]) -> ProviderError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
