"""The widgets' Python side: what controls do and show, errors inside, hostile text, the picture that stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import tokenkit as tk
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.notebook.widgets.squeeze import marked
from tokenkit.providers import simulated

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def history() -> Iterator[tk.Kit]:
    with tk.Kit.synthetic(3_000) as kit:
        yield kit


def press(widget: Any, text: str) -> None:
    """Click the button that says ``text``."""

    def buttons(node: Any) -> Iterator[Any]:
        if isinstance(node, ipywidgets.Button):
            yield node
        for child in getattr(node, "children", ()):
            yield from buttons(child)

    (found,) = (one for one in buttons(widget) if one.description == text)
    found.click()


def test_moving_a_slider_moves_the_picture_and_apply_routes_by_it(history: tk.Kit) -> None:
    tuner = tk.widgets.weight_tuner(history)
    assert "calls would go to another model" in tuner.body
    before = tuner.body
    tuner.sliders["synthetic/small"].value = 10.0
    assert tuner.body != before
    expected = history.replay(weights=tuner.weights)
    assert f"{expected.changed:,.0f} of 3,000 calls" in tuner.body
    assert history.policy.weights.get("synthetic/small") is None
    press(tuner, "Apply")
    assert history.policy.weights["synthetic/small"] == 10.0
    assert "Applied" in tuner.message
    tuner.sliders["synthetic/small"].value = 0.0
    press(tuner, "Reset")
    assert tuner.sliders["synthetic/small"].value == 10.0
    history.policy = tk.Policy()


def test_saving_writes_the_file_or_says_why_not(history: tk.Kit, tmp_path: Path) -> None:
    tuner = tk.widgets.weight_tuner(history)
    press(tuner, "Save to tokenkit.toml")
    assert "There is no tokenkit.toml here" in tuner.message
    file = tmp_path / "tokenkit.toml"
    file.write_text("# mine\n")
    with tk.Kit(file, home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        saved = tk.widgets.weight_tuner(kit)
        saved.sliders["simulated/tiny"].value = 7.5
        press(saved, "Save to tokenkit.toml")
        assert "Saved to" in saved.message
    assert "7.5" in file.read_text()
    assert "# mine" in file.read_text()


def test_apply_and_save_can_be_undone_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "tokenkit.toml"
    file.write_text("# mine\n[routing.weights]\ntiny = 1  # cheap\n")
    with tk.Kit(file, home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        tuner = tk.widgets.weight_tuner(kit)
        press(tuner, "Undo")
        assert "nothing to undo" in tuner.message
        before = kit.policy
        tuner.sliders["simulated/tiny"].value = 9.5
        press(tuner, "Apply")
        press(tuner, "Save to tokenkit.toml")
        assert "9.5" in file.read_text()
        press(tuner, "Undo")
        assert file.read_text() == "# mine\n[routing.weights]\ntiny = 1  # cheap\n"
        press(tuner, "Undo")
        assert kit.policy == before
        press(tuner, "Save to tokenkit.toml")
        file.write_text("# somebody else was here\n")
        press(tuner, "Undo")
        assert "was changed since" in tuner.message
        assert file.read_text() == "# somebody else was here\n"


def test_the_tuner_shows_one_model_alone_and_estimates_when_asked(history: tk.Kit) -> None:
    tuner = tk.widgets.weight_tuner(history)
    alone = history.replay().best_single
    assert alone is not None
    assert f"always {alone[0]}" in tuner.body
    press(tuner, "Estimate outcomes")
    assert "n_eff" in tuner.body
    assert "in force" in tuner.body
    tuner.sliders["synthetic/small"].value = 9.0
    assert "n_eff" not in tuner.body  # it was about other weights
    history.policy = tk.Policy("cheapest")
    press(tuner, "Read the log again")
    assert "does not look at weights" in tuner.body
    history.policy = tk.Policy("fastest")
    press(tuner, "Read the log again")
    assert "cannot be replayed" in tuner.body
    history.policy = tk.Policy()


def test_spend_follows_calls_as_they_end_until_it_is_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenkit.notebook.widgets.watching.LEAST_WAIT", 0.01)
    with tk.Kit.simulated(pace=0) as kit:
        shown = tk.widgets.spend(kit)
        kit.call("Hello", max_tokens=5)
        until = time.monotonic() + 20
        while "No calls yet" in shown.body and time.monotonic() < until:
            time.sleep(0.01)
        assert "1 call" in shown.body
        shown.live.value = False
        kit.call("Hello", max_tokens=5)
        assert shown._due is None
        shown.close()
        assert kit.on_receipt == []


def test_a_run_that_the_ledger_kept_is_shown_beside_a_new_one(tmp_path: Path) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        old = kit.adversarial(f"Plan {HOSTILE}", planner="tiny", critic="sage", rounds=2, max_tokens=30)
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=30)
        (name,) = [value for value in dict(duel.earlier.options).values() if value != -1]
        assert name == old.id
        duel.earlier.value = name
        assert "Stored run of" in duel.body
        assert "simulated/tiny against simulated/sage, 2 rounds" in duel.body
        assert "of the words changed" in duel.body
        press(duel, "Run")
        duel.wait()
        assert duel.earlier.value == old.id
        assert duel.runs[0]._repr_html_() in duel.body
        assert "Stored run of" in duel.body
        press(duel, "Stop")
        assert "Nothing is running" in duel.message


def test_an_empty_log_looks_fine_and_new_calls_are_counted_in() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        tuner = tk.widgets.weight_tuner(kit)
        assert "No planned calls" in tuner.body
        kit.call("Hello", max_tokens=5)
        press(tuner, "Read the log again")
        assert "of 1 call would go" in tuner.body
        assert "No calls yet" in tk.widgets.spend(tk.Kit.simulated(pace=0)).body


def test_spend_has_filters_and_bars_and_shows_its_errors(history: tk.Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    history.budgets.set("5 USD", window="day", name="<b>mine</b>")
    shown = tk.widgets.spend(history)
    before = shown.body
    shown.by.value = "user"
    assert shown.body != before
    assert "<b>mine" not in shown.body
    assert "&lt;b&gt;mine" in shown.body
    monkeypatch.setattr(type(history.ledger), "sql", lambda *a, **k: 1 / 0)
    press(shown, "Refresh")
    assert "ZeroDivisionError" in shown.message
    history.budgets.remove("<b>mine</b>")


def test_the_lab_shows_what_is_kept_and_dropped_as_controls_move() -> None:
    text = "The Danube flows through ten countries. It rained a lot. Ships reach Basel on the Rhine."
    with tk.Kit.simulated(pace=0) as kit:
        lab = tk.widgets.compression_lab(kit, text, "Where do ships go?")
        lab.target.value = 0.4
        assert "<del" in lab.body
        assert lab.body.index("Ships reach Basel") > 0
        assert "<del" not in marked(text, text)
        for box in lab.stages.values():
            box.value = False
        assert "Tick a stage" in lab.body
        lab.stages["summarize"].value = True
        lab.text.value = f"{HOSTILE} And more of it. And even more. Yes."
        assert "<script>" not in lab.body
        assert "<img" not in lab.body


def test_models_argue_side_by_side_swap_and_are_compared() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=40)
        first, second = duel.planner.value, duel.critic.value
        press(duel, "Run")
        duel.wait()
        assert len(duel.runs) == 1
        assert "critique" in duel.body
        press(duel, "Swap roles")
        assert (duel.planner.value, duel.critic.value) == (second, first)
        press(duel, "Run")
        duel.wait()
        duel.earlier.value = 0
        assert duel.body.count("Adversarial(") >= 2
        duel.prompt.value = " "
        press(duel, "Run")
        assert "There is no task" in duel.message


def test_stop_ends_a_run_and_leaves_one_receipt() -> None:
    with tk.Kit.simulated(pace=1) as kit:
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=400)
        press(duel, "Run")
        while len(duel._phases) < 1 or not duel._phases[-1][1]:
            pass
        press(duel, "Run")
        assert "A run is going on" in duel.message
        press(duel, "Stop")
        duel.wait()
        assert "Stopped" in duel.message
        found = kit.ledger.df()
        assert found["status"].tolist() == ["cancelled"]


def test_stop_does_not_wait_for_the_first_word() -> None:
    with tk.Kit.simulated(pace=500) as kit:  # which would come after a minute
        duel = tk.widgets.adversarial(kit, "Plan a launch.", max_tokens=40)
        press(duel, "Run")
        while duel._cancel is None:
            pass
        press(duel, "Stop")
        duel.wait(30)
        assert "Stopped" in duel.message
        assert kit.ledger.df()["status"].tolist() in (["cancelled"], [])


def test_hostile_answers_stay_text_in_every_widget(tmp_path: Path) -> None:
    provider = simulated.provider(pace=0)
    inner = provider.local
    assert inner is not None

    def answer(wire: WireRequest) -> LocalAnswer:
        made = inner(wire)
        chunks = [(0.0, data.replace(b"[simulated", HOSTILE.encode().replace(b'"', b"'"))) for _, data in made.chunks]
        headers = {k: v for k, v in made.headers.items() if k.lower() != "content-length"}
        return LocalAnswer(made.status, headers, 0.0, chunks)

    from dataclasses import replace

    hostile = replace(provider, local=answer)
    with tk.Kit(home=tmp_path, providers=[hostile], models=simulated.models(), environ={}) as kit:
        duel = tk.widgets.adversarial(kit, HOSTILE, max_tokens=40)
        press(duel, "Run")
        duel.wait()
        for widget in (duel, tk.widgets.spend(kit), tk.widgets.weight_tuner(kit)):
            assert "<script>" not in widget.body
            assert "<img" not in widget.body
        assert "pwned" in duel.body


def test_a_saved_notebook_shows_what_the_widget_showed(history: tk.Kit) -> None:
    tuner = tk.widgets.weight_tuner(history)
    bundle = tuner._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/html"].endswith(tuner.body)
    assert "application/vnd.jupyter.widget-view+json" in data
