"""compress(): stages only shrink, harm nothing, touch only what they may, and say what they did."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from growth import grows_linearly
from hashseeds import printed
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.compress import Aim, Rewriting, compress, recall, touchable
from tokenkit.compress.damage import damage
from tokenkit.compress.normalize import normalize
from tokenkit.errors import UserError
from tokenkit.tokens import count
from tokenkit.types import Image, Message

CHAT = (
    Message("system", "You are   exact."),
    Message("user", "First   question, with some more words."),
    Message("assistant", "First   answer, with some more words."),
    Message("user", "Second   question."),
)


def squeeze(messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
    """A stage that touches everything, allowed or not."""
    return tuple(replace(m, content=" ".join(m.text.split())) for m in messages)


def squeezing(text: str, aim: Aim) -> str:
    return " ".join(text.split())


def halving(text: str, aim: Aim) -> str:
    words = text.split()
    return " ".join(words[: max(1, round(len(words) * aim.target))])


def reason(text: str, stage: object, aim: Aim | None = None) -> str:
    made = compress(text, [stage], aim)  # type: ignore[list-item]
    assert made.text == text
    assert made.saved == 0
    return made.reports[0].skipped or ""


def test_a_stage_reports_what_it_saved() -> None:
    made = compress("a    b\n\n\n\nc d", [Rewriting("squeeze", True, squeezing)])
    (report,) = made.reports
    assert made.text == "a b c d"
    assert (report.stage, report.before, report.after) == ("squeeze", count("a    b\n\n\n\nc d"), count("a b c d"))
    assert report.lossless
    assert report.exact
    assert report.skipped is None
    assert made.saved == report.saved > 0
    assert repr(made) == f"Compressed({report.before} to 4 tokens, {4 / report.before:.0%} kept; squeeze)"
    assert not compress("a    b", [squeeze], Aim(model="claude-sonnet-4-5")).reports[0].exact


def test_the_system_prompt_and_the_last_user_turn_are_not_touched() -> None:
    assert touchable(CHAT) == (False, True, True, False)
    made = compress(CHAT, [Rewriting("squeeze", True, squeezing)])
    assert [m.text for m in made.messages] == [
        "You are   exact.",
        "First question, with some more words.",
        "First answer, with some more words.",
        "Second   question.",
    ]
    assert made.messages[0] is CHAT[0]
    assert "system prompt" in (compress(CHAT, [squeeze]).reports[0].skipped or "")
    everything = compress(CHAT, [squeeze], Aim(everything=True))
    assert everything.messages[0].text == "You are exact."
    alone = compress([Message("user", "a    b")], [Rewriting("squeeze", True, squeezing)])
    assert alone.reports[0].skipped == "there is nothing it may touch"


def test_parts_and_pictures_stay_in_their_places() -> None:
    picture = Image(url="https://example.org/a.png")
    chat = (Message("user", ("one   two three", picture, "four   five")), *CHAT[2:])
    made = compress(chat, [Rewriting("squeeze", True, squeezing)])
    assert made.messages[0].content == ("one two three", picture, "four five")


def test_a_stage_that_grows_fails_or_empties_is_skipped() -> None:
    def grow(messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        return tuple(replace(m, content=m.text * 2) for m in messages)

    def fail(messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        raise ValueError("no")

    def empty(messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        return tuple(replace(m, content="") for m in messages)

    def wrong(messages: tuple[Message, ...], aim: Aim) -> list[str]:
        return ["text"]

    assert reason("a b c", grow) == "it would not have saved a token"
    assert reason("a b c", fail) == "it failed: ValueError: no"
    assert reason("a b c", empty) == "it left nothing"
    assert reason("a b c", wrong) == "it did not return messages"
    assert compress("a    b c", [fail, Rewriting("squeeze", True, squeezing)]).text == "a b c"


def test_a_stage_that_harms_a_protected_span_is_skipped() -> None:
    assert "changed" in reason("see   it: `a   b`", Rewriting("s", True, squeezing))
    assert "to be kept" in reason("a b secret word c d", halving_stage(), Aim(0.3, keep=("secret word",)))
    assert "marked" in reason("a b c d e <keep>f</keep>", halving_stage())
    fence = "Some words before it.\n```\nfirst_line_of_code()\nsecond_line_of_code()\n```"
    assert "cut" in reason(fence, Rewriting("lines", False, lambda t, aim: "\n".join(t.split("\n")[:3])))
    assert "number" in reason("it was about 15 of them", Rewriting("n", False, lambda t, aim: "about 16"))
    assert "link" in reason("words words words https://a.b/c", Rewriting("n", False, lambda t, aim: "https://a.b/x"))


def halving_stage() -> Rewriting:
    return Rewriting("halving", False, halving)


def test_json_may_lose_blanks_and_nothing_else_in_a_lossless_stage() -> None:
    assert damage('x {"a":  1.0}', 'x {"a":1.0}', lossless=True) == ""
    assert damage('x {"a":  1.0}', 'x {"a":1}', lossless=True)
    assert damage('x {"a  b":  1}', 'x {"a b":1}', lossless=True)
    assert damage("5 kg then 7 kg", "7 kg then 5 kg", lossless=True)


def test_several_stages_share_the_way_to_the_target() -> None:
    text = " ".join(f"word{i}" for i in range(400))
    made = compress(text, [halving_stage(), halving_stage()], Aim(0.25))
    assert made.ratio == pytest.approx(0.25, abs=0.02)
    assert made.reports[0].ratio == pytest.approx(0.5, abs=0.03)
    budget = compress(text, [halving_stage()], Aim(tokens=100))
    assert 80 <= budget.after <= 105
    chat = compress([*CHAT[:1], Message("user", text), *CHAT[2:]], [halving_stage()], Aim(tokens=200))
    assert 170 <= chat.after <= 210
    assert compress(text, [halving_stage()], Aim(1.0)).reports[0].skipped == "the target is reached already"


def test_a_wanted_recall_is_kept_with_as_few_tokens_as_the_search_finds() -> None:
    text = "\n".join(f"The parrot number{i} sings about topic{i}." for i in range(200))
    made = compress(text, [halving_stage()], Aim(query="What about topic20?", recall=0.9))
    assert recall(text, made.text, "What about topic20?") >= 0.9
    assert made.ratio is not None
    assert made.ratio < 0.3
    whole = compress(text, [halving_stage()], Aim(query="What about topic199?", recall=1.0))
    assert recall(text, whole.text, "What about topic199?") == 1.0


def test_recall_reads_the_sentences_a_question_is_about() -> None:
    text = "The cat sleeps on the mat. Parrots sing in the garden. Snow falls in winter. Rain falls in spring."
    assert recall(text, "Parrots sing in the garden.", "Where do parrots sing?") == 1.0
    assert recall(text, "Parrots sing.", "Where do parrots sing?") == pytest.approx(2 / 3)
    assert recall(text, "Some parrots may sing louder than small canaries whistle.", "Where do parrots sing?") == 0
    assert recall(text, "The cat sleeps on the mat.", "Where do parrots sing?") < 0.5
    assert recall(text, text) == recall("", "", "x") == 1.0


def test_mistakes_are_told_in_a_line() -> None:
    with pytest.raises(UserError, match=r"no compression stage 'normalise'\. Did you mean 'normalize'"):
        compress("a", ["normalise"])
    with pytest.raises(UserError, match="name or a function"):
        compress("a", [3])  # type: ignore[list-item]
    for wrong in ({"target": 0.0}, {"target": 1.5}, {"recall": 0.0}, {"tokens": 0}):
        with pytest.raises(UserError):
            Aim(**wrong)  # type: ignore[arg-type]


def test_a_stage_may_be_any_object_with_a_name() -> None:
    @dataclass(frozen=True)
    class Squeeze:
        name: str = "mine"
        lossless: bool = True

        def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
            return squeeze(messages, aim)

    assert compress("a    b", [Squeeze()]).reports[0].stage == "mine"
    assert compress("a    b", ["mine"], known={"mine": Squeeze()}).text == "a b"
    assert compress("a    b", []).reports[0].skipped == "no stage was asked for"


words = st.lists(
    st.sampled_from(["a", "bc", "5 kg", "`x  y`", '"q  r"', "\n\n", "[1]", "https://a.b/c"]) | st.text(max_size=4)
)


@given(words.map("  ".join), st.floats(0.05, 1), st.text(max_size=3))
@settings(max_examples=200)
def test_whatever_a_stage_does_the_result_is_smaller_or_the_same(text: str, target: float, literal: str) -> None:
    cut = Rewriting("cut", False, lambda t, aim: t[: int(len(t) * aim.target)])
    for stage in (cut, Rewriting("squeeze", True, squeezing), halving_stage()):
        made = compress(text, [stage], Aim(target, keep=(literal,)))
        assert count(made.text) <= count(text)
        assert made.saved == count(text) - count(made.text)
        assert made.text == text or damage(text, made.text, (literal,), lossless=stage.lossless) == ""


SPARE = """Intro   text  here.\x20

| Name   |  Value  |
| :--- | -----: |
| `a  b` |  5 kg |
| x \\|  y   | "q  q" |


Cols   A    B
Foo         5

    code   x = 1\x20\x20
She said  "hi  there"   and\u00a0went.   \r
{"a":   [1,  2.50],
   "b": "x  y"}


"""

TIDY = """Intro text here.

|Name|Value|
|:-|-:|
|`a  b`|5 kg|
|x \\| y|"q  q"|

Cols   A    B
Foo         5

    code   x = 1\x20\x20
She said "hi  there" and went.
{"a":[1,2.50],"b":"x  y"}"""


def test_normalize_takes_only_what_means_nothing() -> None:
    assert normalize(SPARE) == TIDY
    assert normalize(SPARE, ["Intro   text", '{"a":   [1']).startswith("Intro   text here.")
    assert '{"a":   [1,  2.50],\n   "b"' in normalize(SPARE, ['{"a":   [1'])
    made = compress(SPARE, ["normalize"])
    assert made.reports[0].skipped is None
    assert made.reports[0].lossless
    assert made.text == TIDY


def test_a_notice_that_repeats_stays_once() -> None:
    notice = "Confidential, for internal use by the board only"
    text = "\n".join(f"{notice}\n\nPage {i} has a text of its own.\n" for i in range(4))
    assert normalize(text).count(notice) == 1
    assert normalize(text, ["internal use"]).count(notice) == 4
    for line in ("yes", "return self.first(value) and self.second(value);", "- a list item that is long enough"):
        assert normalize("\n\n".join([line] * 4)).count(line) == 4


ROUGH = [
    *("a", "word  word", "5  kg", "`x  y`", '"q  r"', "\n", "\n\n\n", "    ", "\t", " | ", "|--|---|", "\r\n", "```\n"),
    *('{"a":  [1, "  "]}', "\u00a0", "\u200b", "  ", "<keep>", "</keep>", "(Li 2020)", "é😀", "A   B    C\n"),
]
rough = st.lists(st.sampled_from(ROUGH) | st.text(max_size=3), max_size=30).map("".join)


@given(rough, st.text(max_size=4))
@settings(max_examples=500)
def test_normalize_harms_nothing_and_finds_nothing_twice(text: str, literal: str) -> None:
    made = normalize(text, [literal])
    assert damage(text, made, [literal], lossless=True) == ""
    assert letters(made) == letters(text)
    assert len(made) <= len(text)
    if not set(text) & set("\u200b\u2060\ufeff\u00ad\u00a0\r"):  # whose loss can bring other signs together
        assert normalize(made, [literal]) == made


def letters(text: str) -> str:
    """Everything but blanks, what cannot be seen, and the dashes below a table's head."""
    return "".join(c for c in text if not c.isspace() and c not in "\u200b\u2060\ufeff\u00ad-")


PASSAGE = (
    "The harbour of the old town was built by fishermen who came from the north. They used stones from the hills, and "
    "they carried them down in long wooden sledges every winter until the wall was high enough to stop the waves."
)
OTHER = "Nothing of this was written down at the time, so what we know of it comes from songs and from the stones."


def deduped(*texts: str, **aim: object) -> list[str]:
    chat = [Message("user", text) for text in texts]
    return [m.text for m in compress(chat, ["dedupe"], Aim(everything=True, **aim)).messages]  # type: ignore[arg-type]


def test_dedupe_points_to_what_was_said_before() -> None:
    assert deduped(f"{PASSAGE}\n\n{OTHER}", f"Again:\n{PASSAGE}\nDone.") == [
        f"{PASSAGE}\n\n{OTHER}",
        "Again:\n[repeated: The harbour of the old …]\nDone.",
    ]
    assert deduped(PASSAGE, PASSAGE) == [PASSAGE, "[repeated: The harbour of the old …]"]
    assert deduped(f"{PASSAGE}\n\n{PASSAGE}\n\n{PASSAGE}") == [
        f"{PASSAGE}{chr(10) * 2}[repeated: The harbour of the old …]"
    ]
    assert deduped("Short. " * 3, "Short. " * 3) == ["Short. " * 3] * 2


def test_dedupe_finds_paragraphs_that_nearly_repeat_and_add_nothing() -> None:
    nearly = PASSAGE.replace("every winter", "each winter")
    assert deduped(PASSAGE, f"{nearly}\n\n{OTHER}")[1].startswith("[repeated: The harbour")
    for fact in ("every winter of 1720", "every Winter", "not every winter", "every winter (Smith 2020)", "never"):
        changed = PASSAGE.replace("every winter", fact)
        assert deduped(PASSAGE, changed)[1] == changed
        if fact in ("not every winter", "never"):
            assert deduped(changed, PASSAGE)[1] == PASSAGE


def test_dedupe_leaves_what_is_marked_and_what_may_not_be_touched() -> None:
    marked = PASSAGE.replace("stones", "<keep>stones</keep>")
    assert deduped(marked, marked) == [marked, marked]
    assert deduped(PASSAGE, PASSAGE, keep=("sledges",)) == [PASSAGE, PASSAGE]
    chat = (Message("system", PASSAGE), Message("user", PASSAGE), Message("user", PASSAGE))
    made = compress(chat, ["dedupe"]).messages
    assert [m.text for m in made] == [PASSAGE, "[repeated: The harbour of the old …]", PASSAGE]


def test_dedupe_takes_code_whole_or_not_at_all() -> None:
    code = "```\n" + "\n".join(f"value_{i} = compute({i})" for i in range(12)) + "\n```"
    longer = code.replace("```\nvalue_0", "```\nimport this\nvalue_0")
    assert deduped(code, code)[1] == "[repeated]"
    assert deduped(code, longer)[1] == longer


@given(
    st.lists(st.sampled_from([PASSAGE, OTHER, PASSAGE[:90], "x", '"Say. It  all"', *ROUGH]), max_size=14),
    st.integers(0, 3),
)
@settings(max_examples=200)
def test_dedupe_harms_nothing(parts: list[str], cut: int) -> None:
    texts = [text for text in ("\n\n".join(parts[cut:]), " ".join(parts), "\n".join(parts)) if text.strip()]
    if texts:
        for before, after in zip(texts, deduped(*texts), strict=True):
            assert damage(before, after) == ""


STAGES_HERE = ["normalize", "dedupe", "diff"]


@pytest.mark.parametrize("text", ["", "a", "😀😀\u200d😀", "```\nx  =  1\n```", " \n\t ", "\ud800", "x" * 5000, "\x00"])
def test_small_and_strange_texts_stay_sane(text: str) -> None:
    made = compress(text, STAGES_HERE, Aim(seen=("", text[:3])))
    assert made.after <= made.before
    assert made.text == (text if made.saved == 0 else made.text.strip())
    assert compress([], STAGES_HERE).messages == ()


def test_another_process_with_another_hash_seed_makes_the_same() -> None:
    code = (
        "import random, hashlib; from tokenkit.compress import compress\n"
        "r = random.Random(5); w = ['alpha', 'beta', 'Gamma', '5 kg', '`x  y`', 'delta', 'eps  ilon', '(Li 2020)']\n"
        "p = [' '.join(r.choice(w) for _ in range(40)) for _ in range(60)]\n"
        "t = '\\n\\n'.join(r.choice(p) for _ in range(200))\n"
        "m = compress(t, ['normalize', 'dedupe']); assert m.saved > 0\n"
        "print(hashlib.sha256(m.text.encode()).hexdigest())"
    )
    (made,) = printed(code)
    assert len(made) == 65


PATTERNS = [
    "a  b",
    "`",
    "[",
    '"',
    "| a | b |\n|--|--|\n",
    "    x\n",
    "a   b\n",
    "ab.\n",
    "ab. Cd e. ",
    "x\n\n",
    "<keep>a</keep> ",
]


@pytest.mark.parametrize("stage", ["normalize", "dedupe"])
@pytest.mark.parametrize("unit", [*PATTERNS, f"{PASSAGE}\n\n", f"{PASSAGE} {OTHER} "])
def test_time_grows_with_the_text(unit: str, stage: str) -> None:
    small, large = unit * (3_000 // len(unit)), unit * (48_000 // len(unit))
    grows_linearly(lambda text: compress(text, [stage], Aim(count=len)), small, large)
