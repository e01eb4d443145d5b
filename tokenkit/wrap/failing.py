"""What somebody else's error says about money: whether anything was answered, or at least sent, before it was raised.

Errors are known by their shape and their names, as clients are. As for our own tries: what never left, or was refused
with an error status, costs nothing; everything else costs at least its input.
"""

from __future__ import annotations

from typing import Any

from tokenkit.wrap.reading import field

_UNREAD = ("ValidationError", "JSONDecodeError", "ContentFilterFinishReasonError", "APIResponseValidationError")
_SENT = ("ReadTimeout", "WriteTimeout", "ReadError", "WriteError", "RemoteProtocolError", "ServerDisconnectedError",
         "ClientPayloadError", "IncompleteRead", "ChunkedEncodingError", "SocketTimeoutError")  # fmt: skip


def answer_in(stop: BaseException) -> Any:
    """Return the whole answer that an error carries, as OpenAI's do where an answer was cut; None without one."""
    return field(stop, "completion")


def status_of(stop: BaseException | None) -> int | None:
    """Return the HTTP status an error was made from."""
    for name in ("status_code", "code"):
        status = field(stop, name)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None


def unread(stop: BaseException) -> bool:
    """Return whether there was an answer that the client could not make sense of."""
    return any(kind.__name__ in _UNREAD for kind in type(stop).__mro__)


def billed(stop: BaseException) -> bool:
    """Return whether a call that ended so, with nothing heard of its answer, may have cost something."""
    if not isinstance(stop, Exception):  # stopped by the caller, while the provider was at work
        return True
    status = status_of(stop)
    if status is not None:
        return 200 <= status < 300
    return unread(stop) or any(kind.__name__ in _SENT for one in _causes(stop) for kind in type(one).__mro__)


def _causes(stop: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = stop
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found
