"""Adversarial runs: phases, receipts, early ends, and diffs that give both texts back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.adversarial import changed, satisfied, word_diff
from tokenkit.errors import TokenkitError, UnknownModel, UserError
from tokenkit.providers.simulated import Fault


def kit(*faults: Fault) -> tk.Kit:
    return tk.Kit.simulated(pace=0, faults=list(faults))


def test_plan_critique_refine_leaves_three_receipts_of_one_run() -> None:
    with kit() as k:
        run = k.adversarial("Design a cache for a search service.", planner="steady", critic="sage")
        assert run.initial_plan
        assert run.critique.startswith("[simulated by sage]")
        assert run.refined_plan == run.text != run.initial_plan
        assert [r.operation for r in run.receipts] == ["plan", "critique", "refine"]
        assert [r.model for r in run.receipts] == ["simulated/steady", "simulated/sage", "simulated/steady"]
        assert {r.parent for r in run.receipts} == {run.id}
        assert run.cost == sum(r.cost for r in run.receipts)
        assert len(k.ledger.df()) == 3
        (round_,) = run.rounds
        assert 0 < round_.change <= 1
        assert "1 round" in repr(run)


def test_rounds_build_on_the_last_refinement() -> None:
    with kit() as k:
        run = k.adversarial("Plan a trip.", planner="swift", critic="swift", rounds=3)
        assert len(run.rounds) == 3
        assert len(run.receipts) == 7
        last = run.receipts[-2].prompt
        assert last is not None
        assert run.rounds[1].refined is not None
        assert run.rounds[1].refined.text in last


def test_deltas_come_by_phase() -> None:
    seen: list[str] = []
    texts: dict[str, str] = {}

    def show(delta: tk.types.Delta) -> None:  # type: ignore[name-defined]
        if delta.phase:
            seen.append(delta.phase)
        else:
            texts[seen[-1]] = texts.get(seen[-1], "") + delta.text

    with kit() as k:
        run = k.adversarial("Plan a trip.", planner="swift", critic="steady", show=show)
    assert seen == ["plan", "critique 1", "refine 1"]
    assert texts["plan"] == run.initial_plan
    assert texts["critique 1"] == run.critique
    assert texts["refine 1"] == run.refined_plan


def test_a_failing_critic_leaves_the_plan_and_says_so() -> None:
    with kit(Fault(model="sage", status=401)) as k:
        run = k.adversarial("Plan a trip.", planner="swift", critic="sage", rounds=2)
    assert run.refined_plan == run.initial_plan
    assert "failed in round 1" in run.note
    assert [r.status for r in run.receipts] == ["ok", "error"]


def test_a_planner_that_cannot_refine_leaves_the_plan_too() -> None:
    with kit(Fault(model="swift", calls=[2], status=401)) as k:
        run = k.adversarial("Plan a trip.", planner="swift", critic="sage")
    assert run.refined_plan == run.initial_plan
    assert "could not refine" in run.note
    assert run.critique


def test_a_failing_planner_fails_the_run() -> None:
    with kit(Fault(model="swift", status=401)) as k, pytest.raises(TokenkitError):
        k.adversarial("Plan a trip.", planner="swift", critic="sage")


def test_models_are_checked_before_anything_is_sent() -> None:
    with kit() as k:
        with pytest.raises(UnknownModel):
            k.adversarial("Plan a trip.", planner="swift", critic="sgae")
        with pytest.raises(UserError, match="rounds"):
            k.adversarial("Plan a trip.", rounds=0)
        assert len(k.ledger.df()) == 0


def test_by_default_the_plans_first_two_models_meet() -> None:
    with kit() as k:
        run = k.adversarial("Plan a trip.")
    assert (run.planner, run.critic) == ("simulated/sage", "simulated/steady")


@pytest.mark.parametrize("words", ["NOTHING LEFT", " Nothing left. ", "**NOTHING LEFT**", "nothing left\n"])
def test_a_satisfied_critic_is_understood(words: str) -> None:
    assert satisfied(words)


@pytest.mark.parametrize("words", ["", "There is nothing left to say but this: it is wrong.", "1. NOTHING LEFT out?"])
def test_an_objection_is_not_taken_for_satisfaction(words: str) -> None:
    assert not satisfied(words)


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_diff_gives_both_texts_back(before: str, after: str) -> None:
    diff = word_diff(before, after)
    assert "".join(text for kind, text in diff if kind != "removed") == after
    assert "".join(text for kind, text in diff if kind != "added") == before
    assert 0 <= changed(diff) <= 1
    assert changed(word_diff(before, before)) == 0


def test_hostile_text_stays_text_in_the_card() -> None:
    with kit() as k:
        run = k.adversarial(
            "<script>alert(1)</script> </script><img src=x onerror=alert(1)>", planner="swift", critic="sage"
        )
        html = run._repr_html_()
    assert "<script" not in html.replace("<style", "")
    assert "<img" not in html


def test_async_runs_are_the_same_and_cancelling_one_ends_the_call_under_way(tmp_path):
    with tk.Kit.simulated(pace=0, home=tmp_path / "quick") as kit:
        same = kit.adversarial("Plan a launch.", planner="steady", critic="sage", max_tokens=30)
        heard = []

        async def run():
            return await kit.aadversarial(
                "Plan a launch.", planner="steady", critic="sage", max_tokens=30, show=heard.append
            )

        done = asyncio.run(run())
        assert (done.refined_plan, done.critique) == (same.refined_plan, same.critique)
        assert [delta.phase for delta in heard if delta.phase]
    with tk.Kit.simulated(pace=200, home=tmp_path / "slow") as kit:  # an answer would take a minute

        async def stopped():
            task = asyncio.create_task(kit.aadversarial("Plan a launch.", max_tokens=30))
            await asyncio.sleep(0.2)
            task.cancel()
            await task

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(stopped())
        assert kit.receipt().status == "cancelled"
