"""weight_tuner: a slider for each model, and what the log would have cost under those weights, as they move."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from tokenkit import _html
from tokenkit.analysis.cube import cube
from tokenkit.analysis.replay import Choice, Slider
from tokenkit.analysis.theme import PALETTE
from tokenkit.config import write_weights
from tokenkit.errors import UserError
from tokenkit.money import show_usd
from tokenkit.notebook.widgets.board import WIDE, Board, button, changed
from tokenkit.route import Policy

if TYPE_CHECKING:
    from tokenkit.kit import Kit


class Tuner(Board):
    """Sliders by model id in ``sliders``; ``weights`` is what they say. Nothing is applied until it is told to."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._slider = self._folded()
        now = self._slider.weights(kit.policy)
        models = [model for model in kit.models if "chat" in model.capabilities]
        top = max([10.0, *now.values()])
        self.sliders = {
            model.id: ipywidgets.FloatSlider(
                value=now.get(model.id, kit.policy.weights.get(model.id, model.weight)),
                min=0.0, max=top, step=0.1, description=_html.visible(model.id, 40), style=WIDE, readout_format=".1f",
                layout=ipywidgets.Layout(width="min(100%, 36em)"),
            )
            for model in models
        }  # fmt: skip
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        buttons = ipywidgets.HBox([
            button("Apply", "route by these weights from now on", self.apply, this),
            button("Save to tokenkit.toml", "write these weights into the configuration", self.save, this),
            button("Reset", "back to the weights in force", self.reset, this),
            button("Read the log again", "count in the calls made meanwhile", self.reload, this),
        ])  # fmt: skip
        super().__init__([*self.sliders.values(), buttons])
        for slider in self.sliders.values():
            changed(slider, self.draw, this)
        self.doing(self.draw)

    @property
    def weights(self) -> dict[str, float]:
        """The weights the sliders say, by model id."""
        return {name: float(slider.value) for name, slider in self.sliders.items()}

    def draw(self) -> None:
        """Show choices and list price under the sliders' weights, beside the log and the policy in force."""
        tried = Policy(self._strategy(), 0.0, self.weights)
        columns = {
            "logged": self._slider.as_logged(),
            "in force": self._slider.choose(Policy(self._strategy(), 0.0, self.kit.policy.weights)),
            "these weights": self._slider.choose(tried),
        }
        moved = self._slider.changed(tried)
        self.body = _picture(columns, moved, self._slider.cube.calls, self._slider.cube.skipped)

    def apply(self) -> None:
        """Route by these weights from now on."""
        old = self.kit.policy
        self.kit.policy = Policy(old.strategy, old.temperature, {**old.weights, **self.weights})
        self.draw()
        self.say("Applied: this kit routes by these weights now.")

    def save(self) -> None:
        """Write the weights into tokenkit.toml. Raises UserError where there is none."""
        if self.kit.config.path is None:
            raise UserError("There is no tokenkit.toml here to save to: make one, or press Apply for this session.")
        write_weights(self.kit.config.path, self.weights)
        self.say(f"Saved to {self.kit.config.path}.")

    def reset(self) -> None:
        """Put the sliders back to the weights in force."""
        for name, weight in self._slider.weights(self.kit.policy).items():
            if name in self.sliders:
                self.sliders[name].value = weight

    def reload(self) -> None:
        """Fold the log again, with the calls made meanwhile."""
        self._slider = self._folded()
        self.draw()

    def _folded(self) -> Slider:
        kit = self.kit
        prices = {model.id: model.price for model in kit.models}
        return Slider(cube(kit.ledger, prices), kit.catalog, kit.policy)

    def _strategy(self) -> str:
        name = self.kit.policy.strategy
        return name if isinstance(name, str) and name in ("score", "cheapest") else "score"


def weight_tuner(kit: Kit) -> Tuner:
    """Return sliders over the models' weights, with a live what-if over the log beneath them."""
    return Tuner(kit)


def _picture(columns: dict[str, Choice], moved: float, calls: int, skipped: int) -> str:
    """Return a bar for each way of choosing, split by model, and a table of the figures."""
    if not calls:
        return _html.answer("No planned calls to replay yet: ask something, then read the log again.")
    names = sorted({name for choice in columns.values() for name in choice.calls})
    colour = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    bars = "".join(
        f'<div style="display:flex;align-items:center;gap:.8em;margin:2px 0">'
        f'<div style="width:8em">{escape(label)}</div>'
        f'<div role="img" aria-label="{escape(_said(choice))}" style="display:flex;width:min(60%,28em);height:1.1em">'
        + "".join(
            f'<div title="{escape(_html.visible(name, 60))}: {choice.calls[name] / calls:.0%}" '
            f'style="width:{100 * choice.calls[name] / calls:.2f}%;background:{colour[name]}"></div>'
            for name in names
            if choice.calls.get(name)
        )
        + f"</div><div>{escape(show_usd(choice.total))}</div></div>"
        for label, choice in columns.items()
    )
    key = " ".join(
        f'<span><span style="color:{colour[name]}">■</span> {escape(_html.visible(name, 60))}</span>' for name in names
    )
    rows = tuple((_html.visible(name, 60), *(_cell(choice, name) for choice in columns.values())) for name in names)
    title = f"{moved:,.0f} of {calls:,} calls would go to another model than they did"
    figures = _html.table_card(_html.Table(title, ("model", *columns), rows, frozenset({1, 2, 3})))
    note = f"{skipped:,} calls were not planned by the router and are left out." if skipped else ""
    style = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px"
    return (
        f'<div class="{_html.PLAIN} tokenkit-whatif" style="{style}">{bars}<div style="display:flex;flex-wrap:wrap;'
        f'gap:1em;margin:.4em 0">{key}</div>{figures}{escape(note)}</div>'
    )


def _said(choice: Choice) -> str:
    return ", ".join(f"{name}: {calls:,.0f} calls" for name, calls in sorted(choice.calls.items()))


def _cell(choice: Choice, name: str) -> str:
    calls = choice.calls.get(name, 0)
    return f"{calls:,.0f} calls, {show_usd(choice.nanos.get(name, 0))}" if calls else "none"
