"""The magics, in a shell in this process: prompts arrive as typed, options are read, mistakes cost one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shells import Cells, Spy, cells, shell

from tokenkit import notebook
from tokenkit.kit import Kit
from tokenkit.providers import simulated
from tokenkit.providers.simulated import Fault
from tokenkit.receipts import Receipt

__all__ = ["cells", "shell"]

KEY = "sk-test-0123456789abcdef"


# A prompt is not Python.


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.sampled_from([
            "{x} {{y}} $HOME $x !ls %cd", ">>> 1 + 1\n2", "In [1]: x\nOut[1]: 2", "what is this?", "help??", "\ttabs\t",
            "  indented\n    more", "windows\r\nlines\r\n", "ends\n\n\n", "\n\nbegins", "back\\slash\\", "'''\"\"\"",
            "form\x0cfeed\x0bvertical", "line\u2028separator\u0085next", "%%route\nnested", "# comment", "🦆", "a\x00b",
        ]),
        st.text(min_size=1, max_size=80),
    ).filter(str.strip)
)  # fmt: skip
def test_a_cell_reaches_the_wire_byte_for_byte(cells: Cells, body: str) -> None:
    seen = cells.run(f"%%route --model tiny --max-tokens 1\n{body}", kernel=True)
    assert seen.error is None
    assert cells.spy.prompt == body
    assert cells.kit.receipt().prompt == body


def test_in_a_terminal_the_key_that_sends_a_cell_is_not_part_of_it(cells: Cells) -> None:
    cells.run("%%route --max-tokens 1\nhello\n")
    assert cells.spy.prompt == "hello"


@pytest.mark.parametrize("prompt", ["What is 2 + 2?", "why??", "{x} $HOME is $x", "don't", "Is `a` b?", "50 % of 3"])
def test_a_line_is_a_prompt_and_not_python(cells: Cells, prompt: str) -> None:
    cells.shell.user_ns["x"] = "LEAKED"
    for code in (f"%route --max-tokens 1 {prompt}", f"if True:\n    %route --max-tokens 1 {prompt}\n"):
        assert cells.run(code).error is None
        assert cells.spy.prompt == prompt


def test_other_cells_are_left_to_ipython(cells: Cells) -> None:
    source = 's = """\n%%route\nwhat?\n"""\nt = "%route why?"\n'
    assert cells.run(source).error is None
    assert cells.shell.user_ns["s"] == "\n%%route\nwhat?\n"
    assert cells.run(">>> 1 + 1").error is None
    assert cells.run("%%capture kept\nprint(1)").error is None
    assert cells.shell.check_complete("%%route --max-tokens 3\nhello")[0] == "incomplete"
    assert cells.shell.check_complete("%%route\nhello\n\n")[0] == "complete"
    assert not cells.spy.sent


def test_loading_twice_changes_nothing(cells: Cells) -> None:
    manager = cells.shell.input_transformer_manager
    before = len(manager.cleanup_transforms), len(manager.token_transformers)
    notebook.load(cells.shell)
    assert (len(manager.cleanup_transforms), len(manager.token_transformers)) == before


# Options.


def test_options_reach_the_call(cells: Cells) -> None:
    cells.run(
        "%%route --model swift --max-tokens 7 --system 'Be brief.' --user ada --session=s1 --endpoint demo "
        "--temperature 0.5 --deadline 30 --out said\nhello"
    )
    sent = cells.spy.sent[-1]
    assert (sent["model"], sent["temperature"]) == ("swift", 0.5)
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    receipt: Receipt = cells.shell.user_ns["said"].receipt
    assert (receipt.user, receipt.session, receipt.endpoint_name) == ("ada", "s1", "demo")
    assert receipt.usage.output_tokens <= 7
    assert receipt.streamed
    cells.run("%%route --no-stream --provider simulated\nhello")
    assert not cells.kit.receipt().streamed


def test_dry_sends_nothing_and_names_the_bill(cells: Cells) -> None:
    seen = cells.run("%%route --dry --max-tokens 100\nhello")
    assert "simulated/sage first by score, at most $" in seen.out
    assert all(model.id in seen.out for model in cells.kit.models)
    assert not cells.spy.sent
    assert cells.kit.receipt() is None


def test_verbose_shows_the_plan_and_the_stages(cells: Cells) -> None:
    seen = cells.run("%%route --verbose --max-tokens 3\nhello")
    assert "first by score" in seen.out
    assert "compressed" not in seen.out  # no stage was asked for: there is nothing to say
    squeezed = cells.run("%%route --verbose --max-tokens 3 --compress normalize\nhello    there").out
    assert "normalize" in squeezed
    again = cells.run("%receipt --verbose").out
    assert "first by score" in again
    assert cells.kit.receipt().id in again


def test_a_template_takes_plain_names_and_evaluates_nothing(cells: Cells) -> None:
    cells.shell.user_ns |= {"topic": "{x} $y", "n": 3}
    cells.run("%%route --template --max-tokens 1\nOn {topic}, {n} points, {{kept}}", kernel=True)
    assert cells.spy.prompt == "On {x} $y, 3 points, {kept}"
    for body in ("{n.real}", "{n[0]}", "{n!r}", "{n:>3}", "{}", "{0}", "{gone}", "{", "}", "{__import__('os')}"):
        assert "--template" in cells.run(f"%%route --template\n{body}").line


def test_another_kit_can_be_asked(cells: Cells, tmp_path: Path) -> None:
    other = Spy()
    with Kit(home=tmp_path / "other", providers=[other.provider], models=simulated.models(), environ={}) as kit:
        cells.shell.user_ns["mine"] = kit
        cells.run("%%route --kit mine --max-tokens 1\nhello")
        assert len(other.sent) == 1
        assert not cells.spy.sent
        assert cells.run("%spend --kit mine").error is None
    cells.shell.user_ns["n"] = 3
    assert "is a int" in cells.run("%%route --kit n\nhello").line
    assert "no such variable" in cells.run("%%route --kit gone\nhello").line


@pytest.mark.parametrize("name", ["%%route", "%route", "%tokens", "%%tokens", "%spend", "%receipt"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_there_for_every_magic(cells: Cells, name: str, flag: str) -> None:
    seen = cells.run(f"{name} {flag}")
    assert seen.error is None
    assert "--kit NAME" in seen.out
    assert not cells.spy.sent


# Mistakes.


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%%route", "There is no prompt"),
        ("%%route\n \n\t\n", "There is no prompt"),
        ("%route", "There is no prompt"),
        ("%%route --modle x\nhi", "Did you mean '--model'?"),
        ("%%route --buget 1\nhi", "no option --buget"),
        ("%%route --budget cheap\nhi", "not an amount in USD"),
        ("%%route --model stedy\nhi", "Did you mean 'steady'"),
        ("%%route --model nobody/gpt-9\nhi", "no model 'nobody/gpt-9'"),
        ("%%route --provider opnai\nhi", "no provider 'opnai'"),
        ("%%route --max-tokens many\nhi", "needs a whole number, not 'many'"),
        ("%%route --max-tokens 0\nhi", "max_tokens must be at least 1"),
        ("%%route --max-tokens\nhi", "needs TOKENS after it"),
        ("%%route --dry=yes\nhi", "is a flag"),
        ("%%route --out 1x\nhi", "'1x' cannot be one"),
        ("%%route gpt-4o\nhi", "'gpt-4o' is none"),
        ("%%route --system 'Be\nhi", "a quote opens"),
        ("%%route --max-tokens 999999\nhi", "No model can take this call"),
        ("%spend --by modle", "Did you mean 'model'?"),
        ("%spend modle", "does not know 'modle'"),
        ("%spend --since never", "'never' is not understood"),
        ("%receipt", "There is no receipt yet"),
        ("%receipt zzz", "There is no receipt 'zzz'"),
    ],
)
def test_a_mistake_is_one_line_and_fails_the_cell(cells: Cells, code: str, said: str) -> None:
    assert said in cells.run(code).line
    assert not cells.spy.sent


@pytest.mark.parametrize(
    ("files", "environ", "said"),
    [
        ({}, {"TOKENKIT_CONFIG": "gone.toml"}, r"gone\.toml"),
        ({"tokenkit.toml": "[[provider]\nname ="}, {}, r"tokenkit\.toml"),
        ({"tokenkit.toml": "strategy = 'best'\nkey = 'KEY'"}, {}, r"tokenkit\.toml"),
        ({}, {"OPENAI_API_KEY": f"{KEY}\nwith more"}, "OPENAI_API_KEY"),
    ],
    ids=["no file", "broken TOML", "unknown keys", "a key over two lines"],
)
def test_a_bad_configuration_is_told_in_lines_without_a_key(
    cells: Cells,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    environ: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setattr(notebook, "_active", None)
    monkeypatch.delenv("TOKENKIT_SIMULATED", raising=False)
    monkeypatch.setenv("TOKENKIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content.replace("KEY", KEY))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    seen = cells.run("%%route\nhi")
    assert seen.error is not None
    shown = seen.out + seen.err
    assert re.search(said, shown)
    assert "Traceback" not in shown
    assert KEY not in shown
    assert len(shown.strip().splitlines()) <= 2


def faulty(tmp_path: Path, *faults: Fault) -> Kit:
    return Kit(
        home=tmp_path / "faulty", providers=[simulated.provider(pace=0, faults=faults)], models=simulated.models(),
        environ={},
    )  # fmt: skip


def test_a_providers_failure_is_one_line_beneath_its_receipt(cells: Cells, tmp_path: Path) -> None:
    with faulty(tmp_path, Fault(status=401)) as kit:
        notebook.use(kit)
        seen = cells.run("%%route --model tiny\nhi")
        assert "✗ error" in seen.out
        assert seen.out.strip().splitlines()[-1].startswith("AuthError: ")
        assert "Traceback" not in seen.out + seen.err
        assert str(seen.error).startswith("AuthError: ")
        assert seen.error.__cause__ is None
        assert seen.error.__context__ is None
        assert "✗ error" in cells.run("%%route --model tiny --no-stream\nhi").out


def test_what_came_before_a_break_is_shown_and_accounted_for(cells: Cells, tmp_path: Path) -> None:
    with faulty(tmp_path, Fault(break_after=3)) as kit:
        notebook.use(kit)
        seen = cells.run("%%route --model swift\nhi", kernel=True)
        html = seen.outputs[-1].data["text/html"]
        assert "[simulated by swift" in html
        assert "✗ error" in html
        assert kit.receipt().status == "error"


def test_waiting_is_shown_while_it_lasts_and_told_in_the_receipt(cells: Cells, tmp_path: Path) -> None:
    with faulty(tmp_path, Fault(status=429, retry_after=0.01, calls=(1,))) as kit:
        notebook.use(kit)
        seen = cells.run("%%route --model tiny --max-tokens 3\nhi", kernel=True)
        assert "waiting 0.0 s: simulated/tiny: RateLimited, asking again" in seen.outputs[0].data["text/plain"]
        last = seen.outputs[-2].data["text/plain"]
        assert "after waiting 0.01 s" in last
        assert "waiting 0.0 s" not in last
        assert kit.on_sleep is None


def test_an_error_of_the_users_own_code_is_left_alone(cells: Cells) -> None:
    seen = cells.run("1 / 0")
    assert isinstance(seen.error, ZeroDivisionError)
    assert "Traceback" in seen.out


# What is shown.


def test_a_notebook_gets_one_output_that_ends_complete(cells: Cells) -> None:
    seen = cells.run("%%route --model sage --max-tokens 300\n<b>hello</b>", kernel=True)
    first, *updates, thumbs = seen.outputs
    assert seen.out == ""
    assert updates
    last = updates[-1].data
    text = cells.kit.receipt().answer
    assert text in last["text/plain"]
    assert "✓ ok" in last["text/html"]
    assert set(first.data) == {"text/html", "text/plain"}
    assert thumbs.data["text/plain"] == ""


def test_tokens_spend_and_receipts_answer(cells: Cells) -> None:
    assert cells.run("%tokens hello world").out == "2 tokens for gpt-4o (exactly; o200k_base)\n"
    assert "about, at most" in cells.run("%%tokens --model claude-sonnet-4-5\nhello").out
    cells.run("%route --max-tokens 3 --user ada hello")
    identity = cells.kit.receipt().id
    for asked in ("%receipt", f"%receipt {identity[-8:]}"):
        assert identity in cells.run(asked).out
    frame = cells.run("%spend --by user")
    assert "ada" in frame.out
    assert isinstance(notebook.kit(), Kit)


def test_the_kit_is_made_once_and_can_be_replaced(
    cells: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notebook, "_active", None)
    monkeypatch.setenv("TOKENKIT_SIMULATED", "1")
    monkeypatch.setenv("TOKENKIT_HOME", str(tmp_path))
    made = notebook.kit()
    assert notebook.kit() is made
    assert notebook.use(cells.kit) is notebook.kit() is cells.kit
    made.close()


def test_the_last_answer_is_rated_from_its_cell(cells: Cells) -> None:
    cells.run("%route --model tiny --max-tokens 5 hello")
    first = cells.kit.receipt()
    assert first is not None
    assert f"rated simulated/tiny 1 (receipt {first.id[-8:]})" in cells.run("%rate up clear and short").out
    cells.run("%route --model swift --max-tokens 5 hello")
    cells.run(f"%rate --id {first.id[-8:]} 0.25")
    rated = cells.kit.ledger.sql("select id, rating, comment from rated_calls")
    assert rated["id"].tolist() == [first.id]
    assert rated["rating"].tolist() == [0.25]
    for line, told in (("%rate much", "from 0 to 1"), ("%rate 7", "from 0"), ("%rate --id zz 1", "no receipt 'zz'")):
        assert told in cells.run(line).line
