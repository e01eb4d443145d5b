"""adversarial: two models argue side by side as they speak; runs are compared, and repeated with roles swapped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import ipywidgets

from tokenkit import _html
from tokenkit.adversarial import Adversarial
from tokenkit.errors import UserError
from tokenkit.notebook.widgets.board import BROAD, WIDE, Board, button
from tokenkit.notebook.widgets.stored import Stored, stored
from tokenkit.types import Delta

if TYPE_CHECKING:
    from tokenkit.kit import Kit

PER_SECOND = 8


class Duel(Board):
    """Prompt, planner, critic and rounds; Run, Stop, Swap. ``runs`` are those of this widget, latest last.

    A run goes on in a thread of its own, so the kernel stays free; ``wait`` is for tests and scripts.
    """

    def __init__(self, kit: Kit, prompt: str, max_tokens: int) -> None:
        self.kit, self.max_tokens = kit, max_tokens
        self.runs: list[Adversarial] = []
        names = [model.id for model in kit.models if "chat" in model.capabilities]
        wide = ipywidgets.Layout(width=BROAD, height="5em")
        line = ipywidgets.Layout(width=BROAD)
        self.prompt = ipywidgets.Textarea(value=prompt, description="task", layout=wide)
        first, last = (names[0], names[-1]) if names else (None, None)
        self.planner = ipywidgets.Dropdown(options=names, value=first, description="planner", style=WIDE)
        self.critic = ipywidgets.Dropdown(options=names, value=last, description="critic", style=WIDE)
        who = ipywidgets.HBox([self.planner, self.critic], layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.rounds = ipywidgets.IntSlider(value=1, min=1, max=5, description="rounds", style=WIDE)
        self.earlier = ipywidgets.Dropdown(
            options=[("none", -1)], value=-1, description="beside run", style=WIDE, layout=line
        )
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        buttons = ipywidgets.HBox([
            button("Run", "let them argue", self.run, this), button("Stop", "stop the run", self.stop, this),
            button("Swap roles", "the critic plans, the planner criticises", self.swap, this),
        ])  # fmt: skip
        super().__init__([
            self.prompt, who, self.rounds, buttons, self.earlier,
        ])  # fmt: skip
        self._stored: dict[str, Stored] = {}
        self.earlier.observe(lambda _: self.doing(self._show), names="value")
        self._cancel: Callable[[], None] | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._phases: list[tuple[str, str]] = []
        self._due = 0.0
        self.body = _html.answer("Write a task and press Run, or look at a stored run.")
        self.doing(self._offer)

    def run(self) -> None:
        """Begin a run. Raises UserError while one is going on, or without a task."""
        if self._thread is not None and self._thread.is_alive():
            raise UserError("A run is going on: stop it first.")
        if not self.prompt.value.strip():
            raise UserError("There is no task: write one above.")
        if self.planner.value is None:
            raise UserError(
                "This kit knows no chat model, so there is nobody to argue: give it a provider's key first."
            )
        self._phases, self._stopping = [], False
        self._thread = threading.Thread(target=lambda: self.doing(self._argue), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the run at once; what was under way leaves its receipt. Raises UserError where none is going on."""
        if self._thread is None or not self._thread.is_alive():
            raise UserError("Nothing is running.")
        self._stopping = True  # for a run that has only just begun, and cannot be cancelled yet
        if self._cancel is not None:
            self._cancel()

    def swap(self) -> None:
        """Exchange the roles."""
        self.planner.value, self.critic.value = self.critic.value, self.planner.value

    def wait(self, seconds: float = 60.0) -> None:
        """Wait for the run to end."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _argue(self) -> None:
        try:
            done = asyncio.run(self._run())
        except asyncio.CancelledError:
            self._draw()
            self.say("Stopped. What was asked has its receipt.")
            return
        except Exception:
            self._draw()  # what came since it was last drawn
            raise
        finally:
            self._cancel = None
        self.runs.append(done)
        self._offer()
        self._show()

    def _offer(self) -> None:
        """List the runs one can look at beside the latest: this widget's own, and those in the ledger."""
        chosen, mine = self.earlier.value, {run.id for run in self.runs}
        self._stored = {one.id: one for one in stored(self.kit.ledger) if one.id not in mine}
        beside = [(f"{n}: {run!r}", n) for n, run in enumerate(self.runs[:-1])]
        old = [(one.label, one.id) for one in self._stored.values()]
        self.earlier.options = [("none", -1), *beside, *old]
        self.earlier.value = chosen if chosen in {value for _, value in self.earlier.options} else -1

    async def _run(self) -> Adversarial:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def cancel() -> None:
            with suppress(RuntimeError):  # the loop has just ended, and the run with it
                loop.call_soon_threadsafe(lambda: task is not None and task.cancel())

        self._cancel = cancel
        if self._stopping:
            cancel()
        return await self.kit.aadversarial(
            self.prompt.value, planner=self.planner.value, critic=self.critic.value,
            rounds=int(self.rounds.value), show=self._heard, max_tokens=self.max_tokens,
        )  # fmt: skip

    def _heard(self, delta: Delta) -> None:
        if delta.phase is not None:
            self._phases.append((delta.phase, ""))
        elif self._phases:
            name, text = self._phases[-1]
            self._phases[-1] = (name, text + delta.text)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 1 / PER_SECOND
            self._draw()

    def _draw(self) -> None:
        self.body = _html.columns(self._phases) if self._phases else ""

    def _show(self) -> None:
        latest = self.runs[-1]._repr_html_() if self.runs else ""
        chosen = self.earlier.value
        other = ""
        if isinstance(chosen, str):
            other = self._stored[chosen].html
        elif chosen is not None and chosen >= 0:
            other = self.runs[chosen]._repr_html_()
        if latest and other:
            half = '<div style="flex:1 1 24em;min-width:min(20em,100%)">'
            latest, other = (
                f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{half}{latest}</div>',
                f"{half}{other}</div></div>",
            )
        if latest or other:
            self.body = latest + other


def adversarial(kit: Kit, prompt: str = "", *, max_tokens: int = 400) -> Duel:
    """Return two models arguing side by side; ``max_tokens`` bounds each of their answers."""
    return Duel(kit, prompt, max_tokens)
