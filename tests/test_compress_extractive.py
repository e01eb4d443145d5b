"""summarize and hyperbolic: whole pieces in their order, within the target, the same everywhere, in linear time."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from growth import grows_linearly
from hashseeds import printed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tokenkit.compress import Aim, compress, kept
from tokenkit.compress.hyperbolic import GEOMETRIES, hyperbolic
from tokenkit.compress.outline import outline
from tokenkit.compress.relevance import LIKE, _wanted, relevance, stems
from tokenkit.compress.spans import fences, protected
from tokenkit.compress.summarize import summarize
from tokenkit.tokens import count

STAGES = {"summarize": summarize, "hyperbolic": hyperbolic}
BOTH = pytest.mark.parametrize("name", sorted(STAGES))

PARTS = (
    "river", "Danube", "flows", "sea.", "Which", "country?", "It", "is", "long.", "ten", "12 km/h", "\n", "\n\n",
    "\n## Europe\n", "- item", "`code`", '{"a": 1}', "🦆", "[3]", '"quoted words"', "\n```\nx = 1\n```\n",
    "https://example.org/a", "<keep>this</keep>", "\n\nQ: ", "Example", "\nAlice: ", "| a | b |", "```",
)  # fmt: skip
WORDS = st.sampled_from(PARTS)
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(WORDS, max_size=120).map(" ".join),
    st.lists(WORDS, max_size=80).map("\n".join),
)

DOCUMENT = """# Rivers

Rivers carry water.

## The Danube

The Danube flows through ten countries. It ends in the Black Sea.

## The Rhine

The Rhine passes Basel. It is navigable from there.

```python
print('rhine')
print('basel')
```
"""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
@example("")
@example("a")
@example("```\nnever closed")
def test_an_outline_is_the_text_cut_nowhere_within_what_is_protected(text: str) -> None:
    made = outline(text)
    assert "".join(made.pieces) == text
    assert len(made.pieces) == len(made.separators) == len(made.passages) == len(made.sections) == len(made.examples)
    for start, end in protected(text):
        assert not any(start < cut < end for cut in made.ends), text[start:end]


@BOTH
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=TEXTS, target=st.floats(0.05, 1.0), query=st.none() | st.sampled_from(["Danube?", "ten countries", "🦆", ""])
)
@example(text=". A:0\n0", target=0.5, query=None)
def test_what_is_kept_is_whole_in_order_and_within_the_target(name: str, text: str, target: float, query: Any) -> None:
    out = STAGES[name](text, query, target, count)
    if not kept(text):
        assert count(out) <= target * count(text)
    place = 0
    for piece in outline(out).pieces:
        for line in filter(None, (part.strip() for part in piece.split("\n"))):
            found = text.find(line, place)
            assert found >= 0, f"{line!r} is not in the text, or not in that order"
            place = found
    for start, end in kept(text):
        assert text[start:end] in out


@BOTH
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, target=st.floats(0.1, 0.9))
def test_the_pipeline_finds_no_harm_in_it(name: str, text: str, target: float) -> None:
    made = compress(text, [name], Aim(target=target, query="Danube"))
    assert made.after <= made.before
    why = made.reports[0].skipped or ""
    assert "failed" not in why
    assert "cut" not in why, (text, why)


@BOTH
def test_a_fence_is_kept_whole_or_not_at_all(name: str) -> None:
    for target in (0.9, 0.7, 0.5, 0.3, 0.1):
        out = STAGES[name](DOCUMENT, "the Rhine in python", target, count)
        assert ("print('rhine')" in out) == ("```python\nprint('rhine')\nprint('basel')\n```" in out)
        assert len(fences(out)) <= 1


@BOTH
def test_a_question_picks_the_section_it_names(name: str) -> None:
    out = STAGES[name](DOCUMENT, "Where does the Danube end?", 0.35, count)
    assert "It ends in the Black Sea." in out
    assert "Basel" not in out


@BOTH
def test_a_passage_named_by_one_that_matters_matters_too(name: str) -> None:
    noise = "\n\n".join(f"Town {n}\nTown {n} is a town of the north and has a market and a church." for n in range(20))
    text = (
        f"Mira Olsen\nMira Olsen is a painter, and the wife of Jonas Brandt.\n\n{noise}\n\n"
        "Jonas Brandt\nJonas Brandt is a sculptor. His mother is Edda Falk.\n"
    )
    out = STAGES[name](text, "Who is the mother of Mira Olsen's husband?", 0.2, count)
    assert "His mother is Edda Falk." in out


TOWNS = " ".join(f"Town {n} has a market, a church and a bridge of stone." for n in range(30))


@BOTH
@pytest.mark.parametrize(
    ("asked", "written"), [("septicemia", "septicemic"), ("Tunisia", "Tunisian"), ("composer", "composed")]
)
def test_a_word_that_the_text_has_in_another_form_is_found(name: str, asked: str, written: str) -> None:
    telling = f"A cause that is {written} was seen too."
    half = len(TOWNS) // 2
    text = f"{TOWNS[:half]} {telling} {TOWNS[half:]}"
    assert telling in STAGES[name](text, f"What is {asked}?", 0.1, count)


def test_where_the_word_itself_is_there_its_like_does_not_count() -> None:
    counts = [Counter(stems("A nationalist marched in June.")), Counter(stems("The national guard marched in May."))]
    assert _wanted("What of the national guards?", counts) == {"national": 1.0, "guard": 1.0}
    assert _wanted("What of the nationalism?", counts[:1]) == {"nationalist": LIKE}


def test_short_words_and_other_words_are_not_forms_of_one_another() -> None:
    counts = [Counter(stems("A mart, a marten, the marble table and a marvellous marsh. Interior internals."))]
    assert not _wanted("mark", counts)
    assert not _wanted("market", counts)
    assert not _wanted("international", counts)
    assert _wanted("marvels", counts) == {}
    assert _wanted("interiors", counts) == {"interior": 1.0}


@BOTH
def test_few_shot_prompts_keep_whole_examples_and_the_open_one(name: str) -> None:
    shots = "\n\n".join(f"Question: What is {n} and {n}?\nThink.\nIt is {2 * n}.\n#### {2 * n}" for n in range(8))
    text = f"{shots}\n\nQuestion: What is 20 and 21?\nThink."
    out = STAGES[name](text, "What is 20 and 21?", 0.5, count)
    assert out.endswith("Question: What is 20 and 21?\nThink.")
    for part in out.split("Question: ")[1:-1]:
        assert "####" in part, "half an example"


@BOTH
@pytest.mark.parametrize("keep", ["It is navigable from there.", "navigable", "Basel. It"])
def test_what_is_to_be_kept_is_kept(name: str, keep: str) -> None:
    assert keep in STAGES[name](DOCUMENT, "Danube", 0.3, count, [keep])
    marked = DOCUMENT.replace("carry", "<keep>carry</keep>")
    assert "<keep>carry</keep>" in STAGES[name](marked, "Danube", 0.2, count)


@BOTH
@pytest.mark.parametrize(
    "text", ["", " ", "\n\n\n", "word", "🦆", "🦆" * 500, "x" * 5000, "a " * 3000, "```\ncode\n```"]
)
def test_odd_texts_give_sane_results(name: str, text: str) -> None:
    for query in (None, "", "duck"):
        out = STAGES[name](text, query, 0.5, count)
        assert count(out) <= count(text)


@BOTH
def test_it_is_the_same_in_every_process(name: str) -> None:
    text = DOCUMENT * 5
    code = (
        f"from tokenkit.compress.{name} import {name}; from tokenkit.tokens import count; import sys, json;"
        f"text = json.load(sys.stdin); print(json.dumps([{name}(text, q, 0.4, count) for q in (None, 'the Danube')]))"
    )
    assert printed(code, json.dumps(text)) == {
        json.dumps([STAGES[name](text, q, 0.4, count) for q in (None, "the Danube")]) + "\n"
    }


def _sentences(size: int) -> str:
    return " ".join(f"Sentence {n} tells of river {n % 97} and town {n % 31}." for n in range(size // 45))


ADVERSARIAL = {
    "sentences": _sentences,
    "lines": lambda size: "\n".join(f"Speaker {n % 5}: we talk about budget {n % 50}" for n in range(size // 35)),
    "passages": lambda size: "\n\n".join(f"Name {n}\nName {n} knows Name {n // 2}." for n in range(size // 35)),
    "one line": lambda size: "word " * (size // 5),
    "no blanks": lambda size: "x" * size,
    "headings": lambda size: "\n".join(f"{'#' * (1 + n % 6)} part {n}" for n in range(size // 12)),
    "one name": lambda size: "Anna Berg\nAnna Berg is here.\n\n" * (size // 31),
    "labels": lambda size: "Question: a\nb\n\n" * (size // 16),
    "quotes": lambda size: '"' * size,
}


@BOTH
@pytest.mark.parametrize("kind", sorted(ADVERSARIAL))
def test_time_grows_with_the_text_and_no_faster(name: str, kind: str) -> None:
    small, large = ADVERSARIAL[kind](8_000), ADVERSARIAL[kind](128_000)
    grows_linearly(lambda text: STAGES[name](text, "Name 7 and river 5 budget", 0.3, len), small, large)


@pytest.mark.parametrize("geometry", sorted(GEOMETRIES))
def test_every_geometry_shares_and_none_loses_a_score(geometry: Any) -> None:
    made = outline(DOCUMENT)
    scores = relevance(made, "the Danube", GEOMETRIES[geometry])
    assert len(scores) == len(made.pieces)
    assert max(scores) > 0
    assert hyperbolic(DOCUMENT, "the Danube", 0.4, count, geometry=geometry)


# On real texts, where they can be had.


def _data() -> Path | None:
    named = os.environ.get("TOKENKIT_EVALUATION_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    found = folder / "compression" / "squad.jsonl"
    return found if found.exists() else None


@BOTH
def test_the_answering_sentence_survives_an_80_percent_cut(name: str) -> None:
    file = _data()
    if file is None:
        pytest.skip("the evaluation data is not here: TOKENKIT_EVALUATION_DATA names its folder")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:60]]
    found = sum(row["evidence"][0] in STAGES[name](row["context"], row["query"], 0.2, count) for row in rows)
    assert found >= 0.93 * len(rows)
