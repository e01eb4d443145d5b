"""A real kernel: queued cells all run, an interrupt settles and leaves the kernel usable, mistakes cost one line."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

SETUP = """
%load_ext tokenkit
import tokenkit as tk
from tokenkit import notebook
kit = notebook.use(tk.Kit.simulated(home={home!r}, pace={pace}))
"""


class Kernel:
    """A kernel process and a client that runs cells and collects what they show."""

    def __init__(self, home: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        env = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        self.manager.start_kernel(extra_arguments=["--log-level=ERROR"], env=env, cwd=str(home))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def send(self, code: str) -> str:
        return self.client.execute(code)

    def collect(self, *ids: str, seconds: float = 60) -> dict[str, list[dict[str, Any]]]:
        """Return what each request showed, once all are idle again."""
        shown: dict[str, list[dict[str, Any]]] = {one: [] for one in ids}
        waiting = set(ids)
        until = time.monotonic() + seconds
        while waiting:
            try:
                message = self.client.get_iopub_msg(timeout=max(until - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"{len(waiting)} cells did not finish within {seconds} s") from None
            one = message["parent_header"].get("msg_id")
            if one not in shown:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                waiting.discard(one)
            shown[one].append({"type": message["msg_type"], **message["content"]})
        return shown

    def run(self, code: str) -> list[dict[str, Any]]:
        one = self.send(code)
        return self.collect(one)[one]

    def value(self, expression: str) -> str:
        """Return the repr of an expression in the kernel."""
        for item in self.run(expression):
            if item["type"] == "execute_result":
                return str(item["data"]["text/plain"])
        raise AssertionError(f"{expression} showed no value")

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    running = Kernel(tmp_path)
    yield running
    running.close()


def kinds(shown: list[dict[str, Any]]) -> set[str]:
    return {item["type"] for item in shown}


def words(shown: list[dict[str, Any]]) -> str:
    """Everything a person would read."""
    parts = []
    for item in shown:
        parts.append(item.get("text") or "")
        parts.append(str((item.get("data") or {}).get("text/plain", "")))
        parts.extend(item.get("traceback") or ())
    return "\n".join(parts)


def test_five_queued_cells_under_run_all_all_execute(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(home=str(tmp_path / "home"), pace=0.05))
    ids = [kernel.send(f"%%route --model swift --out r{n}\nQuestion number {n}?") for n in range(5)]
    shown = kernel.collect(*ids)
    for n, one in enumerate(ids):
        assert "error" not in kinds(shown[one]), words(shown[one])
        assert "simulated by swift" in words(shown[one])
        assert kernel.value(f"r{n}.receipt.prompt") == repr(f"Question number {n}?\n")  # IPython ends the last line
    assert kernel.value("len(kit.ledger.df())") == "5"


def test_an_interrupt_returns_within_a_second_and_the_next_cell_works(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(home=str(tmp_path / "home"), pace=20))
    one = kernel.send("%%route --model sage\nTake your time.")
    time.sleep(5)  # long enough for the first chunks, far too short for the whole answer
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    shown = kernel.collect(one, seconds=10)[one]
    assert time.monotonic() - began < 1
    assert "interrupted" in words(shown)
    assert "Traceback" not in words(shown)
    receipts = "[r for r in kit.ledger.df()['status']]"
    assert kernel.value(receipts) == "['cancelled']"
    assert kernel.value("kit.receipt().usage.source") == "'estimated'"
    assert int(kernel.value("kit.receipt().cost_nanos")) > 0
    kernel.run(SETUP.format(home=str(tmp_path / "home"), pace=0))
    after = kernel.run("%%route --model swift\nStill there?")
    assert "simulated by swift" in words(after)
    assert "error" not in kinds(after)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%route --modle swift\nHi", "Did you mean '--model'"),
        ("%%route --model swfit\nHi", "Did you mean 'swift'"),
        ("%%route --provider opnai\nHi", "no provider 'opnai'"),
        ("%%route\n   \n", "empty"),
        ("%%route --max-tokens many\nHi", "whole number"),
        ("%%route --max-tokens 0\nHi", "at least 1"),
        ("%%route --out 2x\nHi", "cannot be one"),
        ("%%route hello\nHi", "'hello' is none"),
        ("%%route --template\nHi {nobody}", "no variable 'nobody'"),
        ("%route --system 'unclosed\n", "never closes"),
        ("%receipt feedbeef", "no receipt"),
        ("%spend --by colour", "colour"),
    ],
)
def test_a_mistake_costs_one_line_and_fails_the_cell(shell: Kernel, cell: str, said: str) -> None:
    shown = shell.run(cell)
    (error,) = [item for item in shown if item["type"] == "error"]
    assert len(error["traceback"]) == 1
    assert "\n" not in error["traceback"][0].strip()
    assert said in words(shown)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the cells that only make mistakes."""
    home = tmp_path_factory.mktemp("shell")
    running = Kernel(home)
    running.run(SETUP.format(home=str(home / "home"), pace=0))
    yield running
    running.close()


def test_braces_dollars_and_percent_reach_the_wire_as_they_are(shell: Kernel) -> None:
    body = "{braces} {{twice}} $HOME ${x} %d 100 % !ls ?\\n\n  indented\n\ttabbed\n"
    shown = shell.run(f"%%route --model swift --out kept\n{body}")
    assert "error" not in kinds(shown), words(shown)
    assert shell.value("kept.receipt.prompt") == repr(body)


def test_dry_sends_nothing_and_help_helps(shell: Kernel) -> None:
    before = shell.value("len(kit.ledger.df())")
    assert "at most" in words(shell.run("%%route --dry\nHow much?"))
    assert "--max-tokens" in words(shell.run("%route -h"))
    assert shell.value("len(kit.ledger.df())") == before


def test_two_kernels_share_one_ledger(tmp_path: Path) -> None:
    home = tmp_path / "home"
    one, two = Kernel(tmp_path), Kernel(tmp_path)
    try:
        for kernel in (one, two):
            kernel.run(SETUP.format(home=str(home), pace=0))
        ids = []
        for n in range(10):
            for kernel in (one, two):
                ids.append((kernel, kernel.send(f"kit.call('Question {n}'); len(kit.ledger.df())")))
        for kernel, request in ids:
            assert "error" not in kinds(kernel.collect(request)[request])
        assert one.value("len(kit.ledger.df())") == two.value("len(kit.ledger.df())") == "20"
        assert one.value("bool(kit.ledger.verify())") == "True"
    finally:
        one.close()
        two.close()
