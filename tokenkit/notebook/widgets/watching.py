"""spend: what calls cost, by whatever one asks, now and as it goes on."""

from __future__ import annotations

import threading
import time
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
    from tokenkit.receipts import Receipt

LEAST_WAIT = 1.0
"""Seconds from a call's end until it is drawn: several calls are drawn as one."""

SINCE = {"everything": None, "today": "today", "24 hours": "24h", "7 days": "7d", "this month": "month"}


class Spending(Board):
    """A chart of spend with filters ``by`` and ``since``, and the budgets' bars beneath.

    While ``live`` is ticked it follows the calls of its kit as they end, at most once a second and never for more than
    a tenth of the time; calls of other kernels are counted in with them, or with Refresh.
    """

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.by = ipywidgets.Dropdown(options=sorted(BY), value="model", description="by", style=WIDE)
        self.since = ipywidgets.Dropdown(options=list(SINCE), value="everything", description="since", style=WIDE)
        auto = ipywidgets.Layout(width="auto")
        self.live = ipywidgets.Checkbox(value=True, description="live", indent=False, layout=auto)
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        again = button("Refresh", "count in the calls made meanwhile", self.draw, this)
        self._due: threading.Timer | None = None
        self._took = 0.0
        row = ipywidgets.Layout(flex_flow="row wrap")
        super().__init__([ipywidgets.HBox([self.by, self.since, self.live, again], layout=row)])
        self.told = (self.live,)  # a picture never is
        changed(self.by, self.draw, this)
        changed(self.since, self.draw, this)
        kit.on_receipt.append(self._heard)
        self.doing(self.draw)

    def draw(self) -> None:
        """Ask the ledger again and draw it."""
        chart = charts.spend(self.kit, self.by.value, SINCE[self.since.value])
        budgets = self.kit.budgets.status()
        note = "".join(_html.answer(line) for line in (self.kit.ledger.note, unusual(self.kit.ledger)) if line)
        self.body = chart.svg() + note + (standings_card(budgets) if budgets else "")

    def close(self) -> None:
        """Take the widget away; it hears of no more calls."""
        self._silent()
        super().close()

    def _silent(self) -> None:
        if self._heard in self.kit.on_receipt:
            self.kit.on_receipt.remove(self._heard)

    def _heard(self, receipt: Receipt) -> None:
        """Draw soon, in a thread of its own: the call that has just ended does not wait for its picture."""
        if self.live.value and self._due is None:
            self._due = threading.Timer(max(LEAST_WAIT, 9 * self._took), self._again)
            self._due.daemon = True
            self._due.start()

    def _again(self) -> None:
        self._due, began = None, time.monotonic()
        self.doing(self.draw)
        self._took = time.monotonic() - began


def spend(kit: Kit) -> Spending:
    """Return a live chart of what calls cost, with filters, and every budget's bar."""
    return Spending(kit)
