"""Arguments as the ledger kept them: who planned, who attacked, what they wrote, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.adversarial import changed, word_diff
from tokenkit.money import show_usd

if TYPE_CHECKING:
    from tokenkit.ledger import Ledger

MOST = 20
"""Stored runs offered, the latest first."""

_STEPS = """
WITH steps AS (SELECT seq, parent, operation, model, answer, cost_nanos, status, started_at,
      max(seq) OVER (PARTITION BY parent) AS latest
    FROM calls WHERE operation IN ('plan', 'critique', 'refine') AND parent IS NOT NULL)
SELECT parent, operation, model, answer, cost_nanos, status, strftime(started_at, '%d %b %H:%M') AS began
FROM steps QUALIFY dense_rank() OVER (ORDER BY latest DESC) <= {most} ORDER BY latest DESC, seq"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One run in the ledger: its ``id``, a line that names it, and its texts as HTML, all of them escaped."""

    id: str
    label: str
    html: str


def stored(ledger: Ledger) -> list[Stored]:
    """Return the latest arguments in the ledger; their texts are missing where prompts and answers are not kept."""
    rows = ledger.sql(_STEPS.format(most=MOST)).astype(object)
    steps = rows.where(rows.notna(), None).to_dict("records")
    runs: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        runs.setdefault(str(step["parent"]), []).append(step)
    return [_run(parent, steps) for parent, steps in runs.items()]


def _run(parent: str, steps: list[dict[str, Any]]) -> Stored:
    models = {step["operation"]: _html.visible(str(step["model"]), 40) for step in steps}
    costs = [step["cost_nanos"] for step in steps]
    cost = show_usd(None if None in costs else sum(int(nanos) for nanos in costs))
    rounds = sum(step["operation"] == "critique" for step in steps)
    who = f"{models.get('plan', 'unknown')} against {models.get('critique', 'nobody')}"
    label = f"{steps[0]['began']}: {who}, {rounds} round{'' if rounds == 1 else 's'}, {cost}"
    parts, plan, texts = [_html.answer(f"Stored run of {label}")], None, []
    for step in steps:
        text = step["answer"] if step["answer"] is not None else "its text was not kept"
        head = f"{step['operation']}, {show_usd(step['cost_nanos'])}"
        if step["status"] != "ok":
            head += f", {step['status']}"
        texts.append((head, text))
        if step["operation"] == "critique":
            continue
        parts.append(_html.columns(texts))
        texts = []
        if plan is not None and step["answer"] is not None:
            pieces = word_diff(plan, step["answer"])
            parts.append(_html.answer(f"{changed(pieces):.0%} of the words changed:") + _html.diff(pieces))
        plan = step["answer"]
    return Stored(parent, label, "".join([*parts, _html.columns(texts) if texts else ""]))
