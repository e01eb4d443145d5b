"""weight_tuner: a slider for each model, and what the log would have cost under those weights, as they move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from tokenkit import _html
from tokenkit.analysis.cube import cube
from tokenkit.analysis.replay import REPLAYABLE, Choice, Replay, Slider
from tokenkit.analysis.tables import table
from tokenkit.analysis.theme import PALETTE
from tokenkit.config import write_weights
from tokenkit.errors import UserError
from tokenkit.money import show_usd
from tokenkit.notebook.widgets.board import Board, button, changed
from tokenkit.route import Policy

if TYPE_CHECKING:
    from tokenkit.kit import Kit


class Tuner(Board):
    """Sliders by model id in ``sliders``; ``weights`` is what they say. Nothing is applied until it is told to.

    ``undo`` takes back the last Apply or Save, as often as there was one.
    """

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._slider = self._folded()
        self._done: list[Callable[[], str]] = []
        now = self._slider.weights(kit.policy)
        models = [model for model in kit.models if "chat" in model.capabilities]
        top = max([10.0, *now.values()])
        names = {model.id: _html.visible(model.id, 40) for model in models}
        # One width for all names: sliders that begin at different places cannot be compared by eye.
        wide = {"description_width": f"{max(map(len, names.values()), default=0) + 1}ch"}
        self.sliders = {
            model.id: ipywidgets.FloatSlider(
                value=now.get(model.id, kit.policy.weights.get(model.id, model.weight)),
                min=0.0, max=top, step=0.1, description=names[model.id], style=wide, readout_format=".1f",
                layout=ipywidgets.Layout(width="min(100%, 40em)"),
            )
            for model in models
        }  # fmt: skip
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        buttons = ipywidgets.HBox(
            [
                button("Apply", "route by these weights from now on", self.apply, this),
                button("Save to tokenkit.toml", "write these weights into the configuration", self.save, this),
                button("Undo", "take back the last Apply or Save", self.undo, this),
                button("Reset", "back to the weights in force", self.reset, this),
                button("Estimate outcomes", "ratings under these weights, with intervals", self.estimate, this),
                button("Read the log again", "count in the calls made meanwhile", self.reload, this),
            ],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        super().__init__([*self.sliders.values(), buttons])
        for slider in self.sliders.values():
            changed(slider, self.draw, this)
        self.doing(self.draw)

    @property
    def weights(self) -> dict[str, float]:
        """The weights the sliders say, by model id."""
        return {name: float(slider.value) for name, slider in self.sliders.items()}

    def draw(self) -> None:
        """Show choices and list price under the sliders' weights, beside the log, what is in force, and one model."""
        tried = self._policy(self.weights)
        columns = {
            "logged": self._slider.as_logged(),
            "in force": self._slider.choose(self._policy({})),
            "these weights": self._slider.choose(tried),
        }
        for name, _ in self._slider.singles[:1]:
            columns[f"always {name}"] = self._slider.choose(Policy("random"), [name])
        cube = self._slider.cube
        notes = [_without_weights(self.kit.policy)]
        notes += [f"{cube.skipped:,} calls were not planned by the router and are left out."] if cube.skipped else []
        self.body = _picture(columns, self._slider.changed(tried), cube.calls, " ".join(filter(None, notes)))

    def estimate(self) -> None:
        """Show the ratings that these weights would have earned, beside all else; a moved slider takes them away."""
        replay = Replay(self.kit.ledger, self._slider, self._policy(self.weights), None, None, self._policy({}))
        self.draw()
        if replay.calls:
            self.body += _html.table_card(table("Estimated ratings, with 95 % intervals", replay.shown()))

    def apply(self) -> None:
        """Route by these weights from now on."""
        old, new = self.kit.policy, self.weights
        self.kit.policy = Policy(old.strategy, old.temperature, {**old.weights, **new})

        def back() -> str:
            self.kit.policy = old
            return "Undone: this kit routes as it did before."

        self._done.append(back)
        self.draw()
        self.say("Applied: this kit routes by these weights now.")

    def save(self) -> None:
        """Write the weights into tokenkit.toml. Raises UserError where there is none."""
        path = self.kit.config.path
        if path is None:
            raise UserError("There is no tokenkit.toml here to save to: make one, or press Apply for this session.")
        before = path.read_bytes() if path.exists() else None
        write_weights(path, self.weights)
        after = path.read_bytes()

        def back() -> str:
            if not path.exists() or path.read_bytes() != after:
                raise UserError(f"{path} was changed since it was saved here: change the weights back by hand.")
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)
            return f"Undone: {path} is as it was."

        self._done.append(back)
        self.say(f"Saved to {path}.")

    def undo(self) -> None:
        """Take back the last Apply or Save. Raises UserError where there is none, or where the file went on."""
        if not self._done:
            raise UserError("There is nothing to undo: nothing was applied or saved here.")
        said = self._done.pop()()
        self.draw()
        self.say(said)

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

    def _policy(self, weights: Mapping[str, float]) -> Policy:
        """Return the policy in force with other weights; by score where what is in force cannot be replayed."""
        old = self.kit.policy
        known = {**old.weights, **weights}
        return Policy(old.strategy, old.temperature, known) if old.strategy in REPLAYABLE else Policy(weights=known)


def _without_weights(policy: Policy) -> str:
    """Return a warning where the sliders say less than it seems."""
    if policy.strategy in ("cheapest", "random"):
        return f"The strategy in force, {policy.name}, does not look at weights."
    if policy.strategy not in REPLAYABLE:
        return f"The strategy in force, {policy.name}, cannot be replayed: choices here are by score."
    return ""


def weight_tuner(kit: Kit) -> Tuner:
    """Return sliders over the models' weights, with a live what-if over the log beneath them."""
    return Tuner(kit)


def _picture(columns: dict[str, Choice], moved: float, calls: int, note: str) -> str:
    """Return a bar for each way of choosing, split by model, and a table of the figures."""
    if not calls:
        return _html.answer("No planned calls to replay yet: ask something, then read the log again.")
    names = sorted({name for choice in columns.values() for name in choice.calls})
    colour = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    bars = "".join(
        f'<div style="display:flex;align-items:center;gap:.8em;margin:2px 0">'
        f'<div style="flex:0 0 14em;overflow-wrap:anywhere;line-height:1.3">{escape(_html.visible(label, 60))}</div>'
        f'<div role="img" aria-label="{escape(_said(choice))}" style="display:flex;width:min(50%,28em);height:1.1em">'
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
    # The bar says all there is to say of one model alone.
    split = {label: choice for label, choice in columns.items() if not label.startswith("always ")}
    rows = tuple((_html.visible(name, 60), *(_cell(choice, name) for choice in split.values())) for name in names)
    title = f"{moved:,.0f} of {calls:,} {'call' if calls == 1 else 'calls'} would go to another model than they did"
    figures = _html.table_card(_html.Table(title, ("model", *split), rows, frozenset(range(1, len(split) + 1))))
    style = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px"
    return (
        f'<div class="{_html.PLAIN} tokenkit-whatif" style="{style}">{bars}<div style="display:flex;flex-wrap:wrap;'
        f'gap:1em;margin:.4em 0">{key}</div>{figures}{escape(note)}</div>'
    )


def _said(choice: Choice) -> str:
    return ", ".join(f"{name}: {calls:,.0f} calls" for name, calls in sorted(choice.calls.items()))


def _cell(choice: Choice, name: str) -> str:
    calls = choice.calls.get(name, 0)
    return (
        f"{calls:,.0f} {'call' if round(calls) == 1 else 'calls'}, {show_usd(choice.nanos.get(name, 0))}"
        if calls
        else "none"
    )
