"""How much, how often: a token bucket for rates, and a retry budget that keeps an outage from becoming a storm."""

from __future__ import annotations

import math
from threading import Lock

from tokenkit.errors import ConfigError


class Bucket:
    """A token bucket: ``per_minute`` units flow in, at most a minute's worth is kept; the clock is passed in.

    A take larger than the bucket is allowed once the bucket is full, and leaves it in debt: a prompt bigger than a
    minute's tokens must not wait for ever.
    """

    def __init__(self, per_minute: float, level: float | None = None, at: float | None = None) -> None:
        if not per_minute > 0 or math.isinf(per_minute):
            raise ConfigError(f"A rate limit must be a finite number above 0 per minute, not {per_minute!r}.")
        self.per_minute = per_minute
        self._level = float(per_minute) if level is None else level
        self._at = at
        self._lock = Lock()

    @property
    def state(self) -> tuple[float, float | None]:
        """The level and the time it was taken at: ``Bucket(per_minute, *state)`` goes on from there."""
        return self._level, self._at

    def take(self, amount: float, now: float) -> float:
        """Take ``amount`` at ``now`` (monotonic seconds) and return 0, or return the seconds until it can be taken."""
        with self._lock:
            if self._at is not None:
                # A clock that stands still or steps back gives nothing, and takes nothing away.
                self._level = min(self.per_minute, self._level + max(now - self._at, 0.0) * self.per_minute / 60)
            self._at = now if self._at is None else max(now, self._at)
            missing = min(amount, self.per_minute) - self._level
            if missing > 1e-9 * self.per_minute:
                return missing * 60 / self.per_minute
            self._level -= amount
            return 0.0

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used: the difference between the tokens expected and those reported."""
        with self._lock:
            self._level = min(self.per_minute, self._level + amount)

    def __repr__(self) -> str:
        return f"Bucket({self._level:.0f} of {self.per_minute:.0f} per minute left)"


class RetryBudget:
    """Retries allowed to one provider: ``share`` of its calls, plus a ``floor`` to begin with, saved up to ``cap``.

    With every call of 10,000 failing, at most 10 % more are sent, plus the floor, where three tries each would send
    twice as many more.
    """

    def __init__(self, share: float = 0.1, floor: int = 10, cap: int = 100) -> None:
        self.share, self.cap = share, float(cap)
        self._left = float(floor)
        self._lock = Lock()

    def called(self) -> None:
        """A first try was made: it earns ``share`` of a retry."""
        with self._lock:
            self._left = min(self.cap, self._left + self.share)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        with self._lock:
            # Ten shares of 0.1 make a whole retry, floating point or not.
            if self._left < 1 - 1e-9:
                return False
            self._left -= 1
            return True

    def __repr__(self) -> str:
        return f"RetryBudget({self._left:.1f} retries left)"
