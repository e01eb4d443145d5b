"""A canary key through every fault, sync, streamed and async: it is sent once a request, and shows up nowhere else."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import os
import pickle
import sys
import traceback
import urllib.parse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import FaultServer, reply

import tokenkit as tk
from tokenkit.catalog import Model
from tokenkit.errors import TokenkitError
from tokenkit.pricing import flat
from tokenkit.providers import anthropic, gemini, openai
from tokenkit.types import Secret

CANARY = "sk-proj-Zq81KfT0mVwX3bNcD7eYhJ5uRtLs9A2g"
FORMS = (
    CANARY,
    CANARY[8:],
    base64.b64encode(CANARY.encode()).decode()[4:-4],
    CANARY.encode().hex(),
    urllib.parse.quote(CANARY + "/"),
    f"...{CANARY[-4:]}",
    f"…{CANARY[-4:]}",
    f"***{CANARY[-4:]}",
)


DEADLINE = 0.5  # seconds; long enough to send on a busy machine, and what a server that hangs makes us wait


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Load vocabularies and prices, which is not to count against a deadline."""
    with tk.Kit.simulated(pace=0) as kit:
        kit.call("Warm.", max_tokens=5)


def echoing(status: int) -> faults.Behaviour:
    """An error whose body repeats the key, whole and masked, as some servers do."""
    masked = f"{CANARY[:7]}***{CANARY[-4:]}"
    return faults.error(status, f"Incorrect API key provided: {CANARY} ({masked}), also {CANARY.encode().hex()}.")


BEHAVIOURS: dict[str, faults.Behaviour] = {
    "answered": reply(),
    "401 echoing": echoing(401),
    "400 echoing": echoing(400),
    "500 echoing": echoing(500),
    "reset": faults.reset,
    "short": faults.short(),
    "cut stream": faults.streamed(faults.events("one", "two", done=False, usage=False), end=False),
    "redirect": reply(307, b"", {"location": "http://127.0.0.1:9/steal"}),
    "hang": faults.hang,
    "html": reply(502, b"<html>bad gateway</html>", kind="text/html"),
    "empty": reply(200, b""),
    "odd encoding": reply(200, b"x", {"content-encoding": "br"}),
}


def asked(kit: tk.Kit, way: str) -> tuple[object, BaseException | None]:
    try:
        if way == "call":
            return kit.call("hello", deadline=DEADLINE), None
        if way == "stream":
            stream = kit.stream("hello", deadline=DEADLINE)
            list(stream)
            return stream, None
        return asyncio.run(kit.acall("hello", deadline=DEADLINE)), None
    except TokenkitError as error:
        return None, error


def clean(text: str, where: str) -> None:
    for form in FORMS:
        assert form not in text, f"{where} shows the key"


MAKERS: dict[str, Callable[..., Any]] = {
    "openai": openai.provider,
    "anthropic": anthropic.provider,
    "gemini": gemini.provider,
}


WAYS = ("call", "stream", "acall")
EVERY = [*product(MAKERS, WAYS)]
SOME = [*product(["openai"], WAYS), ("anthropic", "stream"), ("gemini", "acall")]  # a dialect has no way of its own


@pytest.mark.parametrize(("dialect", "way"), EVERY if os.environ.get("TOKENKIT_LONG") == "1" else SOME)
def test_the_key_shows_up_nowhere(dialect: str, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from IPython.core.ultratb import VerboseTB

    caplog.set_level(logging.DEBUG)
    for name, behaviour in BEHAVIOURS.items():
        home = tmp_path / name.replace(" ", "_")
        with FaultServer(behaviour) as server:
            provider = MAKERS[dialect](name="here", base_url=f"{server.url}/v1", key=Secret(CANARY))
            model = Model("here", "m", 1.0, flat("user", "m", input=1, output=2))
            kit = tk.Kit(home=home, providers=[provider], models=[model], environ={})
            found, error = asked(kit, way)
            assert any(CANARY in str(seen.headers.values()) for seen in server.requests), "the key was not even sent"
            assert all(CANARY not in seen.line and CANARY.encode() not in seen.body for seen in server.requests)
            receipt = kit.receipt()
            assert receipt is not None
            shown = [repr(kit), repr(provider), repr(found), repr(error), str(error), repr(receipt), receipt.to_json()]
            shown += [receipt._repr_html_(), str(kit.plan("hello")), str(vars(error)) if error else ""]
            if error is not None:
                shown.append("".join(traceback.format_exception(error)))
                try:
                    raise error
                except TokenkitError:
                    text = VerboseTB(theme_name="nocolor").text(*sys.exc_info())
                    shown.append("\n".join(line for line in text.splitlines() if "CANARY" not in line))
                shown.append(repr(pickle.dumps(error)))
            shown.append(kit.ledger.df().to_csv())
            kit.close()
            for text in shown:
                clean(text, f"{dialect}, {way}, {name}")
            for file in home.rglob("*"):
                if file.is_file():
                    clean(file.read_bytes().decode("latin-1"), f"{dialect}, {way}, {name}: {file.name}")
    clean(caplog.text, "a log")
    gc.collect()


def test_a_redirect_is_not_followed_to_another_host(tmp_path: Path) -> None:
    with FaultServer() as elsewhere, FaultServer(reply(308, b"", {"location": f"{elsewhere.url}/steal"})) as server:
        provider = openai.provider(name="here", base_url=f"{server.url}/v1", key=Secret(CANARY))
        with tk.Kit(home=tmp_path, providers=[provider], models=[Model("here", "m")], environ={}) as kit:
            for way in ("call", "stream", "acall"):
                _, error = asked(kit, way)
                assert error is not None
        assert elsewhere.requests == []


def test_a_secret_cannot_be_pickled_copied_or_formatted() -> None:
    import copy

    secret = Secret(CANARY)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>60}", "%s" % secret):  # noqa: UP031 - a way to show it
        clean(text, "a Secret")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(secret)
