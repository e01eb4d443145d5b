"""``%%route --adversarial``: each phase streams into an output of its own, then what changed and what it cost."""

from __future__ import annotations

from typing import Any

from tokenkit import _html
from tokenkit.adversarial import Adversarial
from tokenkit.errors import UserError
from tokenkit.kit import Kit
from tokenkit.notebook.live import Live
from tokenkit.types import Delta


def argue(kit: Kit, prompt: str, options: dict[str, Any], said: dict[str, Any], *, rich: bool) -> Adversarial:
    """Plan, critique and refine, showing each phase as it comes; return the run."""
    if said.get("critic") is None and kit.plan(prompt, **options).choice is None:
        raise UserError("No model can take this, so there is nobody to argue. `%%route --dry` shows why.")
    lives: list[Live] = []

    def show(delta: Delta) -> None:
        if delta.phase is None:
            lives[-1].add(delta.text)
            return
        if lives:
            lives[-1].finish(None, verbose=False)
        lives.append(Live(rich=rich))
        lives[-1].add(f"— {delta.phase} —\n")

    model = options.pop("model", "auto")
    before, kit.on_sleep = kit.on_sleep, lambda sleep: lives[-1].wait(sleep) if lives else None
    try:
        run = kit.adversarial(
            prompt,
            planner=None if model == "auto" else model,
            critic=said.get("critic"),
            rounds=said.get("rounds", 1),
            show=show,
            **options,
        )
    finally:
        kit.on_sleep = before
        if lives:
            lives[-1].finish(None, verbose=False)
    _summary(run, rich=rich)
    return run


def _summary(run: Adversarial, *, rich: bool) -> None:
    lines = [repr(run), *(f"  {receipt.operation:9} {receipt!r}" for receipt in run.receipts)]
    lines += [f"  round {n}: {one.change:.0%} of the words changed" for n, one in enumerate(run.rounds, 1) if one.diff]
    text = _html.visible("\n".join([*lines, *([run.note] if run.note else [])]))
    if not rich:
        print(text)
        return
    from IPython.display import display

    changes = "".join(_html.diff(one.diff) for one in run.rounds if one.diff)
    display({"text/html": _html.answer(text) + changes, "text/plain": text}, raw=True)
