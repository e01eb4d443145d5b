"""A circuit breaker as a state machine: closed, open, half open; the clock is passed in.

It opens for ``window`` seconds when most of the last outcomes were failures; then one probe may pass, and its outcome
decides. So a provider that is down is asked once per window, however many callers wait for it; one that fails now and
then stays in use, because asking it is still worth more than not asking: a rule of so many failures in a row would
shut out a provider that fails three times in ten every few hundred calls.
"""

from __future__ import annotations

from collections import deque
from threading import Lock


class Breaker:
    """The breaker of one provider and model. ``admit``, then exactly one of ``succeeded``, ``failed``, ``released``."""

    def __init__(self, failures: int = 5, window: float = 30.0, *, share: float = 0.8, memory: int = 20) -> None:
        self.failures, self.window, self.share = failures, window, share
        self._outcomes: deque[bool] = deque(maxlen=memory)
        self._opened_at: float | None = None
        self._probing_since: float | None = None
        self._lock = Lock()

    def admit(self, now: float) -> bool:
        """Return whether a call may pass at ``now`` (monotonic seconds); after the window the first is the probe."""
        with self._lock:
            if self._opened_at is None:
                return True
            if now < self._opened_at + self.window or self._probe_is_out(now):
                return False
            self._probing_since = now
            return True

    def barred(self, now: float) -> str | None:
        """Return why a call would be refused at ``now``, for a plan to show, or None; takes nothing."""
        with self._lock:
            if self._opened_at is None:
                return None
            left = self._opened_at + self.window - now
            if left > 0:
                failed = f"{self._outcomes.count(False)} of its last {len(self._outcomes)} calls failed"
                return f"its breaker is open for {left:.0f} s more: {failed}"
            return "its breaker is half open, and another call is probing it" if self._probe_is_out(now) else None

    def succeeded(self) -> None:
        """A call got through: close."""
        with self._lock:
            if self._opened_at is not None:
                self._outcomes.clear()
            self._outcomes.append(True)
            self._opened_at = self._probing_since = None

    def failed(self, now: float) -> None:
        """A call failed for the provider's own reason: open when it was the probe, or when too many of late failed."""
        with self._lock:
            self._outcomes.append(False)
            failed = self._outcomes.count(False)
            too_many = failed >= self.failures and failed >= self.share * len(self._outcomes)
            if too_many or self._probing_since is not None:
                self._opened_at, self._probing_since = now, None

    def released(self) -> None:
        """A call ended without a verdict (cancelled, or its own fault): another may probe."""
        with self._lock:
            self._probing_since = None

    def _probe_is_out(self, now: float) -> bool:
        # A probe that never came back (its process was killed in a thread, say) is given up after a window.
        return self._probing_since is not None and now < self._probing_since + self.window

    def __repr__(self) -> str:
        state = "closed" if self._opened_at is None else "half open" if self._probing_since is not None else "open"
        return f"Breaker({state}, {self._outcomes.count(False)} of the last {len(self._outcomes)} failed)"
