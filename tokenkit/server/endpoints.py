"""The endpoints: each reads a request, asks the kit, and writes what came; whoever hangs up cancels the call.

Answers are made with the kit's own async calls, so budgets, routing, receipts and ledger hold here as everywhere.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from tokenkit.adversarial import Adversarial
from tokenkit.errors import TokenkitError, UnknownModel
from tokenkit.providers import openai
from tokenkit.server import failing, fields, reading, writing
from tokenkit.server.failing import Failure, bad, failure_of
from tokenkit.server.guarding import LARGEST_BODY, MOST_AT_ONCE, TooLarge, TooSlow, read
from tokenkit.server.reading import Asked
from tokenkit.server.streaming import LOG, HungUp, Streamed, following, unless_gone
from tokenkit.server.writing import CHAT, TEXT, Chunks, Shape

if TYPE_CHECKING:
    from tokenkit.kit import Kit

DEADLINE = 600.0
"""Seconds a call may take where neither configuration nor caller says; past it the answer is 504."""


@dataclass(slots=True)
class Endpoints:
    """What the endpoints share: the kit, the largest body they read in bytes, how many calls may run at once."""

    kit: Kit
    largest_body: int = LARGEST_BODY
    most: int = MOST_AT_ONCE
    running: int = field(default=0, init=False)

    async def chat(self, request: Request) -> Answer:
        """``POST /v1/chat/completions``."""
        return await self._answered(request, CHAT, reading.chat)

    async def completion(self, request: Request) -> Answer:
        """``POST /v1/completions``."""
        return await self._answered(request, TEXT, reading.completion)

    async def adversarial(self, request: Request) -> Answer:
        """``POST /v1/adversarial``."""
        with self._place():
            asked, options = await self._asked(request, reading.adversarial)
            planner, critic = options.pop("planner", None), options.pop("critic", None)
            rounds = options.pop("rounds", 1)
            run = self.kit.aadversarial(asked.prompt, planner=planner, critic=critic, rounds=rounds, **options)
            made: Adversarial = await unless_gone(request.receive, run)
        cost = {} if made.cost is None else {"x-tokenkit-cost-usd": f"{made.cost:f}"}
        return _json(writing.run_of(made, asked.ignored), {"x-tokenkit-receipt": made.id, **cost})

    async def models(self, request: Request) -> Answer:
        """``GET /v1/models`` and ``GET /v1/models/NAME``."""
        name = request.path_params.get("name")
        if name == "auto":
            return _json(writing.AUTO)
        if name is not None:
            return _json(writing.model_of(self.kit.catalog.find(name)[0]))
        return _json({"object": "list", "data": [writing.AUTO, *map(writing.model_of, self.kit.models)]})

    async def health(self, request: Request) -> Answer:
        """``GET /health``: what is known of each provider; with ``?ask=true`` every one is asked."""
        known = self.kit.standing()
        asked = await run_in_threadpool(self.kit.health) if request.query_params.get("ask") == "true" else {}
        told: dict[str, Any] = {}
        for provider in self.kit.providers:
            models = {
                model: {
                    "breaker": "closed" if state.barred is None else "open",
                    "why": state.barred,
                    "in_flight": state.in_flight,
                    "seconds": state.seconds,
                }
                for model, state in known.items()
                if model.partition("/")[0] == provider.name
            }
            told[provider.name] = {"models": models}
            if (one := asked.get(provider.name)) is not None:
                told[provider.name] |= {"well": one.well, "asked_seconds": one.seconds, "error": one.error}
        well = not any(state.barred for state in known.values()) and all(asked.values())
        return _json({"status": "ok" if well else "degraded", "calls_under_way": self.running, "providers": told})

    async def _answered(
        self, request: Request, shape: Shape, read_body: Callable[[Mapping[str, Any]], Asked]
    ) -> Answer:
        with self._place() as place:
            asked, options = await self._asked(request, read_body)
            created = int(time.time())
            if not asked.stream:
                call = self.kit.acall(asked.prompt, **options)
                response = await unless_gone(request.receive, call)
                return _json(shape.answer(response, created, asked.ignored), writing.headers_of(response.receipt))
            stream = self.kit.astream(asked.prompt, **options)
            try:
                first = await unless_gone(request.receive, following(stream))
            except BaseException:
                await stream.aclose()
                raise
            place.handed_on = True
            trail = stream.trail
            tries = trail.settled()
            model = tries[-1].model if tries else "auto"
            ids = shape.prefix + trail.id
            chunks = Chunks(shape, ids, model, created, asked.include_usage, asked.ignored)
            return Streamed(stream, first, chunks, place)

    async def _asked(
        self, request: Request, read_body: Callable[[Mapping[str, Any]], Asked]
    ) -> tuple[Asked, dict[str, Any]]:
        """Read a request, and what its headers say, into what the kit takes."""
        raw = {name.decode("latin-1"): fields.words(value) for name, value in request.headers.raw}
        beside = reading.said_beside(raw)
        asked = read_body(reading.body_of(await read(request.receive, raw.get("content-length"), self.largest_body)))
        options = {"deadline": self.kit.config.defaults.get("deadline", DEADLINE), **asked.options, **beside}
        extra, ignored = asked.extra, asked.ignored
        if extra and not self._all_speak_openai(options["model"]):
            extra, ignored = {}, (*ignored, *sorted(extra))
        if extra:
            options["extra"] = {**self.kit.config.defaults.get("extra", {}), **extra}
        return replace(asked, extra=extra, ignored=ignored), options

    def _all_speak_openai(self, model: str) -> bool:
        """Return whether every model that may answer is asked in OpenAI's own words, whoever serves it."""
        try:
            names = {found.provider for found in self.kit.catalog.find(model)}
        except UnknownModel:
            names = {model.partition("/")[0]}
        providers = {provider.name: provider for provider in self.kit.providers}
        return all(name in providers and providers[name].decode is openai.decode for name in names)

    @contextmanager
    def _place(self) -> Iterator[Place]:
        """Take one of the places for calls under way. Raises Busy when there is none."""
        if self.running >= self.most:
            raise Busy
        place = Place(self)
        try:
            yield place
        finally:
            if not place.handed_on:
                place.free()


class Place:
    """One of the places for calls under way; a stream that outlives its endpoint takes it along."""

    def __init__(self, shared: Endpoints) -> None:
        self.shared, self.handed_on = shared, False
        shared.running += 1

    def free(self) -> None:
        """Give the place back."""
        self.shared.running -= 1


def build(kit: Kit, *, largest_body: int = LARGEST_BODY, most: int = MOST_AT_ONCE) -> Starlette:
    """Return the application, without the guard that decides who may ask."""
    ends = Endpoints(kit, largest_body, most)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await kit.aclose()  # the connections that belong to this event loop

    post = {"/v1/chat/completions": ends.chat, "/v1/completions": ends.completion, "/v1/adversarial": ends.adversarial}
    get = {"/v1/models": ends.models, "/v1/models/{name:path}": ends.models, "/health": ends.health}
    routes = [Route(path, _answering(end), methods=["POST"]) for path, end in post.items()]
    routes += [Route(path, _answering(end), methods=["GET"]) for path, end in get.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_place}, lifespan=lifespan)


class Busy(Exception):
    """As many calls are under way as may be."""


def _answering(end: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Answer]]:
    """Return an endpoint that answers whatever goes wrong in the words of the API."""

    async def answered(request: Request) -> Answer:
        try:
            return await end(request)
        except TokenkitError as error:
            return _failed(_judged(error), error.receipt)
        except Busy:
            return _failed(failing.BUSY)
        except (HungUp, ConnectionError):
            return Answer(status_code=499)  # nobody is there to read it
        except Exception:
            LOG.exception("A request was not answered.")
            return _failed(failing.BROKEN)

    return answered


def _judged(error: TokenkitError) -> Failure:
    if isinstance(error, TooLarge):
        return bad(str(error), code="body_too_large", status=413)
    if isinstance(error, TooSlow):
        return bad(str(error), code="body_too_slow", status=408)
    return failure_of(error)


async def _no_such_place(request: Request, error: Exception) -> Answer:
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = "is not asked with this method" if status == 405 else "is not served here"
    return _failed(bad(f"{request.method} {request.url.path[:200]} {said}.", code="not_found", status=status))


def _failed(failure: Failure, receipt: Any = None) -> Answer:
    return _json(failure.body, failure.headers(receipt), failure.status)


def _json(data: Mapping[str, Any], headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    return Answer(openai.dumps(data), status, dict(headers or {}), "application/json")
