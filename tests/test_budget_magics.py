"""``%%budget`` and ``%budget``: a cell is capped whatever it calls, the bill comes first, mistakes cost one line."""

from __future__ import annotations

import pytest
from shells import Cells, cells, shell

__all__ = ["cells", "shell"]


def test_everything_a_cell_calls_is_capped(cells: Cells) -> None:
    code = (
        "%%budget 0.01\n"
        "from tokenkit import notebook\n"
        "said = []\n"
        "for _ in range(20):\n"
        "    said.append(notebook.kit().call('hi', model='sage', max_tokens=30))\n"
    )
    seen = cells.run(code)
    assert "BudgetExceeded" in seen.out + seen.err
    spent = sum(r.receipt.cost_nanos for r in cells.shell.user_ns["said"])
    assert 0 < spent <= 10_000_000
    assert "this cell" in seen.out
    assert "of $0.010" in seen.out
    assert str(seen.error) == "The cell beneath %%budget failed: BudgetExceeded."
    assert cells.run("%route --model sage --max-tokens 30 again").error is None


def test_a_route_cell_within_a_budget_cell_shows_both(cells: Cells) -> None:
    seen = cells.run("%%budget 0.05\n%%route --model tiny --max-tokens 20\nWhat is >>> this?", kernel=True)
    assert seen.error is None
    assert cells.spy.prompt == "What is >>> this?"
    assert "this cell" in seen.outputs[-1].data["text/html"]
    assert 'role="img"' in seen.outputs[-1].data["text/html"]


def test_the_last_value_of_a_capped_cell_is_shown(cells: Cells) -> None:
    seen = cells.run("%%budget 1\n6 * 7")
    assert "42" in seen.out


@pytest.mark.parametrize("body", ["%%route --model sage --max-tokens 100\nhi there", "%route --model sage hi there"])
def test_dry_shows_the_bill_and_sends_nothing(cells: Cells, body: str) -> None:
    seen = cells.run(f"%%budget --dry 0.5\n{body}")
    assert "simulated/sage would answer, for at most $" in seen.out
    assert "Nothing was sent." in seen.out
    assert cells.spy.sent == []


def test_dry_says_when_nothing_would_be_sent_and_takes_a_bare_prompt(cells: Cells) -> None:
    seen = cells.run("%%budget --dry 0.000001\nExplain quantum computing to me, at length, please.")
    assert "Within $0.0000010 nothing would be sent: budget 'this cell' has" in seen.out
    seen = cells.run("%%budget --dry 1\n%%route --adversarial --rounds 2 --max-tokens 50\nPlan it.")
    assert "for each of up to 5 calls" in seen.out
    assert cells.spy.sent == []


def test_limits_are_set_shown_and_removed(cells: Cells) -> None:
    assert "No budgets are set" in cells.run("%budget").out
    seen = cells.run("%budget set --user alice --daily-tokens 10000 --action block")
    assert "tokens a day for user alice" in seen.out
    assert "10,000 tokens" in seen.out
    seen = cells.run("%budget set --window day '5 USD'")
    assert "USD a day" in seen.out
    cells.run("%route --user alice --model tiny --max-tokens 10 hi")
    assert "18 tokens of 10,000 tokens" in cells.run("%budget status").out
    cells.run("%budget remove 'USD a day'")
    assert [budget.key for budget in cells.kit.budgets] == ["tokens a day for user alice"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%%budget\nx = 1", "How much?"),
        ("%%budget much\nx = 1", "not an amount in USD"),
        ("%%budget 5 EUR\nx = 1", "not an amount in USD"),
        ("%%budget -1\nx = 1", "no option -1"),
        ("%%budget 1\n\n", "nothing beneath"),
        ("%%budget --dry 1\n", "no prompt beneath"),
        ("%%budget --dry 1\nx = 1\n%route hi", "single %%route"),
        ("%%budget --action explode 1\nx = 1", "one of block"),
        ("%budget 0.05", "A cap is %%budget 0.05"),
        ("%budget sett 5", "Did you mean 'set'"),
        ("%budget set", "How much?"),
        ("%budget set --daily-tokens many", "no number of tokens"),
        ("%budget set --daily-tokens 5 --window day", "says limit and window already"),
        ("%budget set --window week 5", "one of request, cell, hour"),
        ("%budget set --window cell 5", "lives in the cell"),
        ("%budget set --timezone Mars/Base --window day 5", "no time zone"),
        ("%budget remove nothing", "no budget 'nothing'"),
        ("%route --budget 0.0000001 --max-tokens 500 hello", "Nothing was sent"),
    ],
)
def test_a_mistake_is_one_line(cells: Cells, code: str, said: str) -> None:
    seen = cells.run(code)
    assert said in seen.line
    assert cells.spy.sent == []
    assert list(cells.kit.budgets) == []


def test_a_notice_comes_once_in_the_cell(cells: Cells) -> None:
    code = (
        "%%budget --warn-at 0.5 --action warn 0.002\n"
        "from tokenkit import notebook\n"
        "for _ in range(8):\n"
        "    notebook.kit().call('hi', model='sage', max_tokens=10)\n"
    )
    seen = cells.run(code)
    assert seen.err.count("Budget 'this cell' has spent") == 2  # at the warning, and at the limit
