"""spend: what calls cost, by whatever one asks, now and as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets

from tokenkit import _html
from tokenkit.analysis import charts
from tokenkit.analysis.totals import unusual
from tokenkit.bars import standings_card
from tokenkit.ledger.book import BY
from tokenkit.notebook.widgets.board import WIDE, Board, button, changed

if TYPE_CHECKING:
    from tokenkit.kit import Kit

SINCE = {"everything": None, "today": "today", "24 hours": "24h", "7 days": "7d", "this month": "month"}


class Spending(Board):
    """A chart of spend with filters ``by`` and ``since``, and the budgets' bars beneath."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.by = ipywidgets.Dropdown(options=sorted(BY), value="model", description="by", style=WIDE)
        self.since = ipywidgets.Dropdown(options=list(SINCE), value="everything", description="since", style=WIDE)
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        again = button("Refresh", "count in the calls made meanwhile", self.draw, this)
        super().__init__([ipywidgets.HBox([self.by, self.since, again])])
        changed(self.by, self.draw, this)
        changed(self.since, self.draw, this)
        self.doing(self.draw)

    def draw(self) -> None:
        """Ask the ledger again and draw it."""
        chart = charts.spend(self.kit, self.by.value, SINCE[self.since.value])
        budgets = self.kit.budgets.status()
        note = "".join(_html.answer(line) for line in (self.kit.ledger.note, unusual(self.kit.ledger)) if line)
        self.body = chart.svg() + note + (standings_card(budgets) if budgets else "")


def spend(kit: Kit) -> Spending:
    """Return a live chart of what calls cost, with filters, and every budget's bar."""
    return Spending(kit)
