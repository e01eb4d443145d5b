"""A stop at any line of ours: once the world was asked, exactly one settled receipt is left, however unlucky."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tokenkit as tk
from tokenkit.providers import simulated

OURS = tuple(str(Path(tk.__file__).parent / part) for part in ("layers", "drivers", "streams.py"))
STEP = 7
"""Every seventh line: each takes a call, and there are hundreds."""


def stopping_at(line: int, seen: list[int]) -> Callable[[FrameType, str, Any], Any]:
    """A tracer that raises KeyboardInterrupt at the ``line``-th line of ours that runs, and counts them all."""

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and not beyond_signals(frame):
            seen[0] += 1
            if seen[0] == line:
                raise KeyboardInterrupt
        return local

    def tracer(frame: FrameType, event: str, arg: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(OURS) else None

    return tracer


def beyond_signals(frame: FrameType) -> bool:
    """A tracer can raise where a signal hardly can: on the way out of a ``with`` block, before its lock is released,
    and between the end of a call and the loop that settles it, which is a handful of instructions."""
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    entering = frame.f_code.co_name == "_settle" or ("def settled()" in text or "_settle(" in text)
    return "with " in text or entering


def ask(kit: tk.Kit, streamed: bool) -> None:
    if streamed:
        with kit.stream("Hello there", model="swift", max_tokens=8) as stream:
            for _ in stream:
                pass
    else:
        kit.call("Hello there", model="swift", max_tokens=8)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_stop_at_any_line_leaves_one_settled_receipt(streamed: bool, tmp_path: Path) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        world = next(p.local for p in kit.providers if p.local is not None)
        assert isinstance(world, simulated.Simulation)
        ask(kit, streamed)
        seen = [0]
        before = sys.gettrace()
        sys.settrace(stopping_at(-1, seen))
        try:
            ask(kit, streamed)
        finally:
            sys.settrace(before)
        lines, receipts = seen[0], 2
        assert lines > 100
        for line in range(1, lines + 1, STEP):
            asked = sum(world.calls.values())
            sys.settrace(stopping_at(line, [0]))
            try:
                ask(kit, streamed)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            rows = kit.journal.rows(after=receipts)
            opened = sum(world.calls.values()) > asked
            assert len(rows) <= 1, f"line {line}: {len(rows)} receipts for one call"
            assert len(rows) == 1 or not opened, f"line {line}: the world was asked, and no receipt is left"
            if rows:
                receipt = rows[0].receipt
                assert receipt.status in ("ok", "cancelled")
                assert not opened or receipt.cost_nanos, f"line {line}: settled at nothing"
            receipts += len(rows)
        assert kit.ledger.verify()
