"""What people see of receipts, plans and answers: complete, escaped, and the same facts on a page and in a terminal."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit import _html
from tokenkit.receipts import Attempt, Candidate, Plan, PriceReceipt, Receipt, StageReport, Verdict
from tokenkit.types import Response, TokenCount, Usage

TAGS = {"style", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "br"}
ATTRIBUTES = {"class", "scope"}

PRICE = PriceReceipt("genai-prices", "gpt-4o", 2_500_000_000, 10_000_000_000)
FAILED = Attempt(
    "openai/gpt-4o", "openai", 0, 0.2, status="error", http_status=503, error_type="overloaded", error="It is full.",
    cost_nanos=0,
)  # fmt: skip
ANSWERED = Attempt(
    "openai/gpt-4o-mini", "openai", 0, 1.2, 0.3, 0.5, "ok", 200, response_model="gpt-4o-mini-2024-07-18",
    usage=Usage(1_010, 20, 300, None, 4), cost_nanos=1_234_567, price=PRICE,
)  # fmt: skip
STAGES = (
    StageReport("whitespace", 1_000, 900, 0.001, True),
    StageReport("summarize", 900, 400, 0.2, False, False),
    StageReport("dedupe", 400, 400, 0.001, True, skipped="it saved nothing"),
)
PLAN = Plan(
    (
        Candidate("openai/gpt-4o", "openai", 8.3, (("weight", 9.0), ("cost", -0.7)), 1.0,
                  TokenCount(812, True, "o200k_base"), 128_000, 3_100_000),
        Candidate("anthropic/claude", "anthropic", 7.3, (("weight", 9.0), ("cost", -1.7)), 0.0,
                  TokenCount(850, False, "cl100k_base"), 200_000, None),
        Candidate("ollama/small", "ollama", None, (), 0.0, TokenCount(850, False, "chars"), 512, 0,
                  "850 tokens in and 200 out do not fit its window of 512"),
    ),
    "score",
    200,
)  # fmt: skip
RECEIPT = Receipt(
    "0193c2e1" * 4, 0, 1.93, "ok", "auto", "openai/gpt-4o-mini", "openai", usage=ANSWERED.usage, cost_nanos=1_234_567,
    price=PRICE, plan=PLAN, attempts=(FAILED, ANSWERED), stages=STAGES, streamed=True, notes=("a note",),
    verdicts=(Verdict("daily budget", "warn", "80 % is spent."),),
)  # fmt: skip


class Page(HTMLParser):
    """Everything a browser would make of a piece of HTML: its elements, their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


hostile = st.one_of(
    st.sampled_from([
        "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>',
        "</td></table>", "\u202egnp.exe", "\x1b[2J\x1b[31mred", "a\rb", "</style><b>",
        "&lt;", "x" * 5_000, "\ud800", "{{7*7}}", "",
    ]),
    st.text(max_size=200),
)  # fmt: skip


@given(hostile)
def test_an_answer_is_text_and_nothing_else(text: str) -> None:
    page = Page(_html.answer(text))
    assert page.text == _html.visible(text)
    assert page.tags == {"style", "div"}
    assert page.attributes == {"class"}


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_what_is_visible_can_be_printed_and_hides_nothing(text: str) -> None:
    shown = _html.visible(text)
    shown.encode()
    unseen = [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") and c not in "\n\t"]
    assert not unseen
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "PDI") for c in shown
    )
    assert _html.visible(shown) == shown


@pytest.mark.parametrize("text", ["plain", "два\tслова\n", "می‌خواهم", "👩‍👩‍👧", "  indented\n\n\nlines"])
def test_visible_leaves_ordinary_text_alone(text: str) -> None:
    assert _html.visible(text) == text


def test_line_ends_of_any_system_are_line_ends() -> None:
    assert _html.visible("a\r\nb") == "a\nb"
    assert _html.visible("a\rb") == "a‹U+000D›b"


@given(st.text(min_size=1, max_size=300), st.integers(1, 200))
def test_a_cut_says_how_much_is_gone(text: str, limit: int) -> None:
    text = text.replace("\r\n", "\n")
    shown = _html.visible(text, limit)
    if len(text) <= limit:
        assert shown == _html.visible(text)
    else:
        assert shown.startswith(_html.visible(text[: limit - 1]))
        assert shown.endswith(f"(+{len(text) - limit + 1:,} characters)")


@given(hostile, hostile, hostile)
def test_cards_stay_cards_whatever_is_in_them(name: str, error: str, note: str) -> None:
    attempt = replace(FAILED, model=name, error=error, notes=(note,))
    candidates = (
        PLAN.candidates[0]._replace(model=name, terms=((note, 1.0),)), PLAN.candidates[2]._replace(rejected=error),
    )  # fmt: skip
    plan = Plan(candidates, name, 200)
    stages = (StageReport(name, 10, 5, 0.1, True, skipped=error),)
    receipt = replace(
        RECEIPT, model=name, requested_model=note, attempts=(attempt, ANSWERED), notes=(note,), error=error, plan=plan,
        stages=stages, verdicts=(Verdict(name, note, error),),
    )  # fmt: skip
    cards = [receipt._repr_html_(), plan._repr_html_(), _html.stages_card(stages)]
    for card in [*cards, Response(error, receipt=receipt)._repr_html_()]:
        page = Page(card)
        assert page.tags <= TAGS
        assert page.attributes <= ATTRIBUTES
        assert not page.open
    for text in (_html.receipt_text(receipt), str(plan), _html.stages_text(stages)):
        assert text == _html.visible(text)
        assert len(text) < 12_000


def test_a_receipt_tells_the_whole_story_in_both_forms() -> None:
    page = Page(_html.receipt_card(RECEIPT))
    text = _html.receipt_text(RECEIPT)
    for fact in (
        "✓ ok", "openai/gpt-4o-mini", "answered as gpt-4o-mini-2024-07-18", "auto was asked for",
        "1,010 in (300 read from cache), 20 out (4 reasoning)", "$0.0012", "$2.5/$10 per M (genai-prices)", "1.93 s",
        "first chunk after 0.30 s", "1. openai/gpt-4o: ✗ error in 0.20 s: It is full.",
        "2. after waiting 0.50 s, openai/gpt-4o-mini: ✓ ok in 1.20 s, $0.0012", "600 of 1,000 input tokens saved (60%)",
        "daily budget: warn. 80 % is spent.", "a note", RECEIPT.id,
    ):  # fmt: skip
        assert fact in page.text
        assert fact in text


def test_unknown_is_said_and_never_shown_as_nothing() -> None:
    unknown = Receipt("a", 0, 0.1, "error", "gpt-4o", "openai/gpt-4o", usage=None, cost_nanos=None, streamed=True)
    text = _html.receipt_text(unknown)
    assert "tokens   unknown" in text
    assert "unknown: its price is not known" in text
    assert "$0" not in text
    half = replace(unknown, usage=Usage(12, None), price=PRICE)
    assert "12 in, unknown out" in _html.receipt_text(half)
    assert "unknown: its usage is not known" in _html.receipt_text(half)
    free = replace(unknown, usage=Usage(12, 3), cost_nanos=0, price=replace(PRICE, input=0, output=0, layer="free"))
    assert "cost     $0, at $0/$0 per M (free)" in _html.receipt_text(free)


def test_an_estimate_is_marked_wherever_its_figures_are() -> None:
    guessed = replace(RECEIPT, usage=replace(RECEIPT.usage or Usage(), source="estimated"))
    text = _html.receipt_text(guessed)
    assert "≈ $0.0012" in text.splitlines()[0]
    assert text.count("≈ estimated") == 3  # tokens, cost, and the inexact compression
    assert "≈" not in _html.receipt_text(replace(RECEIPT, stages=STAGES[:1]))
    assert "counted here" in _html.receipt_text(replace(RECEIPT, usage=Usage(1, 2, source="counted")))


def test_an_error_is_told_once() -> None:
    failed = replace(RECEIPT, status="error", error="It is full.", attempts=(FAILED,))
    assert _html.receipt_text(failed).count("It is full.") == 1
    refused = replace(failed, attempts=(), error="No model can take this call.", model=None)
    assert "No model can take this call." in _html.receipt_text(refused)
    assert "none; auto was asked for" in _html.receipt_text(refused)


def test_a_status_is_a_word_and_a_sign_and_not_a_colour_alone() -> None:
    for status, mark in (("ok", "✓ ok"), ("error", "✗ error"), ("cancelled", "■ cancelled")):
        card = _html.receipt_card(replace(RECEIPT, status=status))
        assert mark in Page(card).text
        assert f'class="tokenkit tokenkit-{status} ' in card


def test_a_plan_shows_every_candidate_and_why_not() -> None:
    lines = str(PLAN).splitlines()
    assert lines[0] == "openai/gpt-4o first by score, at most $0.0031 for up to 200 tokens out"
    assert len(lines) == 2 + len(PLAN.candidates)
    # Columns line up: each figure ends where its heading ends.
    for name in ("score", "tokens in", "at most"):
        end = lines[1].index(name) + len(name)
        assert all(line[end : end + 2].isspace() or line[end:] == "" for line in lines[2:4])
    assert "weight\u00a0+9  cost\u00a0-0.7" in lines[2]
    assert "≈ 850" in lines[3]
    assert "unknown" in lines[3]
    assert lines[4].startswith("✗")
    assert lines[4].endswith("do not fit its window of 512")
    page = Page(PLAN._repr_html_())
    assert all(c.model in page.text for c in PLAN.candidates)
    assert "why not" in page.text


def test_a_plan_without_a_way_and_a_plan_of_many() -> None:
    assert str(Plan(PLAN.candidates[2:], "score")).startswith("No candidate of 1 is eligible")
    assert str(Plan((), "score")) == "No candidate of 0 is eligible"
    many = Plan(tuple(PLAN.candidates[0]._replace(model=f"m/{i}") for i in range(200)), "score")
    assert "and 150 more" in str(many)
    assert "m/49" in str(many)
    assert "m/50" not in str(many)
    drawn = Plan(tuple(c._replace(propensity=0.25) for c in PLAN.candidates[:2]), "score")
    assert "25.0%" in str(drawn)


def test_wide_characters_keep_columns_in_line() -> None:
    wide = Plan((PLAN.candidates[0]._replace(model="提供者/模型"), PLAN.candidates[1]), "score")
    lines = str(wide).splitlines()
    assert lines[2].index("8.300") + len("提供者模型") == lines[3].index("7.300")


def test_stages_add_up_and_say_why_one_was_skipped() -> None:
    text = _html.stages_text(STAGES)
    assert text.startswith("1,000 tokens became 400")
    assert "skipped: it saved nothing" in text
    rows = {line.split()[0]: line for line in text.splitlines()[2:]}
    assert "60.0%" in rows["all"]
    assert "everything: lossless" in rows["whitespace"]
    assert "lossless" not in rows["all"]
    assert "≈ 400" in rows["summarize"]
    assert _html.stages_text(()) == "Nothing was compressed"


def test_cards_load_nothing_and_follow_the_notebooks_colours() -> None:
    for card in (_html.receipt_card(RECEIPT), _html.plan_card(PLAN), _html.answer("x"), _html.stages_card(STAGES)):
        assert "http" not in card
        assert "url(" not in card
        assert "@import" not in card
        assert "var(--jp-content-font-color1,inherit)" in card


def test_tables_have_headers_and_names() -> None:
    card = _html.plan_card(PLAN)
    assert card.count('scope="col"') == 7
    assert "<caption>" in card
    receipt = _html.receipt_card(RECEIPT)
    assert receipt.count('scope="row"') == receipt.count("<tr>")


def test_dollars_are_never_set_as_formulas() -> None:
    """A notebook sets what stands between two dollar signs as LaTeX, prices too, unless a class says not to."""
    plan = Plan((Candidate("p/m", "p", 1.0),), "score")
    shown = [
        _html.answer("$5 and $6"),
        _html.columns([("m", "$5 and $6")]),
        _html.diff([("added", "$5 and $6")]),
        _html.plan_card(plan),
        _html.receipt_card(Receipt("a" * 32, 1, 0.1, "ok", "auto")),
    ]
    for html in shown:
        assert "mathjax_ignore" in html.split("</style>")[1].split(">")[0]
