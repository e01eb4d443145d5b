"""What the tests of other people's clients share: the clients, aimed at a server of ours, and the books to see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultServer

import tokenkit as tk

ASKED = [{"role": "user", "content": "Name a river."}]
CLAUDE = "claude-sonnet-4-5"


_made: list[Any] = []


def kept(client: Any) -> Any:
    """Return a client that ``serving`` will close; those of async code are closed where their loop is."""
    if not type(client).__name__.startswith("Async"):
        _made.append(client)
    return client


def serving() -> Iterator[FaultServer]:
    """Yield a server, and close the clients that were made for it: a stream that was left keeps a connection."""
    with FaultServer() as server:
        yield server
        while _made:
            _made.pop().close()


def saying(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set of what has been warned of once, empty and the test's own."""
    found: set[str] = set()
    monkeypatch.setattr("tokenkit.wrap.calls._said", found)
    return found


def keeping(tmp_path: Path, said: set[str]) -> Iterator[tk.Kit]:
    """Yield a kit whose books are the test's own, as is what it has warned of."""
    with tk.Kit.simulated(pace=0, home=tmp_path) as made:
        yield made


def openai(server: FaultServer, name: str = "OpenAI", **more: Any) -> Any:
    module = pytest.importorskip("openai", reason="the openai SDK is not installed")
    return kept(
        getattr(module, name)(**({"api_key": "sk-test", "base_url": f"{server.url}/v1", "max_retries": 0} | more))
    )


def anthropic(server: FaultServer, name: str = "Anthropic") -> Any:
    module = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    return kept(getattr(module, name)(api_key="sk-ant-test", base_url=server.url, max_retries=0))


def google(server: FaultServer) -> Any:
    genai = pytest.importorskip("google.genai", reason="the google-genai SDK is not installed")
    return kept(genai.Client(api_key="test", http_options={"base_url": server.url}))


def all_of(kit: tk.Kit) -> list[tk.Receipt]:
    return [tk.Receipt.from_json(entry.body) for entry in kit.journal.rows()]


def last(kit: tk.Kit) -> tk.Receipt:
    found = kit.receipt()
    assert found is not None
    return found


def used(receipt: tk.Receipt) -> tuple[str, int | None, int | None, str]:
    assert receipt.usage is not None
    return receipt.status, receipt.usage.input_tokens, receipt.usage.output_tokens, receipt.usage.source
