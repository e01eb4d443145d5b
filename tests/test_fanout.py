"""Batches, comparisons and panels: order, failures among successes, resuming after a crash, a judge that is read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.errors import AllFailed, UserError
from tokenkit.fanout import named_best
from tokenkit.providers.simulated import Fault


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=12), st.integers(1, 8))
def test_results_come_in_the_order_of_their_requests(prompts: list[str], concurrency: int) -> None:
    with tk.Kit.simulated(pace=0) as kit:
        batch = kit.batch(prompts, concurrency=concurrency)
        assert len(batch) == len(prompts)
        assert [r.place for r in batch] == list(range(len(prompts)))
        assert [r.receipt.prompt for r in batch] == prompts
        alone = [kit.call(p).text for p in prompts]
        assert [r.text for r in batch] == alone


def test_one_failure_does_not_end_the_rest() -> None:
    with tk.Kit.simulated(pace=0, faults=[Fault(model="swift", calls=[2], status=400)]) as kit:
        batch = kit.batch([{"prompt": f"Question {n}", "model": "swift"} for n in range(4)], concurrency=1)
        (failed,) = batch.failed
        assert failed.place == 1
        assert failed.receipt is not None
        assert [r.text is None for r in batch] == [False, True, False, False]
        assert "3 of 4 answered" in repr(batch)


def test_a_mistake_in_one_request_is_that_requests_failure() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        batch = kit.batch(["fine", {"prompt": "x", "modle": "swift"}, "  ", "fine too"])
        assert [r.error is not None for r in batch] == [False, True, True, False]
        assert "Did you mean 'model'" in str(batch[1].error)
        with pytest.raises(UserError, match="no 'prompt'"):
            kit.batch([{"model": "swift"}])


def test_concurrency_is_bounded() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def busy(name: str, number: int) -> Fault:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Timer(0.01, leave).start()
        return Fault(delay=0.02)

    def leave() -> None:
        with lock:
            now[0] -= 1

    with tk.Kit.simulated(pace=1, faults=busy) as kit:
        kit.batch([{"prompt": "q", "model": "tiny", "max_tokens": 1}] * 12, concurrency=3)
    assert 1 <= most[0] <= 3


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    with tk.Kit.simulated(pace=0) as kit:
        kit.batch(["a", "b", "c"], progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


CRASH = """
import os, signal, sys
import tokenkit as tk
from tokenkit.providers.simulated import Fault
def faults(model, number):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
kit = tk.Kit.simulated(pace=0, home=sys.argv[1], faults=faults)
kit.batch([{"prompt": f"Question {n}", "model": "swift"} for n in range(6)], concurrency=1, id="exam")
"""


def test_a_killed_batch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], capture_output=True)
    assert done.returncode == -9
    requests = [{"prompt": f"Question {n}", "model": "swift"} for n in range(6)]
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        batch = kit.batch(requests, id="exam")
        assert [r.resumed for r in batch] == [True] * 3 + [False] * 3
        assert all(r.text for r in batch)
        assert len(kit.ledger.df()) == 6
        again = kit.batch(requests, id="exam")
        assert all(r.resumed for r in again)
        assert [r.text for r in again] == [r.text for r in batch]
        assert again.cost == batch.cost
        assert len(kit.ledger.df()) == 6


def test_models_are_compared_side_by_side() -> None:
    with tk.Kit.simulated(pace=0, faults=[Fault(model="sage", status=401)]) as kit:
        found = kit.compare("Why is the sky blue?", ["swift", "sage", "steady"])
        assert found["swift"].text
        assert found["sage"].error is not None
        html = found._repr_html_()
        assert html.index("swift") < html.index("AuthError") < html.index("simulated by steady")


def test_a_panel_is_judged_and_failed_answers_are_left_out() -> None:
    with tk.Kit.simulated(pace=0, faults=[Fault(model="swift", status=401)]) as kit:
        panel = kit.panel("Why is the sky blue?", ["swift", "steady", "tiny"], judge="sage")
        assert panel.verdict.receipt is not None
        prompt = panel.verdict.receipt.prompt or ""
        assert "Answer A" in prompt
        assert "Answer B" in prompt
        assert "Answer C" not in prompt
        assert panel.cost is not None
    with tk.Kit.simulated(pace=0, faults=[Fault(status=401)]) as kit, pytest.raises(AllFailed):
        kit.panel("Why?", ["swift", "steady"], judge="sage")


@pytest.mark.parametrize(
    ("verdict", "place"),
    [
        ("A is short.\nB is right.\nBEST: B", 1),
        ("**BEST: a**", 0),
        ("BEST: A\nno wait\nBest: C.", 2),
        ("BEST: Z", None),
        ("BEST:", None),
        ("I like B best.", None),
        ("", None),
    ],
)
def test_the_judges_last_line_is_read(verdict: str, place: int | None) -> None:
    assert named_best(verdict, 3) == place


def test_an_async_batch_keeps_order_failures_and_the_place_where_it_stopped() -> None:
    seen: list[tuple[int, int]] = []
    with tk.Kit.simulated(pace=0) as kit:
        asked = ["One river.", {"prompt": "x", "model": "nobody"}, "Three rivers."]
        batch = asyncio.run(kit.abatch(asked, id="async", concurrency=2, progress=lambda d, n: seen.append((d, n))))
        assert [result.error is None for result in batch] == [True, False, True]
        assert sorted(seen) == [(1, 3), (2, 3), (3, 3)]
        again = kit.batch([*asked[:1], "Two rivers.", *asked[2:]], id="async")
        assert [result.resumed for result in again] == [True, False, True]
        assert again[0].text == batch[0].text
        with pytest.raises(UserError, match="at least 1"):
            asyncio.run(kit.abatch(["x"], concurrency=0))


def test_cancelling_an_async_batch_leaves_a_receipt_for_what_was_under_way() -> None:
    async def stopped(kit: tk.Kit) -> None:
        task = asyncio.create_task(kit.abatch(["One river."] * 8, concurrency=4))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with tk.Kit.simulated(pace=20) as kit:
        asyncio.run(stopped(kit))
        found = kit.ledger.df()
        assert set(found["status"]) == {"cancelled"}
        assert len(found) == 4


def test_a_notebook_shows_one_growing_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenkit import notebook
    from tokenkit.notebook.live import Bar

    shown: list[Any] = []

    class Handle:
        def update(self, bundle: Any, raw: bool) -> None:
            shown.append(bundle)

    monkeypatch.setattr("IPython.display.display", lambda bundle, **more: shown.append(bundle) or Handle())
    with tk.Kit.simulated(pace=0) as kit:
        kit.on_progress = Bar()
        kit.batch(["One.", "Two.", "Three."], progress=True)
    assert [bundle["text/plain"] for bundle in shown] == [f"{n} of 3 calls done" for n in (1, 2, 3)]
    assert "width:100.0%" in shown[-1]["text/html"]
    assert notebook.use is not None
