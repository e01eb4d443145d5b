"""A synthetic history: a large, realistic, seeded log that never happened, and says so in every row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tokenkit.catalog import Model
from tokenkit.errors import UserError
from tokenkit.ledger import files
from tokenkit.pricing import price

MOST = 50_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """A synthetic history: its file, how many calls, and how long making it took in seconds."""

    path: Path
    calls: int
    seconds: float

    def __repr__(self) -> str:
        return f"Written({self.calls:,} synthetic calls to {self.path} in {self.seconds:.1f} s)"


def models() -> tuple[Model, ...]:
    """Return the models the history was made with, priced as it was: what a kit needs to replay it."""
    return (
        Model("synthetic", "large", 8.0, price(input=3, output=15), 200_000, 8_000),
        Model("synthetic", "medium", 6.0, price(input="0.4", output="1.6"), 128_000, 8_000),
        Model("synthetic", "small", 5.0, price(input="0.1", output="0.4"), 16_384, 4_096),
    )


def write_history(home: Path, calls: int, *, seed: int = 0, until: int | None = None) -> Written:
    """Write ``calls`` synthetic calls into the ledger of ``home``, which must not have any yet; ``until`` Unix seconds.

    The same arguments give the same rows. Raises UserError for a home with a ledger, or for too many calls.
    """
    if not 1 <= calls <= MOST:
        raise UserError(f"A history has from 1 to {MOST:,} calls, not {calls:,}.")
    path = home / "ledger.duckdb"
    if path.exists():
        raise UserError(f"{path} is there already: name another home for a synthetic history.")
    began = time.perf_counter()
    with files.writing(path, 5, turn=path) as connection:
        connection.execute("SET threads = 2")
        for name, value in (("seed", seed), ("calls", calls), ("until", until or int(time.time()))):
            connection.execute(f"SET VARIABLE {name} = {int(value)}")
        connection.execute("BEGIN")
        connection.execute(files.text("synthetic.sql"))
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")
    return Written(path, calls, time.perf_counter() - began)
