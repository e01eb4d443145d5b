"""delta() and apply(): the new text comes back byte for byte, never costs more, and the growth is the text's own."""

from __future__ import annotations

import difflib
import json
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from growth import grows_linearly
from hashseeds import printed
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.compress import Aim, compress
from tokenkit.compress.align import blocks
from tokenkit.compress.diff import HEADER, apply, delta
from tokenkit.errors import UserError
from tokenkit.tokens import count
from tokenkit.types import Message

DATA = Path(os.environ.get("TOKENKIT_EVALUATION_DATA") or Path(__file__).parents[2] / "shared" / "data")
POEM = "\n".join(f"Line {i} of a poem about the number {i * i}, and what it means." for i in range(40)) + "\n"


def test_a_delta_says_what_it_is_and_shows_whole_lines() -> None:
    lines = POEM.split("\n")
    lines[4] = "A new line four."
    lines[10:12] = []
    lines.insert(20, "One line more,\r")
    new = "\n".join(lines)
    assert delta(POEM, new) == "\n".join(
        [HEADER, "@5 1 ~ Line 4 of a", "A new line four.", "@11-12 0 ~ Line 10 of a",
         "@22+ 1 ~ Line 21 of a", "One line more,\r"]
    )  # fmt: skip
    assert apply(POEM, delta(POEM, new)) == new


def test_the_same_text_is_a_delta_of_nothing_and_another_is_sent_whole() -> None:
    assert delta(POEM, POEM) == f"{HEADER}\n@none"
    assert apply(POEM, delta(POEM, POEM)) == POEM
    assert delta(POEM, "Something else altogether.") == "Something else altogether."
    assert delta("", POEM) == POEM
    assert delta(POEM, "") == ""
    assert apply(POEM, "") == ""


def test_of_a_very_long_line_only_passages_are_sent() -> None:
    old = " ".join(f"Sentence number {i} stands here, with a clause of its own." for i in range(200))
    new = old.replace("number 77 stands", "number 77 lies").replace("number 150 stands here", "number 150 is gone")
    made = delta(f"a\n{old}\nb", f"a\n{new}\nb")
    assert apply(f"a\n{old}\nb", made) == f"a\n{new}\nb"
    assert count(made) < 120
    assert "number 77 lies" in made


@pytest.mark.parametrize(
    "new", [HEADER, f"{HEADER}\n", f"{HEADER}\n@1 0", f"{HEADER}\n@none", f"{HEADER}\n@all\nx", f"{HEADER}x"]
)
def test_a_text_that_looks_like_a_delta_comes_back(new: str) -> None:
    for old in ("", "x", POEM, new):
        assert apply(old, delta(old, new)) == new


def test_a_delta_of_a_delta_comes_back() -> None:
    first = delta(POEM, POEM.replace("number 16", "number sixteen"))
    assert apply(POEM, delta(POEM, first)) == first


@pytest.mark.parametrize(
    "wrong", ["@1 1 ~ nowhere\nx", "@99 1\nx", "@5 1\nx\n@3 1\ny", "@3-2 0", "rubbish", "", "@1/ 2\nnowhere\nx"]
)
def test_edits_for_another_text_are_refused(wrong: str) -> None:
    with pytest.raises(UserError):
        apply(POEM, f"{HEADER}\n{wrong}")


LINES = [
    *("", "a", "b", "  c", "}", "a longer line that is worth something", "another long line, worth as much"),
    *("@1 1", "+x", HEADER, "😀", "\r"),
]
texts = st.lists(st.sampled_from(LINES) | st.text(max_size=6), max_size=30).map("\n".join)


@given(texts, texts)
@settings(max_examples=300)
def test_every_text_comes_back_and_never_costs_more(old: str, new: str) -> None:
    made = delta(old, new)
    assert apply(old, made) == new
    assert count(made) <= count(new) or new.startswith(HEADER)


@given(texts, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), texts), max_size=5), st.integers(1, 40))
@settings(max_examples=200)
def test_edited_texts_come_back(old: str, edits: list[tuple[int, int, str]], times: int) -> None:
    lines = (POEM + old * times).split("\n")
    changed = list(lines)
    for at, size, new in edits:
        changed[at : at + size] = new.split("\n")
    made = delta("\n".join(lines), "\n".join(changed))
    assert apply("\n".join(lines), made) == "\n".join(changed)
    assert count(made) <= count("\n".join(changed))


@given(st.lists(st.sampled_from("abc"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_blocks_are_shared_lines_in_order(old: list[str], new: list[str]) -> None:
    found = blocks(old, new)
    for block in found:
        assert block.size > 0
        assert old[block.a : block.a + block.size] == new[block.b : block.b + block.size]
    for one, two in pairwise(found):
        assert one.a + one.size <= two.a
        assert one.b + one.size <= two.b
        assert (one.a + one.size, one.b + one.size) != (two.a, two.b)
    if len(old) * len(new) <= 1024:
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        assert sum(block.size for block in found) >= sum(size for _, _, size in matcher.get_matching_blocks())


@pytest.mark.skipif(not (DATA / "compression" / "diff.jsonl").exists(), reason="the evaluation data is not here")
def test_published_versions_come_back_and_save_more_than_a_unified_diff() -> None:
    before = after = unified = 0
    for line in (DATA / "compression" / "diff.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        old, new = record["old"], record["context"]
        made = delta(old, new)
        assert apply(old, made) == new
        assert count(made) <= count(new)
        assert all(evidence in made for evidence in record["evidence"])
        plain = "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), n=0))
        assert count(made) <= min(count(plain), count(new)), record["id"]
        before, after, unified = before + count(new), after + count(made), unified + min(count(plain), count(new))
    assert after < 0.7 * unified


def back_and_forth(texts: tuple[str, str]) -> None:
    old, new = texts
    assert apply(old, delta(old, new, len)) == new


def edited(lines: int) -> tuple[str, str]:
    chance = random.Random(1)
    old = [f"record {chance.randrange(lines)} has a value and a note" for _ in range(lines)]
    return "\n".join(old), "\n".join(line if chance.random() > 0.05 else f"{line}, changed" for line in old)


@pytest.mark.parametrize(
    "make",
    [
        edited,
        lambda n: ("x\n" * n, "x\n" * (n // 2)),
        lambda n: ("x\ny\n" * (n // 2), "y\nx\nz\n" * (n // 3)),
        lambda n: ("\n".join(map(str, range(n))), "\n".join(map(str, range(n, 0, -1)))),
        lambda n: ("a b, c. " * n, "a b, d. " * n),
        lambda n: ("word " * n, "word " * (n + 5)),
        lambda n: ("`" * n, "`" * (n - 1)),
    ],
    ids=["edited", "one line", "two lines", "reversed", "clauses", "no line end", "one sign"],
)
def test_time_grows_with_the_text(make: object) -> None:
    grows_linearly(back_and_forth, make(2_500), make(40_000))  # type: ignore[operator]


def test_another_hash_seed_makes_the_same_delta() -> None:
    code = (
        "import random; from tokenkit.compress.diff import delta; r = random.Random(3)\n"
        "a = [str(r.randrange(300)) * 5 for _ in range(2000)]; b = [x for x in a if r.random() > .1]\n"
        "print(delta(chr(10).join(a), chr(10).join(b)))"
    )
    (made,) = printed(code)
    assert made.startswith(HEADER)


def test_the_stage_sends_what_changed_since_what_the_model_has_seen() -> None:
    new = POEM.replace("number 16,", "number sixteen,")
    made = compress(new, ["diff"], Aim(seen=(POEM,)))
    (report,) = made.reports
    assert report.skipped is None
    assert report.lossless
    assert apply(POEM, made.text) == new
    assert made.saved > 0.8 * made.before
    assert compress(new, ["diff"]).reports[0].skipped == "it would not have saved a token"
    assert compress(new, ["diff"], Aim(seen=(POEM,), keep=("number 25",))).text == new


def test_the_stage_finds_an_earlier_version_in_the_same_messages() -> None:
    chat = (
        Message("user", POEM),
        Message("assistant", "A fine poem, and I have read all of it with some pleasure, thank you."),
        Message("user", POEM.replace("16,", "17,")),
        Message("user", "Which number is wrong?"),
    )
    made = compress(chat, ["diff"])
    assert made.messages[:2] == chat[:2]
    head, _, rest = made.messages[2].text.partition("\n")
    assert head == "(Earlier text: the one that begins: Line 0 of a)"
    assert apply(POEM, rest) == chat[2].text


def test_what_follows_a_delta_leaves_it_alone() -> None:
    made = compress(POEM.replace("16,", "17,"), ["diff", "normalize"], Aim(seen=(POEM,)))
    assert made.reports[1].skipped == "what diff made must stay as it is: put diff last"
