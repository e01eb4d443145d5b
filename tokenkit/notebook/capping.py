"""The budget magics: ``%%budget 0.05`` caps everything a cell calls, ``%budget`` shows and sets limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import display

from tokenkit.budget import SCOPES, Budget
from tokenkit.errors import UserError, did_you_mean
from tokenkit.kit import Kit
from tokenkit.money import show_usd
from tokenkit.notebook.cells import as_typed
from tokenkit.notebook.lines import Option, filled, read
from tokenkit.notebook.magics import ASKED, KIT, ROUTE, Told, is_rich, kit_said, magic
from tokenkit.receipts import Plan
from tokenkit.spending import LIMITS, Standings, from_options

LIMIT_OPTIONS = tuple(Option(name.replace("_", "-"), str, f"limit and window in one: {name}", "N") for name in LIMITS)
SCOPE_OPTIONS = tuple(
    Option(name, str, "count only these calls; '*': each has its own account", "NAME") for name in SCOPES
)
BUDGET = (
    Option("action", str, "block, warn, throttle, reroute or shrink what does not fit", "WHAT"),
    Option("dry", bool, "%%budget: show the bill of the cell's prompt; run nothing"),
    Option("window", str, "%budget set: request, hour, day, month or total", "WINDOW"),
    *LIMIT_OPTIONS,
    *SCOPE_OPTIONS,
    Option("name", str, "%budget set: what to call it", "NAME"),
    Option("timezone", str, "%budget set: of days and months, such as Europe/Berlin", "PLACE"),
    Option("warn-at", float, "share of the limit at which to give notice", "SHARE"),
    KIT,
)
VERBS = ("set", "remove", "status")
ABOUT = (
    "Cap what a cell spends: `%%budget 0.05`, or `%%budget '10000 tokens'`, on everything called beneath it.\n"
    "`%budget` shows how every limit stands; `%budget set '5 USD' --window day` and `%budget remove NAME` change them."
)


@magics_class
class Capping(Magics):  # type: ignore[misc]  # IPython is untyped here
    """Magics around the active kit's budgets."""

    @no_var_expand
    @line_cell_magic
    @magic("%%budget", BUDGET, ABOUT)
    def budget(self, said: dict[str, Any], rest: str, cell: str | None) -> None:
        """Cap the cell; or show, set and remove limits; -h lists the options."""
        kit = kit_said(self.shell, said)
        verb, _, after = rest.partition(" ")
        if cell is not None:
            self._cell(kit, said, rest, as_typed(self.shell, cell))
        elif verb == "set":
            more, limit = read("%budget set", after, BUDGET, ABOUT)
            limits = {"limit": limit.strip("'\"") or None, **_fields({**said, **more})}
            for made in from_options(limits):
                kit.budgets.set(made)
            self._show(kit.budgets.status())
        elif verb == "remove":
            kit.budgets.remove(after.strip().strip("'\""))
            self._show(kit.budgets.status())
        elif verb in ("", "status"):
            self._show(kit.budgets.status())
        else:
            raise UserError(f"%budget does not know {verb!r}. {did_you_mean(verb, VERBS)} A cap is %%budget {verb}.")

    def _cell(self, kit: Kit, said: dict[str, Any], limit: str, body: str) -> None:
        fields = {"limit": limit.strip("'\"") or None, **_fields(said)}
        budgets = from_options(fields)
        if said.get("dry"):
            self._dry(kit, budgets[0], body)
            return
        if not body.strip():
            raise UserError("There is nothing beneath %%budget to cap.")
        with kit.budgets.cap(budgets[0]) as cap:
            result = self.shell.run_cell(body)
        self._show(Standings((kit.budgets.standing(cap),)))
        if not result.success:
            # The cell has shown its own error; failing here too stops Run All, as it would have without a budget.
            raise Told(
                f"The cell beneath %%budget failed: {type(result.error_before_exec or result.error_in_exec).__name__}."
            )

    def _dry(self, kit: Kit, budget: Budget, body: str) -> None:
        """Plan the cell's one prompt: a ``%%route`` cell's, or the body itself."""
        said, prompt = _route_of(body)
        if said.get("template"):
            prompt = filled(prompt, self.shell.user_ns)
        if not prompt.strip():
            raise UserError("There is no prompt beneath %%budget --dry: write one, or a %%route cell.")
        options = {key: said[key] for key in ASKED if key in said} | {"endpoint_name": said.get("endpoint")}
        plan = kit.plan(prompt, **options)
        bill = _bill(
            kit, plan, budget, prompt, options, 1 + 2 * said.get("rounds", 1) if said.get("adversarial") else 1
        )
        display(plan) if is_rich(self.shell) else print(plan)
        print(bill)

    def _show(self, standings: Standings) -> None:
        display(standings) if is_rich(self.shell) else print(standings)


def _fields(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in ("kit", "dry")}


def _route_of(body: str) -> tuple[dict[str, Any], str]:
    """Return the options and prompt of a body: those of its route cell or line; else all of it is the prompt."""
    lines = body.lstrip("\n").split("\n")
    first = lines[0].strip()
    for name in ("%%route", "%route"):
        if first == name or first.startswith(f"{name} "):
            said, rest = read(name, first.removeprefix(name), ROUTE, "")
            if name == "%route":
                _only_one(lines[1:])
                return said, rest
            return said, "\n".join(lines[1:])
    routes = [line for line in lines if line.strip().startswith(("%route", "%%route"))]
    if routes:
        raise UserError("%%budget --dry plans a single %%route cell or prompt; this cell is more than that.")
    return {}, body


def _only_one(lines: Sequence[str]) -> None:
    if any(line.strip() for line in lines):
        raise UserError("%%budget --dry plans a single %route; there is more beneath it.")


def _bill(kit: Kit, plan: Plan, budget: Budget, prompt: str, options: dict[str, Any], calls: int) -> str:
    """Say in a sentence what the cell can cost at most, and what the budget would make of it."""
    limit = budget.show(budget.amount)
    with kit.budgets.cap(budget):
        under = kit.plan(prompt, **options)
    each = f" for each of up to {calls} calls" if calls > 1 else ""
    if under.choice is None:
        reasons = [c.rejected for c in under.candidates if c.rejected is not None]
        return f"Within {limit} nothing would be sent: {reasons[0] if reasons else 'no model is eligible'}."
    bound = under.choice.bound
    if bound is None:
        return f"{under.choice.model} has no known price, so nobody can say what this costs."
    cost = f"{under.choice.model} would answer, for at most {show_usd(bound)}{each}"
    if budget.unit == "usd" and bound > budget.amount:
        return f"{cost}; within {limit} its answer would be shortened to what fits. Nothing was sent."
    instead = ""
    if plan.choice is not None and plan.choice.model != under.choice.model:
        instead = f" instead of {plan.choice.model}"
    return f"{cost}, within {limit}{instead}. Nothing was sent."
