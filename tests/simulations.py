"""What the tests of the simulated provider share: a request, and its answer, whole or in pieces, without a kit."""

from __future__ import annotations

from typing import Any

import tokenkit as tk
from tokenkit.providers import openai, simulated
from tokenkit.providers.base import gather
from tokenkit.providers.simulated import Simulation
from tokenkit.types import Message, Request, Response


def world(**scripted: Any) -> Simulation:
    return Simulation(pace=0, **scripted)


def answered(request: Request, simulation: Simulation) -> tuple[int, bytes]:
    provider = simulated.provider()
    answer = simulation(openai.encode(request, provider))
    return answer.status, b"".join(chunk for _, chunk in answer.chunks)


def whole(request: Request, simulation: Simulation | None = None) -> Response:
    status, body = answered(request, simulation or world())
    assert status == 200, body
    return openai.decode(body)


def streamed(request: Request, simulation: Simulation | None = None) -> Response:
    answer = (simulation or world())(openai.encode(tk.types.replace(request, stream=True), simulated.provider()))
    feed = openai.feed()
    return gather([delta for _, chunk in (*answer.chunks, (0.0, b"")) for delta in feed(chunk)])


def ask(prompt: str = "Why is the sky blue?", model: str = "swift", **fields: Any) -> Request:
    return Request((Message("user", prompt),), model=model, **fields)
