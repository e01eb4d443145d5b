"""Is each provider there? One cheap question to all of them at once, with latency and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tokenkit import drivers
from tokenkit.effects import Drain, Flow, Open
from tokenkit.errors import TokenkitError
from tokenkit.providers import listing
from tokenkit.providers.base import Provider
from tokenkit.providers.masking import without_key
from tokenkit.types import Response

PATIENCE = 5.0
"""Seconds a provider has to answer."""

FRESH = 30.0
"""Seconds for which an answer is believed."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """How one provider is: ``seconds`` it took to list its ``models``, or the ``error`` instead."""

    provider: str
    seconds: float
    error: str | None = None
    models: tuple[str, ...] = field(default=(), repr=False)
    at: float = field(default=0.0, repr=False)

    @property
    def well(self) -> bool:
        """Whether it answered as it should."""
        return self.error is None

    def __bool__(self) -> bool:
        return self.well

    def __str__(self) -> str:
        found = f"well, {len(self.models)} models" if self.well else f"not well: {self.error}"
        return f"{self.provider}: {found} ({self.seconds:.2f} s)"


def check(provider: Provider, world: drivers.World) -> Checkup:
    """Ask one provider which models it has. A provider inside this process is well by itself."""
    began = time.monotonic()
    try:
        body = b'{"data": []}' if provider.local is not None else drivers.drive(_asking(provider, began), world).text
        models = listing.decode(body if isinstance(body, bytes) else body.encode())
    except TokenkitError as error:
        return Checkup(provider.name, time.monotonic() - began, f"{type(error).__name__}: {error}", at=began)
    return Checkup(provider.name, time.monotonic() - began, models=models, at=began)


def check_all(providers: Sequence[Provider], world: drivers.World, known: dict[str, Checkup]) -> dict[str, Checkup]:
    """Ask all providers at once; what ``known`` holds and is fresh is not asked again."""
    stale = [p for p in providers if p.name not in known or time.monotonic() - known[p.name].at > FRESH]
    if stale:
        with ThreadPoolExecutor(len(stale), "tokenkit-checkup") as threads:
            known.update((one.provider, one) for one in threads.map(lambda p: check(p, world), stale))
    return {provider.name: known[provider.name] for provider in providers}


def _asking(provider: Provider, began: float) -> Flow:
    reply = yield Open(listing.encode(provider), began + PATIENCE)
    body = without_key((yield Drain(reply.source, whole=True)), provider.key)
    if not 200 <= reply.status < 300:
        raise provider.classify(reply.status, reply.headers, body)
    return Response(body.decode("utf-8", "replace"))
