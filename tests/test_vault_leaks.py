"""A canary key is driven through every fault of the vault, and nothing that anybody can print shows it."""

from __future__ import annotations

import base64
import copy
import functools
import getpass
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote

import pytest
from IPython.core import ultratb

import tokenkit.vault
from tokenkit.errors import TokenkitError, VaultError
from tokenkit.vault import KEY_VARIABLE, Vault, find_key
from tokenkit.vault.keys import Hidden

sys.path.insert(0, str(Path(__file__).parent))
from vaults import ENVIRON, filled

CANARY = "sk-canary/7Qv+xW2zP9rT4mK8~Zq9Jx"
WRONG = {KEY_VARIABLE: "77" * 32}


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return filled(tmp_path)


@functools.cache
def forms() -> tuple[str, ...]:
    """Every way the canary could show: as it is, in base64 at each alignment, hex, URL-encoded, its last four."""
    raw = CANARY.encode()
    aligned = [base64.b64encode(b"\0" * n + raw)[(0, 2, 3)[n] : -4].decode() for n in range(3)]
    return (CANARY, *aligned, raw.hex(), raw.hex().upper(), quote(CANARY, safe=""), CANARY[-4:])


def leaks(shown: str) -> list[str]:
    return [form for form in forms() if form in shown]


def canary(before: str = "", after: str = "") -> str:
    """The canary, called for: a name that held it would show in the test's own frame."""
    return before + CANARY + after


def frames(error: BaseException) -> Iterator[FrameType]:
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def everything_shown(error: BaseException | None) -> str:
    """All that anybody could print about an exception, suppressed causes and the locals of every frame included."""
    shown: list[str] = []
    while error is not None:
        kind, trace = type(error), error.__traceback__
        shown += [str(error), repr(error), repr(error.args), repr(vars(error)), *map(str, error.args)]
        shown += traceback.format_exception(kind, error, trace)
        shown += traceback.TracebackException(kind, error, trace, capture_locals=True).format()
        for mode in ("Plain", "Context", "Verbose"):
            shown.append(ultratb.FormattedTB(mode=mode, theme_name="nocolor").text(kind, error, trace))
        for frame in frames(error):
            shown += [f"{value!r} {value!s}" for value in frame.f_locals.values()]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


def caught(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_search_for_leaks_finds_one() -> None:
    def careless(key: str) -> None:
        raise VaultError("no")

    assert leaks(everything_shown(caught(lambda: careless(canary())))) == [CANARY, CANARY[-4:]]
    for n in range(3):
        assert leaks(base64.b64encode(b"x" * n + canary().encode() + b"tail").decode())
    assert leaks(quote(canary(), safe=""))
    assert leaks(canary().encode().hex())


def faults(vault: Vault, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way a key or a passphrase can be on the stack when something goes wrong."""
    spoils = {"blank": " x", "line": "\nx", "nul": "\0x", "accent": "é", "surrogate": "\udc80", "long": "x" * 9999}
    for why, after in spoils.items():
        yield f"set, {why}", lambda after=after: vault.set("openai", canary("", after))
        yield f"environment, {why}", lambda after=after: find_key("o", ["K"], environ={"K": canary("", after)})
        answers = type("Ring", (), {"get_password": lambda *_, after=after: canary("", after)})()
        yield f"keyring, {why}", lambda answers=answers: find_key("o", [], None, answers, environ={})
        patch.setattr(getpass, "getpass", lambda _, after=after: canary("", after))
        yield f"asked, {why}", lambda: vault.set("openai")
    yield "quoted", lambda: vault.set("openai", canary('"', '"'))
    yield "bytes", lambda: vault.set("openai", canary().encode())  # type: ignore[arg-type]
    yield "bad name", lambda: vault.set("not a name", canary())
    yield "name and key exchanged", lambda: vault.set(canary("", "~"), "openai")
    yield "no vault", lambda: Vault("/nonexistent/v", environ=ENVIRON).set("openai", canary())
    yield "wrong key", lambda: Vault(vault.path, environ=WRONG).set("openai", canary())
    yield "malformed", lambda: Vault(vault.path, environ={KEY_VARIABLE: canary()}).names()
    yield "malformed accent", lambda: Vault(vault.path, environ={KEY_VARIABLE: canary("é")}).names()
    yield "other variables", lambda: find_key("o", ["A"], Vault(vault.path, environ=WRONG), environ={"K": canary()})
    yield "vault's environment", lambda: Vault(vault.path, environ={"OPENAI_API_KEY": canary()}).names()
    for call in ("replace", "fsync"):
        patch.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        yield f"disk, {call}", lambda: vault.set("openai", canary())
        patch.undo()
    locked = Vault(vault.path.with_name("locked"), passphrase=canary()).create()
    yield "exists", lambda: Vault(locked.path, passphrase=canary()).create()
    yield "wrong passphrase", lambda: Vault(locked.path, passphrase=canary("", "x")).names()
    yield "wrong callable", lambda: Vault(locked.path, passphrase=functools.partial(str, canary("", "x"))).names()
    yield "failing callable", lambda: Vault(locked.path, passphrase=functools.partial(int, canary())).names()
    yield "surrogate passphrase", lambda: Vault(locked.path, passphrase=canary("\udc80")).names()
    yield "bad path", lambda: Vault("a\0b", passphrase=canary())
    yield "rotate", lambda: Vault(locked.path, passphrase="x").rotate(canary())
    yield "rotate environ", lambda: locked.rotate(environ={KEY_VARIABLE: canary()})
    yield "export", lambda: locked.export(locked.path, canary())
    yield "import", lambda: vault.import_(locked.path, canary("x"))
    typed = iter([canary(), canary("", "x")])
    patch.setattr(getpass, "getpass", lambda _: next(typed))
    yield "typed twice, differently", lambda: Vault(vault.path.with_name("typed")).create()
    vault.set("openai", canary())
    export = vault.path.with_name("export")
    vault.export(export, "x")
    vault.set("openai", "another")
    yield "clash", lambda: vault.import_(export, "x")
    vault.set("openai", canary())
    yield "pickle", lambda: pickle.dumps(vault)
    yield "copy", lambda: copy.deepcopy(vault)
    yield "pickle secret", lambda: pickle.dumps(vault.get("openai"))
    yield "pickle hidden", lambda: pickle.dumps(Hidden(canary()))
    yield "pickle opened", lambda: pickle.dumps(vault._open())
    vault.path.write_bytes(vault.path.read_bytes()[:-1])
    yield "damaged", lambda: vault.set("openai", canary())


def test_a_key_shows_in_nothing_that_any_fault_can_print(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for why, act in faults(vault, monkeypatch):
        error = caught(act)
        expected = (TypeError, ValueError) if why[:4] in ("pick", "copy", "bad ", "fail") else ()
        assert isinstance(error, (TokenkitError, *expected)), f"{why}: {error!r}"
        if why == "failing callable":
            continue  # int()'s own sentence quotes its argument: the caller's words, not ours
        assert leaks(everything_shown(error)) == [], why
    assert leaks(caplog.text) == []


def test_a_key_shows_in_no_repr_and_no_file(vault: Vault) -> None:
    vault.set("openai", canary())
    vault.export(vault.path.with_name("export"), canary())
    locked = Vault(vault.path.with_name("locked"), passphrase=canary()).create()
    opened = vault._open()
    parts = [vault, locked, opened, opened.sealed, opened.file_key, opened.wrapping, opened.keys(), vault.get("openai")]
    for part in parts:
        kept = [getattr(part, slot, None) for slot in getattr(type(part), "__slots__", ())]
        assert leaks(f"{part!r} {part!s} {kept!r}") == []
        assert "\n" not in repr(part)
    assert repr(vault) == f"Vault({str(vault.path)!r}, unlocked)"
    assert repr(Vault(vault.path)) == f"Vault({str(vault.path)!r}, locked)"
    assert repr(Vault("/nonexistent/v")) == "Vault('/nonexistent/v', not made yet)"
    written = [path.read_bytes() for path in vault.path.parent.iterdir()]
    assert sum(map(len, written)) > 1000
    for data in written:
        assert not [form for form in forms()[:-1] if form.encode() in data]
        assert b"openai" not in data  # names are sealed too


# A file interrupted before its own `with` is closed by its end of life, which Python remarks upon.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_line_shows_a_key_only_while_it_is_being_hidden(tmp_path: Path) -> None:
    """The one window is a parameter between the call and the line that hides it; nothing later shows the key."""
    folder = str(Path(tokenkit.vault.__file__).parent)
    path = Vault(tmp_path / "v", environ=ENVIRON).create().path
    leaking: set[str] = set()

    def interrupted(act: Callable[[], object], at: int) -> BaseException | None:
        left = at

        def watch(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(folder):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return watch

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            act()
        except KeyboardInterrupt as error:
            return error
        finally:
            sys.settrace(before)
        return None

    def look() -> object:
        Vault(path, passphrase=canary(), environ={**ENVIRON, "OPENAI_API_KEY": canary()}).set("openai", canary())
        vault = Vault(path, environ=ENVIRON)
        vault.rotate(environ={**ENVIRON, "OPENAI_API_KEY": canary()})
        return find_key("openai", ["NONE"], vault, environ={"OPENAI_API_KEY": canary()}), vault.find("openai")

    line, steps = 0, 0
    while (error := interrupted(look, line := line + 1)) is not None:
        steps += 1
        for frame in frames(error):
            if leaks(" ".join(map(repr, frame.f_locals.values()))):
                leaking.add(frame.f_code.co_qualname)
    assert steps > 200
    assert leaking <= {"Vault.__init__", "Vault.set", "Vault.rotate", "find_key", "hide", "Hidden.__init__"}
