"""compression_lab: how far can this text be shortened, what is lost, and which words are they."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from tokenkit import _html
from tokenkit.compress import STAGES, recall
from tokenkit.compress.damage import units
from tokenkit.compress.pipeline import Compressed
from tokenkit.money import round_to_nanos, show_usd
from tokenkit.notebook.widgets.board import BROAD, WIDE, Board, changed

if TYPE_CHECKING:
    from tokenkit.kit import Kit

DEFAULT = ("normalize", "dedupe", "summarize")


class Lab(Board):
    """A text, a question, stages and a target; beneath, what was kept, what was dropped, and what it saves."""

    def __init__(self, kit: Kit, text: str, query: str) -> None:
        self.kit = kit
        wide = ipywidgets.Layout(width=BROAD)
        tall = ipywidgets.Layout(width=BROAD, height="9em")
        self.text = ipywidgets.Textarea(value=text, description="text", layout=tall, continuous_update=False)
        self.query = ipywidgets.Text(value=query, description="question", layout=wide, continuous_update=False)
        self.target = ipywidgets.FloatSlider(
            value=0.5, min=0.05, max=1.0, step=0.05, description="share of tokens to keep", style=WIDE, layout=wide,
            readout_format=".0%",
        )  # fmt: skip
        self.stages = {
            name: ipywidgets.Checkbox(
                value=name in DEFAULT, description=name, indent=False, layout=ipywidgets.Layout(width="auto")
            )
            for name in STAGES
        }
        priced = [model for model in kit.models if model.price is not None]
        # At first the model that routing likes best: a free one would say that nothing is saved.
        best = max(priced, key=lambda model: model.weight).id if priced else None
        self.model = ipywidgets.Dropdown(
            options=[model.id for model in priced], value=best, description="saved at the price of", style=WIDE
        )
        this = lambda: self  # noqa: E731 - the board exists once __init__ is done
        boxes = ipywidgets.HBox(list(self.stages.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([self.text, self.query, boxes, self.target, self.model])
        self.told = (self.text, *self.stages.values())
        for control in (self.text, self.query, self.target, self.model, *self.stages.values()):
            changed(control, self.draw, this)
        self.doing(self.draw)

    def draw(self) -> None:
        """Compress again and show it."""
        if not self.text.value.strip():
            self.body = _html.answer("There is no text yet: paste one above.")
            return
        chosen = [name for name, box in self.stages.items() if box.value]
        query = self.query.value.strip() or None
        if not chosen:
            self.body = _html.answer("Tick a stage.")
            return
        made = self.kit.compress(
            self.text.value, chosen, query=query, target=float(self.target.value), model=self.model.value or "gpt-4o"
        )
        left = recall(self.text.value, made.text, query)
        share = "" if made.ratio is None else f", {1 - made.ratio:.0%} saved"
        tokens = f"{made.before:,} → {made.after:,} tokens{share}"
        facts = f"{tokens}; {left:.0%} of the evidence's words are left{self._saved(made)}"
        self.body = _html.answer(facts) + _html.stages_card(made.reports) + marked(self.text.value, made.text)

    def _saved(self, made: Compressed) -> str:
        if self.model.value is None:
            return ""
        rule = self.kit.catalog.get(self.model.value).price
        if rule is None:
            return ""
        each = round_to_nanos(made.saved * rule.receipt(made.before).input)
        if not each:
            return "; nothing less to pay" if made.saved else ""
        return f"; {show_usd(each)} less a call, {show_usd(each * 1000)} in a thousand"


def marked(before: str, after: str) -> str:
    """Return a text with what is not in ``after`` struck through and dimmed; all of it is escaped.

    Spaces do not count, since ``normalize`` changes them: what is not struck through is ``after`` in the same order,
    but for what a stage wrote anew. Time is linear in the length of both.
    """
    pieces, made = _pieces(before), [key for key in map(_key, _pieces(after)) if key]
    left = Counter(map(_key, pieces))
    parts, at = [], 0
    for piece in pieces:
        while at < len(made) and not left[made[at]]:
            at += 1  # nothing that is still to come reads like this: it was written anew
        key, shown = _key(piece), escape(_html.visible(piece))
        left[key] -= 1
        kept = not key or (at < len(made) and made[at] == key)
        at += bool(key) and kept
        parts.append(shown if kept else f'<del style="opacity:.55">{shown}</del>')
    return f'<div class="tokenkit-answer {_html.PLAIN}" style="white-space:pre-wrap">{"".join(parts)}</div>'


def _pieces(text: str) -> list[str]:
    """Return lines and sentences. An outline would cut a text with two worked examples unlike one with three."""
    ends = [end for _, end in units(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _key(piece: str) -> str:
    return "".join(piece.split())


def compression_lab(kit: Kit, text: str = "", query: str = "") -> Lab:
    """Return a lab for one text: stages, a target, and what is kept and dropped, as the controls move."""
    return Lab(kit, text, query)
