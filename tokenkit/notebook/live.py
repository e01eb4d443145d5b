"""One output that grows while an answer streams in: HTML in a notebook, plain text in a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from tokenkit import _html
from tokenkit.effects import Sleep
from tokenkit.receipts import Receipt

PER_SECOND = 15
"""Updates a second at most: more only costs the browser, nobody reads faster."""

SLOWER_AFTER = 50_000
"""Characters after which updates come less often, since each carries the whole text."""


class Live:
    """Shows the text so far in a single updating output, then the receipt beneath it."""

    def __init__(self, *, rich: bool) -> None:
        self.rich = rich
        self.text = ""
        self._waiting = ""
        self._held = ""
        self._due = 0.0
        self._handle: Any = None

    def add(self, text: str) -> None:
        """Append a piece of the answer."""
        self.text += text
        self._waiting = ""
        if not self.rich:
            self._print(text)
        elif time.monotonic() >= self._due:
            self._update()

    def wait(self, sleep: Sleep) -> None:
        """Show that the call waits, how long, and why."""
        self._waiting = _html.visible(f"waiting {sleep.seconds:.1f} s: {sleep.reason}")
        if self.rich:
            self._update()
        else:
            print(self._waiting, file=sys.stderr)

    def finish(self, receipt: Receipt | None, *, verbose: bool) -> None:
        """Show the whole text and the receipt; with ``verbose`` the plan and the stages too."""
        self._waiting = ""
        if self.rich:
            if self.text or receipt is not None or self._handle is not None:
                self._update(receipt, verbose)
            return
        print(_html.visible(self._held), end="" if not self.text or self.text.endswith("\n") else "\n")
        if receipt is not None:
            print(_html.receipt_text(receipt))
            if verbose:
                print(_details_text(receipt))

    def _print(self, text: str) -> None:
        """Print what a terminal may see; half of a line end is held back until its other half is here."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        print(_html.visible(text.removesuffix(self._held)), end="", flush=True)

    def _update(self, receipt: Receipt | None = None, verbose: bool = False) -> None:
        self._due = time.monotonic() + (1 + len(self.text) / SLOWER_AFTER) / PER_SECOND
        parts = [_html.answer(self.text)] if self.text else []
        plain = [_html.visible(self.text)] if self.text else []
        if self._waiting:
            parts.append(_html.answer(self._waiting))
            plain.append(self._waiting)
        if receipt is not None:
            parts.append(_html.receipt_card(receipt))
            plain.append(_html.receipt_text(receipt))
            if verbose:
                parts.append(_details_html(receipt))
                plain.append(_details_text(receipt))
        self._show({"text/html": "".join(parts), "text/plain": "\n".join(plain)})

    def _show(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _details_html(receipt: Receipt) -> str:
    plan = _html.plan_card(receipt.plan) if receipt.plan is not None else ""
    return plan + (_html.stages_card(receipt.stages) if receipt.stages else "")


def _details_text(receipt: Receipt) -> str:
    plan = _html.plan_text(receipt.plan) + "\n" if receipt.plan is not None else ""
    return plan + (_html.stages_text(receipt.stages) if receipt.stages else "")


class Bar:
    """A batch's progress as one output that grows."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, done: int, of: int) -> None:
        """Show that ``done`` calls ``of`` all have ended."""
        from IPython.display import display

        share = 100 * done / max(of, 1)
        said = f"{done:,} of {of:,} calls done"
        html = (
            f'<div role="progressbar" aria-valuenow="{share:.0f}" style="display:flex;gap:1em;align-items:center">'
            f'<div style="width:16em;height:.8em;border:1px solid currentColor;border-radius:2px">'
            f'<div style="width:{share:.1f}%;height:100%;background:#0072b2"></div></div>{said}</div>'
        )
        bundle = {"text/html": html, "text/plain": said}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
        if done >= of:
            self._handle = None
