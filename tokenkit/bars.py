"""How budgets show themselves: one bar for each account, spent in full, held hatched, with the figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from tokenkit._html import PLAIN, Table, table_text, visible
from tokenkit.standing import Standing

_STYLE = """<style>
.tokenkit-bars.tokenkit-bars{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5;
color:var(--jp-content-font-color1,inherit);border-collapse:collapse;margin:6px 0;width:auto;border:0}
.tokenkit-bars.tokenkit-bars td,.tokenkit-bars.tokenkit-bars th{padding:3px 16px 3px 0;border:0;text-align:left;
font-weight:400;white-space:normal;overflow-wrap:break-word;font-variant-numeric:tabular-nums;background:none}
.tokenkit-bars.tokenkit-bars tr:nth-child(n){background:none;border:0}
.tokenkit-bars .bar{display:flex;width:12em;height:.8em;border:1px solid currentColor;border-radius:2px;opacity:.9}
.tokenkit-bars .spent{background:#0072b2}
.tokenkit-bars .near{background:#e69f00}.tokenkit-bars .over{background:#d55e00}
.tokenkit-bars .held{background:repeating-linear-gradient(45deg,#8a8a8a 0 3px,transparent 3px 6px)}
</style>"""

NONE = "No budgets are set. kit.budgets.set('5 USD', window='day') sets one; so does [[budget]] in tokenkit.toml."


def standings_card(standings: Sequence[Standing]) -> str:
    """Return every account as a row of HTML: name, bar, figures, what happens at the limit, when it begins anew."""
    if not standings:
        return f'<div class="{PLAIN}">{escape(NONE)}</div>'
    rows = "".join(
        f'<tr><th scope="row">{escape(visible(one.account, 80))}</th><td>{_bar(one)}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in _figures(one))
        + "</tr>"
        for one in standings
    )
    return f'{_STYLE}<table class="tokenkit-bars {PLAIN}"><tbody>{rows}</tbody></table>'


def standings_text(standings: Sequence[Standing]) -> str:
    """Return every account as a line with a bar of characters."""
    if not standings:
        return NONE
    rows = tuple((visible(one.account, 80), _characters(one), *_figures(one)) for one in standings)
    return table_text(Table("Budgets", ("budget", "", "spent", "action", "begins anew"), rows, frozenset()))


def _bar(one: Standing) -> str:
    limit = max(one.budget.amount, 1)
    spent = min(100 * one.spent / limit, 100.0)
    held = min(100 * one.held / limit, 100.0 - spent)
    kind = "over" if one.spent >= one.budget.amount else "near" if one.spent >= one.budget.warn_at * limit else "spent"
    said = escape(f"{one.spent / limit:.0%} spent, {one.held / limit:.0%} held")
    return (
        f'<div class="bar" role="img" aria-label="{said}" title="{said}">'
        f'<div class="{kind}" style="width:{spent:.1f}%"></div><div class="held" style="width:{held:.1f}%"></div></div>'
    )


def _characters(one: Standing, width: int = 20) -> str:
    limit = max(one.budget.amount, 1)
    spent = min(round(width * one.spent / limit), width)
    held = min(round(width * one.held / limit), width - spent)
    return "█" * spent + "▒" * held + "░" * (width - spent - held)


def _figures(one: Standing) -> tuple[str, str, str]:
    show, budget = one.budget.show, one.budget
    share = f" ({one.spent / budget.amount:.0%})" if budget.amount else ""
    held = f", {show(one.held)} held" if one.held else ""
    spent = f"{show(one.spent)} of {show(budget.amount)}{share}{held}"
    if one.violations:
        calls = "call" if one.violations == 1 else "calls"
        spent += f"; {one.violations} {calls} cost more than was held"
    anew = ""
    if one.period.end is not None:
        ends = datetime.fromtimestamp(one.period.end // 10**9, ZoneInfo(budget.timezone))
        anew = f"{ends:%Y-%m-%d %H:%M} {budget.timezone}"
    return spent, budget.action, anew
