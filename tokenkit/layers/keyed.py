"""keyed: several keys of one provider take turns, and one that is refused is not used again.

A refused key (401, 403) is the key's fault, not the model's: the next key is tried at once, and only when none is left
does the call move on. A spent one (out of quota) rests for ``REST_SECONDS`` and is then tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from tokenkit.effects import Call, Flow
from tokenkit.errors import AuthError, QuotaExceeded
from tokenkit.receipts import Trail
from tokenkit.types import Request, Secret

REST_SECONDS = 600.0


class Keys:
    """The keys of one provider, used in turn. It shows how many there are, never what they are."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._keys = tuple(keys)
        self._next = 0
        self._resting: dict[int, float] = {}
        self._lock = Lock()

    def pick(self, now: float) -> int | None:
        """Return the place of the key whose turn it is at ``now`` (monotonic seconds); ``None`` when all are out."""
        with self._lock:
            for _ in self._keys:
                place, self._next = self._next, (self._next + 1) % len(self._keys)
                if self._resting.get(place, 0.0) <= now:
                    return place
        return None

    def __getitem__(self, place: int) -> Secret:
        return self._keys[place]

    def __len__(self) -> int:
        return len(self._keys)

    def refuse(self, place: int) -> None:
        """Never use this key again."""
        self._resting[place] = float("inf")

    def rest(self, place: int, now: float) -> None:
        """Let this key rest: its account has run out for now."""
        self._resting[place] = now + REST_SECONDS

    def __repr__(self) -> str:
        return f"Keys({len(self._keys) - len(self._resting)} of {len(self._keys)} in use)"


def keyed(
    keys_of: Callable[[str], Keys | None],
    sender: Callable[[Secret | None], Call],
    clock: Callable[[], float] = time.monotonic,
) -> Call:
    """Send with the provider's next key; ``sender`` makes the call that uses one. Other keys follow a refused one."""
    plain = sender(None)

    def flow(request: Request, trail: Trail) -> Flow:
        keys = keys_of(request.provider or "")
        if keys is None:
            return (yield from plain(request, trail))
        last: AuthError | QuotaExceeded | None = None
        for _ in range(len(keys)):
            place = keys.pick(clock())
            if place is None:
                break
            try:
                return (yield from sender(keys[place])(request, trail))
            except AuthError as error:
                keys.refuse(place)
                last = error
            except QuotaExceeded as error:
                keys.rest(place, clock())
                last = error
            trail.notes.append(f"key {place + 1} of {len(keys)} of {request.provider}: {type(last).__name__}")
        if last is not None:
            raise last
        said = f"All {len(keys)} keys of {request.provider} have been refused or are out of quota: set another one."
        raise AuthError(said, provider=request.provider, model=request.model)

    return flow
