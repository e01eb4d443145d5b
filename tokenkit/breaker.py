"""A circuit breaker as a state machine: closed, open, half open; the clock is passed in.

After ``failures`` failures in a row it opens for ``window`` seconds; then one probe may pass, and its outcome decides.
So a provider that is down is asked once per window, however many callers wait for it.
"""

from __future__ import annotations

from threading import Lock


class Breaker:
    """The breaker of one provider and model. ``admit``, then exactly one of ``succeeded``, ``failed``, ``released``."""

    def __init__(self, failures: int = 5, window: float = 30.0) -> None:
        self.failures, self.window = failures, window
        self._in_a_row = 0
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
                return f"its breaker is open for {left:.0f} s more, after {self._in_a_row} failures in a row"
            return "its breaker is half open, and another call is probing it" if self._probe_is_out(now) else None

    def succeeded(self) -> None:
        """A call got through: close."""
        with self._lock:
            self._in_a_row, self._opened_at, self._probing_since = 0, None, None

    def failed(self, now: float) -> None:
        """A call failed for the provider's own reason: count it, and open when it was one too many or the probe."""
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self.failures or self._probing_since is not None:
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
        return f"Breaker({state}, {self._in_a_row} failures in a row)"
