"""The two loops that answer effects. Whatever stops one is thrown into the flow first, so that the flow can settle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from tokenkit.drivers.worlds import AsyncWorld, World
from tokenkit.effects import Drain, Effect, Open, Show, Sleep
from tokenkit.types import Delta

T = TypeVar("T")
"""What a flow returns: a response, or the outcome of several calls."""


def drive(flow: Generator[Effect, Any, T], world: World, show: Callable[[Delta], None] | None = None) -> T:
    """Run a flow to its end and return what it returns; ``show`` is given each delta. Raises what the flow raises."""
    steps = stream(flow, world)
    try:
        while True:
            delta = next(steps)
            if show is not None:
                show(delta)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        # An interrupt between two steps would otherwise leave the flow open for as long as its traceback is kept.
        steps.close()


def stream(flow: Generator[Effect, Any, T], world: World) -> Generator[Delta, None, T]:
    """Run a flow, giving each delta it shows; what the flow returns is the generator's return value."""
    sources: list[object] = []
    held: list[object] = []  # emptied as it is handed on: a server may echo a key, and tracebacks show locals
    try:
        effect = next(flow)
        while True:
            try:
                if isinstance(effect, Show):
                    yield effect.delta
                elif isinstance(effect, Drain):
                    held.append(world.read(effect))
                elif isinstance(effect, Open):
                    held.append(world.open(effect, sources))
                elif isinstance(effect, Sleep):
                    world.sleep(effect)
            except BaseException as stop:  # also GeneratorExit, at the yield: nobody listens any more
                effect = flow.throw(stop)
            else:
                effect = flow.send(held.pop() if held else None)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        try:
            flow.close()
        finally:
            for source in sources:
                world.release(source)


async def adrive(flow: Generator[Effect, Any, T], world: AsyncWorld, show: Callable[[Delta], None] | None = None) -> T:
    """Run a flow to its end in async code and return what it returns; ``show`` is given each delta."""
    ended: list[T] = []
    steps = _steps(flow, world, ended)
    try:
        async for delta in steps:
            if show is not None:
                show(delta)
    finally:
        await steps.aclose()
    return ended[0]


def astream(flow: Generator[Effect, Any, Any], world: AsyncWorld) -> AsyncGenerator[Delta, None]:
    """Run a flow in async code, giving each delta it shows."""
    return _steps(flow, world, [])


async def _steps(flow: Generator[Effect, Any, T], world: AsyncWorld, ended: list[T]) -> AsyncGenerator[Delta, None]:
    sources: list[object] = []
    held: list[object] = []  # emptied as it is handed on: a server may echo a key, and tracebacks show locals
    try:
        effect = next(flow)
        while True:
            try:
                if isinstance(effect, Show):
                    yield effect.delta
                elif isinstance(effect, Drain):
                    held.append(await world.read(effect))
                elif isinstance(effect, Open):
                    held.append(await world.open(effect, sources))
                elif isinstance(effect, Sleep):
                    await world.sleep(effect)
            except BaseException as stop:
                effect = flow.throw(stop)
            else:
                effect = flow.send(held.pop() if held else None)
    except StopIteration as end:
        ended.append(end.value)
    finally:
        try:
            flow.close()
        finally:
            for source in sources:
                world.release(source)
