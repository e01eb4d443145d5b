"""Run a notebook headless and bind what it shows into one HTML file that asks nothing of the network.

The page holds a summary of the ledger the notebook wrote, a spend chart as a picture, and the notebook itself with its
outputs. Nothing in it is a script, and nothing in it has an address outside itself.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenkit.errors import ConfigError, TokenkitError

if TYPE_CHECKING:
    from tokenkit.kit import Kit

NAME = "01_quickstart.ipynb"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d8dee4; --code: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117; --line: #30363d; --code: #161b22 }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .6rem } a { color: inherit }
.soft { color: var(--soft) }
pre, code { font: 13px/1.5 ui-monospace, monospace }
pre { background: var(--code); border-radius: 6px; overflow-x: auto;
  padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .scroll { overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } img, svg { max-width: 100%; height: auto }
.jp-OutputArea-output, .output, .jp-RenderedHTMLCommon { overflow-x: auto; max-width: 100% }
.dataframe { border: 0; font-size: 13px } .dataframe th, .dataframe td { border-width: 0 0 1px }
.prompt, .anchor-link, .jp-InputPrompt, .jp-OutputPrompt { display: none }
"""


def quickstart() -> Path:
    """Return the path of the quickstart notebook: beside the package in a wheel, in ``notebooks/`` in a checkout."""
    here = Path(__file__).parent
    for path in (here / "notebook" / NAME, here.parent / "notebooks" / NAME):
        if path.exists():
            return path
    raise ConfigError(f"{NAME} is missing from this installation of tokenkit: install it again.")


def execute(path: Path, folder: Path, environ: Mapping[str, str]) -> Any:
    """Execute a notebook in ``folder`` with these environment variables on top, and return it with its outputs.

    Raises TokenkitError naming the cell and the error when one fails.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        # The kernel's own warnings are about transports; what a cell prints is kept all the same.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    with _environment(environ):
        try:
            client.execute()
        except nbclient.exceptions.CellExecutionError as error:
            raise TokenkitError(f"{path.name} stopped: {error.ename}: {error.evalue}") from None
    return notebook


def page(notebook: Any, kit: Kit, title: str) -> str:
    """Return one self-contained HTML page: summary, spend chart, and the executed notebook."""
    from tokenkit.analysis import charts

    summary = kit.ledger.spend(by="model")
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<meta name='viewport' content='width=device-width'><style>" + STYLE + "</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{_said(kit)}"
        f"<h2>Spend by model</h2><div class='scroll'>{summary.to_html(index=False, border=0, escape=True)}</div>"
        f"{charts.spend(kit).svg()}<h2>The notebook</h2>{_cells(notebook)}</body></html>\n"
    )


def _said(kit: Kit) -> str:
    return f"<p class='soft'>{html.escape(kit.notice)}</p>" if kit.notice else ""


def _cells(notebook: Any) -> str:
    """Render the notebook's cells through nbconvert's script-free ``basic`` template."""
    from nbconvert import HTMLExporter

    # A page has no kernel: what is left of a widget is its picture, not a script that looks for one.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    exporter: Any = HTMLExporter(template_name="basic", anchor_link_text="")
    body, _ = exporter.from_notebook_node(notebook)
    return str(body)


@contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the kernel that is about to start, and put the old ones back."""
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
