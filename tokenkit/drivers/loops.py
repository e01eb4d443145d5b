"""The two loops that answer effects. Whatever stops one is thrown into the flow first, so that the flow can settle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

from tokenkit.drivers.worlds import AsyncWorld, World
from tokenkit.effects import Drain, Flow, Open, Show, Sleep
from tokenkit.types import Delta, Response


def drive(flow: Flow, world: World) -> Response:
    """Run a flow to its end and return its response; raises what the flow raises."""
    steps = stream(flow, world)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        response: Response = end.value
        return response
    finally:
        # An interrupt between two steps would otherwise leave the flow open for as long as its traceback is kept.
        steps.close()


def stream(flow: Flow, world: World) -> Generator[Delta, None, Response]:
    """Run a flow, giving each delta it shows; the response is the generator's return value."""
    sources: list[object] = []
    try:
        effect = next(flow)
        while True:
            answer: object = None
            try:
                if isinstance(effect, Show):
                    yield effect.delta
                elif isinstance(effect, Drain):
                    answer = world.read(effect)
                elif isinstance(effect, Open):
                    answer = world.open(effect, sources)
                elif isinstance(effect, Sleep):
                    world.sleep(effect)
            except BaseException as stop:  # also GeneratorExit, at the yield: nobody listens any more
                effect = flow.throw(stop)
            else:
                effect = flow.send(answer)
    except StopIteration as end:
        response: Response = end.value
        return response
    finally:
        flow.close()
        for source in sources:
            world.release(source)


async def adrive(flow: Flow, world: AsyncWorld) -> Response:
    """Run a flow to its end in async code and return its response."""
    ended: list[Response] = []
    steps = _steps(flow, world, ended)
    try:
        async for _ in steps:
            pass
    finally:
        await steps.aclose()
    return ended[0]


def astream(flow: Flow, world: AsyncWorld) -> AsyncGenerator[Delta, None]:
    """Run a flow in async code, giving each delta it shows."""
    return _steps(flow, world, [])


async def _steps(flow: Flow, world: AsyncWorld, ended: list[Response]) -> AsyncGenerator[Delta, None]:
    sources: list[object] = []
    try:
        effect = next(flow)
        while True:
            answer: object = None
            try:
                if isinstance(effect, Show):
                    yield effect.delta
                elif isinstance(effect, Drain):
                    answer = await world.read(effect)
                elif isinstance(effect, Open):
                    answer = await world.open(effect, sources)
                elif isinstance(effect, Sleep):
                    await world.sleep(effect)
            except BaseException as stop:
                effect = flow.throw(stop)
            else:
                effect = flow.send(answer)
    except StopIteration as end:
        ended.append(end.value)
    finally:
        flow.close()
        for source in sources:
            world.release(source)
