"""How nouns show themselves: small cards for notebooks, aligned text for terminals, both from the same facts.

Whatever a model, a provider or a user wrote is hostile text here: it is escaped, its invisible and direction-changing
characters are made visible, and very long strings are cut. A card loads nothing, runs nothing, takes its colours from
JupyterLab where there is one, and reads as a plain table where styles are stripped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from tokenkit.money import Nanos, show_usd
from tokenkit.receipts import Attempt, Candidate, Charge, Plan, Receipt, StageReport
from tokenkit.types import Usage

LONGEST_NAME = 80
LONGEST_PROSE = 400
MOST_ROWS = 50

# Controls but tab and newline; direction marks and overrides; zero-width and tag characters; lone surrogates. The
# zero-width joiners stay: Persian, Indic scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

# Doubled class names outweigh JupyterLab's own rules for tables in outputs.
_STYLE = """<style>
.tokenkit.tokenkit{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5;
color:var(--jp-content-font-color1,inherit);border-left:3px solid #5b8fc7;padding:2px 0 2px 12px;margin:6px 0;
max-width:100%;overflow-x:auto}
.tokenkit.tokenkit-error{border-left-color:#d0652b}
.tokenkit.tokenkit-cancelled{border-left:3px dashed #8a8a8a}
.tokenkit.tokenkit table{border-collapse:collapse;border:0;margin:0;font-size:inherit;color:inherit;width:auto}
.tokenkit.tokenkit caption{caption-side:top;text-align:left;font-weight:600;padding:0 0 3px;color:inherit}
.tokenkit.tokenkit tbody tr:nth-child(n),.tokenkit.tokenkit thead tr:nth-child(n){background:none;border:0}
.tokenkit.tokenkit th,.tokenkit.tokenkit td{text-align:left;vertical-align:top;padding:1px 16px 1px 0;border:0;
white-space:normal;overflow-wrap:break-word;max-width:60em;font-variant-numeric:tabular-nums}
.tokenkit.tokenkit td:last-child{overflow-wrap:anywhere}
.tokenkit.tokenkit th{font-weight:400;opacity:.75;overflow-wrap:normal;white-space:nowrap}
.tokenkit.tokenkit .n{text-align:right;white-space:nowrap}
.tokenkit.tokenkit .all th,.tokenkit.tokenkit .all td{padding-bottom:3px;
border-bottom:1px solid var(--jp-border-color2,rgba(127,127,127,.4))}
.tokenkit-answer.tokenkit-answer{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-width:70em;
font-family:var(--jp-content-font-family,system-ui,sans-serif);font-size:var(--jp-content-font-size1,14px);
line-height:1.55;color:var(--jp-content-font-color1,inherit);margin:2px 0 8px}
.tokenkit-answer ins{background:rgba(26,147,111,.2)}.tokenkit-answer del{background:rgba(209,105,14,.2)}
</style>"""

PLAIN = "mathjax_ignore tex2jax_ignore"
"""The classes that keep a notebook from setting what stands between two dollar signs as a formula."""

_MARKS = {"ok": "✓ ok", "error": "✗ error", "cancelled": "■ cancelled"}


class Table(NamedTuple):
    """A title, column names, rows of text, and which columns hold figures (set flush right)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: frozenset[int]


Facts = Sequence[tuple[str, Sequence[str]]]
"""Labelled lines, as a receipt has them."""


def visible(text: str, limit: int | None = None) -> str:
    """Return text safe to print: invisible and direction-changing characters as ‹U+…›, cut at ``limit`` characters."""
    text = text.replace("\r\n", "\n")
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}… (+{len(text) - limit + 1:,} characters)"
    return _UNSEEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text)


def answer(text: str) -> str:
    """Return a model's answer as escaped HTML with its line breaks and spaces kept; nothing in it is markup."""
    return f'{_STYLE}<div class="tokenkit-answer {PLAIN}">{escape(visible(text))}</div>'


def columns(texts: Sequence[tuple[str, str]]) -> str:
    """Return several texts side by side, each under its heading; all of it is escaped."""
    width = max(18, 90 // max(len(texts), 1))
    parts = [
        f'<div style="flex:1 1 {width}ch;min-width:18ch"><strong>{escape(_name(name))}</strong>'
        f'<div class="tokenkit-answer {PLAIN}">{escape(visible(text))}</div></div>'
        for name, text in texts
    ]
    return f'{_STYLE}<div class="{PLAIN}" style="display:flex;flex-wrap:wrap;gap:1.5em">{"".join(parts)}</div>'


def diff(pieces: Sequence[tuple[str, str]]) -> str:
    """Return a word diff: what was added underlined, what was removed struck through; not told by colour alone."""
    tags = {"same": "span", "added": "ins", "removed": "del"}
    inner = "".join(f"<{tags[kind]}>{escape(visible(text))}</{tags[kind]}>" for kind, text in pieces)
    return f'{_STYLE}<div class="tokenkit-answer {PLAIN}">{inner}</div>'


def receipt_card(receipt: Receipt) -> str:
    """Return a receipt as a small HTML card."""
    title, facts = _receipt_title(receipt), _receipt_facts(receipt)
    return _card(_facts_html(title, facts), receipt.status)


def receipt_text(receipt: Receipt) -> str:
    """Return a receipt as a few aligned lines for a terminal."""
    facts = _receipt_facts(receipt)
    room = max(len(label) for label, _ in facts) + 2
    lines = [_receipt_title(receipt)]
    for label, values in facts:
        for i, value in enumerate(values):
            lines.append(f"  {label if i == 0 else '':<{room}}{value}")
    return "\n".join(lines)


def plan_card(plan: Plan) -> str:
    """Return a plan as an HTML table: every candidate, its score and upper bound, or why it was rejected."""
    notes = answer("\n".join(_prose(note) for note in plan.notes)) if plan.notes else ""
    return notes + table_card(_plan_table(plan), "ok" if plan.choice is not None else "error")


def plan_text(plan: Plan) -> str:
    """Return a plan as an aligned table for a terminal."""
    return "\n".join((*(_prose(note) for note in plan.notes), table_text(_plan_table(plan))))


def stages_card(stages: Sequence[StageReport]) -> str:
    """Return what each compression stage did as an HTML table."""
    return table_card(_stages_table(stages))


def stages_text(stages: Sequence[StageReport]) -> str:
    """Return what each compression stage did as an aligned table for a terminal."""
    return table_text(_stages_table(stages))


def table_card(table: Table, status: str = "ok") -> str:
    """Return any table of text as an HTML card."""
    return _card(_table_html(table), status)


def table_text(table: Table) -> str:
    """Return a table as aligned columns for a terminal, its title above."""
    lines = [table.columns, *table.rows]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(table.columns))]

    def set_line(line: Sequence[str]) -> str:
        padded = (
            " " * (room - _width(cell)) + cell if i in table.figures else cell + " " * (room - _width(cell))
            for i, (cell, room) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join([table.title, *(set_line(line) for line in lines)]) if table.rows else table.title


# Receipts as facts.


def _receipt_title(receipt: Receipt) -> str:
    asked = receipt.model or receipt.requested_model
    parts = [_MARKS.get(receipt.status, receipt.status), _name(asked), _spent(receipt), f"{receipt.seconds:.2f} s"]
    if receipt.cached:
        parts.insert(1, "from the cache")
    return " · ".join(parts)


def _receipt_facts(receipt: Receipt) -> Facts:
    facts: list[tuple[str, Sequence[str]]] = [
        ("model", [_model_line(receipt)]),
        ("tokens", ["none: nothing was sent" if receipt.cached else _usage_line(receipt.usage)]),
        ("cost", [_cost_line(receipt)]),
        ("time", [_time_line(receipt)]),
    ]
    if len(receipt.attempts) > 1 or any(a.error or a.waited for a in receipt.attempts):
        facts.append(("path", [_attempt_line(i, a) for i, a in enumerate(receipt.attempts, 1)]))
    if receipt.stages:
        facts.append(("compression", [_saved_line(receipt)]))
    if receipt.verdicts:
        said = [" ".join(f"{v.policy}: {v.outcome}. {v.message}".split()) for v in receipt.verdicts]
        facts.append(("policy", [visible(line, LONGEST_PROSE) for line in said]))
    if receipt.charges:
        facts.append(("budgets", [_charge_line(charge) for charge in receipt.charges[:8]]))
    if receipt.error and not any(a.error == receipt.error for a in receipt.attempts):
        facts.append(("error", [_prose(receipt.error)]))
    notes = [*receipt.notes, *(note for a in receipt.attempts for note in a.notes)]
    if notes:
        facts.append(("notes", [_prose(note) for note in dict.fromkeys(notes)]))
    facts.append(("receipt", [_name(receipt.id)]))
    return facts


def _charge_line(charge: Charge) -> str:
    charged, held = (
        show_usd(amount) if charge.unit == "usd" else f"{amount:,} tokens" for amount in (charge.charged, charge.held)
    )
    when = "" if len(charge.period) == 32 else f" ({_name(charge.period)})"  # a cell's or request's id says nothing
    return f"{_name(charge.account)}{when}: charged {charged}, at most {held} was held"


def _model_line(receipt: Receipt) -> str:
    asked = _name(receipt.requested_model)
    if receipt.model is None:
        return f"none; {asked} was asked for"
    line = _name(receipt.model)
    answered = receipt.attempts[-1].response_model if receipt.attempts else None
    if answered and not receipt.model.endswith(answered):
        line += f", answered as {_name(answered)}"
    if receipt.requested_model not in (receipt.model, receipt.model.partition("/")[2]):
        line += f"; {asked} was asked for"
    return line


def _usage_line(usage: Usage | None) -> str:
    if usage is None:
        return "unknown"
    read, created, thought = (
        usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.reasoning_output_tokens
    )  # fmt: skip
    inside = [f"{read:,} read from cache"] if read else []
    inside += [f"{created:,} written to cache"] if created else []
    line = f"{_count(usage.input_tokens)} in{_aside(inside)}, {_count(usage.output_tokens)} out"
    line += _aside([f"{thought:,} reasoning"] if thought else [])
    return line + {"reported": "", "counted": ", counted here", "estimated": "  ≈ estimated"}[usage.source]


def _spent(receipt: Receipt) -> str:
    about = "≈ " if receipt.usage is not None and receipt.usage.source == "estimated" and receipt.cost_nanos else ""
    return about + _cost(receipt.cost_nanos)


def _cost_line(receipt: Receipt) -> str:
    if receipt.cost_nanos is None:
        why = "its price is not known" if receipt.price is None else "its usage is not known"
        return f"unknown: {why}"
    line = show_usd(receipt.cost_nanos)
    if receipt.price is not None and not receipt.cached:
        line += f", at {_name(str(receipt.price))}"
    return line + ("  ≈ estimated" if _spent(receipt).startswith("≈") else "")


def _time_line(receipt: Receipt) -> str:
    first = receipt.attempts[-1].first_chunk if receipt.attempts else None
    line = f"{receipt.seconds:.2f} s"
    if receipt.streamed:
        line += ", first chunk unknown" if first is None else f", first chunk after {first:.2f} s"
    waited = sum(a.waited for a in receipt.attempts)
    return line + (f", {waited:.2f} s of it waiting" if waited else "")


def _attempt_line(number: int, attempt: Attempt) -> str:
    waited = f"after waiting {attempt.waited:.2f} s, " if attempt.waited else ""
    cost = "" if attempt.cost_nanos == 0 else f", {_cost(attempt.cost_nanos)}"
    mark = _MARKS.get(attempt.status, attempt.status)
    line = f"{number}. {waited}{_name(attempt.model)}: {mark} in {attempt.seconds:.2f} s{cost}"
    why = attempt.error or attempt.error_type
    return line if why is None else f"{line}: {_prose(why)}"


def _saved_line(receipt: Receipt) -> str:
    before = receipt.stages[0].before
    share = f" ({receipt.saved_tokens / before:.0%})" if before else ""
    inexact = "" if all(stage.exact for stage in receipt.stages) else "  ≈ estimated"
    skipped = next((stage.skipped for stage in receipt.stages if stage.skipped), None)
    why = f"; {_prose(skipped)}" if skipped and not receipt.saved_tokens else ""  # it was asked for: why it did nothing
    return f"{receipt.saved_tokens:,} of {before:,} input tokens saved{share}{why}{inexact}"


# Plans and stages as tables.


def _plan_table(plan: Plan) -> Table:
    choice = plan.choice
    if choice is None:
        title = f"No candidate of {len(plan.candidates)} is eligible"
    else:
        bound = f"at most {show_usd(choice.bound)}" if choice.bound is not None else "no upper bound: price unknown"
        title = f"{_name(choice.model)} first by {_name(plan.strategy)}, {bound}"
        if plan.max_output_tokens is not None:
            title += f" for up to {plan.max_output_tokens:,} tokens out"
    drawn = any(0 < c.propensity < 1 for c in plan.candidates)
    columns = ["", "model", "score", "terms", *(["chance"] if drawn else []), "tokens in", "at most"]
    barred = bool(plan.rejected)
    rows = []
    for rank, c in enumerate(plan.candidates[:MOST_ROWS], 1):
        cells = [str(rank) if c.rejected is None else "✗", _name(c.model), _score(c), _terms(c)]
        cells += [f"{c.propensity:.1%}" if c.rejected is None else ""] if drawn else []
        cells += [_tokens(c), show_usd(c.bound)]
        rows.append(tuple(cells + ([_prose(c.rejected or "")] if barred else [])))
    if len(plan.candidates) > MOST_ROWS:
        more = f"and {len(plan.candidates) - MOST_ROWS} more"
        rows.append(("…", more, *("" for _ in range(len(columns) + barred - 2))))
    figures = frozenset({0, 2, *range(4, len(columns))})
    return Table(title, (*columns, *(("why not",) if barred else ())), tuple(rows), figures)


def _score(candidate: Candidate) -> str:
    return "" if candidate.score is None else f"{candidate.score:.3f}"


def _terms(candidate: Candidate) -> str:
    return "  ".join(f"{_name(name)}\u00a0{value:+.3g}" for name, value in candidate.terms)


def _tokens(candidate: Candidate) -> str:
    counted = candidate.input_tokens
    return "unknown" if counted is None else f"{'' if counted.exact else '≈ '}{counted.tokens:,}"


def _stages_table(stages: Sequence[StageReport]) -> Table:
    columns = ("stage", "before", "after", "saved", "share", "seconds", "what it kept")
    rows = [_stage_row(stage) for stage in stages]
    title = "Nothing was compressed"
    if stages:
        before, after = stages[0].before, stages[-1].after
        title = f"{before:,} tokens became {after:,}"
        if len(stages) > 1:
            seconds = sum(stage.seconds for stage in stages)
            whole = StageReport("all", before, after, seconds, all(stage.lossless for stage in stages))
            rows.append(_stage_row(whole))
    return Table(title, columns, tuple(rows), frozenset(range(1, 6)))


def _stage_row(stage: StageReport) -> tuple[str, ...]:
    about = "" if stage.exact else "≈ "
    share = f"{stage.saved / stage.before:.1%}" if stage.before else ""
    kept = "everything: lossless" if stage.lossless else "the meaning, not the text"
    if stage.skipped is not None:
        kept = f"skipped: {_prose(stage.skipped)}"
    figures = (f"{about}{stage.before:,}", f"{about}{stage.after:,}", f"{about}{stage.saved:,}")
    return (_name(stage.stage), *figures, share, f"{stage.seconds:.3f}", kept)


# Rendering.


def _card(inner: str, status: str) -> str:
    return f'{_STYLE}<div class="tokenkit tokenkit-{escape(status)} {PLAIN}">{inner}</div>'


def _facts_html(title: str, facts: Facts) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{"<br>".join(escape(value) for value in values)}</td></tr>'
        for label, values in facts
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>"


def _table_html(table: Table) -> str:
    def cells(tag: str, values: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in table.figures else ''}>{escape(value)}</{tag.split()[0]}>"
            for i, value in enumerate(values)
        )

    head = cells('th scope="col"', (column or "rank" for column in table.columns))
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    return (
        f"<table><caption>{escape(table.title)}</caption>"
        f'<thead><tr class="all">{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _width(text: str) -> int:
    """Return the columns a terminal gives text: two for East Asian wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _name(text: str) -> str:
    return visible(" ".join(text.split()), LONGEST_NAME)


def _prose(text: str) -> str:
    return visible(" ".join(text.split()), LONGEST_PROSE)


def _count(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def _cost(nanos: Nanos | None) -> str:
    return "cost unknown" if nanos is None else show_usd(nanos)


def _aside(parts: Sequence[str]) -> str:
    return f" ({', '.join(parts)})" if parts else ""
