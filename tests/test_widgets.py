"""The widgets' Python side: what controls do and show, errors inside, hostile text, the picture that stays."""

from __future__ import annotations

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


def test_an_empty_log_looks_fine_and_new_calls_are_counted_in() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        tuner = tk.widgets.weight_tuner(kit)
        assert "No planned calls" in tuner.body
        kit.call("Hello", max_tokens=5)
        press(tuner, "Read the log again")
        assert "of 1 calls would go" in tuner.body
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
    assert data["text/html"] == tuner.body
    assert "application/vnd.jupyter.widget-view+json" in data
