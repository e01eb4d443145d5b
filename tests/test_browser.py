"""JupyterLab in Chromium: Run All loses no cell, sliders move the picture, Stop works, nobody outside is
asked anything, and what a hostile model writes stays text in every output.

Skipped, with the reason, where there is no chromium, Playwright or JupyterLab.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no chromium on the PATH", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")

ROOT = Path(__file__).parent.parent
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# JupyterLab's own word for a failed cell's output, and its older one, which it shares with stderr.
ERRORS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'><img src=http://evil.invalid/b.png>"
)

SETUP = f"""%load_ext tokenkit
import tokenkit as tk
from dataclasses import replace
from tokenkit import notebook
from tokenkit.effects import LocalAnswer
from tokenkit.providers import simulated

HOSTILE = {HOSTILE!r}
provider = simulated.provider(pace=0)
inner = provider.local

def answer(wire):
    made = inner(wire)
    headers = {{k: v for k, v in made.headers.items() if k.lower() != "content-length"}}
    chunks = [(0.0, data.replace(b"[simulated", HOSTILE.encode())) for _, data in made.chunks]
    return LocalAnswer(made.status, headers, 0.0, chunks)

kit = notebook.use(tk.Kit(providers=[replace(provider, local=answer)], models=simulated.models(), environ={{}}))
"""
SHOWN = (
    "%%route --max-tokens 60 --verbose --user <img/src=x>\nSay something hostile.",
    "r = kit.call(HOSTILE, max_tokens=60, user=HOSTILE, endpoint_name=HOSTILE)\nr",
    "r.receipt",
    "kit.plan(HOSTILE)",
    "kit.compare(HOSTILE, ['tiny', 'sage'], max_tokens=40)",
    "kit.adversarial(HOSTILE, max_tokens=40)",
    "kit.budgets.set('1 USD', window='day', name=HOSTILE)\nkit.budgets.status()",
    "kit.ledger.df()",
    "tk.charts.spend(kit, by='user')",
    "tk.charts.prompts(kit)",
    "kit.compress(HOSTILE + ' It rained. It rained.', ['dedupe'])",
    "tk.widgets.spend(kit)",
    "tk.widgets.compression_lab(kit, HOSTILE, HOSTILE)",
    "duel = tk.widgets.adversarial(kit, HOSTILE)\nduel.earlier.value = duel.earlier.options[1][1]\nduel",
    "kit.replay()",
    "tk.charts.latency(kit)",
    "tuner = tk.widgets.weight_tuner(kit)\ntuner",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab of its own on loopback; its address and its folder."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / ".settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')  # every cell is in the page
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        **os.environ, "TOKENKIT_SIMULATED": "1", "TOKENKIT_HOME": str(folder / ".home"), "HOME": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTER_DATA_DIR": str(folder / ".data"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".run"), "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}",
        f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--ServerApp.token=",
    ]  # fmt: skip
    server = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"{address}/api", timeout=2):
                    break
            except OSError:
                assert server.poll() is None, "JupyterLab did not start"
                assert time.monotonic() < until, "JupyterLab does not answer"
                time.sleep(0.3)
        yield address, folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=CHROMIUM, headless=True, args=FLAGS,
            viewport={"width": 1300, "height": 1000},
        )  # fmt: skip
        yield context
        context.close()


class Page:
    """A notebook open in JupyterLab; ``outside`` are the addresses it tried to reach beyond this machine."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.page = browser.new_page()
        self.outside: list[str] = []
        self.page.route("**/*", self._guard)
        self.page.goto(f"{address}/lab/tree/{name}?reset", timeout=60_000)
        self.page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=60_000)
        self.page.wait_for_function("() => document.body.innerText.includes('| Idle')", timeout=60_000)
        self._until_the_kernel_listens(address)

    def _until_the_kernel_listens(self, address: str) -> None:
        """Wait for the server's word: the page says idle a moment before its kernel takes messages."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with urlopen(f"{address}/api/kernels", timeout=10) as answer:
                kernels = json.load(answer)
            if kernels and all(one["execution_state"] == "idle" for one in kernels if one["connections"]):
                break
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(1500)

    def _guard(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def menu(self, top: str, entry: str) -> None:
        self.page.click(f".lm-MenuBar-itemLabel:text-is('{top}')")
        self.page.click(f".lm-Menu-itemLabel:text-is('{entry}')")

    def prompts(self) -> list[str]:
        found = self.page.eval_on_selector_all(
            ".jp-NotebookPanel .jp-CodeCell .jp-InputArea-prompt", "all => all.map(e => e.textContent)"
        )
        return [str(text).strip() for text in found]

    def run_all(self, seconds: float = 60) -> list[str]:
        """Run every cell, as a person does, and wait until each has its number."""
        self.menu("Run", "Run All Cells")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            prompts = self.prompts()
            if prompts and all(any(c.isdigit() for c in text) for text in prompts):
                self.page.wait_for_timeout(1500)
                return prompts
            self.page.wait_for_timeout(300)
        self.page.screenshot(path=str(Path(os.environ.get("TOKENKIT_SHOTS", "/tmp")) / "lost.png"))
        raise AssertionError(f"cells were lost or never ended: {self.prompts()}")

    def text(self, selector: str) -> str:
        return str(self.page.eval_on_selector_all(selector, "all => all.map(e => e.textContent).join('\\n')"))

    def count(self, selector: str) -> int:
        return int(self.page.eval_on_selector_all(selector, "all => all.length"))


def saved(folder: Path, name: str, *cells: str) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), folder / name)


def test_run_all_loses_no_cell_and_draws_without_a_network(lab: tuple[str, Path], browser: Any) -> None:
    address, folder = lab
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", folder / "quickstart.ipynb")
    page = Page(browser, address, "quickstart.ipynb")
    cells = [c for c in nbformat.read(folder / "quickstart.ipynb", 4).cells if c.cell_type == "code"]
    assert len(page.run_all()) == len(cells)
    assert page.count(ERRORS) == 0
    page.page.wait_for_selector(".vega-embed canvas, .vega-embed svg", timeout=30_000)
    assert page.outside == []
    page.page.close()


def test_what_a_hostile_model_writes_stays_text_everywhere(lab: tuple[str, Path], browser: Any) -> None:
    address, folder = lab
    saved(folder, "hostile.ipynb", SETUP, *SHOWN)
    page = Page(browser, address, "hostile.ipynb")
    page.run_all()
    errors = page.text(ERRORS)
    assert errors == "", errors
    assert page.page.evaluate("() => window.pwned") is None
    assert page.count(".jp-OutputArea-output img[src='x'], .jp-OutputArea-output img[src*='evil']") == 0
    assert page.text(".jp-OutputArea-output").count("window.pwned=1") >= 8
    assert page.outside == []
    # A slider under the keyboard: the picture beneath follows.
    before = page.text(".tokenkit-whatif")
    assert "calls would go to another model" in before
    handle = page.page.locator(".jp-OutputArea-output .noUi-handle").last
    handle.focus()
    for _ in range(3):
        handle.press("Home")
    first = page.page.locator(".jp-OutputArea-output .widget-vbox .noUi-handle")
    for n in range(first.count()):
        first.nth(n).focus()
        first.nth(n).press("Home")
        page.page.wait_for_timeout(250)
    page.page.wait_for_function(
        "text => [...document.querySelectorAll('.tokenkit-whatif')].map(e => e.textContent).join('\\n') !== text",
        arg=before, timeout=15_000,
    )  # fmt: skip
    # The same outputs, saved and opened as a page of their own.
    page.menu("File", "Save Notebook")
    page.page.wait_for_timeout(2000)
    page.page.close()
    html = folder / "hostile.html"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output", str(html), str(folder / "hostile.ipynb")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    opened = browser.new_page()
    outside: list[str] = []
    opened.on("request", lambda request: outside.append(request.url) if "evil" in request.url else None)
    opened.route("http*://**/*", lambda route: route.abort())
    opened.goto(html.as_uri(), wait_until="domcontentloaded")
    opened.wait_for_timeout(1000)
    assert opened.evaluate("() => window.pwned") is None
    assert outside == []
    opened.close()


def test_stop_ends_a_stream_and_the_next_cell_works(lab: tuple[str, Path], browser: Any) -> None:
    address, folder = lab
    saved(
        folder, "stop.ipynb",
        "%load_ext tokenkit\nimport tokenkit as tk\nfrom tokenkit import notebook\n"
        "kit = notebook.use(tk.Kit.simulated(pace=30))",
        "%%route --max-tokens 900\nTell me a very long story.",
        "print('receipt:', kit.receipt().status)",
    )  # fmt: skip
    page = Page(browser, address, "stop.ipynb")
    page.menu("Run", "Run All Cells")
    page.page.wait_for_selector(".tokenkit-answer", timeout=60_000)
    page.menu("Kernel", "Interrupt Kernel")
    page.page.wait_for_selector(ERRORS, timeout=30_000)
    assert page.text(ERRORS).strip() == "interrupted"
    page.page.locator(".jp-NotebookPanel .jp-CodeCell .cm-content").last.click()
    page.page.keyboard.press("Shift+Enter")
    page.page.wait_for_function("() => document.body.innerText.includes('receipt: cancelled')", timeout=30_000)
    assert page.outside == []
    page.page.close()


def test_a_thumb_beneath_a_receipt_rates_the_answer_by_mouse_and_by_key(lab: tuple[str, Path], browser: Any) -> None:
    address, folder = lab
    saved(
        folder, "thumbs.ipynb",
        "%load_ext tokenkit\nimport tokenkit as tk\nfrom tokenkit import notebook\n"
        "kit = notebook.use(tk.Kit.simulated(pace=0))",
        "%%route --max-tokens 30\nName three rivers.",
        "print('rated', kit.ledger.sql('select rating from rated_calls').rating.tolist())",
    )  # fmt: skip
    page = Page(browser, address, "thumbs.ipynb")
    page.run_all()
    thumb = page.page.locator(".jp-OutputArea-output .jupyter-button")
    thumb.nth(1).click()
    page.page.wait_for_function("() => document.body.innerText.includes('rated bad')", timeout=15_000)
    thumb.nth(0).focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("() => document.body.innerText.includes('rated good')", timeout=15_000)
    page.page.locator(".jp-NotebookPanel .jp-CodeCell .cm-content").last.click()
    page.page.keyboard.press("Shift+Enter")
    page.page.wait_for_function("() => document.body.innerText.includes('rated [1.0]')", timeout=15_000)
    page.menu("Kernel", "Shut Down Kernel")  # the widget is gone with it; what it said stays in the notebook
    page.page.wait_for_function(
        "() => !document.querySelector('.jp-OutputArea-output .jupyter-button') &&"
        " document.querySelector('.jp-NotebookPanel').innerText.includes('rated good')",
        timeout=15_000,
    )
    assert page.outside == []
    page.page.close()


WIDGETS = (
    "%load_ext tokenkit\nimport tokenkit as tk\nfrom tokenkit import notebook\n"
    "kit = notebook.use(tk.Kit.synthetic(2_000))\n"
    "kit.budgets.set('2 USD', window='day', action='warn')\nkit.adversarial('Plan a party.', max_tokens=30)\nNone",
    "tk.widgets.weight_tuner(kit)",
    "slow = tk.Kit.simulated(pace=2)\nduel = tk.widgets.adversarial(slow, 'Plan a launch.', max_tokens=300)\nduel",
    "tk.widgets.spend(slow)",
    "for name in tk.charts.__all__:\n    display(getattr(tk.charts, name)(kit))",
    "kit.replay(weights={'small': 9})",
    "kit.plan('word ' * 20_000, max_tokens=400)",
    "import os, sys\nif sys.argv[-1] == 'die':\n    os.kill(os.getpid(), 9)\nsys.argv.append('die')",
)


def test_widgets_work_are_not_cut_at_150_percent_and_leave_their_picture(lab: tuple[str, Path], browser: Any) -> None:
    address, folder = lab
    saved(folder, "widgets.ipynb", *WIDGETS)
    page = Page(browser, address, "widgets.ipynb")
    page.page.set_viewport_size({"width": 867, "height": 667})  # 1300 by 1000 at 150 % zoom
    page.page.keyboard.press("Control+b")  # the side bar goes, as it does for whoever zooms in
    page.run_all()
    assert page.text(ERRORS) == ""
    page.page.wait_for_selector(".vega-embed canvas, .vega-embed svg", timeout=30_000)
    cut = page.page.eval_on_selector_all(
        ".jp-OutputArea-output", "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )
    assert cut == []
    # The tuner: applied, and taken back.
    button = lambda text: page.page.locator(f".jp-OutputArea-output button:text-is('{text}')")  # noqa: E731
    said = lambda text: page.page.wait_for_function(  # noqa: E731
        "text => document.querySelector('.jp-NotebookPanel').textContent.includes(text)", arg=text, timeout=20_000
    )
    button("Apply").click()
    said("Applied: this kit routes by these weights now.")
    button("Undo").click()
    said("Undone: this kit routes as it did before.")
    # Two models side by side: words come while the kernel is free, Stop ends them, and spend hears of what was asked.
    button("Run").click()
    said("[simulated by")
    button("Stop").click()
    said("Stopped. What was asked has its receipt.")
    said(", by second")
    # A picture in a widget goes by the notebook's paper, whatever the system's is.
    papers = [
        page.page.evaluate(
            "light => { document.body.dataset.jpThemeLight = light;"
            " return getComputedStyle(document.querySelector('.tokenkit-chart [fill=\"#ffffff\"]')).fill }",
            light,
        )
        for light in ("true", "false")
    ]
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    # A kernel that is killed says no goodbye: whoever opens the notebook next sees what the widgets showed last.
    left = "all => all.map(e => e.offsetHeight > 0 ? e.textContent : '')"
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('[class^=tokenkit-left-]')].at(-1).textContent.includes(', by second')",
        timeout=20_000,
    )
    hidden = page.page.eval_on_selector_all("[class^='tokenkit-left-']", left)
    assert hidden == ["", "", ""]
    page.page.locator(".jp-NotebookPanel .jp-CodeCell .cm-content").last.click()
    page.page.keyboard.press("Shift+Enter")
    page.page.wait_for_selector(".jp-Dialog", timeout=60_000)
    page.page.keyboard.press("Enter")
    page.menu("File", "Save Notebook")
    page.page.wait_for_timeout(2000)
    page.page.close()
    again = Page(browser, address, "widgets.ipynb")
    again.page.wait_for_selector("[class^='tokenkit-left-']", timeout=30_000)
    tuner, duel, spend = again.page.eval_on_selector_all("[class^='tokenkit-left-']", left)
    assert "calls would go to another model" in tuner
    assert "[simulated by" in duel
    assert ", by second" in spend
    assert again.outside == []
    again.page.close()
