"""outline: the same text is read alike however it is set, whether as chapters, as a conversation or as examples."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.compress import Aim, compress
from tokenkit.compress.extracting import GONE
from tokenkit.compress.hyperbolic import hyperbolic
from tokenkit.compress.normalize import normalize
from tokenkit.compress.outline import BLANK, SECTION, joined, outline
from tokenkit.compress.summarize import summarize
from tokenkit.tokens import count
from tokenkit.types import Message

CHAPTERS = {
    "signs": "# Guide\n\nIntro.\n\n## Install\n\nRun the setup.\n\n## Use\n\nCall it.\n",
    "underlined": "Guide\n=====\n\nIntro.\n\nInstall\n-------\n\nRun the setup.\n\nUse\n---\n\nCall it.\n",
    "over and under": "=====\nGuide\n=====\n\nIntro.\n\nInstall\n~~~~~~~\n\nRun the setup.\n\nUse\n~~~\n\nCall it.\n",
    "bold": "# Guide\n\nIntro.\n\n**Install**\n\nRun the setup.\n\n__Use__\n\nCall it.\n",
}


@pytest.mark.parametrize("how", CHAPTERS)
def test_headings_are_read_however_they_are_set(how: str) -> None:
    made = outline(CHAPTERS[how])
    assert made.titles == ("", "Guide", "Install", "Use")
    assert made.parents == (0, 0, 1, 1)
    assert made.sections[-1] == 3
    assert "".join(made.pieces) == CHAPTERS[how]


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: A page\nauthor: me\n---\n\nText.\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "A paragraph of two\nlines is no title.\n---\n\nMore.\n",
        "```\nTitle\n=====\n# comment\n```\n",
        "It is **bold** in a sentence.\n\n***\n\nMore.\n",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert outline(text).titles == ("",)


def conversation(form: str) -> str:
    """A talk of 40 turns by three speakers, in no fixed order; the moon is talked about in five of them."""
    turns, chance = [], random.Random(1)
    for n in range(40):
        name = chance.choice(("Ann", "Bo Li", "Cleo"))
        about = "So the moon, and how far it is from here." if n == 20 else f"That is remark {n} on how we go about it."
        turns.append(form.format(name=name, text=f"{about} I think we all know that by now, more or less."))
    return "".join(turns)


FORMS = {
    "lines": "{name}: {text}\n",
    "paragraphs": "{name}: {text}\n\n",
    "bold": "**{name}:** {text}\n\n",
    "headings": "### {name}\n\n{text}\n\n",
    "times": "[10:30] {name}: {text}\n\n",
}


@pytest.mark.parametrize("stage", [summarize, hyperbolic])
@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_keeps_what_stands_around_an_answer_however_it_is_set(stage: object, form: str) -> None:
    out = stage(conversation(FORMS[form]), "How far is the moon?", 0.25, count)  # type: ignore[operator]
    kept = {int(n) for n in re.findall(r"remark (\d+)", out)}
    assert "the moon" in out
    assert {18, 19, 21, 22} <= kept, f"the turns around the answer are gone: {sorted(kept)}"


@pytest.mark.parametrize("form", ["lines", "paragraphs", "bold", "headings"])
def test_a_conversation_is_no_row_of_examples(form: str) -> None:
    made = outline(conversation(FORMS[form]).rstrip())
    assert not any(made.examples)
    assert SECTION not in made.separators
    assert BLANK not in made.separators[1:]


def test_releases_with_the_same_headings_each_are_chapters() -> None:
    text = "# Changes\n\n" + "".join(
        f"## {n}.0\n\n### Added\n\nThing {n}.\n\n### Fixed\n\nBug {n}.\n\n" for n in range(9)
    )
    assert outline(text).titles.count("Added") == 9


@pytest.mark.parametrize(
    "shot", ["Q: {n} and {n}?\nA: {m}\n\n", "Input: {n}\n\nOutput: {m}\n\n", "## Example {n}:\n{n} makes {m}.\n\n"]
)
def test_worked_examples_are_whole(shot: str) -> None:
    made = outline("".join(shot.format(n=n, m=2 * n) for n in range(6)))
    assert all(made.examples)
    assert len(made.pieces) == 6


def test_worked_examples_keep_their_layout() -> None:
    shots = "".join(f"Question:  What is {n}  and {n}?\n\nAnswer:   {2 * n}  \n\n" for n in range(6))
    noise = "Before  the   examples,  a word.\n\n\n\n"
    assert normalize(noise + shots) == f"Before the examples, a word.\n\n{shots}"


# Several texts are judged together.

NOISE = [
    f"Parcel {n} was sent on a Monday. It was heavy and came late. Nobody at the gate had seen it." for n in range(12)
]
ANSWER = "The lighthouse keeper is called Runa. She has kept the light since 1998. Ships know her voice."


@pytest.mark.parametrize("stage", ["summarize", "hyperbolic"])
@pytest.mark.parametrize("role", ["user", "tool"])
def test_the_budget_goes_to_the_message_with_the_evidence(stage: str, role: str) -> None:
    texts = [*NOISE[:7], ANSWER, *NOISE[7:]]
    chat = (*(Message(role, text) for text in texts), Message("user", "Who keeps the lighthouse?"))  # type: ignore[arg-type]
    made = compress(chat, [stage], Aim(target=0.2, query="Who keeps the lighthouse?"))
    assert [m.role for m in made.messages] == [m.role for m in chat], "tool results and turns stay in their places"
    assert made.messages[7].text == ANSWER
    assert made.messages[-1] == chat[-1]
    assert all(m.text for m in made.messages)
    assert sum(m.text == GONE for m in made.messages) >= 8
    free = sum(count(text) for text in texts)
    assert sum(count(m.text) for m in made.messages[:-1]) <= 0.2 * free


@given(st.lists(st.text(max_size=60) | st.sampled_from([*NOISE, ANSWER, "```\nopen", '<keep>a"', ""]), max_size=8))
@settings(max_examples=100, deadline=None)
def test_what_is_open_in_one_text_does_not_reach_into_the_next(texts: list[str]) -> None:
    made = joined([outline(text) for text in texts])
    assert made.text == "".join(texts)
    assert "".join(made.pieces) == made.text
    lengths = {len(made.ends), len(made.separators), len(made.passages), len(made.sections), len(made.examples)}
    assert len(lengths) == 1
    assert max(made.passages, default=0) < max(len(made.subjects), 1)
    assert len(made.parents) == len(made.titles)
    shorter = compress([Message("user", text) for text in texts], ["summarize"], Aim(target=0.5, everything=True))
    assert shorter.after <= shorter.before
    assert "failed" not in (shorter.reports[0].skipped or "")


@pytest.mark.parametrize(
    ("sentences", "query"),
    [
        (["这是第一句话。", "多瑙河流经十个国家。", "今天下雨了。", "我们喝茶。"], "多瑙河在哪里"),
        (["היום ירד גשם. ", "הדנובה זורמת דרך עשר מדינות. ", "שתינו תה. ", "אכלנו עוגה."], "הדנובה"),
        (["هطل المطر اليوم. ", "يمر نهر الدانوب بعشر دول. ", "شربنا الشاي. ", "أكلنا الكعك."], "الدانوب"),
        (["Сегодня шёл дождь. ", "Дунай течёт через десять стран. ", "Мы пили чай. ", "И ели торт."], "Дунай"),
    ],
)
def test_sentences_of_other_scripts_are_chosen_by_their_words(sentences: list[str], query: str) -> None:
    text = "".join(sentences)
    assert outline(text).pieces == sentences
    assert summarize(text, query, 0.5, count).strip() == sentences[1].strip()
