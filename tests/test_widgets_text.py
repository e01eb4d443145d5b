"""What widgets say is true and stays text: what the lab strikes through is gone, stopped and failed runs are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.notebook.widgets.squeeze import marked
from tokenkit.providers import simulated

HOSTILE = "</textarea></script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
SENTENCES = (
    "It rained.", "It rained a lot.", "Ships reach Basel on the Rhine.", "See {\"a\":  1,  \"b\": [1,  2]} here.",
    "The   Danube flows  through ten countries.", "# A heading", "- one thing here", "Question: what is 2 plus 2?",
    "Answer: 4.", "", "<b>bold</b> & more.",
)  # fmt: skip


def unstruck(html: str) -> str:
    """Return what a reader of the marked text would say was kept, without its spaces."""
    rest = re.sub(r"<del[^>]*>.*?</del>", "", html, flags=re.DOTALL)
    return "".join(unescape(re.sub(r"<[^>]+>", "", rest)).split())


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


@given(kept=st.lists(st.tuples(st.sampled_from(SENTENCES), st.booleans()), max_size=25))
@settings(max_examples=150, deadline=None)
def test_what_is_not_struck_through_is_what_was_kept(kept: list[tuple[str, bool]]) -> None:
    before = "\n".join(sentence for sentence, _ in kept)
    after = "\n".join(" ".join(sentence.split()) for sentence, stays in kept if stays)
    assert unstruck(marked(before, after)) == "".join(after.split())


@pytest.mark.parametrize(
    "stages", [["normalize"], ["dedupe"], ["summarize"], ["hyperbolic"], ["normalize", "summarize"]]
)
@pytest.mark.parametrize("target", [0.2, 0.5, 1.0])
def test_the_lab_strikes_through_what_its_stages_left_out(stages: list[str], target: float) -> None:
    shots = "\n\n".join(f"Question: what is {n} plus {n}?\nAnswer: It is easy. It is {2 * n}." for n in range(6))
    with tk.Kit.simulated(pace=0) as kit:
        for text in ("It rained. Ships reach   Basel. It rained.\n\n\n\nThe Danube flows. It rained.", shots):
            lab = tk.widgets.compression_lab(kit, text, "Which ships reach Basel?")
            lab.target.value = target
            for name, box in lab.stages.items():
                box.value = name in stages
            made = kit.compress(text, stages, query="Which ships reach Basel?", target=target)
            assert f"{made.before:,} → {made.after:,} tokens" in lab.body
            assert unstruck(marked(text, made.text)) == "".join(made.text.split())
            assert marked(text, made.text) in lab.body


def test_text_a_stage_wrote_anew_does_not_strike_out_the_rest() -> None:
    shown = unstruck(marked("One is here. Two is there. Three is far.", "Two was put otherwise. Three is far."))
    assert shown == "Threeisfar."


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


def test_a_failing_planner_is_told_in_the_widget_and_in_the_saved_picture(tmp_path: Path) -> None:
    with kit_answering(tmp_path, refusal) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=40)
        duel.run()
        duel.wait()
        assert duel.runs == []
        for shown in (duel.message, bundle(duel)["text/html"]):
            assert "no such key" in shown
            assert "<img" not in shown
            assert "Traceback" not in shown
        duel.run()
        duel.wait()
        assert "no such key" in duel.message


def test_a_kit_without_models_says_so_in_the_widget(tmp_path: Path) -> None:
    with tk.Kit(home=tmp_path, providers=[], models=[], environ={}) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.")
        duel.doing(duel.run)
        assert "no chat model" in duel.message
        assert tk.widgets.compression_lab(kit, "One. Two. Three. Four.").message == ""


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


def test_the_run_one_compares_with_stays_chosen() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=30)
        for _ in range(2):
            duel.run()
            duel.wait()
        duel.earlier.value = 0
        duel.swap()
        duel.run()
        duel.wait()
        assert duel.earlier.value == 0
        assert duel.runs[0]._repr_html_() in duel.body
        assert duel.runs[2]._repr_html_() in duel.body
        assert (duel.runs[2].planner, duel.runs[2].critic) == (duel.runs[0].critic, duel.runs[0].planner)


def test_a_picture_says_what_its_controls_said() -> None:
    """A page has no controls: whoever reads it must still learn what was asked, of whom, and how far."""
    with tk.Kit.simulated(pace=0) as kit:
        lab = tk.widgets.compression_lab(kit, "It rained. Ships reach Basel. The Danube flows.", "Which ships?")
        lab.target.value = 0.35
        tuner = tk.widgets.weight_tuner(kit)
        tuner.sliders["simulated/tiny"].value = 0.0
        duel = tk.widgets.adversarial(kit, HOSTILE * 9)
        spend = tk.widgets.spend(kit)
        for made, said in (
            (lab, "question: Which ships? · share of tokens to keep: 35% · saved at the price of: simulated/sage"),
            (tuner, "tiny: 0.0 · "),
            (duel, "planner: simulated/tiny · critic: simulated/sage · rounds: 1"),
            (spend, "by: model · since: everything"),
        ):
            assert said in bundle(made)["text/html"], said
        assert "live" not in bundle(spend)["text/html"]
        assert "text: It rained" not in bundle(lab)["text/html"]  # the body shows it
        assert "task: &lt;/textarea" in bundle(duel)["text/html"]
        assert "<script" not in bundle(duel)["text/html"]
        spend.close()


def test_the_lab_reckons_with_a_model_that_costs_something() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        lab = tk.widgets.compression_lab(kit, "It rained. Ships reach Basel. The Danube flows. " * 40, "Which ships?")
        assert "less a call" in lab.body
        lab.model.value = "simulated/tiny"
        assert "nothing less to pay" in lab.body
        assert "$0 less" not in lab.body
