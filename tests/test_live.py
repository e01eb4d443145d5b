"""The parts of the notebook's face that need no shell: the growing output, templates, and running a coroutine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.utils.capture import capture_output

from tokenkit import notebook
from tokenkit._html import visible
from tokenkit.errors import UserError
from tokenkit.notebook.lines import filled
from tokenkit.notebook.live import Live


@given(st.text(st.characters(exclude_characters="{}")), st.text())
def test_filled_puts_in_text_and_only_once(text: str, value: str) -> None:
    assert filled(text + "{a}" + text, {"a": value}) == text + value + text


def test_updates_are_throttled_and_the_last_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    shown: list[str] = []
    live = Live(rich=True)
    monkeypatch.setattr("tokenkit.notebook.live.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Live, "_show", lambda self, bundle: shown.append(bundle["text/plain"]))
    for _ in range(1_000):
        live.add("x")
        now[0] += 0.001
    live.finish(None, verbose=False)
    assert shown[-1] == "x" * 1_000
    assert len(shown) <= 18


def test_nothing_is_shown_where_nothing_happened() -> None:
    with capture_output() as captured:
        Live(rich=True).finish(None, verbose=False)
        Live(rich=False).finish(None, verbose=False)
    assert captured.stdout == ""
    assert not captured.outputs


@given(st.lists(st.sampled_from(["\r", "\n", "a", "\x1b[31m", "\u202e", "b\r"]), max_size=12))
def test_a_terminal_sees_the_same_however_the_text_is_cut(pieces: list[str]) -> None:
    with capture_output() as captured:
        live = Live(rich=False)
        for piece in pieces:
            live.add(piece)
        live.finish(None, verbose=False)
    whole = visible("".join(pieces))
    assert captured.stdout in (whole, whole + "\n")
    assert "\x1b" not in captured.stdout


def test_run_outside_a_loop_is_asyncio_run() -> None:
    async def answer() -> int:
        return 42

    assert notebook.run(answer()) == 42


def test_run_refuses_what_is_no_coroutine() -> None:
    with pytest.raises(UserError, match="call it"):
        notebook.run(print)  # type: ignore[arg-type]
