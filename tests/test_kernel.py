"""A real kernel: queued cells all run, the Stop button settles the call at once, mistakes stay one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

LONG = 60.0  # seconds until a test gives up waiting: far from anything a healthy kernel takes


class Cell:
    """What one executed cell showed: its outputs as a notebook keeps them, and whether it failed."""

    def __init__(self) -> None:
        self.notebook = nbformat.v4.new_code_cell()
        self.displays: dict[str, int] = {}
        self.done = False
        self.updates = 0

    def take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle":
            self.done = True
        elif kind == "update_display_data":
            if (at := self.displays.get(content["transient"]["display_id"])) is None:
                return  # an older cell's buttons go when a new answer has some
            self.updates += 1
            self.notebook.outputs[at] = nbformat.v4.new_output("display_data", content["data"])
        elif kind in ("display_data", "execute_result", "stream", "error"):
            if "display_id" in content.get("transient", {}):
                self.displays[content["transient"]["display_id"]] = len(self.notebook.outputs)
            self.notebook.outputs.append(nbformat.v4.output_from_msg(message))

    @property
    def error(self) -> str | None:
        """The lines a failed cell shows in place of a traceback."""
        found = [output for output in self.notebook.outputs if output.output_type == "error"]
        return "\n".join(found[0].traceback) if found else None

    @property
    def html(self) -> str:
        return "".join(o.data.get("text/html", "") for o in self.notebook.outputs if o.output_type == "display_data")

    @property
    def text(self) -> str:
        return "".join(o.text for o in self.notebook.outputs if o.output_type == "stream")


class Kernel:
    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.cells: dict[str, Cell] = {}

    def send(self, code: str) -> Cell:
        """Queue a cell without waiting for it, as Run All does."""
        cell = self.cells[self.client.execute(code)] = Cell()
        return cell

    def run(self, code: str) -> Cell:
        return self.wait(self.send(code))

    def wait(self, cell: Cell, until: str | None = None) -> Cell:
        """Wait until a cell has ended, or until it shows some text."""
        while not cell.done and (until is None or until not in cell.html + cell.text):
            message = self.client.get_iopub_msg(timeout=LONG)
            owner = self.cells.get(message["parent_header"].get("msg_id", ""))
            if owner is not None:
                owner.take(message)
        nbformat.validate(nbformat.v4.new_notebook(cells=[cell.notebook]))
        return cell

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the kernel and bring its value here, as JSON."""
        cell = self.run(f"import json as _json; print(_json.dumps({expression}))")
        assert cell.error is None, cell.error
        return json.loads(cell.text)


@contextmanager
def started(folder: Path, **environ: str) -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "TOKENKIT"))}
    manager.start_kernel(env=kept | {"TOKENKIT_HOME": str(folder / "home")} | environ, cwd=str(folder))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LONG)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with started(tmp_path_factory.mktemp("kernel"), TOKENKIT_SIMULATED="1") as made:
        assert made.run("%load_ext tokenkit").error is None
        assert made.run("from tokenkit import Kit, notebook").error is None
        yield made


@pytest.fixture
def fresh(kernel: Kernel) -> Kernel:
    """The kernel, asking a kit whose memory is empty and whose answers are instant."""
    assert kernel.run("notebook.use(Kit.simulated(pace=0))").error is None
    return kernel


STATUSES = 'notebook.kit().ledger.sql("select status from calls order by seq")["status"].tolist()'


def test_five_queued_cells_all_execute(fresh: Kernel) -> None:
    fresh.run("notebook.use(Kit.simulated(pace=0.3))")
    words = ("apples", "bridges", "clouds", "deserts", "engines")
    cells = [fresh.send(f"%%route --model swift --max-tokens 40\nTell about {word}.") for word in words]
    for cell in cells:
        fresh.wait(cell)
        assert cell.error is None
        assert "✓ ok" in cell.html
        assert len(cell.displays) == 2  # the answer with its receipt, and the buttons to rate it
    assert fresh.value(STATUSES) == ["ok"] * 5
    frame = "notebook.kit().ledger.df()"
    assert fresh.value(f"{frame}['prompt'].tolist()") == [f"Tell about {word}." for word in words]
    for cell, answer in zip(cells, fresh.value(f"{frame}['answer'].tolist()"), strict=True):
        assert answer in cell.html


# Answers that would take most of a minute, so that only the interrupt can have ended them.
WAITING = "Kit.simulated(pace=100, faults=lambda model, call: print('asked'))"
STREAMING = "Kit.simulated(pace=10, faults=lambda model, call: Fault(delay=-0.6))"


@pytest.mark.parametrize(
    ("kit", "until", "options"),
    [(WAITING, "asked", ""), (STREAMING, "simulated", ""), (WAITING, "asked", "--no-stream")],
    ids=["before its first chunk", "in the middle of its stream", "not streamed"],
)
def test_interrupting_settles_the_call_once_and_the_next_cell_works(
    fresh: Kernel, kit: str, until: str, options: str
) -> None:
    fresh.run(f"from tokenkit.providers.simulated import Fault; notebook.use({kit})")
    cell = fresh.send(f"%%route --model sage {options}\nTell about apples.")
    fresh.wait(cell, until)
    assert not cell.done
    fresh.manager.interrupt_kernel()
    fresh.wait(cell)
    assert cell.error == "interrupted"
    assert "■ cancelled" in cell.html
    assert "≈ estimated" in cell.html
    assert fresh.value(STATUSES) == ["cancelled"]
    fresh.run("notebook.use(Kit.simulated(pace=0))")
    assert "✓ ok" in fresh.run("%%route\nhello").html


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%%route --modle x\nhi", "Did you mean '--model'?"),
        ("%%route --model stedy\nhi", "Did you mean 'steady'"),
        ("%%route", "There is no prompt"),
        ("%%route --kit gone\nhi", "there is no such variable"),
    ],
)
def test_a_mistake_is_one_line(fresh: Kernel, code: str, said: str) -> None:
    cell = fresh.run(code)
    assert cell.error is not None
    assert said in cell.error
    assert len(cell.error.splitlines()) == 1
    assert len(cell.notebook.outputs) == 1


def test_a_mistake_stops_run_all_as_any_error_does(fresh: Kernel) -> None:
    fresh.send("import time; time.sleep(1)")  # so that the next two are both waiting when it is their turn
    wrong = fresh.send("%%route --modle x\nhi")
    after = fresh.send("after = 1")
    fresh.wait(wrong)
    fresh.wait(after)
    assert fresh.value("'after' in globals()") is False


def test_a_missing_file_and_a_broken_one_cost_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenkit.toml").write_text("[[provider]\nkey = 'sk-secret-0123456789'")
    with started(tmp_path) as kernel:
        kernel.run("%load_ext tokenkit")
        broken = kernel.run("%%route\nhi")
        kernel.run("import os; os.environ['TOKENKIT_CONFIG'] = 'gone.toml'")
        missing = kernel.run("%%route\nhi")
        for cell, name in ((broken, "tokenkit.toml"), (missing, "gone.toml")):
            assert cell.error is not None
            assert name in cell.error
            assert len(cell.error.splitlines()) == 1
            assert "sk-secret" not in str(cell.notebook)


def test_prose_with_braces_and_dollars_arrives_as_typed(fresh: Kernel) -> None:
    body = "x = {1: '$HOME'}\n\n>>> {x}\n  !ls %cd $x ?\n"
    fresh.run("x = 'LEAKED'")
    assert fresh.run(f"%%route\n{body}").error is None
    assert fresh.value("notebook.kit().receipt().prompt") == body
    assert fresh.run("%%route\nno newline at the end").error is None
    assert fresh.value("notebook.kit().receipt().prompt") == "no newline at the end"


def test_streaming_updates_one_output(fresh: Kernel) -> None:
    fresh.run("notebook.use(Kit.simulated(pace=0.2))")
    cell = fresh.run("%%route --model sage --max-tokens 200 --out said\nhi")
    answer, thumbs = cell.notebook.outputs
    assert thumbs.data["text/html"] == ""  # buttons, and nothing for who has no kernel
    assert "sage" in answer.data["text/plain"]
    assert cell.updates > 1
    assert fresh.value("said.text")[:60] in cell.html
    assert fresh.value("said.receipt.status") == "ok"


def test_nothing_is_patched_until_run_is_asked_for(fresh: Kernel) -> None:
    assert fresh.value("'nest_asyncio' in __import__('sys').modules") is False
    assert fresh.value("hasattr(__import__('asyncio'), '_nest_patched')") is False
    fresh.run("async def answer():\n    import asyncio\n    await asyncio.sleep(0)\n    return 42")
    assert fresh.value("notebook.run(answer())") == 42
    assert "✓ ok" in fresh.run("%%route\nhello").html


def test_async_calls_work_beside_the_magics(fresh: Kernel) -> None:
    cell = fresh.run("said = await notebook.kit().acall('hello', max_tokens=5)\nprint(said.receipt.status)")
    assert cell.text == "ok\n"


def test_a_chart_shows_itself_in_every_form(fresh: Kernel) -> None:
    fresh.run("%%route\nhello")
    cell = fresh.run("import tokenkit as tk\ntk.charts.spend(notebook.kit())")
    (output,) = cell.notebook.outputs
    assert set(output.data) == {"application/vnd.vegalite.v5+json", "image/png", "text/plain"}


def test_a_thumb_rates_the_answer_above_it(fresh: Kernel) -> None:
    fresh.run("kit = notebook.use(Kit.simulated(pace=0))")
    cell = fresh.run("%%route --max-tokens 5\nhi")
    shown = cell.notebook.outputs[1].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    click = f"""
import gc
from tokenkit.notebook.thumbs import Thumbs
thumbs = [one for one in gc.get_objects() if isinstance(one, Thumbs) and one.model_id == {shown!r}][0]
thumbs.bad.click()
thumbs.good.click()
"""
    assert fresh.run(click).error is None
    assert fresh.value("thumbs.message") == "rated good"
    assert fresh.value("float(kit.ledger.sql('select rating from rated_calls').iloc[0, 0])") == 1.0
    failing = (
        "kit.journal.write = lambda receipt: (_ for _ in ()).throw(__import__('tokenkit').errors.LedgerError('x'))"
    )
    fresh.run(f"{failing}\nthumbs.bad.click()")
    assert fresh.value("thumbs.message") == "LedgerError: x"
    for _ in range(4):
        fresh.run("%%route --max-tokens 5\nhi")
    assert fresh.value("len(__import__('tokenkit.notebook.thumbs', fromlist=['x'])._OFFERED)") == 3
    fresh.run("from dataclasses import replace\nkit.config = replace(kit.config, thumbs=False)")
    assert len(fresh.run("%%route --max-tokens 5\nhi").notebook.outputs) == 1
