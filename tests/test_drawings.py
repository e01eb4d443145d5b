"""Every chart and its frame: empty, one row, a large history, hostile names; the title is the finding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import tokenkit as tk
from tokenkit.errors import UserError

HOSTILE = "</script><img src=x onerror=alert(1)>"
NAMES = sorted(set(tk.charts.__all__) - {"burn_down"})
FRAMES = sorted(set(tk.frames.__all__) & set(NAMES) - {"spend"})


@pytest.fixture(scope="module")
def history() -> Iterator[tk.Kit]:
    with tk.Kit.synthetic(20_000) as kit:
        kit.adversarial("Plan a launch.", max_tokens=30)
        yield kit


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_log_says_so_and_draws_something(name: str) -> None:
    with tk.Kit.simulated(pace=0) as kit:
        chart = getattr(tk.charts, name)(kit)
        assert chart.title
        assert chart.png()[:4] == b"\x89PNG"
        assert "$" not in chart.title


@pytest.mark.parametrize("name", NAMES)
def test_a_history_is_drawn_small_and_titled_with_its_finding(name: str, history: tk.Kit) -> None:
    chart = getattr(tk.charts, name)(history)
    spec = json.dumps(chart.spec())
    assert len(spec) < 200_000
    assert any(letter.isdigit() for letter in chart.title) or "agree" in chart.title
    assert "http" not in spec.replace("https://vega.github.io/schema", "")
    data, _ = chart._repr_mimebundle_()
    assert set(data) == {"application/vnd.vegalite.v5+json", "image/png", "text/plain"}


@pytest.mark.parametrize("name", FRAMES)
def test_every_chart_has_a_frame_for_kits_and_ledgers_and_since(name: str, history: tk.Kit) -> None:
    frame = getattr(tk.frames, name)
    assert len(frame(history)) > 0
    assert frame(history).equals(frame(history.ledger))
    assert len(frame(history, "2h")) <= len(frame(history))
    with pytest.raises(UserError, match="not understood"):
        frame(history, "whenever")


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_stay_text(name: str) -> None:
    with tk.Kit.simulated(pace=0) as kit:
        now = datetime.now(UTC).isoformat()
        rows = [
            {"id": f"{n}", "started_at": now, "model": HOSTILE, "provider": HOSTILE, "user": HOSTILE, "seconds": 1.0,
             "input_tokens": 5, "output_tokens": 5, "cost_usd": 1, "prompt": HOSTILE, "status": status,
             "error_type": HOSTILE if status == "error" else None}
            for n, status in enumerate(["ok", "error"])
        ]  # fmt: skip
        assert kit.ledger.import_(rows).faults == ()
        chart = getattr(tk.charts, name)(kit)
        for page in (chart.html(), chart.svg()):
            assert "<img" not in page
            assert "<script" not in page


def test_figures_are_what_the_ledger_holds(history: tk.Kit) -> None:
    latency = tk.frames.latency(history).set_index("model")
    raw = history.ledger.sql("select model, median(seconds) as m from attempts where status = 'ok' group by model")
    assert latency.loc["synthetic/small", "p50_seconds"] == pytest.approx(
        raw.set_index("model").loc["synthetic/small", "m"]
    )
    ratios = tk.frames.compression(history)
    assert ratios["runs"].sum() == history.ledger.sql("select count(*) as n from stages").iloc[0]["n"]
    assert (
        tk.frames.escalations(history)["calls"].sum()
        == (history.ledger.sql("select count(*) as n from calls where tries > 1").iloc[0]["n"])
    )
    cached = tk.frames.cache(history).set_index("model")
    assert cached.loc["synthetic/large", "saved_usd"] == pytest.approx(
        cached.loc["synthetic/large", "read_tokens"] * 2.7e-6
    )
    assert tk.frames.daily(history)["usd"].sum() == pytest.approx(history.ledger.spend()["cost_usd"].sum())


def test_a_budget_burns_down_with_a_forecast(history: tk.Kit) -> None:
    with pytest.raises(UserError, match="no budget in USD"):
        tk.charts.burn_down(history)
    with tk.Kit.simulated(pace=0) as kit:
        kit.budgets.set("0.01 USD", window="day", name=HOSTILE)
        kit.call("Hello", model="sage", max_tokens=80)
        (stands,) = kit.budgets.status()
        assert stands.period.start is not None
        start = datetime.fromtimestamp(stands.period.start / 10**9, UTC)
        early = tk.charts.burn_down(kit, stands, now=start + timedelta(hours=6))
        assert "is spent by" in early.title
        late = tk.charts.burn_down(kit, stands, now=start + timedelta(hours=23))
        assert "will be spent" in late.title
        assert "<img" not in late.html()


def test_a_budgets_line_is_what_was_spent_and_not_a_straight_one() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        kit.budgets.set("1 USD", window="day", timezone="Asia/Tokyo")
        for _ in range(3):
            kit.call("Hello", model="sage", max_tokens=80)
        (stands,) = kit.budgets.status()
        assert stands.period.start is not None
        start = datetime.fromtimestamp(stands.period.start / 10**9, UTC)
        chart = tk.charts.burn_down(kit, stands, now=datetime.now(UTC) + timedelta(hours=1))
        rows = chart.table.rows
        assert rows[0][0].endswith("T00:00:00")  # the budget's own midnight
        assert [float(usd) for _, usd, what in rows if what == "spent"][-1] == pytest.approx(stands.spent / 1e9)
        assert float(rows[1][1]) in (0.0, pytest.approx(stands.spent / 1e9))
        assert "too early" in tk.charts.burn_down(kit, stands, now=start + timedelta(minutes=5)).title
        kit.budgets.set("0.0001 USD", window="hour", action="warn")
        kit.call("Hello", model="sage", max_tokens=80)
        spent = next(one for one in kit.budgets.status() if one.budget.window == "hour")
        assert "all of $0.00010 is spent" in tk.charts.burn_down(kit, spent).title


@pytest.mark.parametrize("name", [*NAMES, "burn_down"])
def test_nothing_is_wider_than_a_narrow_page_and_words_have_an_ink_on_both_papers(name: str, history: tk.Kit) -> None:
    if name == "burn_down":
        history.budgets.set("2 USD", window="day")
    chart = getattr(tk.charts, name)(history)
    width = int.from_bytes(chart.png()[16:20], "big") / 2
    assert width <= 672, "at 150 % zoom of a window 1,300 wide an output is 680 wide"
    config = chart.spec()["config"]
    assert config["background"] == "transparent"
    for paper in ((255, 255, 255), (17, 17, 17)):  # JupyterLab's, light and dark
        assert contrast(config["text"]["color"], paper) >= 3.9
    if name == "burn_down":
        history.budgets.remove(history.budgets.status()[0].budget.name or history.budgets.status()[0].account)


def contrast(colour: str, paper: tuple[int, int, int]) -> float:
    """Return the contrast of WCAG 2, 1 to 21."""

    def light(rgb: tuple[int, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    pair = light(tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))), light(paper)
    return max(pair) / min(pair)


def test_a_long_title_wraps_evenly() -> None:
    from tokenkit.analysis.drawings import lines

    assert lines("short") == "short"
    made = lines("synthetic/medium failed most: 177 times with overloaded (2.0% of its tries)")
    assert isinstance(made, list)
    assert len(made) == 2
    assert min(map(len, made)) > 25


def test_more_than_is_asked_for_is_refused(history: tk.Kit) -> None:
    with pytest.raises(UserError, match="at least 1"):
        tk.frames.prompts(history, top=0)
    with pytest.raises(UserError, match="cannot be grouped"):
        tk.frames.daily(history, by="mood")
    assert len(tk.frames.daily(history, by="model")) > len(tk.frames.daily(history))
