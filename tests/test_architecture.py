"""The architecture document: floors, homes and sizes, read from the source itself.

A module may import lower floors and earlier modules of its own floor. Each third party has one home. When a test here
fails, its message says what the rule is for, and what to do instead.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tokenkit"

FLOORS: tuple[tuple[str, ...], ...] = (
    # 0 nouns: the standard library only
    ("errors", "money", "types", "plain", "receipts", "_html", "effects"),
    # 1 judgement: pure; clock and randomness are passed in
    ("vocab", "tokens", "pricing", "catalog", "route", "breaker", "limits", "budget", "standing", "compress"),
    # 2 wire: encode and decode, no sockets
    ("providers", "config", "vault"),
    # 3 flow: layers, and the one place that does HTTP
    ("layers", "drivers", "adversarial"),
    # 4 memory
    ("journal", "sharing", "cache", "accounts", "embeddings", "ledger", "team"),
    # 5 faces: parse, call, show
    (
        "options",
        "streams",
        "fanout",
        "checkup",
        "assembly",
        "bars",
        "spending",
        "asking",
        "analysis",
        "kit",
        "wrap",
        "otel",
        "server",
        "report",
        "notebook",
        "cli",
        "__main__",
    ),
)

HOMES = {
    "tiktoken": "tokens",
    "tiktoken_ext": "tokens",
    "genai_prices": "pricing",
    "cryptography": "vault",
    "httpx": "drivers",
    "aiohttp": "drivers",
    "urllib3": "drivers",
    "sqlite3": "journal cache ledger",  # ledger: other tools' logs to import
    "duckdb": "ledger",
    "psycopg": "team",
    "numpy": "analysis",
    "pandas": "analysis ledger",
    "altair": "analysis",
    "vl_convert": "analysis",
    "ipywidgets": "notebook",
    "IPython": "notebook",
    "nest_asyncio": "notebook",
    "nbclient": "report",
    "nbformat": "report",
    "nbconvert": "report",
    "opentelemetry": "otel",
    "starlette": "server",
    "uvicorn": "server",
}

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

RANK = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """The name a file has in the floors: its first folder or its own stem; the package's __init__ is ''."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module name imported anywhere in the file, functions included, type-checking blocks excluded."""
    found: list[tuple[str, int]] = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"tokenkit.{a.name}" for a in node.names] if node.module == "tokenkit" else [node.module]
            found.extend((name, node.lineno) for name in names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree(path))
    return found


# Objects show themselves: a noun's _repr_html_ asks the card renderer, which reads nouns. It is called late on purpose.
SHOWS_ITSELF = {("types", "_html"), ("receipts", "_html")}


def test_every_module_has_a_floor() -> None:
    homeless = {module(path) for path in FILES} - set(RANK) - {""}
    assert not homeless, (
        f"{sorted(homeless)} stand on no floor. Decide which floor each belongs to (DESIGN 2: nouns, judgement, wire, "
        "flow, memory, faces) and add it to FLOORS, or fold it into a module that is there."
    )
    missing = {name for name in RANK if not (PACKAGE / f"{name}.py").exists() and not (PACKAGE / name).is_dir()}
    assert not missing, f"FLOORS lists {sorted(missing)}, which do not exist: take them out."


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward_only(path: Path) -> None:
    here = module(path)
    if here == "":
        return
    for name, line in imports(path):
        if not name.startswith("tokenkit."):
            continue
        there = name.split(".")[1]
        if there == here or there not in RANK or (here, there) in SHOWS_ITSELF:
            continue
        assert RANK[there] < RANK[here], (
            f"{path.name}:{line} ({here}, floor {RANK[here][0]}) imports {there} (floor {RANK[there][0]}). Imports go "
            f"downward only, so that each floor can be read and tested without those above it. Pass what {here} needs "
            f"in as an argument, or move the shared part below both."
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_have_one_home(path: Path) -> None:
    here = module(path)
    for name, line in imports(path):
        top = name.split(".")[0]
        if top in ("tokenkit", *sys.stdlib_module_names) and top not in HOMES:
            continue
        homes = HOMES.get(top, "").split()
        assert homes, f"{path.name}:{line} imports {top}, which has no home. Add it to HOMES, or do without it."
        assert here in homes, (
            f"{path.name}:{line} imports {top}, whose home is {' or '.join(homes)}. One home per third party means one "
            "place to change when it changes: call that module instead."
        )


def test_the_nouns_need_only_the_standard_library() -> None:
    for path in FILES:
        if RANK.get(module(path), (9, 9))[0] == 0:
            foreign = [n for n, _ in imports(path) if n.split(".")[0] not in (*sys.stdlib_module_names, "tokenkit")]
            assert not foreign, (
                f"{path.name} is a noun and imports {foreign}: nouns stand on the standard library alone."
            )


def test_only_drivers_open_sockets() -> None:
    for path in FILES:
        if module(path) in ("drivers", "server"):
            continue
        for name, line in imports(path):
            reaches_out = name in ("http.client", "urllib.request") or name.split(".")[0] in (
                "socket",
                "ssl",
                "requests",
            )
            assert not reaches_out, (
                f"{path.name}:{line} imports {name}. Only drivers/ talks to the network: yield Open and Drain instead."
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_FILE, (
        f"{path.name} has {len(lines)} lines: it holds more than one idea. Split it by idea."
    )
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            reasoned = lines[node.lineno - 2].lstrip().startswith("# long:")
            assert length <= LONGEST_FUNCTION or reasoned, (
                f"{path.name}:{node.lineno} {node.name} has {length} lines. Split it, or say '# long: <reason>' above."
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_opens_with_its_one_idea(path: Path) -> None:
    doc = ast.get_docstring(tree(path))
    assert doc, f"{path} opens with nothing: its first line should say which one idea lives here."


def test_the_door_is_small() -> None:
    lines = (PACKAGE / "__init__.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40, f"tokenkit/__init__.py has {len(lines)} lines; the door is at most 40. Load more lazily."


def test_importing_is_light_and_touches_nothing() -> None:
    """No heavy library, no socket, no patched asyncio: a kit that is imported but not used costs nothing."""
    code = """
import asyncio, socket, sys
before = {name: getattr(asyncio, name) for name in ("run", "get_event_loop", "Task", "Future")}
def refuse(*a, **k): raise AssertionError("import tokenkit opened a socket")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import tokenkit
heavy = {"pandas", "altair", "IPython", "ipywidgets", "duckdb", "tiktoken", "genai_prices", "cryptography", "aiohttp",
         "nest_asyncio", "numpy", "httpx", "pydantic"} & set(sys.modules)
assert not heavy, f"import tokenkit brought in {sorted(heavy)}: import them where they are used"
assert all(getattr(asyncio, name) is value for name, value in before.items()), "import tokenkit patched asyncio"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
