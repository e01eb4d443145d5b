"""Protected spans: what must not be altered is found, whatever stands around it, in time that grows with the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from growth import grows_linearly
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.compress.spans import fences, kept, merged, objects, protected

WHOLE = {
    "fence": "```py\nx  =  1\n```",
    "tilde fence": "~~~\nx  =  1\n~~~",
    "longer fence": "````\n```\nnot the end\n```\n````",
    "fence in a list": "- ```\n  x\n  ```",
    "inline code": "`a  b`",
    "inline code with a backtick": "``a ` b``",
    "url": "https://example.org/a?b=c&d=1#e",
    "mass": "5 kg",
    "attached": "10ms",
    "share": "12.5 %",
    "range": "10-20 km",
    "thousands": "1,234,567 tokens",
    "money": "$5.20 million",
    "euro": "€ 300",
    "object": '{"a":  [1, 2, {"b": null}]}',
    "array": '["x",  -1.5e3, true]',
    "straight quotation": '"so she  said"',
    "curly quotation": "“so she  said”",
    "guillemets": "«ainsi  dit»",
    "single quotation": "‘don’t  go’",
    "quotation over a line": '"so she\nsaid"',
    "number citation": "[12]",
    "numbers citation": "[3, 5–7]",
    "footnote": "[^note]",
    "author citation": "(Smith 2020)",
    "authors citation": "(see Smith et al., 2019a; Lee & Wu 2021, p. 12)",
    "named year": "Jones et al. (2019)",
    "marks": "<keep>this  stays</keep>",
}


@pytest.mark.parametrize("span", WHOLE.values(), ids=WHOLE.keys())
def test_each_kind_is_one_span_in_prose(span: str) -> None:
    text = f"Before it it's plain\n{span}\nand 7 after."
    start = text.index(span)
    assert protected(text) == [(start, start + len(span))]


def test_prose_has_no_spans() -> None:
    assert protected("It's plain: a [link here], a (remark), 12 of them in 2020, {braces}, a < b. ~tilde~ Don't.") == []


def test_a_literal_is_protected_wherever_it_stands() -> None:
    assert protected("ab ab xab", ["ab", ""]) == [(0, 2), (3, 5), (7, 9)]
    assert kept("ab <keep>c</keep> `d`", ["ab"]) == [(0, 2), (3, 17)]


def test_a_fence_never_closed_runs_to_the_end_and_an_underline_is_no_fence() -> None:
    assert fences("x\n```\na\n\nb") == [(2, 10)]
    assert fences("Title\n~~~~~\ntext\n\nOther\n~~~~~\n") == []
    assert fences("~~~\na\n```\nb\n~~~") == [(0, 15)]


def test_what_stands_in_code_is_not_read_as_anything_else() -> None:
    text = '```\nhe said "open\n```\nplain words" end'
    assert protected(text) == [(0, text.index("\nplain"))]


def test_a_broken_object_is_not_json_but_the_whole_ones_in_it_are() -> None:
    text = '{"a": {"b": [1, 2]}, oops [3, [4]] }'
    assert [text[a:b] for a, b in objects(text)] == ['{"b": [1, 2]}', "[3, [4]]"]
    assert objects("[" * 5000 + "]" * 5000) == [(0, 10_000)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(values, max_size=5) | st.dictionaries(st.text(), values, max_size=5), st.none() | st.integers(0, 3))
def test_every_json_object_is_found_whole(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert objects(f"x {text} y") == [(2, 2 + len(text))]


SIGNS = ["`", "```", '"', "[", "]", "{", "}", "(", "'", "\n", "\n\n", " ", "word", "<keep>", "7"]
pieces = st.lists(st.sampled_from([*WHOLE.values(), *SIGNS]) | st.text(max_size=5), max_size=20).map("".join)


@given(pieces, st.lists(st.text(max_size=3), max_size=3))
@settings(max_examples=300)
def test_spans_are_sorted_disjoint_and_inside(text: str, keep: list[str]) -> None:
    spans = protected(text, keep)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert merged(spans) == spans
    for start, end in kept(text, keep):
        assert any(a <= start and end <= b for a, b in spans)


@given(pieces, st.text(min_size=1, max_size=8))
def test_a_kept_literal_is_covered(text: str, literal: str) -> None:
    spans = protected(text + literal, [literal])
    assert any(start <= (text + literal).index(literal) and (text + literal).index(literal) + len(literal) <= end
               for start, end in spans)  # fmt: skip


UNITS = [
    *("`", "``` ` `` ", "`\n\n", "[", "]", "[]", "{", '{"', "[1,", '{"a":', '["\\"', "[1,2", "[^a"),
    *('"', ' "a', "“", "«", "‘a’b", "x'", "(", "(2020) ", "((Ab", "1", "1 ", "1,", "$1", "<keep>", "</keep>"),
    *("http://", "```\n", "~~~~\n", "> ", "- ", "\n ", " ", "Aa-", "é"),
]


@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_the_text(unit: str) -> None:
    small, large = unit * (3_000 // len(unit)), unit * (48_000 // len(unit))
    grows_linearly(lambda text: protected(text, ["aaab"]), small, large)


@pytest.mark.parametrize(
    "make", [lambda n: "[" * n + "]" * n, lambda n: "[" * n + "x" + "]" * n, lambda n: "`" * n + "a" + "`" * (n - 1)]
)
def test_deep_nesting_is_only_long(make: Callable[[int], str]) -> None:
    grows_linearly(protected, make(4_000), make(64_000))
