"""Rate limits that all kernels of one home share: token buckets whose level lives in the journal."""

from __future__ import annotations

import time
from collections.abc import Callable

from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.limits import Bucket

_READ = "SELECT level, at FROM buckets WHERE name = ?"
_WRITE = """INSERT INTO buckets (name, level, at) VALUES (?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET level = excluded.level, at = excluded.at"""


class SharedBucket(Bucket):
    """A :class:`Bucket` by the wall clock, taken from in one atomic step however many processes take.

    While the journal cannot be written the bucket goes on within this process: a limit must not cost an answer.
    """

    def __init__(self, name: str, per_minute: float, journal: Callable[[], Journal]) -> None:
        super().__init__(per_minute)
        self.name, self._journal = name, journal

    def take(self, amount: float, now: float) -> float:
        """Take ``amount``, or return the seconds to wait; ``now`` is ignored: the clock is the one all share."""
        try:
            return self._changed(lambda bucket, at: bucket.take(amount, at)) or 0.0
        except LedgerError:
            return super().take(amount, time.time())

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used."""
        try:
            self._changed(lambda bucket, at: bucket.give_back(amount))
        except LedgerError:
            super().give_back(amount)

    def _changed(self, change: Callable[[Bucket, float], float | None]) -> float | None:
        with self._journal().transaction() as connection:
            row = connection.execute(_READ, (self.name,)).fetchone()
            bucket = Bucket(self.per_minute, *(row or (None, None)))
            now = time.time()
            answer = change(bucket, now)
            level, at = bucket.state
            connection.execute(_WRITE, (self.name, level, now if at is None else at))
        return answer
