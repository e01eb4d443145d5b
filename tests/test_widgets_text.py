"""What widgets show stays text and has labels; a run that is stopped or whose critic fails leaves what it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets

import tokenkit as tk
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.providers import simulated

HOSTILE = "</textarea></script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


def bundle(widget: Any) -> dict[str, str]:
    """Return what a saved notebook has of a widget."""
    made = widget._repr_mimebundle_()
    return dict(made[0] if isinstance(made, tuple) else made)


def kit_answering(home: Path, answer: Callable[[WireRequest], LocalAnswer | None]) -> tk.Kit:
    """Return a simulated kit whose provider answers as told, and as usual where it is told nothing."""
    provider = simulated.provider(pace=0)
    inner = provider.local
    assert inner is not None
    altered = replace(provider, local=lambda wire: answer(wire) or inner(wire))
    return tk.Kit(home=home, providers=[altered], models=simulated.models(), environ={})


def refusal(wire: WireRequest) -> LocalAnswer:
    """Refuse as a provider does whose message is hostile."""
    body = b'{"error":{"message":"<img src=x onerror=window.pwned=1> no such key"}}'
    return LocalAnswer(401, {"content-type": "application/json"}, 0.0, [(0.0, body)])


def test_every_control_has_a_label_and_hostile_values_stay_text() -> None:
    def controls(node: Any) -> list[Any]:
        inner = [one for child in getattr(node, "children", ()) for one in controls(child)]
        return inner if inner or isinstance(node, ipywidgets.HTML | ipywidgets.Box) else [node]

    with tk.Kit.simulated(pace=0) as kit:
        for made in (tk.widgets.compression_lab(kit, HOSTILE, HOSTILE), tk.widgets.adversarial(kit, HOSTILE)):
            found = controls(made)
            assert len(found) >= 8
            assert all(one.description for one in found)
            saved = bundle(made)["text/html"]
            assert saved
            assert "<script" not in saved
            assert "<img" not in saved


def test_a_failing_critic_leaves_the_plan_and_says_so(tmp_path: Path) -> None:
    asked: list[WireRequest] = []

    def answer(wire: WireRequest) -> LocalAnswer | None:
        asked.append(wire)
        return refusal(wire) if len(asked) > 1 else None

    with kit_answering(tmp_path, answer) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=40)
        duel.run()
        duel.wait()
        assert "so the plan stands as it was" in duel.body
        assert "no such key" in duel.body
        assert "<img" not in duel.body
        assert kit.ledger.df()["status"].tolist().count("ok") == 1


def test_stopping_within_the_critique_keeps_the_plan_and_a_receipt_for_each_call() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=60)
        heard = duel._heard

        def stops(delta: Any) -> None:
            if duel._phases and duel._phases[-1][0] == "critique 1" and duel._phases[-1][1]:
                duel.stop()
            heard(delta)

        duel._heard = stops
        duel.run()
        duel.wait()
        assert "Stopped" in duel.message
        assert duel.runs == []
        assert kit.ledger.df()["status"].tolist().count("cancelled") == 1
        assert len(kit.ledger.df()) == 2
        for _, text in duel._phases:
            assert text[-10:] in unescape(duel.body)
