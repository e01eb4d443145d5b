"""The one home of nest_asyncio: running a coroutine of your own from a sync cell, where a loop is running already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tokenkit.errors import UserError

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result, inside a notebook or outside.

    In a notebook ``await`` is simpler; this is for sync code, such as a function you pass on. Only here, and only when
    a loop is running, is asyncio patched: importing tokenkit or loading its magics never does. tokenkit's own sync
    calls need none of it.
    """
    if not asyncio.iscoroutine(work):
        raise UserError(
            f"run takes a coroutine, and this is a {type(work).__name__}: call it first, as in run(work())."
        )
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    import nest_asyncio  # patches asyncio when applied, so it is loaded where it is wanted

    try:
        nest_asyncio.apply(loop)
    except ValueError:
        work.close()
        raise UserError(f"A {type(loop).__name__} cannot be run twice at once: write `await work()` instead.") from None
    return loop.run_until_complete(work)
