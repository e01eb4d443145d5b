"""Every notebook runs from top to bottom in a real kernel, without keys or network, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tokenkit import report

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    environ = {"TOKENKIT_HOME": str(tmp_path / "home"), "TOKENKIT_SIMULATED": "1"}
    done = report.execute(path, tmp_path, environ)
    nbformat.validate(done)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error"]
    errors = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
    # A budget's notice is what the chapter on budgets is about; nothing else may be said there.
    assert not [line for line in errors.splitlines() if not line.startswith("Budget '")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_notebooks_are_one_course() -> None:
    """Each says which chapter it is, links to the one before and the one after, and says what is not real in it."""
    for place, path in enumerate(NOTEBOOKS):
        cells = nbformat.read(path, as_version=4).cells
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert f"*Chapter {place + 1} of {len(NOTEBOOKS)}" in prose
        for neighbour in NOTEBOOKS[max(place - 1, 0) : place] + NOTEBOOKS[place + 1 : place + 2]:
            assert f"]({neighbour.name})" in prose, f"{path.name} does not lead to {neighbour.name}"
        assert "simulated" in prose or "synthetic" in prose or "offline" in prose


def test_a_page_made_of_a_notebook_has_every_widgets_picture(tmp_path: Path) -> None:
    """Nobody's kernel runs behind a page, and offline nothing draws a living widget: the pictures stand for them."""
    from nbconvert import HTMLExporter

    widgets = {
        "compression_lab(kit, 'It rained. Ships reach Basel. It rained a lot.', 'Which ships?')": "tokens became",
        "weight_tuner(kit)": "simulated/swift: 5.0",
        "adversarial(kit, 'Plan a launch.')": "task: Plan a launch.",
        "spend(kit)": "<svg",
    }
    setup = "import tokenkit as tk\nkit = tk.Kit.simulated(pace=0)"
    cells = [nbformat.v4.new_code_cell(source) for source in (setup, *(f"tk.widgets.{one}" for one in widgets))]
    path = tmp_path / "widgets.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    done = report.execute(path, tmp_path, {"TOKENKIT_HOME": str(tmp_path / "home"), "TOKENKIT_SIMULATED": "1"})
    page, _ = HTMLExporter().from_notebook_node(done)
    pictures = page.split('<div class="tokenkit-left-')[1:]
    assert len(pictures) == len(widgets)
    for picture, shown in zip(pictures, widgets.values(), strict=True):
        assert shown in picture
