"""A shell in this process with the magics loaded, and a provider that keeps what was sent: for notebook tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from tokenkit import notebook
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.kit import Kit
from tokenkit.providers import simulated


class Spy:
    """A provider that answers as the simulated one does, and keeps what was sent."""

    def __init__(self, **simulation: Any) -> None:
        provider = simulated.provider(pace=0, **simulation)
        assert provider.local is not None
        self.answer, self.sent = provider.local, []
        self.provider = replace(provider, local=self)

    def __call__(self, wire: WireRequest) -> LocalAnswer:
        self.sent.append(json.loads(wire.body))
        return self.answer(wire)

    @property
    def prompt(self) -> str:
        """The last user message, as it went over the wire."""
        text: str = self.sent[-1]["messages"][-1]["content"]
        return text


class Cells:
    """A shell with the extension loaded: ``run`` a cell and see what a person would."""

    def __init__(self, shell: InteractiveShell, spy: Spy, kit: Kit) -> None:
        self.shell, self.spy, self.kit = shell, spy, kit

    def run(self, code: str, *, kernel: bool = False) -> Seen:
        """Run a cell; with ``kernel`` as a kernel does, which knows the code as it came and shows rich output."""
        if kernel:
            self.shell.kernel, self.shell.get_parent = object(), lambda: {"content": {"code": code}}
        try:
            with capture_output() as captured:
                result = self.shell.run_cell(code)
        finally:
            if kernel:
                del self.shell.kernel, self.shell.get_parent
        return Seen(captured.stdout, captured.stderr, captured.outputs, result.error_in_exec)


class Seen:
    def __init__(self, out: str, err: str, outputs: list[Any], error: BaseException | None) -> None:
        self.out, self.err, self.outputs, self.error = out, err, outputs, error

    @property
    def line(self) -> str:
        """What a failed cell said: exactly one line, and no traceback."""
        assert self.error is not None
        lines = self.out.strip().splitlines() + self.err.strip().splitlines()
        assert len(lines) == 1, lines
        assert "Traceback" not in lines[0]
        return lines[0]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    config.TerminalInteractiveShell.colors = config.InteractiveShell.colors = "nocolor"
    config.ProfileDir.location = str(tmp_path_factory.mktemp("profile"))
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=config)
    made.run_cell("%load_ext tokenkit")
    yield made
    InteractiveShell.clear_instance()


@pytest.fixture
def cells(shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cells]:
    monkeypatch.setattr(notebook, "_active", None)
    spy = Spy()
    with Kit(home=tmp_path, providers=[spy.provider], models=simulated.models(), environ={}) as kit:
        notebook.use(kit)
        yield Cells(shell, spy, kit)
    shell.reset(new_session=False)
