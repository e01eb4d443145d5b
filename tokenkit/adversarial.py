"""adversarial: one model plans, another attacks the plan, the first refines it; a longer generator over plain calls.

Because it is made of calls, it inherits drivers, receipts, retries and budgets: each step leaves a receipt of its own
that names the run as its parent. It ends when the rounds are used up or the critic has nothing left to say, and when
the critic fails the plan stands and the result says so.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import SequenceMatcher
from typing import Any

from tokenkit.effects import Call, Effect, Show
from tokenkit.errors import TokenkitError
from tokenkit.money import Nanos, show_usd, usd
from tokenkit.receipts import Receipt, Trail, new_id
from tokenkit.types import Delta, Message, Request, Response

SATISFIED = "NOTHING LEFT"
"""What the critic is asked to answer, alone, when it has no objection left."""

CRITIQUE = f"""You are the critic. Below are a task and an answer to it. Attack the answer: what is wrong, missing, \
unclear or unsafe? Number your objections, the gravest first, and say for each what would mend it. Do not rewrite the \
answer. If you have no objection worth a change, reply with exactly: {SATISFIED}"""

REFINE = """Below are a task, your answer to it and a critic's objections. Write the answer anew, whole: mend what the \
critic is right about, keep what was good, and ignore objections that are wrong. Reply with the new answer alone."""

Diff = tuple[tuple[str, str], ...]
"""Pieces of two texts in order: ``("same" | "added" | "removed", text)``."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the critique, what became of the plan, and how much changed (0 nothing, 1 every word)."""

    critique: Response | None
    refined: Response | None
    change: float
    diff: Diff
    note: str = ""

    @property
    def cost_nanos(self) -> Nanos | None:
        """What the round cost in nano-USD; ``None`` when a price is unknown."""
        return _sum(tuple(r.receipt for r in (self.critique, self.refined) if r is not None and r.receipt is not None))


@dataclass(frozen=True, slots=True)
class Adversarial:
    """A finished run. ``note`` says why it ended early, where it did."""

    id: str
    prompt: str
    planner: str
    critic: str
    initial: Response
    rounds: tuple[Round, ...]
    receipts: tuple[Receipt, ...]
    note: str = ""

    @property
    def initial_plan(self) -> str:
        """The first answer."""
        return self.initial.text

    @property
    def critique(self) -> str:
        """The last critique that was made; empty when none was."""
        return next((r.critique.text for r in reversed(self.rounds) if r.critique is not None), "")

    @property
    def refined_plan(self) -> str:
        """The last refined answer; the first one where nothing was refined."""
        return next((r.refined.text for r in reversed(self.rounds) if r.refined is not None), self.initial.text)

    @property
    def text(self) -> str:
        """The final answer."""
        return self.refined_plan

    @property
    def cost(self) -> Decimal | None:
        """What the whole run cost in USD; ``None`` when a price is unknown."""
        return usd(_sum(self.receipts))

    def __repr__(self) -> str:
        count = f"{len(self.rounds)} round{'s' if len(self.rounds) != 1 else ''}"
        return f"Adversarial({self.planner} against {self.critic}, {count}, {show_usd(_sum(self.receipts))})"

    def _repr_html_(self) -> str:
        from tokenkit._html import answer, columns, diff

        parts = [answer(repr(self)), columns([("plan", self.initial_plan)])]
        for n, one in enumerate(self.rounds, 1):
            heads = [(f"critique {n}", one.critique.text)] if one.critique is not None else []
            if one.refined is not None:
                heads.append((f"refined {n}, {one.change:.0%} changed, {show_usd(one.cost_nanos)}", one.refined.text))
            parts.append(columns(heads) + (diff(one.diff) if one.diff else ""))
        return "".join(parts) + (answer(self.note) if self.note else "")


def adversarial(
    call: Call, request: Request, *, planner: str, critic: str, rounds: int = 1, deadline: float | None = None
) -> Generator[Effect, Any, Adversarial]:
    """Plan with ``planner``, attack with ``critic``, refine; ``call`` is a recorded call that takes ``model`` by name.

    Each phase is announced by a ``Show`` of an empty Delta that names it: ``plan``, ``critique 1``, ``refine 1`` …
    A failing planner fails the run; whatever had been asked has its receipt all the same.
    """
    run, receipts = new_id(), []

    def ask(model: str, messages: tuple[Message, ...], phase: str) -> Generator[Effect, Any, Response]:
        yield Show(Delta(phase=phase))
        trail = Trail(parent=run, operation=phase.split()[0], deadline=deadline)
        try:
            return (yield from call(replace(request, messages=messages, model=model, plan=None), trail))
        finally:
            if trail.receipt is not None:
                receipts.append(trail.receipt)

    task = "\n\n".join(m.text for m in request.messages)
    plan = initial = yield from ask(planner, request.messages, "plan")
    done: list[Round] = []
    note = ""
    for n in range(1, rounds + 1):
        try:
            critique = yield from ask(critic, _critic_reads(task, plan.text), f"critique {n}")
        except TokenkitError as error:
            note = f"The critic {critic} failed in round {n}, so the plan stands as it was: {error}"
            done.append(Round(None, None, 0.0, (), note))
            break
        if satisfied(critique.text):
            note = f"The critic had nothing left to say in round {n}."
            done.append(Round(critique, None, 0.0, (), note))
            break
        try:
            refined = yield from ask(planner, _planner_reads(request.messages, plan.text, critique.text), f"refine {n}")
        except TokenkitError as error:
            note = f"The planner {planner} could not refine in round {n}, so the plan stands as it was: {error}"
            done.append(Round(critique, None, 0.0, (), note))
            break
        diff = word_diff(plan.text, refined.text)
        done.append(Round(critique, refined, changed(diff), diff))
        plan = refined
    return Adversarial(run, task, planner, critic, initial, tuple(done), tuple(receipts), note)


def satisfied(critique: str) -> bool:
    """Return whether a critique says that nothing is left: the agreed words alone, however dressed."""
    return re.sub(r"[^a-z ]", "", critique.lower()).strip() == SATISFIED.lower()


def word_diff(before: str, after: str) -> Diff:
    """Return how ``after`` came from ``before``, word by word; joining all but ``removed`` gives ``after`` back."""
    old, new = re.findall(r"\S+\s*|\s+", before), re.findall(r"\S+\s*|\s+", after)
    pieces: list[tuple[str, str]] = []
    for op, a, b, c, d in SequenceMatcher(None, old, new, autojunk=len(old) + len(new) > 2000).get_opcodes():
        if op == "equal":
            pieces.append(("same", "".join(old[a:b])))
            continue
        if b > a:
            pieces.append(("removed", "".join(old[a:b])))
        if d > c:
            pieces.append(("added", "".join(new[c:d])))
    return tuple(pieces)


def changed(diff: Diff) -> float:
    """Return the share of words that were added or removed, of all words in either text: 0 to 1."""
    words = {kind: sum(len(text.split()) for k, text in diff if k == kind) for kind in ("same", "added", "removed")}
    total = 2 * words["same"] + words["added"] + words["removed"]
    return (words["added"] + words["removed"]) / total if total else 0.0


def _critic_reads(task: str, answer: str) -> tuple[Message, ...]:
    return Message("system", CRITIQUE), Message("user", f"The task:\n\n{task}\n\nThe answer:\n\n{answer}")


def _planner_reads(messages: tuple[Message, ...], answer: str, critique: str) -> tuple[Message, ...]:
    objections = f"{REFINE}\n\nThe objections:\n\n{critique}"
    return (*messages, Message("assistant", answer), Message("user", objections))


def _sum(receipts: tuple[Receipt, ...]) -> Nanos | None:
    costs = [receipt.cost_nanos for receipt in receipts]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
